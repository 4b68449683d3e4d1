//! What can go wrong while setting up what people see.

use std::io;
use std::net::SocketAddr;

use crate::socket;

/// Why logs or numbers cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A log was set up before.
    #[error("the log is already set up")]
    LogTwice,
    /// The HTTP door's TCP address cannot be had.
    #[error("cannot listen at {address} for metrics")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The HTTP door's unix socket cannot be had.
    #[error("cannot open the socket for metrics")]
    Socket(#[from] socket::Error),
    /// Two metrics have one name, or a name that Prometheus does not allow.
    #[error("cannot register a metric")]
    Metric(#[from] prometheus::Error),
}

impl Error {
    /// Has another process the address, perhaps one that is ending?
    #[must_use]
    pub fn is_taken(&self) -> bool {
        match self {
            Self::Listen { source, .. } => source.kind() == io::ErrorKind::AddrInUse,
            Self::Socket(error) => matches!(error, socket::Error::InUse { .. }),
            Self::LogTwice | Self::Metric(_) => false,
        }
    }
}
