//! XFS inside a disk: made once as a golden file, looked at without mounting it, and grown while it is mounted.

mod error;
mod grow;
mod layout;
mod log;
mod make;
mod superblock;
mod tools;

pub use error::Error;
pub use grow::{grow_idle, grow_mounted};
pub use layout::{Layout, check_growth};
pub use log::torn;
pub use make::{check, make};
pub use superblock::{Superblock, is_xfs};
pub use tools::Tools;

#[cfg(test)]
mod fixture;
