//! Why we do not talk with containerd's NRI.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a connection could not be had, or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens: containerd is not there, or its NRI is switched off.
    #[error(
        "nobody answers at {}: containerd is away, or its NRI is switched off (containerd.toml: [plugins.\"io.containerd.nri.v1.nri\"])",
        path.display()
    )]
    Absent {
        /// The socket.
        path: PathBuf,
    },
    /// The host does not let us.
    #[error("cannot connect to {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The other side is gone.
    #[error("containerd closed the connection")]
    Closed,
    /// The connection broke.
    #[error("the connection broke")]
    Broken(#[source] io::Error),
    /// What came is not what NRI sends.
    #[error("what came from the socket is not NRI: {what}")]
    Malformed {
        /// What was wrong with it.
        what: String,
    },
    /// We were not taken.
    #[error("containerd did not take us as a plugin: {words} (code {code})")]
    Refused {
        /// gRPC's code.
        code: i32,
        /// containerd's words.
        words: String,
    },
    /// Nothing came, or nothing could be sent.
    #[error("containerd did not {act} within {}", humantime::format_duration(*limit))]
    Silent {
        /// What was waited for.
        act: &'static str,
        /// For how long.
        limit: Duration,
    },
}

impl Error {
    pub(super) fn malformed(what: impl Into<String>) -> Self {
        Self::Malformed { what: what.into() }
    }

    /// An error while reading or writing. An end in the middle is an end.
    pub(super) fn of_stream(source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset => Self::Closed,
            _ => Self::Broken(source),
        }
    }
}
