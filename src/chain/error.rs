//! What can be wrong with a chain.

use std::io;
use std::path::PathBuf;

use crate::image;
use crate::units::ClusterSize;

/// Why a chain cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be opened.
    #[error("cannot open {path}")]
    Open {
        /// Which.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// A file is not the image it should be.
    #[error("delta {path}")]
    Image {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: image::Error,
    },
    /// A writable delta is open elsewhere, or a sealed one is being changed.
    #[error(
        "delta {path} is in use by another process: stop that process, or detach the disk there"
    )]
    Locked {
        /// Which.
        path: PathBuf,
    },
    /// Clusters of different sizes in one chain.
    #[error(
        "delta {path} has clusters of {found}, the chain has {expected}: one size for a whole chain"
    )]
    ClusterSize {
        /// Which.
        path: PathBuf,
        /// Its cluster size.
        found: ClusterSize,
        /// The chain's.
        expected: ClusterSize,
    },
    /// The host's disk has larger blocks than a writable delta's size is made of.
    #[error(
        "delta {path} is a disk of {size} bytes, and lies on one that reads and writes whole blocks of {block}: make it a multiple of that, or keep it elsewhere"
    )]
    Block {
        /// Which.
        path: PathBuf,
        /// Its disk's size in bytes.
        size: u64,
        /// The host's block in bytes.
        block: u64,
    },
    /// A raw file that is not the base.
    #[error("{path} is a raw file: only the lowest level of a chain may be one")]
    RawAboveBase {
        /// Which.
        path: PathBuf,
    },
    /// No file at all.
    #[error("a chain needs at least one delta")]
    Empty,
    /// More levels than a map can name.
    #[error("a chain of {0} levels is deeper than the limit of {max}", max = super::MAX_LEVELS)]
    TooDeep(usize),
}
