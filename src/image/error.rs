//! Why an image cannot be made, opened or sealed.

use std::io;

use super::Defect;
use super::Seal;
use crate::format;
use crate::units::ClusterSize;

/// Why an image cannot be made, opened or sealed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be read or written.
    #[error("cannot {act}")]
    Io {
        /// What was being done.
        act: &'static str,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The sync failed that follows the in-use mark, and covers what a process before had written.
    #[error("cannot make the in-use mark durable")]
    Unsynced(#[source] io::Error),
    /// Something is wrong with the image.
    #[error("{0}: {advice}", advice = .0.advice())]
    Defect(Defect),
    /// The bytes are of a format that is not read here.
    #[error("is {0}, which cannot be read here: convert it first (`qemu-img convert -O raw`)")]
    Foreign(&'static str),
    /// No known format, and nobody said that it is a plain disk.
    #[error("has no known format: if it is a plain disk image, say that it is raw")]
    UnknownFormat,
    /// An image for an impossible size.
    #[error("no image can have this size with this cluster size")]
    Size(#[source] format::Error),
    /// A file that should have been empty.
    #[error("file is not empty ({0} bytes): images are only made in new files")]
    NotNew(u64),
    /// Version 1 cannot be written.
    #[error("is a version 1 image, which is only read here: put a new delta on top of it")]
    Version1,
    /// The extension would be lost by writing.
    #[error(
        "carries a format extension (a backup program's dirty bitmap) that writing would destroy: \
         put a new delta on top of it"
    )]
    Extension,
    /// Another cluster size than the chain's.
    #[error(
        "clusters of {found} in a chain of {chain}: all deltas of a chain have one cluster size"
    )]
    ClusterSize {
        /// The image's.
        found: ClusterSize,
        /// The chain's.
        chain: ClusterSize,
    },
    /// A file that is not, or no longer, what was sealed.
    #[error("is not the delta that was sealed: {found}, expected {expected}; restore the file")]
    OtherSeal {
        /// What the file says.
        found: Seal,
        /// What was sealed.
        expected: Seal,
    },
    /// The index names more than its owner ever placed.
    #[error("index names place {last}, but only places below {end} were handed out")]
    Unplaced {
        /// The last place in the index.
        last: u32,
        /// The owner's first free place.
        end: u32,
    },
    /// A disk that should become smaller.
    #[error("a disk of {size} bytes does not shrink to {asked}")]
    Smaller {
        /// What it has.
        size: u64,
        /// What it should have.
        asked: u64,
    },
    /// The file is as large as an index can name.
    #[error(
        "its file is as large as an index can name: there is no place left to move clusters to"
    )]
    NoPlace,
    /// A plain file that is no disk, or too large for one.
    #[error("plain file of {0} bytes is no disk: it holds no sector, or more clusters than a map")]
    RawSize(u64),
}

/// What a caller may do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The host's trouble.
    Io,
    /// The bytes are wrong.
    Corrupt,
    /// Open elsewhere, or not closed in order.
    InUse,
    /// Asked for something that cannot be.
    Invalid,
}

impl Error {
    /// What kind of trouble it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Io { .. } | Self::Unsynced(_) => Kind::Io,
            Self::Defect(Defect::InUse | Defect::LowerInUse | Defect::UnknownInUse(_)) => {
                Kind::InUse
            }
            Self::Defect(_) | Self::OtherSeal { .. } | Self::Unplaced { .. } => Kind::Corrupt,
            Self::Foreign(_)
            | Self::UnknownFormat
            | Self::Size(_)
            | Self::NotNew(_)
            | Self::Version1
            | Self::Extension
            | Self::ClusterSize { .. }
            | Self::Smaller { .. }
            | Self::NoPlace
            | Self::RawSize(_) => Kind::Invalid,
        }
    }

    /// Wraps what the host said about an act.
    pub(super) fn io(act: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { act, source }
    }
}
