//! Memory for I/O: aligned, shared with the kernel while an operation runs, pooled.
//!
//! A [`Buffer`] is like a file in one respect: several [`Piece`]s may name overlapping bytes of it, and
//! whoever writes them at the same time gets a mixture. Only raw copies touch the bytes, never a Rust
//! reference, so that the kernel may write them too.
#![expect(
    unsafe_code,
    reason = "memory that the kernel reads and writes while we hold it"
)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::ptr::NonNull;
use std::sync::{Arc, LazyLock};

/// Strictest alignment that O_DIRECT asks for.
const ALIGN: usize = 4096;

/// Page-aligned zeroed memory.
#[derive(Debug)]
pub struct Buffer {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the memory belongs to the buffer alone, and is touched only by raw copies.
unsafe impl Send for Buffer {}
// SAFETY: as above; a race between two copies mixes bytes, as two writers of one file do.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// `len` zeroed bytes, more than none.
    #[must_use]
    pub fn new(len: usize) -> Arc<Self> {
        let layout = Layout::from_size_align(len.max(1), ALIGN)
            .expect("an I/O buffer is far smaller than the address space");
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else {
            handle_alloc_error(layout)
        };
        Arc::new(Self { start, layout })
    }

    /// Its size in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.layout.size()
    }

    /// Never true: a buffer has at least one byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout; every piece holds the buffer, so none is left.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

/// A run of bytes of a buffer. Cheap to clone and to cut.
#[derive(Clone, Debug)]
pub struct Piece {
    buffer: Arc<Buffer>,
    start: usize,
    len: usize,
}

impl Piece {
    /// A new zeroed buffer of `len` bytes, whole.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        Self {
            buffer: Buffer::new(len),
            start: 0,
            len,
        }
    }

    /// No bytes at all.
    #[must_use]
    pub fn empty() -> Self {
        static NOTHING: LazyLock<Arc<Buffer>> = LazyLock::new(|| Buffer::new(1));
        Self {
            buffer: Arc::clone(&NOTHING),
            start: 0,
            len: 0,
        }
    }

    /// A new buffer with these bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let piece = Self::zeroed(bytes.len());
        piece.copy_from(0, bytes);
        piece
    }

    /// Bytes in this piece.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Has it no bytes?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// `len` bytes of this piece from `start`.
    ///
    /// # Panics
    /// If they are not all inside.
    #[must_use]
    pub fn slice(&self, start: usize, len: usize) -> Self {
        assert!(
            start <= self.len && len <= self.len - start,
            "a slice lies inside its piece"
        );
        Self {
            buffer: Arc::clone(&self.buffer),
            start: self.start + start,
            len,
        }
    }

    /// Where the bytes are, for the kernel.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        // SAFETY: `start` lies inside the allocation.
        unsafe { self.buffer.start.as_ptr().add(self.start) }
    }

    /// Overwrites the bytes from `at` on.
    ///
    /// # Panics
    /// If they do not fit.
    pub fn copy_from(&self, at: usize, bytes: &[u8]) {
        let target = self.slice(at, bytes.len());
        // SAFETY: `target` has room for `bytes`; a borrowed slice never overlaps our own allocation,
        // to which no reference exists.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), target.as_ptr(), bytes.len()) }
    }

    /// Copies all of `other` over the bytes from `at` on.
    ///
    /// # Panics
    /// If they do not fit.
    pub fn copy_from_piece(&self, at: usize, other: &Self) {
        let target = self.slice(at, other.len);
        // SAFETY: both are that long; `copy` allows them to overlap.
        unsafe { std::ptr::copy(other.as_ptr(), target.as_ptr(), other.len) }
    }

    /// Copies the bytes out.
    ///
    /// # Panics
    /// If `into` is longer than this piece.
    pub fn copy_to(&self, into: &mut [u8]) {
        let source = self.slice(0, into.len());
        // SAFETY: `source` is as long as `into`, and a borrowed slice never overlaps our allocation.
        unsafe { std::ptr::copy_nonoverlapping(source.as_ptr(), into.as_mut_ptr(), into.len()) }
    }

    /// The bytes, copied out.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        self.copy_to(&mut bytes);
        bytes
    }

    /// Gives the bytes to `look` without a copy.
    ///
    /// Call it only when no operation on these bytes runs, for example on a request's data once the
    /// disk has answered.
    pub fn with_bytes<T>(&self, look: impl FnOnce(&[u8]) -> T) -> T {
        // SAFETY: the bytes are initialised and stay allocated during the call; the caller sees to it
        // that nobody writes them meanwhile.
        look(unsafe { std::slice::from_raw_parts(self.as_ptr(), self.len) })
    }

    /// Lets `fill` write the bytes without a copy. The rule of [`Piece::with_bytes`] holds here too.
    pub fn with_bytes_mut<T>(&self, fill: impl FnOnce(&mut [u8]) -> T) -> T {
        // SAFETY: as in `with_bytes`; the caller also sees to it that nobody reads them meanwhile.
        fill(unsafe { std::slice::from_raw_parts_mut(self.as_ptr(), self.len) })
    }

    /// Overwrites everything with zeros.
    pub fn fill_zero(&self) {
        // SAFETY: the piece lies inside its buffer.
        unsafe { std::ptr::write_bytes(self.as_ptr(), 0, self.len) }
    }
}

/// Buffers of one size, used again and again by one thread.
#[derive(Debug)]
pub struct Pool {
    size: usize,
    free: RefCell<Vec<Arc<Buffer>>>,
}

impl Pool {
    /// An empty pool of buffers of `size` bytes.
    #[must_use]
    pub fn new(size: usize) -> Self {
        Self {
            size,
            free: RefCell::new(Vec::new()),
        }
    }

    /// A buffer with whatever it held before.
    #[must_use]
    pub fn take(&self) -> Piece {
        let mut free = self.free.borrow_mut();
        // A buffer whose operation was abandoned is still the kernel's: leave it until it is ours alone.
        let ready = free
            .iter()
            .rposition(|buffer| Arc::strong_count(buffer) == 1);
        let buffer = ready.map_or_else(|| Buffer::new(self.size), |index| free.swap_remove(index));
        Piece {
            buffer,
            start: 0,
            len: self.size,
        }
    }

    /// Gives a buffer back for later.
    pub fn give(&self, piece: Piece) {
        if piece.buffer.len() == self.size {
            self.free.borrow_mut().push(piece.buffer);
        }
    }
}
