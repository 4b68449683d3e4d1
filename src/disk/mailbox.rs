//! Letters to a shard from other threads: a queue and a bell.
//!
//! The bell is an eventfd that the shard reads through its ring, so that it sleeps in one place. It
//! is rung once for any number of letters.

use std::collections::VecDeque;
use std::fmt;
use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

use crate::io::{Piece, Uring};

/// A queue that many threads fill and one empties.
pub(super) struct Mailbox<T> {
    /// Held for a push or a pop, never across an await; no other lock is taken under it.
    /// `None` once nobody reads them any more.
    letters: Mutex<Option<VecDeque<T>>>,
    bell: Uring,
    rung: AtomicBool,
}

impl<T> fmt::Debug for Mailbox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").finish_non_exhaustive()
    }
}

impl<T> Mailbox<T> {
    pub(super) fn new() -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC)?;
        Ok(Self {
            letters: Mutex::new(Some(VecDeque::new())),
            bell: Uring::new(fs::File::from(bell))?,
            rung: AtomicBool::new(false),
        })
    }

    /// Puts a letter in. Never blocks.
    ///
    /// # Errors
    /// The letter, if nobody reads them any more.
    pub(super) fn put(&self, letter: T) -> Result<(), T> {
        match self.lock().as_mut() {
            Some(letters) => letters.push_back(letter),
            None => return Err(letter),
        }
        if !self.rung.swap(true, Ordering::AcqRel) {
            // The counter of an eventfd that is read on every ring cannot be full.
            let _ = rustix::io::write(self.bell.as_file(), &1_u64.to_ne_bytes_for_eventfd());
        }
        Ok(())
    }

    /// Waits for the bell on this thread's ring.
    pub(super) async fn wait(&self, scratch: &Piece) -> io::Result<()> {
        self.bell.read_once(scratch.clone()).await?;
        // Before the queue is emptied: whoever puts a letter in from here on rings again.
        self.rung.store(false, Ordering::Release);
        Ok(())
    }

    /// The next letter.
    pub(super) fn take(&self) -> Option<T> {
        self.lock().as_mut()?.pop_front()
    }

    /// Nobody reads letters from now on; answers those that nobody has read.
    pub(super) fn shut(&self) -> VecDeque<T> {
        self.lock().take().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Option<VecDeque<T>>> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The eventfd's own number format.
trait Eventfd {
    fn to_ne_bytes_for_eventfd(self) -> [u8; 8];
}

impl Eventfd for u64 {
    #[expect(
        clippy::host_endian_bytes,
        reason = "the kernel's interface, not a file's layout"
    )]
    fn to_ne_bytes_for_eventfd(self) -> [u8; 8] {
        self.to_ne_bytes()
    }
}
