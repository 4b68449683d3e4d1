//! The log of a disk, as QEMU's `blklogwrites` writes it (the format is the kernel's, of dm-log-writes):
//! every write, with its bytes, and every flush, in the order in which the disk answered them.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::marks;

/// What a disk writes whole or not at all.
pub(crate) const SECTOR: usize = 512;

const MAGIC: u64 = 0x6a_7366_7773_6872;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its first byte on the disk.
    pub(crate) offset: u64,
    pub(crate) len: u64,
    flags: u64,
    /// Where its bytes are in the log.
    data: u64,
}

impl Entry {
    /// Everything that was answered before is on the platter.
    pub(crate) fn is_flush(&self) -> bool {
        self.flags & FLUSH != 0
    }

    /// It is on the platter itself.
    pub(crate) fn is_durable(&self) -> bool {
        self.flags & FUA != 0
    }

    pub(crate) fn is_discard(&self) -> bool {
        self.flags & DISCARD != 0
    }
}

/// A log, and where everything is in it.
pub(crate) struct Log {
    file: File,
    pub(crate) entries: Vec<Entry>,
}

fn word(bytes: &[u8], nth: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[nth * 8..nth * 8 + 8]);
    u64::from_le_bytes(word)
}

impl Log {
    /// The number of entries in its head is not believed: it is not written at every entry, and QEMU may have
    /// been killed.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let end = file.metadata()?.len();
        let mut head = [0; 32];
        file.read_exact_at(&mut head, 0)
            .context("the log is empty")?;
        ensure!(
            word(&head, 0) == MAGIC,
            "{} is no log of a disk",
            path.display()
        );
        let sector = SECTOR as u64;
        ensure!(
            word(&head, 3) & 0xffff_ffff == sector,
            "the log has other sectors than {SECTOR} bytes"
        );
        let mut entries = Vec::new();
        let mut at = sector;
        while at + sector <= end {
            file.read_exact_at(&mut head, at)?;
            let [first, count, flags] = [word(&head, 0), word(&head, 1), word(&head, 2)];
            if count == 0 && flags == 0 {
                break;
            }
            let entry = Entry {
                offset: first * sector,
                len: count * sector,
                flags,
                data: at + sector,
            };
            at += sector + if entry.is_discard() { 0 } else { entry.len };
            if at > end {
                break;
            }
            entries.push(entry);
        }
        Ok(Self { file, entries })
    }

    /// The bytes of a write.
    pub(crate) fn data(&self, entry: &Entry) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(entry.len)?];
        if !entry.is_discard() {
            self.file.read_exact_at(&mut bytes, entry.data)?;
        }
        Ok(bytes)
    }

    /// The marks of an entry: a write behind the end of the file system is nothing else.
    pub(crate) fn marks(&self, entry: &Entry, behind: u64) -> Result<Vec<(String, String)>> {
        if entry.offset < behind || entry.len == 0 {
            return Ok(Vec::new());
        }
        Ok(self
            .data(entry)?
            .chunks(SECTOR)
            .filter_map(marks::read)
            .collect())
    }
}
