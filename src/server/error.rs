//! Why the disk server refuses, or cannot start.

use std::io;
use std::path::{Path, PathBuf};

use crate::device;
use crate::disk;
use crate::socket;

/// Why the disk server refuses, or cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request breaks the contract.
    #[error("{0}")]
    Invalid(String),
    /// Nobody of that name.
    #[error("no disk {id} is attached")]
    NotFound {
        /// The name.
        id: String,
    },
    /// Its device waits for this server, which cannot serve it yet.
    #[error(
        "disk {id} of the server before is not taken over yet: this one lacks descriptors, memory or space for it (its \
         log says what), and tries again"
    )]
    Waits {
        /// The disk.
        id: String,
    },
    /// The id is taken by another chain.
    #[error("disk {id} is attached already, with {difference}: detach it first")]
    Different {
        /// The id.
        id: String,
        /// What differs.
        difference: &'static str,
    },
    /// A file would be written by one disk and used by another.
    #[error(
        "{} is {role} by disk {by}: a delta that is written belongs to one disk alone; detach {by} first",
        path.display()
    )]
    Claimed {
        /// The file.
        path: PathBuf,
        /// How it is used.
        role: &'static str,
        /// By whom.
        by: String,
    },
    /// A delta cannot even be looked at.
    #[error("delta {}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no top to seal.
    #[error("disk {id} is read-only: it has no top to seal; detach it without")]
    NothingToSeal {
        /// The disk.
        id: String,
    },
    /// What would be sealed is not what was written.
    #[error(
        "disk {id} answered {writes} writes or syncs with errors: whoever wrote may not have heard, so it is not \
         sealed; detach it without"
    )]
    LostWrites {
        /// The disk.
        id: String,
        /// How many.
        writes: u64,
    },
    /// No new disks.
    #[error("this ploopd takes no new disks: it ends when its last one is detached")]
    Draining,
    /// The kernel would not.
    #[error(transparent)]
    Device(#[from] device::Error),
    /// The engine would not.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// Another server owns the run folder.
    #[error(
        "another ploopd ({who}) owns {}: stop it, or give this one another run directory",
        folder.display()
    )]
    SecondServer {
        /// The run folder.
        folder: PathBuf,
        /// What the lock says about its holder.
        who: String,
    },
    /// The socket cannot be had.
    #[error(transparent)]
    Socket(#[from] socket::Error),
    /// Nobody knows what the server before served.
    #[error(
        "{} does not tell which devices wait for a disk server: {why}; install the version of ploopd that wrote it, \
         or, if no container waits for a disk any more, remove the file",
        path.display()
    )]
    Account {
        /// The list of the server before.
        path: PathBuf,
        /// What is strange about it.
        why: String,
    },
    /// A file of our own.
    #[error("cannot {act} {}", path.display())]
    Host {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The gRPC server ended by itself.
    #[error("the gRPC server failed")]
    Transport(#[source] tonic::transport::Error),
    /// A task of ours was lost.
    #[error("{0} ended without an answer")]
    Lost(&'static str),
}

/// For `map_err`: what was tried on which file of ours.
pub(super) fn host<E: Into<io::Error>>(act: &'static str, path: &Path) -> impl FnOnce(E) -> Error {
    move |source| Error::Host {
        act,
        path: path.to_owned(),
        source: source.into(),
    }
}
