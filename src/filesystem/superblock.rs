//! What a superblock says of the kinds alike, read without mounting.

use std::fs::File;
use std::path::Path;

use super::{Error, Kind};
use crate::ext4;
use crate::xfs;

/// What a superblock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// The kind of file system.
    pub kind: Kind,
    /// Its bytes.
    pub size: u64,
    /// Was no error seen in it? XFS keeps no note of that.
    pub clean: bool,
    /// Must the journal be replayed? That of an XFS its log alone tells, see [`torn`].
    pub needs_recovery: bool,
    /// Is it counted what each user and each group has?
    pub user_quota: bool,
    own: Own,
}

/// What each kind's own says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Own {
    Ext4(ext4::Superblock),
    Xfs(xfs::Superblock),
}

impl Superblock {
    /// Reads it from a file or device.
    ///
    /// # Errors
    /// If it cannot be read, or is none.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|source| Error::File {
            act: "read the superblock of",
            path: path.to_owned(),
            source,
        })?;
        Self::read_at(&file, 0, path)
    }

    /// Reads it from a file in which the file system begins at byte `start`; `path` is for the message.
    ///
    /// # Errors
    /// If it cannot be read, or is none.
    pub fn read_at(file: &File, start: u64, path: &Path) -> Result<Self, Error> {
        Ok(match Kind::read_at(file, start, path)? {
            Kind::Ext4 => {
                let found = ext4::Superblock::read_at(file, start, path)?;
                Self {
                    kind: Kind::Ext4,
                    size: found.size(),
                    clean: found.clean,
                    needs_recovery: found.needs_recovery,
                    user_quota: found.user_quota,
                    own: Own::Ext4(found),
                }
            }
            Kind::Xfs => {
                let found = xfs::Superblock::read_at(file, start, path)?;
                Self {
                    kind: Kind::Xfs,
                    size: found.size(),
                    clean: true,
                    needs_recovery: false,
                    user_quota: false,
                    own: Own::Xfs(found),
                }
            }
        })
    }

    /// Refuses a size to which it cannot grow.
    ///
    /// # Errors
    /// See [`xfs::check_growth`]; an ext4 grows to every size that a disk can have.
    pub fn may_grow(&self, size: u64) -> Result<(), Error> {
        match self.own {
            Own::Ext4(_) => Ok(()),
            Own::Xfs(own) => Ok(xfs::check_growth(own.group(), size)?),
        }
    }

    /// Is it what a disk of so many bytes has?
    #[must_use]
    pub fn fills(&self, size: u64) -> bool {
        match self.own {
            Own::Ext4(own) => own.fills(size),
            Own::Xfs(own) => own.fills(size),
        }
    }
}

/// What is wrong with the last unmount of a file system that nobody has mounted, if anything is.
///
/// # Errors
/// If it cannot be read, or is none.
pub fn torn(path: &Path) -> Result<Option<&'static str>, Error> {
    let file = File::open(path).map_err(|source| Error::File {
        act: "open",
        path: path.to_owned(),
        source,
    })?;
    Ok(match Kind::read_at(&file, 0, path)? {
        Kind::Ext4 => ext4::Superblock::read_at(&file, 0, path)?.torn(),
        Kind::Xfs => xfs::torn(&file, path)?,
    })
}
