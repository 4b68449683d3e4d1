//! The gRPC door: containerd's snapshots service, one socket for each snapshotter name.
//!
//! containerd sets no limit on its calls, and a stuck one can stop a whole node. So every act runs in a
//! task of its own, under a limit: when that passes, the caller hears of it and the act goes on, but for a Prepare,
//! View or Commit: that one is undone, unless it is decided by then, and its caller hears how it ended.

mod acts;
mod convert;
mod error;
mod filter;
#[cfg(fuzzing)]
pub mod fuzzing;
mod listen;
mod method;
mod node;
mod options;
mod quote;
mod running;
mod snapshots;
mod status;

pub use acts::Acts;
pub use error::Error;
pub use filter::BadFilter;
pub use listen::{Doors, Name};
pub use method::Method;
pub use node::{Node, Owner, OwnerOf};
pub use options::{Ended, Observer, Options};
