//! Why an XFS could not be made, read or grown.

use std::io;
use std::path::PathBuf;

use crate::tool;
use crate::units::Bytes;

/// Why an XFS could not be made, read or grown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program is missing or too old, or ended badly.
    #[error(transparent)]
    Tool(#[from] tool::Error),
    /// The size is none that we make file systems of.
    #[error("{size} bytes is no size for an XFS: {why}")]
    BadSize {
        /// The size asked for.
        size: u64,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It was asked to become smaller.
    #[error(
        "XFS cannot shrink: it has {}, and {} were asked for; a smaller disk needs an image that was unpacked at \
         that size",
        Bytes(*size), Bytes(*asked)
    )]
    Shrinks {
        /// Its size.
        size: u64,
        /// What was asked for.
        asked: u64,
    },
    /// It would consist of too many parts.
    #[error(
        "an XFS that was made in parts of {} grows up to {}, and {} were asked for: images that are to grow further \
         are unpacked under a name with a larger size",
        Bytes(*part), Bytes(*most), Bytes(*asked)
    )]
    TooManyGroups {
        /// Bytes of an allocation group.
        part: u64,
        /// The largest size.
        most: u64,
        /// What was asked for.
        asked: u64,
    },
    /// It is not mounted there any more.
    #[error(
        "nothing was made larger: the file system at {path} was unmounted meanwhile; try again"
    )]
    Unmounted {
        /// Where it was.
        path: PathBuf,
    },
    /// The kernel does not let us.
    #[error(
        "an XFS is mounted and grown only by who has CAP_SYS_ADMIN: give it to ploop-snapshotter"
    )]
    NotPermitted,
    /// The kernel does not know it.
    #[error(
        "this kernel has no XFS: load its module (modprobe xfs), or choose filesystem = \"ext4\""
    )]
    NoKernel,
    /// The kernel refused.
    #[error("cannot {act} {path}")]
    Kernel {
        /// What was tried.
        act: &'static str,
        /// The device, or where it is mounted.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no XFS, or none that we make.
    #[error("{path} holds no XFS that can be used: {why}")]
    NotXfs {
        /// The file or device.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The host's file system failed.
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
