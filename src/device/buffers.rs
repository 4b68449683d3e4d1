//! Buffers for requests whose bytes are copied: one pool a thread, of bounded size.
//!
//! They come in two sizes: most requests are short, and a pool keeps only so many bytes. With long
//! ones alone a burst of short requests made, zeroed and freed a MiB for each.
//!
//! However many devices there are, a thread lends only so many buffers at a time; who finds none waits.
//! That is no deadlock: whoever has one asks for no second, and gives it back when its request is done. A write may have
//! to wait for the host's space until then, so reads have buffers of their own.

use std::ops::Deref;

use super::permits::{Permit, Permits};
use crate::io::{Piece, Pool};

/// Bytes of a short buffer: a cluster of the default size.
const SHORT: usize = 64 << 10;

/// The buffers of one thread.
pub(super) struct Buffers {
    short: Pool,
    long: Pool,
    size: usize,
    permits: Permits,
}

impl Buffers {
    /// At most `most` buffers of `size` bytes.
    pub(super) fn new(size: usize, most: usize) -> Self {
        Self {
            short: Pool::new(SHORT.min(size)),
            long: Pool::new(size),
            size,
            permits: Permits::new(most),
        }
    }

    /// The first `len` bytes of a buffer, when one is free; `None` if none is that long.
    pub(super) async fn lend(&self, len: usize) -> Option<Lent<'_>> {
        let permit = self.permits.take().await;
        let whole = if len <= SHORT.min(self.size) {
            self.short.take()
        } else {
            self.long.take()
        };
        if len > whole.len() {
            self.take_back(whole);
            return None;
        }
        let part = whole.slice(0, len);
        Some(Lent {
            buffers: self,
            whole,
            part,
            _permit: permit,
        })
    }

    fn take_back(&self, whole: Piece) {
        if whole.len() < self.size {
            self.short.give(whole);
        } else {
            self.long.give(whole);
        }
    }
}

/// A part of a buffer that goes back when it is dropped.
pub(super) struct Lent<'a> {
    buffers: &'a Buffers,
    whole: Piece,
    part: Piece,
    _permit: Permit<'a>,
}

impl Deref for Lent<'_> {
    type Target = Piece;

    fn deref(&self) -> &Piece {
        &self.part
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.buffers.take_back(self.whole.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use async_executor::LocalExecutor;

    use super::Buffers;

    #[test]
    fn a_burst_of_short_requests_finds_the_buffers_of_the_one_before() {
        let buffers = Buffers::new(1 << 20, 64);
        let burst = || {
            let lent: Vec<_> = (0..64)
                .map(|_| crate::io::now(buffers.lend(4096)).unwrap())
                .collect();
            let mut places: Vec<_> = lent
                .iter()
                .map(|buffer| buffer.with_bytes(<[u8]>::as_ptr))
                .collect();
            places.sort_unstable();
            places
        };
        assert_eq!(burst(), burst());
    }

    #[test]
    fn who_finds_none_waits_until_one_is_back() {
        let buffers = Buffers::new(4096, 1);
        let got = Cell::new(0);
        let executor = LocalExecutor::new();
        let first = crate::io::now(buffers.lend(512)).unwrap();
        assert_eq!(first.len(), 512);
        for _ in 0..2 {
            executor
                .spawn(async {
                    assert!(buffers.lend(4096).await.is_some());
                    got.set(got.get() + 1);
                })
                .detach();
        }
        while executor.try_tick() {}
        assert_eq!(got.get(), 0);
        drop(first);
        while executor.try_tick() {}
        assert_eq!(got.get(), 2);
        assert!(crate::io::now(buffers.lend(4097)).is_none());
        assert!(crate::io::now(buffers.lend(1)).is_some());
    }
}
