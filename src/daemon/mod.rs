//! `ploop-snapshotter`: built from the configuration, in order, and taken down in order.
//!
//! Up: log, disk servers, metrics, snapshots (which recover first), doors. Down: the same backwards, and
//! without the disks: they belong to the disk server, so that containers go on while we are away.

mod containers;
mod error;
mod numbers;
mod remarks;
mod run;
mod sizes;

pub use error::Error;
pub use run::{Setup, run};
