//! Everything that can be wrong with a root, and what to do about each.
//!
//! The sister of `image`'s defects, one floor up: what is true of one file alone is said there. Words
//! for people: what is found, and what to do about it.

use std::path::PathBuf;

use crate::image::{Defect, Seal, Severity};
use crate::store::{Flaw, Id, Record, Stage};
use crate::units::{Bytes, ClusterSize};

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file that it is about.
    pub file: Option<PathBuf>,
    /// The snapshot that it is about.
    pub snapshot: Option<Named>,
    /// What it is.
    pub fault: Fault,
}

/// A snapshot as people know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Our number.
    pub id: Id,
    /// The snapshotter's name.
    pub space: String,
    /// Its key or name.
    pub key: String,
}

impl From<&Record> for Named {
    fn from(record: &Record) -> Self {
        Self {
            id: record.id,
            space: record.space.clone(),
            key: record.key.clone(),
        }
    }
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Deltas without the records that name them.
    #[error("the store is missing or empty, and deltas are there that it should name")]
    StoreLost,
    /// The store cannot be read.
    #[error("the store cannot be used: {0}")]
    StoreUnreadable(String),
    /// A record cannot be read.
    #[error("{0}")]
    RecordUnreadable(String),
    /// The store's tables do not agree.
    #[error("the store contradicts itself: {0}")]
    Store(Flaw),

    /// An act was under way when the daemon ended.
    #[error("{}", interrupted(.0))]
    Interrupted(Stage),
    /// A stage that this kind of snapshot never has.
    #[error("it is {stage:?}, which a snapshot of kind {kind} never is")]
    WrongStage {
        /// Where it stands.
        stage: Stage,
        /// What it is.
        kind: &'static str,
    },
    /// A committed snapshot of which nobody knows what its file must be, or the reverse.
    #[error("{0}")]
    WrongSeal(&'static str),
    /// It stands on nothing, or on two things.
    #[error(
        "it stands on {0}: a snapshot stands on a parent or on an empty file system, never both"
    )]
    WrongOrigin(&'static str),
    /// Its cluster size is none.
    #[error("clusters of {0} bytes cannot be")]
    WrongCluster(u64),
    /// The parent's record is gone.
    #[error("its parent {name:?} (snapshot {id}) is not in the store")]
    ParentMissing {
        /// The parent's number.
        id: Id,
        /// The parent's name.
        name: String,
    },
    /// The parent can still change, or is going.
    #[error("its parent {name:?} (snapshot {id}) is not committed")]
    ParentNotCommitted {
        /// The parent's number.
        id: Id,
        /// The parent's name.
        name: String,
    },
    /// The parent is another than the one that was meant.
    #[error("its parent should be {meant:?}, but snapshot {id} is {found:?} of {space:?}")]
    ParentOther {
        /// The parent's number.
        id: Id,
        /// The name that was meant.
        meant: String,
        /// The name that it has.
        found: String,
        /// The space that it is in.
        space: String,
    },
    /// The chain never ends.
    #[error("its parents lead back to itself: {0}")]
    Cycle(String),
    /// Smaller than its parent, or with other clusters.
    #[error(
        "a disk of {} in clusters of {} cannot stand on one of {} in clusters of {}",
        Bytes(own.0), Bytes(own.1), Bytes(parent.0), Bytes(parent.1)
    )]
    ParentShape {
        /// Its size and its cluster size.
        own: (u64, u64),
        /// Its parent's.
        parent: (u64, u64),
    },

    /// The file is not there.
    #[error("the file is missing")]
    FileMissing,
    /// A directory, a link, a device.
    #[error("it is no regular file")]
    NotAFile,
    /// The host does not let us.
    #[error("it cannot be read: {0}")]
    FileUnreadable(String),
    /// Something that is wrong with the image by itself.
    #[error("{0}")]
    Image(Defect),
    /// Sealed, but somebody has opened it for writing, or wrote behind its end.
    #[error("the sealed layer {}; header and index are those that were sealed", disturbed(*in_use, *tail))]
    Disturbed {
        /// Is it marked as in use?
        in_use: bool,
        /// Bytes behind its end.
        tail: u64,
    },
    /// Sealed, and open for writing now.
    #[error("the sealed layer is open for writing in another process")]
    SealedServed,
    /// Sealed, and not the file that was sealed.
    #[error("it is not the file that was sealed: {found}, but {expected} were sealed")]
    OtherSeal {
        /// The file's.
        found: Seal,
        /// The record's.
        expected: Seal,
    },
    /// The image has another size than its record says.
    #[error(
        "the image is a disk of {} in clusters of {}, its record says {} in clusters of {}",
        Bytes(found.0), found.1, Bytes(expected.0), Bytes(expected.1)
    )]
    OtherShape {
        /// The image's.
        found: (u64, ClusterSize),
        /// The record's.
        expected: (u64, u64),
    },
    /// An active top that was open at a crash.
    #[error("it was in use when its disk server ended, and will be recovered at the next start")]
    WillRecover,

    /// The file system's journal is not empty.
    #[error("its file system was not unmounted in order{}", if *.sealed { ", and it is sealed" } else { "" })]
    Journal {
        /// Is it a sealed layer?
        sealed: bool,
    },
    /// The kernel saw errors in the file system.
    #[error("its file system has met errors")]
    MetErrors,
    /// There is none that we know.
    #[error("there is no file system where it should begin: {0}")]
    NoFileSystem(String),
    /// The file system has another size than its disk.
    #[error("a file system of {} is on a disk of {}", Bytes(*found), Bytes(*disk))]
    OtherSize {
        /// The file system's size.
        found: u64,
        /// The disk's.
        disk: u64,
    },

    /// The golden file is not there.
    #[error("the empty file system is missing that {standing} snapshots stand on")]
    GoldenMissing {
        /// How many.
        standing: usize,
    },
    /// The golden file is not what it was.
    #[error("the empty file system is not what was made: {0}")]
    GoldenChanged(String),

    /// A delta that no record names.
    #[error("no snapshot names this delta ({} on the host)", Bytes(.0.to_owned()))]
    Orphan(u64),
    /// Something that was being made.
    #[error("it was never finished ({} on the host)", Bytes(.0.to_owned()))]
    Unfinished(u64),
    /// Not ours.
    #[error("it is not a file of ours")]
    Foreign,
}

