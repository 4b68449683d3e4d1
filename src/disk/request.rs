//! What a disk may be asked, and what it answers: the only table from errors to errno.

use std::fmt;
use std::io;

pub use rustix::io::Errno;

use crate::io::Piece;
use crate::units::{ByteRange, SECTOR};

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Fill the piece.
    Read,
    /// Write the piece; with `fua` it survives the power before the answer.
    Write {
        /// Force unit access.
        fua: bool,
    },
    /// Everything answered before this request survives the power before the answer.
    Flush,
    /// The bytes are of no interest any more. They read as before or as zeros, block by block.
    Discard,
    /// The bytes read as zeros from now on.
    WriteZeroes,
}

/// Called once with the request's piece (empty for a request without data) or an errno.
///
/// It runs on the disk's thread: it must not block and must not panic.
pub type Done = Box<dyn FnOnce(Result<Piece, Errno>) + Send>;

/// One request. Offsets and lengths are bytes, in multiples of [`SECTOR`].
pub struct Request {
    /// What to do.
    pub op: Op,
    /// Where; empty for a flush.
    pub range: ByteRange,
    /// The data; empty unless it is a read or a write.
    pub piece: Piece,
    /// Whom to tell.
    pub done: Done,
}

impl Request {
    /// Fill `piece` from byte `at`.
    #[must_use]
    pub fn read(at: u64, piece: Piece, done: Done) -> Self {
        Self {
            op: Op::Read,
            range: ByteRange::new(at, piece.len() as u64),
            piece,
            done,
        }
    }

    /// Write `piece` at byte `at`.
    #[must_use]
    pub fn write(at: u64, piece: Piece, fua: bool, done: Done) -> Self {
        Self {
            op: Op::Write { fua },
            range: ByteRange::new(at, piece.len() as u64),
            piece,
            done,
        }
    }

    /// Make everything answered so far survive the power.
    #[must_use]
    pub fn flush(done: Done) -> Self {
        Self {
            op: Op::Flush,
            range: ByteRange::new(0, 0),
            piece: Piece::empty(),
            done,
        }
    }

    /// Forget these bytes.
    #[must_use]
    pub fn discard(range: ByteRange, done: Done) -> Self {
        Self {
            op: Op::Discard,
            range,
            piece: Piece::empty(),
            done,
        }
    }

    /// Zero these bytes.
    #[must_use]
    pub fn write_zeroes(range: ByteRange, done: Done) -> Self {
        Self {
            op: Op::WriteZeroes,
            range,
            piece: Piece::empty(),
            done,
        }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("op", &self.op)
            .field("range", &self.range)
            .finish()
    }
}

/// Is this request one that a disk of `size` bytes can serve?
///
/// # Errors
/// `EINVAL` for what is not made of sectors, `EROFS` for a change of a read-only disk, `ENOSPC` for
/// a write past the end and `EINVAL` for anything else there (what the kernel's block layer answers).
pub fn admit(op: Op, range: ByteRange, size: u64, read_only: bool) -> Result<(), Errno> {
    if op == Op::Flush {
        return Ok(());
    }
    if read_only && op != Op::Read {
        return Err(Errno::ROFS);
    }
    if !range.start.is_multiple_of(SECTOR) || !range.len.is_multiple_of(SECTOR) {
        return Err(Errno::INVAL);
    }
    match range.start.checked_add(range.len) {
        Some(end) if end <= size => Ok(()),
        _ if matches!(op, Op::Write { .. }) => Err(Errno::NOSPC),
        _ => Err(Errno::INVAL),
    }
}

/// The host's word for what went wrong, as the block layer will see it.
#[must_use]
pub fn errno_of(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// Does the host lack space? Then the request waits instead of failing.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::NOSPC | Errno::DQUOT)
    )
}

#[cfg(test)]
mod tests {
    use super::{Errno, Op, admit};
    use crate::units::ByteRange;

    #[test]
    fn only_whole_sectors_inside_the_disk_are_admitted() {
        let write = Op::Write { fua: false };
        let size = 1 << 20;
        for (op, start, len, read_only, expected) in [
            (Op::Read, 0, 512, true, Ok(())),
            (Op::Read, size - 512, 512, false, Ok(())),
            (Op::Read, size, 512, false, Err(Errno::INVAL)),
            (Op::Read, 1, 512, false, Err(Errno::INVAL)),
            (Op::Read, 0, 511, false, Err(Errno::INVAL)),
            (write, 0, 512, true, Err(Errno::ROFS)),
            (write, size - 512, 1024, false, Err(Errno::NOSPC)),
            (write, u64::MAX - 511, 512, false, Err(Errno::NOSPC)),
            (Op::Discard, size, 512, false, Err(Errno::INVAL)),
            (Op::WriteZeroes, 0, size, true, Err(Errno::ROFS)),
            (Op::Flush, 0, 0, true, Ok(())),
        ] {
            assert_eq!(
                admit(op, ByteRange::new(start, len), size, read_only),
                expected,
                "{op:?}"
            );
        }
    }
}
