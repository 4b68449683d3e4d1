//! ploop-snapshotter: a containerd snapshotter that gives every container a disk of its own.
//!
//! The rooms, floor by floor. Arrows run down only: a room may use rooms of the floors above it in
//! this list, as the table in `tests/architecture.rs` says.

pub mod causes;
pub mod failpoint;
pub mod lock;
pub mod mountinfo;
pub mod node;
pub mod program;
pub mod proto;
pub mod seat;
pub mod socket;
pub mod spawn;
pub mod tool;
pub mod units;

pub mod ext4;
pub mod format;
pub mod io;
pub mod nri;
pub mod observe;
pub mod store;
pub mod xfs;

pub mod filesystem;
pub mod image;
pub mod ublk;

pub mod chain;

pub mod disk;

pub mod device;

pub mod link;
pub mod server;

pub mod snapshot;

pub mod service;

pub mod config;

pub mod cli;

pub mod daemon;
