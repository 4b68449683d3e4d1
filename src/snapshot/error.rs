//! What an act refuses, and why it fails. [`Error::kind`] is what the gRPC door translates.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::link;
use crate::store;

/// What callers branch on; each is a gRPC code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// No such snapshot or parent.
    NotFound,
    /// The key or name is taken.
    AlreadyExists,
    /// The request makes no sense.
    InvalidArgument,
    /// Not in this state: has children, is mounted, is not active.
    FailedPrecondition,
    /// The disk server does not answer now.
    Unavailable,
    /// Something did not end in time.
    DeadlineExceeded,
    /// The host has no space or devices left.
    ResourceExhausted,
    /// A file of ours is missing or damaged.
    DataLoss,
    /// Anything else.
    Internal,
}

/// Why an act was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A rule of the key space, or the store itself.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A snapshot must be called something.
    #[error("a snapshot's key or name must not be empty")]
    EmptyKey,
    /// Nobody means such a key.
    #[error("a key of {length} bytes is longer than {limit}")]
    LongKey {
        /// Its bytes.
        length: usize,
        /// What is allowed.
        limit: usize,
    },
    /// containerd's rule for labels.
    #[error(
        "label key and value length ({length} bytes) greater than maximum size ({limit} bytes), key: {key}"
    )]
    LongLabel {
        /// How its key begins.
        key: String,
        /// Bytes of key and value.
        length: usize,
        /// What is allowed.
        limit: usize,
    },
    /// Only labels can be changed.
    #[error("cannot update {path:?} of snapshot {key:?}: only labels can be changed")]
    Immutable {
        /// The snapshot.
        key: String,
        /// The field.
        path: String,
    },
    /// A committed snapshot is no file system to mount.
    #[error("snapshot {key:?} is committed: prepare or view it to mount it")]
    Committed {
        /// The snapshot.
        key: String,
    },
    /// It is still in use.
    #[error("cannot commit snapshot {key:?}: its device {device} is still {how}")]
    InUse {
        /// The snapshot.
        key: String,
        /// Its device.
        device: PathBuf,
        /// Mounted where, or opened.
        how: String,
    },
    /// The disk server refused or failed.
    #[error("snapshot {key:?}: the disk server cannot {act} disk {disk}")]
    Disk {
        /// The snapshot.
        key: String,
        /// `attach`, `detach`, ...
        act: &'static str,
        /// The disk's id.
        disk: String,
        /// What it said.
        #[source]
        source: Box<link::Error>,
    },
    /// A disk answers errors only.
    #[error("snapshot {key:?}: its disk {disk} has failed ({reason}) and is still in use")]
    Failed {
        /// The snapshot.
        key: String,
        /// The disk's id.
        disk: String,
        /// Why it failed.
        reason: String,
    },
    /// A file of a snapshot is gone.
    #[error(
        "snapshot {key:?}: the file {path} is missing; nothing was removed: put it back, or remove the snapshot"
    )]
    Missing {
        /// The snapshot.
        key: String,
        /// The file.
        path: PathBuf,
    },
    /// The host's file system failed.
    #[error("cannot {act} {path}")]
    File {
        /// What was tried.
        act: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Something on the host did not come back.
    #[error("{what} did not end within {limit:?}")]
    Stuck {
        /// What.
        what: String,
        /// What it was given.
        limit: Duration,
    },
    /// A task of ours ended without an answer: it panicked, or the process is stopping.
    #[error("{what} was interrupted")]
    Interrupted {
        /// What.
        what: &'static str,
    },
}

impl Error {
    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => store_kind(error),
            Self::EmptyKey
            | Self::LongKey { .. }
            | Self::LongLabel { .. }
            | Self::Immutable { .. } => ErrorKind::InvalidArgument,
            Self::Committed { .. } | Self::InUse { .. } => ErrorKind::FailedPrecondition,
            Self::Disk { source, .. } => disk_kind(source.kind()),
            Self::Failed { .. } => ErrorKind::Unavailable,
            Self::Missing { .. } => ErrorKind::DataLoss,
            Self::File { source, .. } => file_kind(source),
            Self::Stuck { .. } => ErrorKind::DeadlineExceeded,
            Self::Interrupted { .. } => ErrorKind::Internal,
        }
    }
}

fn store_kind(error: &store::Error) -> ErrorKind {
    use store::Error as E;
    match error {
        E::NotFound { .. } | E::ParentNotFound { .. } => ErrorKind::NotFound,
        E::Exists { .. } => ErrorKind::AlreadyExists,
        E::ParentNotCommitted { .. } => ErrorKind::InvalidArgument,
        E::NotActive { .. } | E::HasChildren { .. } => ErrorKind::FailedPrecondition,
        E::BadRecord { .. } | E::MissingRecord { .. } => ErrorKind::DataLoss,
        E::Open { .. } | E::Database(_) if error.no_space() => ErrorKind::ResourceExhausted,
        E::WrongStage { .. }
        | E::StoreVersion { .. }
        | E::RecordVersion { .. }
        | E::Open { .. }
        | E::Database(_) => ErrorKind::Internal,
    }
}

fn disk_kind(kind: link::Kind) -> ErrorKind {
    match kind {
        link::Kind::Busy => ErrorKind::FailedPrecondition,
        link::Kind::Corrupt => ErrorKind::DataLoss,
        link::Kind::Exhausted => ErrorKind::ResourceExhausted,
        link::Kind::Unavailable => ErrorKind::Unavailable,
        link::Kind::Timeout => ErrorKind::DeadlineExceeded,
        // Not the caller's: containerd would take NotFound for "no such snapshot".
        link::Kind::NotFound | link::Kind::Invalid | link::Kind::Other => ErrorKind::Internal,
    }
}

fn file_kind(error: &io::Error) -> ErrorKind {
    use io::ErrorKind as K;
    match error.kind() {
        K::StorageFull | K::QuotaExceeded => ErrorKind::ResourceExhausted,
        _ => ErrorKind::Internal,
    }
}
