//! ploopd's door: disks by id, over gRPC.
//!
//! `disks` translates, `serve` acts, `status` says errors in the wire's words. One act at a time for
//! one id; acts run to their end even if the caller has gone. What hangs together: an id's *wanted*
//! chain, the *claims* on its files, the open disk, its device, and the *registry* that lists them.

mod aliases;
mod build;
mod claims;
mod disks;
mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
mod lock;
mod process;
mod recover;
mod registry;
mod run;
mod serve;
mod status;
mod turns;
mod wanted;

pub use error::Error;
pub use process::{detach, prepare};
pub use run::{Left, Options, run};
