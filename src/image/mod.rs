//! One open image file: its header, its index, its room for new clusters.
//!
//! Two ways lead into a file. A sealed one is opened for reading and answers everything it maps
//! ([`Image::open_sealed`]); the top of a chain is opened for writing ([`ploop::open_top`]), written
//! page by page of its index, and sealed. Both refuse a file in which something cannot be true and
//! leave its bytes alone; [`check`] says everything that is wrong with it, and mends what can be
//! mended without losing anything.

pub mod check;
pub mod ploop;
pub mod raw;

mod any;
mod defect;
mod error;
mod gaps;
mod grow;
mod scan;
mod seal;

pub use any::{Format, Image};
pub use defect::{Defect, Severity};
pub use error::{Error, Kind};
pub use gaps::free;
pub use grow::{Grown, NotGrown, grow};
pub use seal::Seal;

pub use crate::format::ploop::Header;
