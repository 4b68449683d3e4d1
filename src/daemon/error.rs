//! Why the daemon cannot go on.

use std::io;

use crate::link;
use crate::observe;
use crate::service;
use crate::snapshot;

/// Why the daemon cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No threads, or no signals.
    #[error("cannot {act}")]
    Process {
        /// What was tried.
        act: &'static str,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// Log or metrics.
    #[error(transparent)]
    Observe(#[from] observe::Error),
    /// There is no disk server.
    #[error("there is no disk server to work with")]
    Link(#[from] link::Error),
    /// The root cannot be used.
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
    /// The doors cannot be opened.
    #[error(transparent)]
    Service(#[from] service::Error),
    /// A name that was configured is not there: a defect.
    #[error("snapshotter {0} was not opened: this is a defect")]
    NoName(String),
    /// A door broke while we ran.
    #[error("a door broke; the log says which and why")]
    Door,
}
