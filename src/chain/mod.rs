//! Many images, one disk. Moves no payload.
//!
//! ```text
//!            cluster:   0   1   2   3   4   5
//!   top      level 2            ▣   ▣              TopMap: private, changes
//!   sealed   level 1        ▣                  ┐
//!   base     level 0    ▣   ▣   ▣              ┘   Map: merged once, shared, never changes
//! ```
//!
//! A chain answers *where* bytes are and what a write needs ([`View`]); a disk does it.

mod error;
mod levels;
mod map;
mod open;
mod plan;
mod top;

pub use error::Error;
pub use levels::Base;
pub use map::{Level, MAX_LEVELS, Map, Spot, TopMap};
pub use open::{Chains, Delta, OpenTop};
pub use plan::{Run, Source, Step, View};
pub use top::Top;