fn interrupted(stage: &Stage) -> String {
    match stage {
        Stage::Preparing => "it was being prepared, and nobody was told of it".to_owned(),
        Stage::Committing { name } => {
            format!("it was being committed as {name:?}, and nobody was told that it is")
        }
        Stage::Removing => "it is removed, and its parts are still there".to_owned(),
        Stage::Ready => "it is whole".to_owned(),
    }
}

fn disturbed(in_use: bool, tail: u64) -> String {
    let mark = in_use.then(|| "is marked as in use".to_owned());
    let tail = (tail > 0).then(|| format!("has {} behind its end", Bytes(tail)));
    let both: Vec<_> = mark.into_iter().chain(tail).collect();
    both.join(" and ")
}

const FROM_BACKUP: &str = "put the file back from a backup; without one, remove the snapshot and those that stand on it \
                           (`ctr images rm`, `ctr snapshots rm`), and pull the image again";
const STORE_COPY: &str = "put the store back from a backup; without one keep a copy of the root and ask for help: \
                          the deltas are whole without it, only their names are in it";

impl Fault {
    /// How bad it is.
    #[must_use]
    pub fn severity(&self) -> Severity {
        match self {
            Self::Interrupted(_) | Self::WillRecover | Self::Foreign => Severity::Note,
            Self::Journal { sealed: false } => Severity::Note,
            Self::OtherSize { found, disk } if found < disk => Severity::Note,
            Self::Orphan(_) | Self::Unfinished(_) => Severity::Leak,
            Self::Image(defect) => defect.severity(),
            Self::Disturbed { in_use: false, .. } => Severity::Leak,
            Self::Disturbed { .. } | Self::Journal { .. } | Self::MetErrors => Severity::Unclean,
            _ => Severity::Corrupt,
        }
    }

