//! What all snapshotters over one root share, and the steps that acts have in common.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::device::{Use, free_and_flush};
use super::disks::Disks;
use super::locks::Locks;
use super::paths::{Paths, disk_of, golden_size};
use super::remove::Removals;
use super::root::RootLock;
use super::steps::Steps;
use super::{Error, Kind, Options, Usage};
use crate::causes::in_full;
use crate::filesystem::Tools;
use crate::link::{self, Access, Delta, Disk, Format};
use crate::store::{self, Id, Record, Seal, Store};

/// What all snapshotters over one root share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) paths: Paths,
    pub(super) disks: Arc<dyn Disks>,
    /// Turns for the disks that several snapshots share: the views of one chain.
    pub(super) turns: Locks,
    pub(super) removals: Removals,
    pub(super) steps: Steps,
    pub(super) store: Arc<Store>,
    /// The programs of file systems, once somebody needed them.
    pub(super) tools: Tools,
    pub(super) _lock: RootLock,
}

impl Shared {
    /// The time.
    pub(super) fn now(&self) -> SystemTime {
        (self.options.clock)()
    }

    /// Asks the store on a thread that may block.
    pub(super) async fn store<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Store) -> Result<T, store::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let store = Arc::clone(&self.store);
        let done = blocking("a transaction of the store", move || ask(&store)).await?;
        Ok(done?)
    }

    /// What the host holds for an active snapshot's delta now.
    pub(super) async fn cost(&self, key: &str, id: Id) -> Result<Usage, Error> {
        let path = self.paths.delta(id);
        let asked = path.clone();
        match blocking("looking at a file", move || fs::metadata(asked)).await? {
            Ok(file) => Ok(Usage {
                bytes: file.blocks() * 512,
                inodes: 1,
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Error::Missing {
                key: key.to_owned(),
                path,
            }),
            Err(error) => Err(Error::file("look at", &path)(error)),
        }
    }

    /// Serves the disk of an active snapshot or a view, if it is not served yet.
    ///
    /// Asking the server every time is what makes it right after a restart of either of us; it
    /// answers for a disk that is there at once. One that has failed is opened again if it is free:
    /// a fresh start is all that a failed sync leaves.
    pub(super) async fn serve(&self, record: &Record) -> Result<Disk, Error> {
        let id = disk_of(record);
        let _turn = match record.kind {
            Kind::View => Some(self.turns.turn(&id).await),
            _ => None,
        };
        let deltas = self.deltas(record).await?;
        let disk = self.attach(record, &id, &deltas).await?;
        let Some(reason) = disk.failed else {
            return Ok(disk);
        };
        tracing::warn!(
            key = record.key,
            disk = id,
            reason,
            "opening a failed disk again"
        );
        let failed = |reason| Error::Failed {
            key: record.key.clone(),
            disk: id.clone(),
            reason,
        };
        if self.disks.detach(&id, false).await.is_err() {
            return Err(failed(reason));
        }
        let disk = self.attach(record, &id, &deltas).await?;
        match disk.failed {
            None => Ok(disk),
            Some(reason) => Err(failed(reason)),
        }
    }

    /// Serves the disk of an active snapshot as it is, failed or not.
    pub(super) async fn serve_as_is(&self, record: &Record) -> Result<Disk, Error> {
        let deltas = self.deltas(record).await?;
        self.attach(record, &disk_of(record), &deltas).await
    }

    /// Detaches a disk that somebody will want again, if nobody uses it now; says why not if not.
    ///
    /// What the kernel holds of it is written first, and by us: a device that is taken away by its
    /// server may drop what is dirty, and its server must never wait for its own device.
    pub(super) async fn set_down(&self, disk: &Disk) -> Result<(), String> {
        if !disk.read_only && disk.failed.is_none() {
            let limit = self.options.flush_limit;
            match free_and_flush(disk, Duration::ZERO, limit).await {
                Ok(Use::Free | Use::Torn(_)) => {}
                Ok(Use::Busy(how)) => return Err(how),
                Err(error) => return Err(in_full(&error)),
            }
        }
        let detached = self.disks.detach(&disk.id, false).await;
        detached.map(drop).map_err(|error| error.to_string())
    }

    /// A flush that failed, in words that say so if it was for want of space on the host: the kernel
    /// knows but one word for all that can go wrong with a device.
    pub(super) async fn why_not_flushed(
        &self,
        record: &Record,
        disk: &Disk,
        error: Error,
    ) -> Error {
        let Ok(stats) = self.disks.stats(&disk.id).await else {
            return error;
        };
        let device = disk.device.display();
        let how = if stats.no_space > 0 {
            format!(
                "{} writes to {device} were refused for it: make room, then remove the snapshot and make it again",
                stats.no_space
            )
        } else if stats.held_requests > 0 {
            format!("writes to {device} wait for space: make room, and try again")
        } else {
            return error;
        };
        Error::HostFull {
            key: record.key.clone(),
            root: self.paths.root().to_owned(),
            how,
            source: Box::new(error),
        }
    }

    async fn attach(&self, record: &Record, id: &str, deltas: &[Delta]) -> Result<Disk, Error> {
        let access = match record.kind {
            Kind::View => Access::Read,
            Kind::Active => Access::Grow,
            _ => Access::Write,
        };
        let source = match self.disks.attach(id, deltas, access).await {
            Ok(disk) => return Ok(disk),
            Err(source) => source,
        };
        // The server says which file it could not open; which snapshot's trouble that is, we know.
        if !matches!(
            source.kind(),
            link::Kind::Unavailable | link::Kind::Timeout | link::Kind::Exhausted
        ) {
            let paths: Vec<PathBuf> = deltas.iter().map(|delta| delta.path.clone()).collect();
            let missing = blocking("looking at files", move || {
                paths.into_iter().find(|path| !path.exists())
            });
            if let Some(path) = missing.await? {
                let key = record.key.clone();
                return Err(Error::Missing { key, path });
            }
        }
        Err(Error::disk(&record.key, "attach", id)(source))
    }

    /// The chain of an active snapshot or a view, lowest first.
    async fn deltas(&self, record: &Record) -> Result<Vec<Delta>, Error> {
        let id = record.id;
        let chain = self.store(move |store| store.chain(id)).await?;
        let mut deltas = Vec::with_capacity(chain.len() + 1);
        for record in &chain {
            if let Some(golden) = &record.golden {
                deltas.push(Delta {
                    path: self.paths.golden(golden),
                    format: Format::Raw,
                    // A plain file is known by its length.
                    seal: Some(link::Seal {
                        length: golden_size(golden).unwrap_or(record.size),
                        digest: 0,
                        allocated: 0,
                    }),
                });
            }
            // A view has no delta of its own.
            if record.kind != Kind::View {
                deltas.push(Delta {
                    path: self.paths.delta(record.id),
                    format: Format::Ploop,
                    seal: record.seal.as_ref().map(seal_out),
                });
            }
        }
        Ok(deltas)
    }
}

/// A seal for a disk server.
fn seal_out(seal: &Seal) -> link::Seal {
    link::Seal {
        length: seal.length,
        digest: seal.digest,
        allocated: seal.allocated,
    }
}

/// A disk server's seal for the store.
pub(super) fn seal_in(seal: &link::Seal) -> Seal {
    Seal {
        length: seal.length,
        digest: seal.digest,
        allocated: seal.allocated,
    }
}

/// Runs something that blocks where that is allowed.
pub(super) async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Error::Interrupted { what })
}

#[cfg(test)]
#[path = "trouble_tests.rs"]
mod tests;
