//! What a device is like, whichever way it reaches the kernel.

use std::path::PathBuf;

/// A disk as the kernel sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its node.
    pub path: PathBuf,
    /// The node's major number.
    pub major: u32,
    /// The node's minor number.
    pub minor: u32,
    /// A ublk device's own number, by which another server can take it over.
    pub number: Option<u32>,
}

/// How a device should look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Is nothing written to it?
    pub(super) read_only: bool,
    /// May it have to become larger while it is served?
    pub(super) will_grow: bool,
    /// Bytes of a logical block.
    pub(super) block: u32,
}
