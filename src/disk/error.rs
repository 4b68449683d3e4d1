//! Why a disk cannot be opened or closed.

use std::io;
use std::path::PathBuf;

use crate::chain;
use crate::image;
use crate::units::{Cluster, Place};

/// Why a disk cannot be opened or closed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refuses a ring.
    #[error(
        "io_uring is not available: check that sysctl kernel.io_uring_disabled is 0 and that no seccomp filter forbids it"
    )]
    Ring(#[source] io::Error),
    /// The chain cannot be opened.
    #[error(transparent)]
    Chain(#[from] chain::Error),
    /// The pending file cannot be used.
    #[error("pending file {path}")]
    Pending {
        /// Which.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The pending file names places that cannot be.
    #[error(
        "pending file {path} says that cluster {} is at place {}, which {why}: the image was changed behind our back, or its host lost what was not flushed; what was flushed is whole in it: remove {path} to go back to that, and give up the rest; nothing was written",
        cluster.0, place.0
    )]
    Contradiction {
        /// Which.
        path: PathBuf,
        /// The cluster it speaks of.
        cluster: Cluster,
        /// Where it should be.
        place: Place,
        /// Why that cannot be.
        why: &'static str,
    },
    /// The image cannot be finished.
    #[error("image of disk {id}")]
    Image {
        /// Which disk.
        id: String,
        /// What is wrong.
        #[source]
        source: image::Error,
    },
    /// An earlier error made the disk unusable.
    #[error("disk {id} answers errors: {why}")]
    Failed {
        /// Which disk.
        id: String,
        /// What happened.
        why: String,
    },
    /// The disk stays as large as it is.
    #[error("disk {id} cannot be made larger: {why}")]
    NotGrown {
        /// Which disk.
        id: String,
        /// Why.
        why: String,
    },
    /// A read-only disk has no top to seal.
    #[error("disk {id} is read-only: there is nothing to seal")]
    ReadOnly {
        /// Which disk.
        id: String,
    },
    /// The host failed.
    #[error("disk {id}")]
    Io {
        /// Which disk.
        id: String,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// The disk, or the thread it lived on, is gone.
    #[error("disk {id} is closed")]
    Closed {
        /// Which disk.
        id: String,
    },
}

impl Error {
    /// Is it only that another process has a delta open?
    #[must_use]
    pub fn is_locked(&self) -> bool {
        matches!(self, Self::Chain(chain::Error::Locked { .. }))
    }
}
