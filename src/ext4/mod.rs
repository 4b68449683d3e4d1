//! The file system inside a disk: made once as a golden file, checked, and read without mounting it.

mod error;
mod filesystem;
mod journal;
mod layout;
mod superblock;
mod tools;
mod words;

pub use error::Error;
pub use filesystem::Filesystem;
pub use journal::spent_journal;
pub use layout::{Choices, Layout};
pub use superblock::{Superblock, is_ext4};
pub use tools::Tools;
pub use words::MkfsOptions;
