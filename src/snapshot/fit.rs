//! A committed snapshot at another size, made once for all who want it.
//!
//! ```text
//! reserve . make file . attach . resize the file system . flush . seal . FITTED
//! ```
//!
//! It is a delta of half a megabyte over its parent: the layout of our file systems keeps content low, so that
//! either direction moves none. containerd never hears of it. Stopped on the way it is swept.

use super::device::{Use, free_and_flush};
use super::paths::disk_of;
use super::prepare::make_delta;
use super::shared::{Shared, blocking};
use super::{Error, Usage};
use crate::ext4::Filesystem;
use crate::link::{Detached, Disk};
use crate::store::{Id, Record, Seal};
use std::sync::Arc;
use std::time::Duration;

impl Shared {
    /// The snapshot fitted to `parent` with this size; makes it if there is none. The caller is `key`.
    pub(super) async fn fitted(
        self: &Arc<Self>,
        key: &str,
        parent: &Record,
        size: u64,
    ) -> Result<Id, Error> {
        // Who comes second waits, and finds what the first one made.
        let _turn = self.turns.turn(&format!("fit-{}-{size}", parent.id)).await;
        let id = parent.id;
        if let Some(found) = self.store(move |store| store.fitted_to(id, size)).await? {
            return Ok(found.id);
        }
        let (of, now) = (parent.clone(), self.now());
        let record = self.store(move |store| store.fit(&of, size, now)).await?;
        self.steps.pass("fitting").await;
        match self.make_fitted(key, parent, &record).await {
            Ok(()) => Ok(record.id),
            Err(error) => {
                self.undo(record).await;
                Err(error)
            }
        }
    }

    async fn make_fitted(&self, key: &str, parent: &Record, record: &Record) -> Result<(), Error> {
        let path = self.paths.delta(record.id);
        // While the file system shrinks it still has its old size.
        let (file, cluster) = (record.size.max(parent.size), record.cluster);
        blocking("making a delta", move || make_delta(&path, file, cluster)).await??;
        let disk = self.serve(record).await?;
        self.steps.pass("fit attached").await;
        self.resize_idle(key, &disk, parent.size, record.size)
            .await?;
        self.steps.pass("fit resized").await;
        let name = disk_of(record);
        let failed = Error::disk(key, "seal", &name);
        let Detached { seal, .. } = self.disks.detach(&name, true).await.map_err(failed)?;
        let Some(seal) = seal else {
            let (key, disk) = (key.to_owned(), name);
            return Err(Error::NotSealed { key, disk });
        };
        let (seal, usage) = (
            Seal {
                length: seal.length,
                digest: seal.digest,
                allocated: seal.allocated,
            },
            Usage {
                bytes: seal.allocated,
                inodes: 1,
            },
        );
        let id = record.id;
        self.store(move |store| store.fitted(id, seal, usage))
            .await?;
        self.steps.pass("fitted").await;
        Ok(())
    }

    /// Gives the file system on a disk that nobody has mounted another size, from `old` bytes to `new`.
    pub(super) async fn resize_idle(
        &self,
        key: &str,
        disk: &Disk,
        old: u64,
        new: u64,
    ) -> Result<(), Error> {
        if new > old {
            self.forget_behind(disk, old, new).await?;
        }
        let tools = self.tools().await?;
        let resized = Filesystem::at(disk.path()).resize(new, &tools).await;
        resized.map_err(Error::resize(key, new))?;
        let (wait, limit) = (self.options.busy_wait, self.options.flush_limit);
        let how = match free_and_flush(disk, wait, limit).await? {
            Use::Free => return Ok(()),
            Use::Busy(how) => how,
            Use::Torn(how) => how.to_owned(),
        };
        Err(Error::InUse {
            key: key.to_owned(),
            device: disk.device.clone(),
            how,
        })
    }

    /// What lies behind a file system's end is zeros before it grows: below may be the rest of a larger one,
    /// from before somebody shrank it.
    pub(super) async fn forget_behind(&self, disk: &Disk, old: u64, new: u64) -> Result<(), Error> {
        use rustix::fs::{FallocateFlags, fallocate};
        let path = disk.path().to_owned();
        let asked = path.clone();
        let work = tokio::task::spawn_blocking(move || {
            let device = std::fs::File::options().write(true).open(asked)?;
            let zero = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
            fallocate(&device, zero, old, new - old)?;
            Ok::<_, std::io::Error>(())
        });
        let limit: Duration = self.options.flush_limit;
        match tokio::time::timeout(limit, work).await {
            Ok(Ok(done)) => done.map_err(Error::file("zero the end of", &path)),
            Ok(Err(_)) => Err(Error::Interrupted {
                what: "zeroing the end of a device",
            }),
            Err(_) => Err(Error::Stuck {
                what: format!("zeroing the end of {}", path.display()),
                limit,
            }),
        }
    }
}
