//! Disk servers, as a client sees them: typed calls with time limits, and a server kept alive.
//!
//! Words of the wire stop here: what callers see are the plain types of `disk.rs`. Every call ends
//! within its limit, whatever the server does, and says which call it was.

mod convert;
mod disk;
mod disks;
mod error;
mod start;
mod supervise;

pub use disk::{Delta, Detached, Disk, DiskStats, Format, Hello, Seal};
pub use disks::Limits;
pub use error::{Error, Kind};
pub use start::StartOptions;
pub use supervise::{Options, Servers};
