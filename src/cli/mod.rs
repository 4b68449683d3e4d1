//! The verbs a person types: `ploop init`, `info`, `check`, `export`.
//!
//! They work on files at rest. Whatever a disk server has open for writing is locked, and is left to
//! it. Only `output` writes to the terminal; a verb answers how it went, and `run` makes that the exit
//! code.

mod check;
mod export;
mod files;
mod info;
mod init;
mod output;
mod run;
mod verdict;

pub use run::run;
