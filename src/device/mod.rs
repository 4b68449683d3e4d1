//! A disk that the kernel sees.
//!
//! Two ways. Over *ublk* a disk is `/dev/ublkbN`; its requests reach the disk's own thread through that
//! thread's ring, and the device outlives this process: the next one takes it over. Where the kernel has
//! no ublk, one *FUSE* file system for the whole server shows a file for each disk, with a loop device
//! over each; such a device dies with its server, and says so.

mod attach;
mod buffers;
mod error;
mod files;
mod fuse;
mod lanes;
mod leftovers;
mod loopback;
mod looped;
mod mounts;
mod nodes;
mod permits;
mod shape;
mod slots;
mod ublk;
mod wish;

pub use attach::{Devices, Options, Transport};
pub use error::Error;
pub use leftovers::Leftovers;
pub use shape::Device;
pub use wish::Wish;
