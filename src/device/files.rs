//! Which disks the FUSE file system shows: one flat folder, a file a disk.
//!
//! The lock is held for a look-up or a change of the table, never across a request: requests run on
//! the disks' own threads. An inode number is used once, so a late request for a file that is gone
//! can never reach another disk.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use fuser::{FileAttr, FileType, INodeNo};

use crate::disk::DiskHandle;

/// Bytes of a block, as `stat` and `statfs` say. The loop driver takes its discard granularity from
/// here: at 4 KiB a removed file of one ext4 block still gives its space back to the host.
pub(super) const BLOCK: u32 = 4096;

/// One disk as a file.
pub(super) struct Served {
    pub(super) ino: u64,
    pub(super) disk: DiskHandle,
    since: SystemTime,
    opened: AtomicUsize,
}

impl Served {
    pub(super) fn attributes(&self) -> FileAttr {
        let perm = if self.disk.read_only() { 0o400 } else { 0o600 };
        FileAttr {
            size: self.disk.size(),
            blocks: self.disk.size() / 512,
            ..attributes(self.ino, FileType::RegularFile, perm, self.since)
        }
    }

    pub(super) fn count_open(&self) {
        self.opened.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn count_release(&self) {
        self.opened.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The table of files.
pub(super) struct Files {
    table: RwLock<Table>,
    since: SystemTime,
}

#[derive(Default)]
struct Table {
    by_number: HashMap<u64, Arc<Served>>,
    by_name: HashMap<String, u64>,
    last: u64,
}

impl Files {
    pub(super) fn new() -> Self {
        Self {
            table: RwLock::new(Table {
                last: INodeNo::ROOT.0,
                ..Table::default()
            }),
            since: SystemTime::now(),
        }
    }

    /// Shows a disk. `false` if the name is taken.
    pub(super) fn add(&self, name: &str, disk: DiskHandle) -> bool {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if table.by_name.contains_key(name) {
            return false;
        }
        table.last += 1;
        let ino = table.last;
        table.by_name.insert(name.to_owned(), ino);
        table.by_number.insert(
            ino,
            Arc::new(Served {
                ino,
                disk,
                since: SystemTime::now(),
                opened: AtomicUsize::new(0),
            }),
        );
        true
    }

    /// Stops showing a disk; requests that arrive later are refused.
    pub(super) fn remove(&self, name: &str) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(ino) = table.by_name.remove(name) {
            table.by_number.remove(&ino);
        }
    }

    /// How many have the file open.
    pub(super) fn opened(&self, name: &str) -> usize {
        self.named(name)
            .map_or(0, |file| file.opened.load(Ordering::Acquire))
    }

    pub(super) fn named(&self, name: &str) -> Option<Arc<Served>> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let ino = table.by_name.get(name)?;
        table.by_number.get(ino).cloned()
    }

    pub(super) fn numbered(&self, ino: INodeNo) -> Option<Arc<Served>> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.by_number.get(&ino.0).cloned()
    }

    pub(super) fn names(&self) -> Vec<(String, u64)> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<_> = table
            .by_name
            .iter()
            .map(|(name, ino)| (name.clone(), *ino))
            .collect();
        // By number: a listing that goes on after a change neither repeats nor skips.
        names.sort_by_key(|(_, ino)| *ino);
        names
    }

    pub(super) fn folder(&self) -> FileAttr {
        attributes(INodeNo::ROOT.0, FileType::Directory, 0o700, self.since)
    }
}

fn attributes(ino: u64, kind: FileType, perm: u16, since: SystemTime) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino),
        size: 0,
        blocks: 0,
        atime: since,
        mtime: since,
        ctime: since,
        crtime: since,
        kind,
        perm,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK,
        flags: 0,
    }
}
