//! Resize: an active snapshot gets another size, whether a container runs on it or not.
//!
//! ```text
//! larger    disk and device . zeros behind the old end . file system . RESIZED
//! smaller   file system . RESIZED                   only while nobody has it mounted
//! ```
//!
//! Each step may be repeated, so after a stop the same order brings it to its end. A disk whose file system
//! was made smaller keeps its own size: the file system is what limits a container.

use std::time::{Duration, Instant};

use super::device::held;
use super::mounts::{Mounted, mounted};
use super::paths::disk_of;
use super::shared::blocking;
use super::sizes::bounded;
use super::words::check_key;
use super::{Error, Info, Kind, Snapshotter};
use crate::ext4::Filesystem;
use crate::link::Disk;
use crate::store::Record;

/// How often a device that somebody has open is looked at.
const AGAIN: Duration = Duration::from_millis(20);

impl Snapshotter {
    /// Gives an active snapshot another size, in bytes; it is rounded down to whole clusters.
    ///
    /// One that is mounted grows without interruption.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for a size outside the name's limits; `FailedPrecondition` if it is no
    /// active one, if its content does not fit, or if it is to shrink while it is mounted.
    pub async fn resize(&self, key: &str, size: u64) -> Result<Info, Error> {
        check_key(key)?;
        let _turn = self.turn(key).await;
        let record = self.find(key).await?;
        Ok(self.resize_record(&record, size).await?.into())
    }

    /// The same for a record, by who has the key's turn.
    pub(super) async fn resize_record(&self, record: &Record, size: u64) -> Result<Record, Error> {
        if record.kind != Kind::Active {
            return Err(Error::NotResizable {
                key: record.key.clone(),
            });
        }
        let size = bounded(&record.key, size, record.cluster, self.options())?;
        if size == record.size {
            return Ok(record.clone());
        }
        let shared = self.shared();
        let disk = shared.serve(record).await?;
        shared.steps.pass("resize attached").await;
        let busy = self.in_use(&disk).await?;
        if size < record.size {
            if busy {
                return Err(Error::Shrinks {
                    key: record.key.clone(),
                    size: record.size,
                    asked: size,
                });
            }
        } else if disk.size < size {
            let name = disk_of(record);
            let failed = Error::disk(&record.key, "grow", &name);
            shared.disks.grow(&name, size).await.map_err(failed)?;
            shared.steps.pass("resize grown").await;
        }
        if busy {
            self.grow_mounted(record, &disk, size).await?;
        } else {
            shared
                .resize_idle(&record.key, &disk, record.size, size)
                .await?;
        }
        shared.steps.pass("resize done").await;
        let id = record.id;
        let resized = shared.store(move |store| store.resized(id, size)).await?;
        tracing::info!(
            key = record.key,
            from = record.size,
            to = size,
            mounted = busy,
            "resized"
        );
        Ok(resized)
    }

    /// Does somebody have the disk for longer than a moment? A mount that we see is an answer at once; whoever
    /// only looks at a device, or is about to let go of it, is waited for.
    async fn in_use(&self, disk: &Disk) -> Result<bool, Error> {
        let options = &self.shared().options;
        let deadline = Instant::now() + options.busy_wait;
        loop {
            if !held(disk, options.flush_limit).await? {
                return Ok(false);
            }
            if !mounts_of(disk).await?.is_empty() || Instant::now() >= deadline {
                return Ok(true);
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// The kernel makes the mounted file system larger.
    async fn grow_mounted(&self, record: &Record, disk: &Disk, size: u64) -> Result<(), Error> {
        let shared = self.shared();
        if mounts_of(disk).await?.is_empty() {
            return Err(Error::InUse {
                key: record.key.clone(),
                device: disk.device.clone(),
                how: "mounted in a mount namespace that cannot be seen from here".to_owned(),
            });
        }
        shared.forget_behind(disk, record.size, size).await?;
        let tools = shared.tools().await?;
        let grown = Filesystem::at(disk.path()).resize(size, &tools).await;
        grown.map_err(Error::resize(&record.key, size))
    }
}

async fn mounts_of(disk: &Disk) -> Result<Vec<Mounted>, Error> {
    let asked = disk.clone();
    let found = blocking("reading the mounts", move || mounted(&asked)).await?;
    found.map_err(Error::file("read", "/proc/self/mountinfo".as_ref()))
}
