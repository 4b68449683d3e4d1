//! Quota of the users inside a container, where the snapshotter's name asks for it.
//!
//! A golden file system counts from its first day what each user and group has, and so does every chain that
//! stands on it. A container of an image from before counts from the day on which it is prepared: tune2fs looks
//! at every inode once. One that was prepared before that stays as it was, and whether it counts its superblock
//! tells.

use super::device::{file_system, user_quota};
use super::shared::Shared;
use super::{Error, Kind, Snapshotter};
use crate::filesystem::{self, Kind as FileSystem};
use crate::link::Disk;
use crate::store::Record;

impl Snapshotter {
    /// Is the disk to be mounted with its users' quota?
    pub(super) async fn enforces(&self, record: &Record, disk: &Disk) -> Result<bool, Error> {
        if record.kind != Kind::Active || !self.options().file_system.user_quota() {
            return Ok(false);
        }
        user_quota(disk, self.shared().options.flush_limit).await
    }
}

impl Shared {
    /// The file system on a disk that nobody was told of counts what its users have.
    pub(super) async fn keep_user_quota(&self, key: &str, disk: &Disk) -> Result<(), Error> {
        let limit = self.options.flush_limit;
        // An image from before may be of another kind, which has none.
        if file_system(disk, limit).await? != FileSystem::Ext4 || user_quota(disk, limit).await? {
            return Ok(());
        }
        let failed = |source| Error::Quota {
            key: key.to_owned(),
            source: Box::new(source),
        };
        let kept = filesystem::keep_user_quota(disk.path(), &self.tools).await;
        kept.map_err(failed)?;
        self.settled(key, disk).await
    }
}
