//! What may be chosen about a file system that is made, and what comes of it.

use super::{Error, Kind};
use crate::ext4;
use crate::xfs;

/// What may be chosen about a file system that is made. One that is there keeps what it was made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choices {
    /// An ext4.
    Ext4(ext4::Choices),
    /// An XFS, of which nothing is chosen.
    Xfs,
}

impl Default for Choices {
    fn default() -> Self {
        Self::Ext4(ext4::Choices::default())
    }
}

impl Choices {
    /// Bytes of the smallest disk that can have one.
    #[must_use]
    pub fn smallest(&self) -> u64 {
        match self {
            Self::Ext4(_) => ext4::Layout::SMALLEST,
            Self::Xfs => xfs::Layout::SMALLEST,
        }
    }

    /// Is it to count what each user has?
    #[must_use]
    pub fn user_quota(&self) -> bool {
        matches!(self, Self::Ext4(choices) if choices.user_quota)
    }
}

/// How a golden file system is laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// An ext4.
    Ext4(ext4::Layout),
    /// An XFS.
    Xfs(xfs::Layout),
}

impl Layout {
    /// The layout for a disk of `size` bytes.
    ///
    /// # Errors
    /// If the size, or something that was chosen, cannot be.
    pub fn new(size: u64, choices: &Choices) -> Result<Self, Error> {
        Ok(match choices {
            Choices::Ext4(choices) => Self::Ext4(ext4::Layout::new(size, choices)?),
            Choices::Xfs => Self::Xfs(xfs::Layout::new(size)?),
        })
    }

    /// The kind of file system.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Ext4(_) => Kind::Ext4,
            Self::Xfs(_) => Kind::Xfs,
        }
    }

    /// A name that changes with everything that goes into the file: `10737418240-1a2b3c4d`.
    #[must_use]
    pub fn tag(&self) -> String {
        match self {
            Self::Ext4(layout) => layout.tag(),
            Self::Xfs(layout) => layout.tag(),
        }
    }
}
