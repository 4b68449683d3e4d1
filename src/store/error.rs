//! What the store refuses, and why it fails.

use std::path::PathBuf;

use super::Id;

/// A rule of the key space that was not met, or a store that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers to this key.
    #[error("snapshot {key:?} does not exist")]
    NotFound {
        /// The key asked for.
        key: String,
    },
    /// Somebody answers to this key already.
    #[error("snapshot {key:?} already exists")]
    Exists {
        /// The key asked for.
        key: String,
    },
    /// Nobody answers to the parent's name.
    #[error("parent snapshot {name:?} does not exist")]
    ParentNotFound {
        /// The name asked for.
        name: String,
    },
    /// The parent can still change.
    #[error("parent snapshot {name:?} is not committed")]
    ParentNotCommitted {
        /// The name asked for.
        name: String,
    },
    /// Only an active snapshot can be committed.
    #[error("snapshot {key:?} is not active")]
    NotActive {
        /// The key asked for.
        key: String,
    },
    /// Others stand on it.
    #[error("cannot remove snapshot with child: {child:?} stands on {key:?}")]
    HasChildren {
        /// The key asked for.
        key: String,
        /// One of those who stand on it.
        child: String,
    },
    /// A step was asked of a record that is not at the stage before it.
    #[error("snapshot {id} is not at the stage for this step: it is {stage}")]
    WrongStage {
        /// Its number.
        id: Id,
        /// Where it stands.
        stage: String,
    },
    /// The file was written by another version of us.
    #[error(
        "{path} holds snapshots in layout {found}, this program knows layout {known}: \
         use the version of ploop-snapshotter that wrote it, or another root"
    )]
    StoreVersion {
        /// The store's file.
        path: PathBuf,
        /// What it says.
        found: u64,
        /// What we write.
        known: u64,
    },
    /// One record was written by another version of us.
    #[error(
        "snapshot {id} is stored in version {found}, this program knows version {known}: \
         use the version of ploop-snapshotter that wrote it"
    )]
    RecordVersion {
        /// Its number.
        id: Id,
        /// What its first byte says.
        found: u8,
        /// What we write.
        known: u8,
    },
    /// A record's bytes make no sense.
    #[error("the record of snapshot {id} is damaged")]
    BadRecord {
        /// Its number.
        id: Id,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A record that another one names is gone.
    #[error("the store is damaged: the record of snapshot {id} is missing")]
    MissingRecord {
        /// Its number.
        id: Id,
    },
    /// A record that was only in memory when the store had to be opened again, or a step of it.
    #[error(
        "what was begun with snapshot {id} is lost, for the store met an I/O error meanwhile: try again"
    )]
    Lost {
        /// Its number.
        id: Id,
    },
    /// A record says that it is another one.
    #[error("the record of snapshot {id} says that it is that of snapshot {found}")]
    OtherRecord {
        /// Where it is kept.
        id: Id,
        /// What it says.
        found: Id,
    },
    /// The file cannot be read.
    #[error("cannot read the store {path}")]
    Read {
        /// The store's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file cannot be opened.
    #[error("cannot open the store {path}")]
    Open {
        /// The store's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<redb::Error>,
    },
    /// A transaction failed.
    #[error("the store cannot be read or written")]
    Database(#[source] Box<redb::Error>),
}

impl Error {
    /// Did the host run out of space below the store?
    #[must_use]
    pub fn no_space(&self) -> bool {
        match self {
            Self::Open { source, .. } | Self::Database(source) => {
                matches!(&**source, redb::Error::Io(error)
                    if error.kind() == std::io::ErrorKind::StorageFull)
            }
            _ => false,
        }
    }
}

impl Error {
    /// Was it the host's I/O? The store is opened again with the next question.
    #[must_use]
    pub fn broke_the_store(&self) -> bool {
        match self {
            Self::Database(source) => {
                matches!(&**source, redb::Error::Io(_) | redb::Error::PreviousIo)
            }
            _ => false,
        }
    }

    /// Has somebody the file open already?
    #[must_use]
    pub fn in_use(&self) -> bool {
        matches!(self, Self::Open { source, .. }
            if matches!(**source, redb::Error::DatabaseAlreadyOpen))
    }
}

/// redb has an error type for every verb; to us they are one.
macro_rules! database {
    ($($from:ty),*) => {$(
        impl From<$from> for Error {
            fn from(error: $from) -> Self {
                Self::Database(Box::new(error.into()))
            }
        }
    )*};
}

database!(
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError,
    redb::SetDurabilityError
);
