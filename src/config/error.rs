//! Why a configuration cannot be used: always with the file, and with the line where there is one.

use std::io;
use std::path::PathBuf;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is missing or unreadable.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// Something in it is wrong.
    #[error("{}:{line}:{column}: {reason}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// The configuration cannot be written down again.
    #[error("cannot print the configuration")]
    Print(#[from] toml::ser::Error),
}