    /// Is mending it safe, so that [`super::repair`] does?
    #[must_use]
    pub fn mendable(&self) -> bool {
        match self {
            Self::Store(flaw) => flaw.mendable(),
            Self::Disturbed { .. } | Self::Orphan(_) | Self::Unfinished(_) => true,
            _ => false,
        }
    }

    /// What a person should do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::StoreLost => {
                "put the store back from a backup, or move the deltas away to begin anew; ploop-snapshotter \
                 does not start until then"
            }
            Self::StoreUnreadable(_) | Self::RecordUnreadable(_) => STORE_COPY,
            Self::Store(flaw) if flaw.mendable() => {
                "nothing is lost: `ploop check --repair` makes it again from the records"
            }
            Self::Store(_)
            | Self::WrongStage { .. }
            | Self::WrongSeal(_)
            | Self::WrongOrigin(_)
            | Self::WrongCluster(_)
            | Self::ParentMissing { .. }
            | Self::ParentNotCommitted { .. }
            | Self::ParentOther { .. }
            | Self::Cycle(_)
            | Self::ParentShape { .. } => {
                "do not mount it; put the store back from a backup, or remove the snapshot and those that stand \
                 on it, and pull the image again"
            }
            Self::Interrupted(_) => {
                "nothing: the next start of ploop-snapshotter finishes or undoes it"
            }
            Self::FileMissing
            | Self::NotAFile
            | Self::OtherSeal { .. }
            | Self::OtherShape { .. } => FROM_BACKUP,
            Self::FileUnreadable(_) => {
                "see to the host's disk and to the file's mode, then check again"
            }
            Self::Image(defect) if defect.refuses() => FROM_BACKUP,
            Self::Image(defect) => defect.advice(),
            Self::Disturbed { in_use: true, .. } => {
                "stop whatever wrote to it; `ploop check --repair` seals it again. What was written over its data \
                 cannot be seen: if you do not know who opened it, pull the image again"
            }
            Self::Disturbed { .. } => "nothing is lost: `ploop check --repair` cuts it off",
            Self::SealedServed => {
                "only the top of a chain may be written: stop that process, then check again"
            }
            Self::WillRecover => "nothing: whoever mounts it next gets what was written to it",
            Self::Journal { sealed: false } => "nothing: the next mount replays its journal",
            Self::Journal { .. } => {
                "what was written last may be missing from it, and it cannot be mounted read only: pull the image again"
            }
            Self::MetErrors => {
                "look at the host's log for why; copy out what is needed, then make the container or the image anew"
            }
            Self::NoFileSystem(_) => FROM_BACKUP,
            Self::OtherSize { found, disk } if found < disk => {
                "nothing: the rest of the disk is not used"
            }
            Self::OtherSize { .. } => {
                "of a container whose resize was cut short: `ploop resize` it once more. Of a layer: pull the image again, \
                 or put the file back from a backup"
            }
            Self::GoldenMissing { .. } | Self::GoldenChanged(_) => {
                "put it back from a backup or from another node with the same size of disk; a new one would not be \
                 the same"
            }
            Self::Orphan(_) => {
                "the next start of ploop-snapshotter deletes it; if its record may have been lost, let \
                 `ploop check --repair` set it aside first"
            }
            Self::Unfinished(_) => {
                "nothing: the next start of ploop-snapshotter deletes it; `ploop check --repair` sets it aside"
            }
            Self::Foreign => "move it away if it is not yours; ploop-snapshotter never touches it",
        }
    }

    /// The byte of the file that says so.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        match self {
            Self::Image(defect) => defect.offset(),
            Self::Disturbed { in_use: true, .. } => Some(44),
            _ => None,
        }
    }
}
