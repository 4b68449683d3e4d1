//! After a restart: finish or undo what was under way, compare with the disk servers, sweep.
//!
//! | found | done |
//! |---|---|
//! | a record being prepared | undone: nobody was told of it |
//! | a record being committed | active again: see `commit` |
//! | a record being removed | goes on |
//! | a disk that no record wants | detached |
//! | a disk of another root | refused: see `compare_disks` |
//! | a delta that no record names, an unfinished file | unlinked |
//! | a golden file that no record and no snapshotter names | unlinked: an image's annotation had it made |
//! | a snapshot whose file is missing | said; its mounts will say it too |
//! | a file that is not ours | said, and left alone |
//!
//! Nothing that containerd knows of is ever deleted here.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::device::held;
use super::paths::{Found, OURS, disk_of, found, our_disk};
use super::remove::discard;
use super::root::names;
use super::shared::{Shared, blocking};
use super::{Error, Kind, golden};
use crate::link::Disk;
use crate::store::{Record, Stage};

/// A stray disk that is busy is tried again after this.
const STRAY_WAIT: Duration = Duration::from_secs(5);

impl Shared {
    /// Brings records, disks and files into agreement. The doors open after it.
    pub(super) async fn recover(self: &Arc<Self>) -> Result<(), Error> {
        for record in self.store(crate::store::Store::all).await? {
            self.settle(record).await?;
        }
        let records = self.store(crate::store::Store::all).await?;
        self.compare_disks(&records).await?;
        let (paths, run) = (self.paths.clone(), self.options.run.clone());
        let mut goldens: HashSet<_> = records.iter().filter_map(|it| it.golden.clone()).collect();
        for name in &self.options.names {
            goldens.insert(golden::name_of(name)?);
        }
        blocking("sweeping the root", move || {
            sweep(&paths.deltas(), &records, None, run.as_deref())?;
            sweep(&paths.goldens(), &[], Some(&goldens), None)?;
            for record in records.iter().filter(|record| has_delta(record)) {
                let path = paths.delta(record.id);
                if !path.exists() {
                    tracing::error!(
                        key = record.key, file = %path.display(), "the file of a snapshot is missing"
                    );
                }
            }
            for (name, path) in names(paths.root())? {
                if !OURS.contains(&name.as_str()) {
                    tracing::warn!(file = %path.display(), "not a file of ours: left alone");
                }
            }
            Ok(())
        })
        .await?
    }

    async fn settle(self: &Arc<Self>, record: Record) -> Result<(), Error> {
        match record.stage {
            Stage::Ready => {}
            Stage::Preparing => {
                tracing::info!(
                    key = record.key,
                    "undoing a snapshot that was being prepared"
                );
                self.undo(record).await;
            }
            Stage::Committing { .. } => {
                tracing::info!(key = record.key, "undoing a commit that was interrupted");
                let id = record.id;
                self.store(move |store| store.roll_back(id)).await?;
            }
            Stage::Removing => self.take_apart_later(record),
        }
        Ok(())
    }

    /// Detaches what nobody wants. A server that does not answer now hinders nobody from starting; disks
    /// of another root do: sooner or later they and ours would have the same id.
    async fn compare_disks(self: &Arc<Self>, records: &[Record]) -> Result<(), Error> {
        let served = match self.disks.list().await {
            Ok(served) => served,
            Err(error) => {
                tracing::warn!(%error, "cannot compare with the disk server's disks");
                return Ok(());
            }
        };
        for disk in served.iter().filter(|disk| our_disk(&disk.id)) {
            if let (false, Some(delta)) = (self.paths.holds(disk), disk.deltas.first()) {
                return Err(Error::ForeignDisk {
                    disk: disk.id.clone(),
                    file: delta.path.clone(),
                    root: self.paths.root().to_owned(),
                });
            }
        }
        let wanted = wanted(records);
        for disk in served {
            if our_disk(&disk.id) && !wanted.contains(&disk.id) && !self.detach_stray(&disk).await {
                let shared = Arc::clone(self);
                tokio::spawn(async move {
                    loop {
                        tokio::time::sleep(STRAY_WAIT).await;
                        if shared.detach_stray(&disk).await {
                            break;
                        }
                    }
                });
            }
        }
        Ok(())
    }

    /// One attempt. A view that came meanwhile may want the disk after all.
    async fn detach_stray(&self, disk: &Disk) -> bool {
        let id = &disk.id;
        let _turn = self.turns.turn(id).await;
        match self.store(crate::store::Store::all).await {
            Ok(records) if wanted(&records).contains(id) => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
        match held(disk, self.options.flush_limit).await {
            Ok(false) => {}
            Ok(true) => {
                tracing::warn!(disk = id, "a disk that no snapshot wants is in use");
                return false;
            }
            Err(error) => {
                tracing::warn!(disk = id, %error, "cannot look at a disk that no snapshot wants");
                return false;
            }
        }
        match self.disks.detach(id, false).await {
            Ok(_) => {
                tracing::info!(disk = id, "detached a disk that no snapshot wants");
                true
            }
            Err(error) => {
                tracing::warn!(disk = id, %error, "cannot detach a disk that no snapshot wants");
                false
            }
        }
    }
}

/// The disks that records may have.
fn wanted(records: &[Record]) -> HashSet<String> {
    let sealed = |record: &Record| record.kind == Kind::Committed || record.kind == Kind::Fitted;
    let served = records.iter().filter(|record| !sealed(record));
    served.map(disk_of).collect()
}

fn has_delta(record: &Record) -> bool {
    record.kind != Kind::View && record.stage == Stage::Ready
}

/// Unlinks files of ours that no record names, and golden ones but for these if they are told; and what a disk server has
/// left of them in the run directory.
///
/// The records are all that there are, at whatever stage: one that is being removed still stands on what it stood on.
fn sweep(
    dir: &Path,
    records: &[Record],
    goldens: Option<&HashSet<String>>,
    run: Option<&Path>,
) -> Result<(), Error> {
    let kinds: HashMap<_, _> = records.iter().map(|r| (r.id, r.kind)).collect();
    for (name, path) in names(dir)? {
        let orphan = match found(&name) {
            Found::Delta(id) => matches!(kinds.get(&id), None | Some(Kind::View)),
            Found::Unfinished => true,
            Found::Golden => goldens.is_some_and(|wanted| !wanted.contains(&name)),
            Found::Foreign => {
                tracing::warn!(file = %path.display(), "not a file of ours: left alone");
                false
            }
        };
        if orphan {
            discard(&path, run)?;
            tracing::info!(file = %path.display(), "removed a file that no snapshot names");
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "crash_tests.rs"]
mod tests;
