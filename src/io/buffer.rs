//! Memory for I/O: aligned, shared with the kernel while an operation runs, pooled.
//!
//! A [`Piece`] lies in our own memory, or in a request's pages that stay with the kernel
//! ([`Registered`]). A file takes either; only a ring can read and write the second kind. What may
//! meet both kinds is fallible; what needs our own memory says so.
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
use std::io;
use std::ptr::NonNull;
use std::sync::{Arc, LazyLock};

use super::registered::Registered;

/// Strictest alignment that O_DIRECT asks for.
const ALIGN: usize = 4096;

/// Page-aligned zeroed memory, or a slot with a request's pages.
#[derive(Debug)]
pub struct Buffer {
    home: Home,
    len: usize,
}

#[derive(Debug)]
enum Home {
    Memory(NonNull<u8>),
    /// The pages in a slot, and the address of the first byte there.
    Slot(Registered, usize),
}

// SAFETY: the memory belongs to the buffer alone, and is touched only by raw copies.
unsafe impl Send for Buffer {}
// SAFETY: as above; a race between two copies mixes bytes, as two writers of one file do.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// `len` zeroed bytes, more than none.
    #[must_use]
    pub fn new(len: usize) -> Arc<Self> {
        let len = len.max(1);
        let layout = layout(len);
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else {
            handle_alloc_error(layout)
        };
        Arc::new(Self {
            home: Home::Memory(start),
            len,
        })
    }

    /// Its size in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never true: a buffer has at least one byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }
}

fn layout(len: usize) -> Layout {
    Layout::from_size_align(len, ALIGN)
        .expect("an I/O buffer is far smaller than the address space")
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Home::Memory(start) = self.home {
            // SAFETY: allocated in `new` with this layout; every piece holds the buffer, so none is
            // left.
            unsafe { dealloc(start.as_ptr(), layout(self.len)) }
        }
    }
}

/// Where the kernel finds the bytes of a piece.
#[derive(Clone, Copy, Debug)]
pub(super) enum Address {
    /// In our memory.
    Memory(*mut u8),
    /// In this slot of the ring, at this address there.
    Slot(u16, *mut u8),
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

    /// The first `len` bytes of the requests that come through a slot.
    ///
    /// Allocates: make one for a slot, as long as its longest request, and cut it for each request.
    #[must_use]
    pub fn registered(slot: Registered, len: usize) -> Self {
        // The kernel counts the addresses in a request's pages from zero.
        Self::in_slot(slot, 0, len)
    }

