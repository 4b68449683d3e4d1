//! Bytes to meaning and back. Touches no file and holds no `unsafe`.

pub mod ploop;
mod probe;

pub use ploop::Error;
pub use probe::{Probe, probe};
