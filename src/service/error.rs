//! Why a call is refused, or a door cannot be opened.

use std::time::Duration;

use super::Method;
use super::filter::BadFilter;
use crate::snapshot;
use crate::socket;

/// Why a call is refused, or a door cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The act itself.
    #[error(transparent)]
    Act(#[from] snapshot::Error),
    /// A filter of List.
    #[error(transparent)]
    Filter(#[from] BadFilter),
    /// The limit passed.
    #[error(
        "{method} of {key:?} did not end within {limit:?}; it is ended or undone in the background: try again"
    )]
    Late {
        /// The call.
        method: Method,
        /// The snapshot.
        key: String,
        /// What it was given.
        limit: Duration,
    },
    /// A defect of ours.
    #[error("{method} of {key:?} broke off: this is a defect, the log says where")]
    Broken {
        /// The call.
        method: Method,
        /// The snapshot.
        key: String,
    },
    /// We are going down.
    #[error("ploop-snapshotter is stopping: try {method} again in a moment")]
    Stopping {
        /// The call.
        method: Method,
    },
    /// Nobody has that name.
    #[error("no snapshotter is called {name:?} here")]
    NoName {
        /// The name.
        name: String,
    },
    /// A socket cannot be had.
    #[error("cannot open the door of snapshotter {name}")]
    Door {
        /// The snapshotter.
        name: String,
        /// Why.
        #[source]
        source: socket::Error,
    },
}
