//! Everything in which the store's other tables can disagree with its records.

use super::Id;

/// One disagreement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// A key that no record has.
    #[error("key {key:?} of {space:?} leads to snapshot {id}, of which there is no record")]
    KeyOfNobody {
        /// The snapshotter's name.
        space: String,
        /// The key.
        key: String,
        /// Where it leads.
        id: Id,
    },
    /// A key that leads to a record that has another, or none any more.
    #[error("key {key:?} of {space:?} leads to snapshot {id}, which answers to {answers:?}")]
    KeyOfAnother {
        /// The snapshotter's name.
        space: String,
        /// The key.
        key: String,
        /// Where it leads.
        id: Id,
        /// The key of the record there.
        answers: String,
    },
    /// A record that its key does not lead to.
    #[error("snapshot {id} cannot be found by its key {key:?} of {space:?}")]
    NoKey {
        /// The snapshotter's name.
        space: String,
        /// The key.
        key: String,
        /// The record.
        id: Id,
    },
    /// Two records have one key.
    #[error("snapshots {taken} and {id} have one key, {key:?} of {space:?}")]
    KeyTaken {
        /// The snapshotter's name.
        space: String,
        /// The key.
        key: String,
        /// The record that cannot be found by it.
        id: Id,
        /// The record that it leads to.
        taken: Id,
    },
    /// A record that its parent does not know of, so that the parent could be removed.
    #[error("snapshot {id} is not counted among those that stand on {}", base(*parent))]
    NoChild {
        /// Its parent; 0 is none.
        parent: Id,
        /// The record.
        id: Id,
    },
    /// A child that is none, so that the parent cannot be removed.
    #[error("snapshot {id} is counted among those that stand on {}, and does not", base(*parent))]
    StrayChild {
        /// The parent; 0 is none.
        parent: Id,
        /// What is counted.
        id: Id,
    },
    /// A number that is in use would be given again.
    #[error("the next number to be given is {next}, but snapshot {highest} is there already")]
    Numbers {
        /// The first that is not set aside.
        next: u64,
        /// The highest in use.
        highest: Id,
    },
}

impl Flaw {
    /// Does [`super::Ledger::mend`] mend it?
    #[must_use]
    pub fn mendable(&self) -> bool {
        !matches!(self, Self::KeyTaken { .. })
    }
}

fn base(parent: Id) -> String {
    match parent {
        Id(0) => "an empty file system".to_owned(),
        id => format!("snapshot {id}"),
    }
}
