//! The file system inside a disk, whichever kind it is of.
//!
//! What is chosen decides which kind is made. Which one a disk has the disk itself says: an image that was unpacked as one
//! kind stays that, whatever its snapshotter's name makes now.

mod choices;
mod error;
mod kind;
mod make;
mod resize;
mod superblock;
mod tools;

pub use choices::{Choices, Layout};
pub use error::{Error, Trouble};
pub use kind::Kind;
pub use make::make;
pub use resize::{grow_ext4, grow_xfs, keep_user_quota, resize_ext4, spent_journal};
pub use superblock::{Superblock, torn};
pub use tools::Tools;
