//! A chain that serves requests.
//!
//! ```text
//!   DiskHandle --letter--> shard thread: executor + io_uring
//!                             Disk::serve --ask--> chain (where? what does a write need?)
//!                                         --do---> the files, through the ring
//!                                         --keep-> pending file (level 1)
//!                             Disk::flush: data, sync, index, sync (level 2)
//! ```
//!
//! "Answered" has two levels, named the same everywhere. Level 1 survives the process: a write that
//! was answered is there after `kill -9`. Level 2 survives the power: what a flush or a FUA write
//! covered is there after a power cut.

#[cfg(test)]
mod allocations_tests;
mod complaints;
mod copying;
#[cfg(test)]
mod crash;
mod error;
mod executor;
mod finish;
mod flush;
mod front;
#[cfg(fuzzing)]
pub mod fuzzing;
mod gate;
mod grow;
mod handle;
mod hold;
mod latency;
mod lent;
mod mailbox;
mod open;
mod pending;
mod place;
mod read;
mod request;
mod resident;
mod serve;
mod shard;
mod shared;
mod stats;
#[cfg(test)]
mod watched;

pub use error::Error;
pub use front::{Front, Local, Spawner};
pub use handle::{DiskHandle, Options, Shards, Spec};
pub use latency::{BOUNDS, Latencies, Latency};
pub use pending::answered_for;
pub use request::{Done, Errno, Op, Request, admit, errno_of, is_full};
pub use stats::Stats;
