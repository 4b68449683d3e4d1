//! Why a file system could not be made or read.

use std::io;
use std::path::PathBuf;

use crate::tool;
use crate::units::Bytes;

/// Why a file system could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program is missing or too old, or ended badly.
    #[error(transparent)]
    Tool(#[from] tool::Error),
    /// The size is none that we make file systems of.
    #[error("{size} bytes is no size for an ext4 file system: {why}")]
    BadSize {
        /// The size asked for.
        size: u64,
        /// What is wrong with it.
        why: &'static str,
    },
    /// No file system could use so many inodes, or live with so few.
    #[error("an inode for each {bytes} bytes cannot be: from 4Ki to 4Mi")]
    BadRatio {
        /// What was asked for.
        bytes: u64,
    },
    /// A word for mkfs that may not be chosen.
    #[error("{word:?} cannot be chosen for mkfs.ext4: {why}")]
    BadOption {
        /// The word, as far as it can be shown.
        word: String,
        /// What is wrong with it.
        why: String,
    },
    /// The content does not fit.
    #[error(
        "{} are used, its journal and tables counted, which does not fit into a file system of {}: a size some way above what is used is needed",
        Bytes(*used), Bytes(*size)
    )]
    TooSmall {
        /// The size asked for.
        size: u64,
        /// Bytes that are used.
        used: u64,
    },
    /// The content would fit, but not the files.
    #[error(
        "{files} files are there, and a file system of {} has room for {inodes}",
        Bytes(*size)
    )]
    TooFewInodes {
        /// The size asked for.
        size: u64,
        /// Inodes that are used.
        files: u32,
        /// Inodes that there would be.
        inodes: u64,
    },
    /// Its journal is to be replayed, or errors were seen in it: what is changed now would be undone or made worse.
    #[error(
        "the file system on {path} {how}: start its container once, or let e2fsck mend it; nothing was changed"
    )]
    Torn {
        /// The file or device.
        path: PathBuf,
        /// What is wrong with it.
        how: &'static str,
    },
    /// It is mounted, and the kernel does not let us.
    #[error(
        "a mounted file system is made larger only for who has CAP_SYS_RESOURCE: give it to ploop-snapshotter, \
         or stop what has it mounted"
    )]
    NotPermitted,
    /// There is no ext4 file system.
    #[error("{path} holds no ext4 file system: {why}")]
    NotExt4 {
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
