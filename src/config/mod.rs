//! One TOML file for both daemons, and the checked options of every room.
//!
//! Rooms below declare the few options they need; this room fills them, so that no room but the
//! daemons knows the file. A value is checked where it is read: a wrong one is refused with its line.

mod check;
mod error;
mod file;
mod load;
mod rooms;
mod words;

pub use error::Error;
pub use file::{Config, DiskServer, Log, Metrics, NameSection, Nri, Service, Snapshots, Transport};
pub use load::DEFAULT_PATH;
pub use words::Name;
