//! What kind of trouble an error is: the table that the gRPC door goes by.

use std::io;

use super::Error;
use crate::filesystem::{self, Trouble};
use crate::image;
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

impl Error {
    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => store_kind(error),
            Self::NoRoot { .. }
            | Self::EmptyKey
            | Self::LongKey { .. }
            | Self::LongLabel { .. }
            | Self::NoSize { .. }
            | Self::SizeLimits { .. }
            | Self::Immutable { .. } => ErrorKind::InvalidArgument,
            Self::Committed { .. }
            | Self::NotResizable { .. }
            | Self::Shrinks { .. }
            | Self::NotResized { .. }
            | Self::ResizesTorn { .. }
            | Self::InUse { .. }
            | Self::UnderWay { .. }
            | Self::Held { .. }
            | Self::RootTaken { .. }
            | Self::RootBusy { .. }
            | Self::ForeignDisk { .. }
            | Self::UnfitRoot { .. }
            | Self::UnevenSize { .. } => ErrorKind::FailedPrecondition,
            Self::Disk { source, .. } => disk_kind(source.kind()),
            Self::Failed { .. } | Self::NotSealed { .. } => ErrorKind::Unavailable,
            Self::HostFull { .. } | Self::Reserve { .. } => ErrorKind::ResourceExhausted,
            Self::StoreLost { .. }
            | Self::Incomplete { .. }
            | Self::Missing { .. }
            | Self::GoldenLost { .. }
            | Self::GoldenChanged { .. } => ErrorKind::DataLoss,
            Self::File { source, .. } => file_kind(source),
            Self::Image { source, .. } => image_kind(source),
            Self::Golden { source, .. } => file_system_kind(source),
            Self::Resize { source, .. } | Self::Quota { source, .. } => file_system_kind(source),
            Self::Stuck { .. } | Self::Abandoned { .. } => ErrorKind::DeadlineExceeded,
            Self::Interrupted { .. } | Self::BadCluster { .. } => ErrorKind::Internal,
        }
    }
}

fn image_kind(error: &image::Error) -> ErrorKind {
    match error {
        image::Error::Io { source, .. } => file_kind(source),
        _ => ErrorKind::Internal,
    }
}

fn file_system_kind(error: &filesystem::Error) -> ErrorKind {
    if let Some(error) = error.host() {
        return file_kind(error);
    }
    match error.trouble() {
        Trouble::BadSize => ErrorKind::InvalidArgument,
        Trouble::Refused => ErrorKind::FailedPrecondition,
        Trouble::Damaged => ErrorKind::DataLoss,
        Trouble::Other => ErrorKind::Internal,
    }
}

fn store_kind(error: &store::Error) -> ErrorKind {
    use store::Error as E;
    match error {
        E::NotFound { .. } | E::ParentNotFound { .. } => ErrorKind::NotFound,
        E::Exists { .. } => ErrorKind::AlreadyExists,
        E::ParentNotCommitted { .. } => ErrorKind::InvalidArgument,
        E::NotActive { .. } | E::HasChildren { .. } => ErrorKind::FailedPrecondition,
        E::BadRecord { .. } | E::OtherRecord { .. } | E::MissingRecord { .. } => {
            ErrorKind::DataLoss
        }
        E::Read { .. } => ErrorKind::Internal,
        E::Open { .. } | E::Database(_) if error.no_space() => ErrorKind::ResourceExhausted,
        E::Lost { .. } => ErrorKind::Unavailable,
        E::Database(_) if error.broke_the_store() => ErrorKind::Unavailable,
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
