//! Seven verbs on one file, and what stands behind them.
//!
//! Everything above this room runs over [`Memory`] in a model test, over [`Direct`] in a tool and
//! over [`Uring`] in life. The verbs are async so that a ring can answer later; `Direct` and `Memory`
//! are always ready, so a tool calls them through [`now`] and needs no runtime.

mod buffer;
#[cfg(test)]
pub(crate) mod crash;
mod direct;
mod file;
mod inbox;
mod memory;
mod registered;
mod ring;
mod sabotage;
#[cfg(test)]
pub(crate) mod sectors;
#[cfg(test)]
pub(crate) mod stops;
mod uring;

pub use buffer::{Buffer, Piece, Pool};
pub use direct::Direct;
pub use file::{File, now};
pub use inbox::Inbox;
pub use memory::Memory;
pub use registered::Registered;
pub use ring::{Command, Ring, Setup, sleep};
pub(crate) use sabotage::{Bug, sabotaged};
#[cfg(test)]
pub(crate) use sabotage::{Hardship, bear, hardship, sabotage};
pub use uring::Uring;
