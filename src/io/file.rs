//! The narrow waist: what an image needs of a file, and nothing more.

use std::future::Future;
use std::io;

use futures_util::FutureExt;

use super::Piece;
use crate::units::ByteRange;

/// One file, in seven verbs.
///
/// Offsets and lengths are bytes. Whoever holds the file says how they must be aligned
/// ([`File::alignment`]); a piece's memory is always aligned well enough.
///
/// The futures belong to the thread that made them. Dropping one does not stop the I/O; the piece's
/// memory stays alive until the kernel is done with it.
#[expect(
    clippy::len_without_is_empty,
    reason = "nobody asks an image file whether it is empty"
)]
pub trait File: Send + Sync + 'static {
    /// Fills `into` from offset `at`. Bytes past the end of the file read as zeros.
    fn read_at(&self, at: u64, into: Piece) -> impl Future<Output = io::Result<()>>;

    /// Writes all of `from` at offset `at`. Grows the file if need be.
    fn write_at(&self, at: u64, from: Piece) -> impl Future<Output = io::Result<()>>;

    /// Data, and what is needed to find it again, survive the power (fdatasync).
    fn sync(&self) -> impl Future<Output = io::Result<()>>;

    /// Makes the range read as zeros and gives its space back to the host (punches a hole).
    fn zero(&self, range: ByteRange) -> impl Future<Output = io::Result<()>>;

    /// Sets the length; new bytes read as zeros.
    fn set_len(&self, len: u64) -> impl Future<Output = io::Result<()>>;

    /// The length.
    ///
    /// # Errors
    /// What the host says.
    fn len(&self) -> io::Result<u64>;

    /// The next run of bytes, at or after `from`, that is not a hole; `None` if only a hole follows.
    ///
    /// # Errors
    /// What the host says.
    fn next_data(&self, from: u64) -> io::Result<Option<ByteRange>>;

    /// Every offset and length of a read or write must be a multiple of this: 1, 512 or 4096.
    fn alignment(&self) -> u64 {
        1
    }
}

/// The answer of a future that never waits: for [`super::Direct`] and [`super::Memory`].
///
/// # Panics
/// If the future has to wait, that is, if some file below it is a ring's.
pub fn now<T>(future: impl Future<Output = T>) -> T {
    future
        .now_or_never()
        .expect("direct and memory files answer at once")
}
