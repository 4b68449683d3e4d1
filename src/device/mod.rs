//! A disk that the kernel sees.
//!
//! Today's transport works on every kernel: one FUSE file system for the whole server, a file for
//! each disk, and a loop device with direct I/O over each file. `Transport` is where ublk will stand
//! beside it. On FUSE a device dies with its server, and says so.

mod attach;
mod error;
mod files;
mod fuse;
mod leftovers;
mod loopback;
mod wish;

pub use attach::{Device, Devices, Options, Transport};
pub use error::Error;
pub use leftovers::Leftovers;
pub use wish::Wish;
