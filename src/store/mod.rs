//! What we promised to remember: snapshots, their parents, labels and stages.
//!
//! A snapshot is a [`Record`] with a number of our own ([`Id`]) that is never given twice; files and
//! disks are named by it, because keys are anybody's words. Keys live in *spaces*, one for each
//! snapshotter name; within a space active, view and committed snapshots share one key space, as
//! containerd wants it.
//!
//! ```text
//! meta      "version", "ids"         -> number
//! keys      (space, key)             -> id        who answers to this key now
//! records   id                       -> version byte, JSON
//! children  (parent's id or 0, id)   -> ()        0: stands on an empty file system
//! ```
//!
//! The store knows rules and no acts: it neither makes files nor attaches disks. Every method is one
//! transaction and may block on the host's disk.

mod db;
mod error;
#[cfg(test)]
mod fixture;
mod flaw;
mod ledger;
mod open;
mod read;
mod record;
mod tables;
#[cfg(test)]
mod witness;

pub use db::{New, Origin};
pub use error::Error;
pub use flaw::Flaw;
pub use ledger::Ledger;
pub use open::Store;
pub use record::{Id, Kind, Labels, Parent, Record, Seal, Stage, Timestamp, Usage};
#[cfg(test)]
pub(crate) use witness::{Moment, Witness, Written};
