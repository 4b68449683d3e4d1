//! Disk servers, as a client sees them: typed calls with time limits, and servers kept alive.
//!
//! Words of the wire stop here: what callers see are the plain types of `disk.rs`. Every call ends
//! within its limit, whatever a server does, and says which call it was.
//!
//! Several servers stand side by side, because the kernel gives a dead process's devices back one after
//! another and all at the end: many servers with few disks each are back sooner than one with all.
//! `servers` sends a call to the right one, `fleet` says which there are and which take new disks,
//! `supervise` looks after the process of each.

mod convert;
mod disk;
mod disks;
mod error;
mod fleet;
mod log;
mod places;
mod server;
mod servers;
mod start;
mod supervise;

pub use disk::{Access, Delta, Detached, Disk, DiskStats, Format, Hello, Latency, Seal};
pub use disks::Limits;
pub use error::{Error, Kind};
pub use servers::{Options, Seen, Servers};
pub use start::StartOptions;
