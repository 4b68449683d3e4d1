//! A chain that serves requests.

mod request;
mod stats;

pub use request::{Done, Errno, Op, Request, admit, errno_of, is_full};
pub use stats::Stats;
