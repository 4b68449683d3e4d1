//! What containerd may ask of us, in our own words.
//!
//! An active snapshot is a writable ploop delta over the sealed deltas of its parents, lowest a golden,
//! empty ext4 file system; a disk server shows it as a block device. Committing seals the delta, and it
//! becomes a parent. A view is a read-only device over a sealed chain, one for all views of it.
//!
//! Every act is written so that it may stop at any line, by `kill -9` or by the power:
//!
//! ```text
//! prepare   reserve key . make file . attach . READY         stopped: swept
//! commit    reserve name . flush . seal . COMMITTED          stopped: still active, seal or not
//! resize    disk . file system . RESIZED                     stopped: to be asked for again
//! remove    REMOVED . detach . unlink . forget               stopped: goes on at the next start
//! ```
//!
//! A word in capitals is one durable transaction of the store; containerd hears of an act only after it.

mod caller;
mod check;
mod commit;
mod device;
mod disks;
#[cfg(test)]
mod double;
mod error;
mod finding;
mod fit;
#[cfg(test)]
mod fixture;
mod golden;
mod kind;
mod layers;
mod lineage;
mod locks;
mod mend;
mod mounts;
mod options;
mod paths;
mod prepare;
mod query;
mod quota;
mod recover;
mod remove;
mod resize;
#[cfg(test)]
mod rest;
mod root;
mod shared;
mod sizes;
mod snapshotter;
mod steps;
mod survey;
mod words;

pub use caller::Caller;
pub use check::{Report, check};
pub use disks::Disks;
pub use error::Error;
pub use finding::{Fault, Finding, Named};
pub use kind::ErrorKind;
pub use mend::{Mended, repair};
pub use options::{NameOptions, Options};
pub use snapshotter::{Found, Snapshotter, Snapshotters};
pub use survey::{Inside, Seen, Survey};
pub use words::{Info, Kind, Labels, Mount, Usage};
