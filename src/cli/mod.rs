//! The verbs a person types: `ploop init`, `info`, `check`, `export`, and what a node's keeper asks:
//! `preflight`, `release-devices`, `end-containers`, and of the daemon that runs there `ls`, `df`, `tree`, `resize`.
//!
//! The former work on files at rest. Whatever a disk server has open for writing is locked, and is left
//! to it. Only `output` writes to the terminal; a verb answers how it went, and `run` makes that the exit
//! code.

mod check;
mod check_root;
mod end_containers;
mod export;
mod files;
mod host;
mod info;
mod init;
mod listing;
mod node;
mod output;
mod preflight;
mod release;
mod run;
mod verdict;

pub use run::run;
