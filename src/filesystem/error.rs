//! Why a file system could not be made, read or given another size.

use std::io;
use std::path::PathBuf;

use crate::ext4;
use crate::tool;
use crate::xfs;

/// Why a file system could not be made, read or given another size.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An ext4.
    #[error(transparent)]
    Ext4(#[from] ext4::Error),
    /// An XFS.
    #[error(transparent)]
    Xfs(#[from] xfs::Error),
    /// There is none that we know.
    #[error("{path} holds neither an ext4 nor an XFS")]
    Unknown {
        /// The file or device.
        path: PathBuf,
    },
    /// The host's file system, or the device, failed.
    #[error("cannot {act} {path}")]
    File {
        /// What was tried.
        act: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What callers branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// Nobody makes one of this size.
    BadSize,
    /// Not in its state, or not to this size: what it holds does not fit, it does not shrink, we may not.
    Refused,
    /// What is there is not what it must be.
    Damaged,
    /// A program is missing, or ended badly.
    Other,
}

impl Error {
    /// What kind of trouble this is.
    #[must_use]
    pub fn trouble(&self) -> Trouble {
        match self {
            Self::Ext4(ext4::Error::BadSize { .. }) | Self::Xfs(xfs::Error::BadSize { .. }) => {
                Trouble::BadSize
            }
            Self::Ext4(
                ext4::Error::TooSmall { .. }
                | ext4::Error::TooFewInodes { .. }
                | ext4::Error::Torn { .. }
                | ext4::Error::NotPermitted,
            )
            | Self::Xfs(
                xfs::Error::Shrinks { .. }
                | xfs::Error::TooManyGroups { .. }
                | xfs::Error::Unmounted { .. }
                | xfs::Error::NotPermitted,
            ) => Trouble::Refused,
            Self::Ext4(ext4::Error::NotExt4 { .. })
            | Self::Xfs(xfs::Error::NotXfs { .. })
            | Self::Unknown { .. } => Trouble::Damaged,
            _ => Trouble::Other,
        }
    }

    /// What the host or the kernel said, if it was one of them.
    #[must_use]
    pub fn host(&self) -> Option<&io::Error> {
        match self {
            Self::Ext4(ext4::Error::File { source, .. })
            | Self::Xfs(xfs::Error::File { source, .. } | xfs::Error::Kernel { source, .. })
            | Self::File { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl From<tool::Error> for Error {
    fn from(error: tool::Error) -> Self {
        Self::Ext4(error.into())
    }
}
