//! What a transport needs of a disk.

use crate::disk::Request;

/// A disk that takes requests.
pub trait Front: Send + Sync + 'static {
    /// Takes a request; never blocks.
    fn submit(&self, request: Request);
    /// Bytes of the disk.
    fn size(&self) -> u64;
    /// Is nothing written to it?
    fn read_only(&self) -> bool;
}