    pub(super) fn in_slot(slot: Registered, first: usize, len: usize) -> Self {
        let home = Home::Slot(slot, first);
        let buffer = Arc::new(Buffer { home, len });
        Self {
            buffer,
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

    /// Do the bytes stay with the kernel? Then only a ring's file and the fallible acts here reach
    /// them.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        matches!(self.buffer.home, Home::Slot(..))
    }

    /// Where the bytes are, for the kernel.
    pub(super) fn address(&self) -> Address {
        match &self.buffer.home {
            Home::Memory(_) => Address::Memory(self.as_ptr()),
            Home::Slot(slot, first) => Address::Slot(
                slot.index,
                std::ptr::without_provenance_mut(first + self.start),
            ),
        }
    }

    /// Where the bytes are in our memory.
    ///
    /// # Panics
    /// If they are not there.
    fn as_ptr(&self) -> *mut u8 {
        let Home::Memory(memory) = &self.buffer.home else {
            panic!("the bytes of a request stay with the kernel; copy them out first")
        };
        // SAFETY: `start` lies inside the allocation.
        unsafe { memory.as_ptr().add(self.start) }
    }

    /// Overwrites the bytes from `at` on.
    ///
    /// # Panics
    /// If they do not fit, or the piece is not in our memory.
    pub fn copy_from(&self, at: usize, bytes: &[u8]) {
        let target = self.slice(at, bytes.len());
        // SAFETY: `target` has room for `bytes`; a borrowed slice never overlaps our own allocation,
        // to which no reference exists.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), target.as_ptr(), bytes.len()) }
    }

    /// Copies all of `other` over the bytes from `at` on.
    ///
    /// # Errors
    /// If one of them stays with the kernel and the kernel refuses the copy; `Unsupported` if both do.
    ///
    /// # Panics
    /// If they do not fit.
    pub fn copy_from_piece(&self, at: usize, other: &Self) -> io::Result<()> {
        let target = self.slice(at, other.len);
        match (&self.buffer.home, &other.buffer.home) {
            (Home::Memory(_), Home::Memory(_)) => {
                // SAFETY: both are that long; `copy` allows them to overlap.
                unsafe { std::ptr::copy(other.as_ptr(), target.as_ptr(), other.len) }
                Ok(())
            }
            (Home::Memory(_), Home::Slot(slot, _)) => {
                target.with_bytes_mut(|bytes| slot.copy_out(other.start, bytes))
            }
            (Home::Slot(slot, _), Home::Memory(_)) => {
                other.with_bytes(|bytes| slot.copy_in(target.start, bytes))
            }
            (Home::Slot(..), Home::Slot(..)) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Copies the bytes out.
    ///
    /// # Panics
    /// If `into` is longer than this piece, or the piece is not in our memory.
    pub fn copy_to(&self, into: &mut [u8]) {
        let source = self.slice(0, into.len());
        // SAFETY: `source` is as long as `into`, and a borrowed slice never overlaps our allocation.
        unsafe { std::ptr::copy_nonoverlapping(source.as_ptr(), into.as_mut_ptr(), into.len()) }
    }

    /// The bytes, copied out.
    ///
    /// # Panics
    /// If the piece is not in our memory.
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
    ///
    /// # Panics
    /// If the piece is not in our memory.
    pub fn with_bytes<T>(&self, look: impl FnOnce(&[u8]) -> T) -> T {
        // SAFETY: the bytes are initialised and stay allocated during the call; the caller sees to it
        // that nobody writes them meanwhile.
        look(unsafe { std::slice::from_raw_parts(self.as_ptr(), self.len) })
    }

    /// Lets `fill` write the bytes without a copy. The rules of [`Piece::with_bytes`] hold here too.
    ///
    /// # Panics
    /// If the piece is not in our memory.
    pub fn with_bytes_mut<T>(&self, fill: impl FnOnce(&mut [u8]) -> T) -> T {
        // SAFETY: as in `with_bytes`; the caller also sees to it that nobody reads them meanwhile.
        fill(unsafe { std::slice::from_raw_parts_mut(self.as_ptr(), self.len) })
    }

    /// Overwrites everything with zeros.
    ///
    /// # Errors
    /// If the bytes stay with the kernel and it refuses the copy.
    pub fn fill_zero(&self) -> io::Result<()> {
        match &self.buffer.home {
            Home::Memory(_) => {
                // SAFETY: the piece lies inside its buffer.
                unsafe { std::ptr::write_bytes(self.as_ptr(), 0, self.len) }
                Ok(())
            }
            Home::Slot(slot, _) => slot.fill_zero(self.start, self.len),
        }
    }
}

/// A file that this thread reads and writes itself takes only our own memory.
pub(super) fn ours(piece: &Piece) -> io::Result<()> {
    if piece.is_registered() {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "only a ring's file can read and write a request's pages in the kernel",
        ));
    }
    Ok(())
}

/// Buffers of one size, used again and again by one thread.
#[derive(Debug)]
pub struct Pool {
    size: usize,
    /// How many buffers that nobody uses are kept.
    most: usize,
    free: RefCell<Vec<Arc<Buffer>>>,
}

/// What a pool keeps of buffers that nobody uses: enough for a shard under load, and a burst beyond it
/// leaves nothing behind.
const KEPT: usize = 8 << 20;

impl Pool {
    /// An empty pool of buffers of `size` bytes.
    #[must_use]
    pub fn new(size: usize) -> Self {
        let most = (KEPT / size.max(1)).max(1);
        Self {
            size,
            most,
            free: RefCell::new(Vec::with_capacity(most.min(KEPT / 4096))),
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
        let mut free = self.free.borrow_mut();
        if piece.buffer.len() == self.size && free.len() < self.most {
            free.push(piece.buffer);
        }
    }
}
