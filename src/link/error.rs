//! Why a call to a disk server failed, and what kind of failure that is.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tonic::{Code, Status};

/// What callers branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// No such disk.
    NotFound,
    /// In use, or in a state that does not allow it.
    Busy,
    /// The request makes no sense.
    Invalid,
    /// An image is damaged, or is not the one meant.
    Corrupt,
    /// No space, device or descriptor left.
    Exhausted,
    /// Nobody answers.
    Unavailable,
    /// No answer in time; whether the server did it is unknown.
    Timeout,
    /// Anything else.
    Other,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers at the socket.
    #[error("no disk server answers at {}: {reason}", socket.display())]
    Unavailable {
        /// Where it should listen.
        socket: PathBuf,
        /// What the attempt said.
        reason: String,
    },
    /// The connection broke while a call was under way: whether the server did it is unknown.
    #[error("the disk server at {} went away during {call}: {reason}", socket.display())]
    Broken {
        /// Where it listened.
        socket: PathBuf,
        /// The call.
        call: &'static str,
        /// What the connection said.
        reason: String,
    },
    /// No server takes new disks.
    #[error("no disk server takes new disks: {reason}")]
    NoneTakes {
        /// What the last one said, or that there is none.
        reason: String,
    },
    /// The limit passed.
    #[error("the disk server at {} did not answer {call} within {limit:?}", socket.display())]
    Timeout {
        /// Where it listens.
        socket: PathBuf,
        /// The call.
        call: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// The server is of another time.
    #[error(
        "ploopd (process {pid}, version {version}) at {} speaks protocol {theirs}, this ploop-snapshotter \
         speaks {ours}: stop that ploopd once its disks are detached, or install matching versions",
        socket.display()
    )]
    Protocol {
        /// Where it listens.
        socket: PathBuf,
        /// Its process.
        pid: u32,
        /// Its version.
        version: String,
        /// Its protocol.
        theirs: u32,
        /// Ours.
        ours: u32,
    },
    /// Somebody else looks after these servers.
    #[error(
        "the disk servers in {} belong to another ploop-snapshotter ({who}): stop it, or give this one a \
         run_dir of its own",
        run.display()
    )]
    Taken {
        /// The run directory.
        run: PathBuf,
        /// What its lock says about the holder.
        who: String,
    },
    /// A server could not be started.
    #[error("cannot start the disk server {}: {reason}", binary.display())]
    Start {
        /// The program.
        binary: PathBuf,
        /// What went wrong, and where to look.
        reason: String,
    },
    /// A file of ours around the start failed.
    #[error("cannot {act} {}", path.display())]
    Host {
        /// What was tried.
        act: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The server refused, with a reason.
    #[error("{call}: {message}")]
    Refused {
        /// The call.
        call: &'static str,
        /// What kind of refusal.
        kind: Kind,
        /// The server's words.
        message: String,
    },
    /// The server's answer breaks the contract.
    #[error("the disk server's answer to {call} makes no sense: {what}")]
    Answer {
        /// The call.
        call: &'static str,
        /// What is wrong with it.
        what: String,
    },
}

impl Error {
    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Unavailable { .. }
            | Self::Broken { .. }
            | Self::NoneTakes { .. }
            | Self::Start { .. }
            | Self::Host { .. } => Kind::Unavailable,
            Self::Timeout { .. } => Kind::Timeout,
            Self::Refused { kind, .. } => *kind,
            Self::Protocol { .. } | Self::Answer { .. } | Self::Taken { .. } => Kind::Other,
        }
    }

    /// Reads a gRPC status: a refusal of the server, or a connection that broke.
    pub(super) fn from_status(
        call: &'static str,
        socket: &std::path::Path,
        status: &Status,
    ) -> Self {
        // A status with a source was made on our side, from a connection that failed.
        let broken = std::error::Error::source(status).is_some();
        let kind = match status.code() {
            Code::NotFound => Kind::NotFound,
            Code::FailedPrecondition | Code::AlreadyExists | Code::Aborted => Kind::Busy,
            Code::InvalidArgument | Code::OutOfRange => Kind::Invalid,
            Code::DataLoss => Kind::Corrupt,
            Code::ResourceExhausted => Kind::Exhausted,
            Code::Unavailable | Code::Cancelled => Kind::Unavailable,
            Code::DeadlineExceeded => Kind::Timeout,
            _ => Kind::Other,
        };
        if broken {
            let socket = socket.to_owned();
            let reason = root_cause(status);
            return if never_connected(status) {
                Self::Unavailable { socket, reason }
            } else {
                Self::Broken {
                    socket,
                    call,
                    reason,
                }
            };
        }
        let message = match status.code() {
            Code::Unimplemented => format!(
                "the ploopd that serves this disk is older than that call; it ends with its last disk \
                 ({})",
                status.message()
            ),
            _ => status.message().to_owned(),
        };
        Self::Refused {
            call,
            kind,
            message,
        }
    }
}

/// Was there nobody to connect to, so that nothing can have been done?
fn never_connected(status: &Status) -> bool {
    let mut error: Option<&dyn std::error::Error> = Some(status);
    while let Some(next) = error {
        if let Some(error) = next.downcast_ref::<io::Error>() {
            return matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
            );
        }
        error = next.source();
    }
    false
}

/// The last word of a chain of errors: the one that says what happened.
pub(super) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}
