//! The file system inside a disk: made once as a golden file, checked, and read without mounting it.

mod error;
mod filesystem;
mod journal;
mod superblock;
mod tool;

pub use error::Error;
pub use filesystem::{Filesystem, Layout};
pub use journal::spent_journal;
pub use superblock::Superblock;
pub use tool::Tools;
