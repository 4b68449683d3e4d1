//! Resize: an active snapshot gets another size, whether a container runs on it or not.
//!
//! ```text
//! larger    disk and device . file system . RESIZED     before that zeros behind the old end, if nobody has it mounted
//! smaller   file system . RESIZED                       only while nobody has it mounted
//! ```
//!
//! Each step may be repeated, so after a stop of ours the same order brings it to its end: resize2fs outlives us. Only a
//! power cut in the middle of it leaves the mark of damage, and e2fsck is for a person to run. A disk whose file system
//! was made smaller keeps its own size: the file system is what limits a container.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::device::{Use, file_system, forget_behind, free_and_flush, grow_xfs, held, superblock};
use super::mounts::mounted;
use super::paths::disk_of;
use super::shared::{Shared, blocking};
use super::sizes::bounded;
use super::words::check_key;
use super::{Error, Kind, Snapshotter};
use crate::filesystem::{self, Kind as FileSystem};
use crate::link::Disk;
use crate::store::Record;

/// How often a device that somebody has open is looked at.
const AGAIN: Duration = Duration::from_millis(20);

impl Snapshotter {
    /// Gives an active snapshot another size, in bytes; it is rounded down to whole clusters. Answers what it is.
    ///
    /// One that is mounted grows without interruption.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for a size outside the name's limits; `FailedPrecondition` if it is no
    /// active one, if its content does not fit, or if it is to shrink while it is mounted.
    pub async fn resize(&self, key: &str, size: u64) -> Result<u64, Error> {
        check_key(key)?;
        let _turn = self.turn(key).await;
        let record = self.find(key).await?;
        Ok(self.resize_record(&record, size).await?.size)
    }

    /// The same for a record, by who has the key's turn.
    pub(super) async fn resize_record(&self, record: &Record, size: u64) -> Result<Record, Error> {
        if record.kind != Kind::Active {
            return Err(Error::NotResizable {
                key: record.key.clone(),
            });
        }
        let size = bounded(&record.key, size, record.cluster, self.options())?;
        let shared = self.shared();
        let disk = shared.serve(record).await?;
        // A resize that was cut short may have told the file system and not us.
        let found = superblock(&disk, shared.options.flush_limit).await?;
        if size == record.size && found.is_none_or(|found| found.fills(size)) {
            return Ok(record.clone());
        }
        shared.steps.pass("resize attached").await;
        let key = record.key.clone();
        let holder = self.holder(&disk).await?;
        let now = found.map_or(record.size, |found| found.size.max(record.size));
        match &holder {
            Holder::Nobody => shared.settled(&key, &disk).await?,
            _ if size < now => {
                return Err(Error::Shrinks {
                    key,
                    size: now,
                    asked: size,
                });
            }
            Holder::Here(_) => {}
            // An XFS that grew tells it to its log first.
            Holder::Elsewhere if size == record.size => return Ok(record.clone()),
            Holder::Elsewhere => {
                return Err(Error::NotResized {
                    key,
                    device: disk.device,
                    how: "open, or mounted where it cannot be seen from here".to_owned(),
                });
            }
        }
        if disk.size < size || now < size {
            // Before the disk is larger for nothing, and for good.
            if let Some(found) = found.filter(|_| disk.size < size) {
                found.may_grow(size).map_err(Error::resize(&key, size))?;
            }
            let name = disk_of(record);
            let failed = Error::disk(&key, "grow", &name);
            // Of a disk that is as large already too: its server may have died before the device was.
            let whole = size.max(disk.size);
            shared.disks.grow(&name, whole).await.map_err(failed)?;
            shared.steps.pass("resize grown").await;
        }
        let mounted = matches!(holder, Holder::Here(_));
        match holder {
            // The kernel makes it larger.
            Holder::Here(at) => {
                shared
                    .resize_file_system(&key, &disk, Some(at), size)
                    .await?;
            }
            _ => shared.resize_idle(&key, &disk, size).await?,
        }
        shared.steps.pass("resize done").await;
        let id = record.id;
        let resized = shared.store(move |store| store.resized(id, size)).await?;
        tracing::info!(
            key = record.key,
            from = record.size,
            to = size,
            mounted,
            "resized"
        );
        Ok(resized)
    }

    /// Who has the disk, for longer than a moment? A mount that we see is an answer at once; whoever only
    /// looks at a device, or is about to let go of it, is waited for.
    async fn holder(&self, disk: &Disk) -> Result<Holder, Error> {
        let options = &self.shared().options;
        let deadline = Instant::now() + options.busy_wait;
        loop {
            if !held(disk, options.flush_limit).await? {
                return Ok(Holder::Nobody);
            }
            let asked = disk.clone();
            let mounts = blocking("reading the mounts", move || mounted(&asked)).await?;
            let mounts = mounts.map_err(Error::file("read", "/proc/self/mountinfo".as_ref()))?;
            if let Some(mount) = mounts.into_iter().next() {
                return Ok(Holder::Here(mount.at));
            }
            if Instant::now() >= deadline {
                return Ok(Holder::Elsewhere);
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Who has a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Holder {
    Nobody,
    /// A mount in our own namespace, at this place.
    Here(PathBuf),
    /// Somebody that we cannot see.
    Elsewhere,
}

impl Shared {
    /// Gives the file system on a disk that nobody has another size. What was done is in the disk then.
    pub(super) async fn resize_idle(&self, key: &str, disk: &Disk, size: u64) -> Result<(), Error> {
        // A journal that is still to be replayed would be replayed over what is changed now; and an XFS is mounted for
        // that: what was lost of it would look as if it had been written.
        self.settled(key, disk).await?;
        self.resize_file_system(key, disk, None, size).await?;
        self.settled(key, disk).await
    }

    /// What was written to a disk that nobody has is in the disk, and its file system is whole.
    pub(super) async fn settled(&self, key: &str, disk: &Disk) -> Result<(), Error> {
        let (wait, limit) = (self.options.busy_wait, self.options.flush_limit);
        let (key, device) = (key.to_owned(), disk.device.clone());
        match free_and_flush(disk, wait, limit).await? {
            Use::Free => Ok(()),
            Use::Busy(how) => Err(Error::NotResized { key, device, how }),
            Use::Torn(how) => Err(Error::ResizesTorn { key, device, how }),
        }
    }

    async fn resize_file_system(
        &self,
        key: &str,
        disk: &Disk,
        at: Option<PathBuf>,
        size: u64,
    ) -> Result<(), Error> {
        let limit = self.options.flush_limit;
        let resized = match file_system(disk, limit).await? {
            FileSystem::Ext4 => match at {
                // What is behind its end stays: a resize2fs that outlived one of us may be giving just that to the
                // container. The kernel needs no zeros there: it writes descriptors and bitmaps of each group that it
                // adds, and with `noinit_itable` (see `mounts`) the inode tables too, before the group is in use.
                Some(_) => filesystem::grow_ext4(disk.path(), size, &self.tools).await,
                None => {
                    forget_behind(disk, size).await?;
                    filesystem::resize_ext4(disk.path(), size, &self.tools).await
                }
            },
            // It never shrank, so nothing is behind its end; and where that is, one that is mounted has not told its
            // device yet.
            FileSystem::Xfs => grow_xfs(disk, at, size, limit).await?,
        };
        resized.map_err(Error::resize(key, size))
    }
}
