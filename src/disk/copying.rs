//! How many clusters a disk copies up at once.
//!
//! Each takes a cluster's memory until it is written, and on a full host that may be the whole of `space_wait`: a device has
//! 64 requests under way, a cluster up to 64 MiB, a node hundreds of devices. Who may not begin waits, and asks then
//! what is to be done, which may be another thing by now.
//!
//! That is no deadlock: whoever copies waits for the host, or for who makes the file longer, and neither waits for a copy;
//! whoever waits to begin holds nothing.

use super::place::Writable;
use crate::units::ClusterSize;

/// Bytes that one disk may have in its hands.
const MEMORY: u64 = 4 << 20;
/// So many clusters at least, however large they are.
const LEAST: u64 = 4;

/// One cluster that is being copied up.
pub(super) struct Copying<'a, F>(&'a Writable<F>);

impl<F> Writable<F> {
    /// Begins, unless there are enough already: then `changed` is opened when one of them has ended.
    pub(super) fn begin_copying(&self, size: ClusterSize) -> Option<Copying<'_, F>> {
        let count = self.copying.get();
        if count >= LEAST.max(MEMORY / size.bytes()) {
            return None;
        }
        self.copying.set(count + 1);
        Some(Copying(self))
    }
}

impl<F> Drop for Copying<'_, F> {
    fn drop(&mut self) {
        self.0.copying.set(self.0.copying.get() - 1);
        self.0.changed.open();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use crate::disk::request::{Errno, Op};
    use crate::disk::watched::{Asked, disk_of, read};
    use crate::io::Piece;
    use crate::units::{ByteRange, ClusterSize};

    const MIB: u64 = 1 << 20;
    const WRITE: Op = Op::Write { fua: false };

    type Answer<'a> = Pin<Box<dyn Future<Output = Result<(), Errno>> + 'a>>;

    /// Polls what has no answer until no answer comes any more; how many then wait.
    fn go_on(waiting: &mut Vec<Answer<'_>>, expected: Result<(), Errno>) -> usize {
        let mut context = Context::from_waker(Waker::noop());
        loop {
            let before = waiting.len();
            waiting.retain_mut(|answer| match answer.as_mut().poll(&mut context) {
                Poll::Ready(answer) => {
                    assert_eq!(answer, expected);
                    false
                }
                Poll::Pending => true,
            });
            if waiting.len() == before {
                return before;
            }
        }
    }

    /// On a full host every request of a device held a cluster of its own for minutes.
    #[test]
    fn who_waits_for_the_host_holds_only_so_much_memory() {
        let (disk, file) = disk_of(ClusterSize::new(MIB).unwrap(), 8);
        let piece = Piece::from_bytes(&[5; 512]);
        let write = |at| disk.serve(WRITE, ByteRange::new(at, 512), &piece);
        *file.slow_writes.lock().unwrap() = true;
        // The last is for a cluster that another one places, once it may.
        let places = (0..8).map(|cluster| cluster * MIB).chain([7 * MIB + 4096]);
        let mut waiting: Vec<Answer<'_>> = Vec::new();
        waiting.extend(places.map(|at| Box::pin(write(at)) as Answer<'_>));
        assert_eq!(go_on(&mut waiting, Ok(())), 9);
        assert_eq!(file.taken().len(), 4);
        *file.slow_writes.lock().unwrap() = false;
        assert_eq!(go_on(&mut waiting, Ok(())), 0);
        let asked = file.taken();
        let whole = |asked: &&Asked| matches!(asked, Asked::Write(_, MIB));
        assert_eq!(asked.iter().filter(whole).count(), 4, "{asked:?}");
        assert!(
            matches!(asked.last(), Some(Asked::Write(_, 512))),
            "{asked:?}"
        );
        assert_eq!((read(&disk, 7 * MIB), read(&disk, 7 * MIB + 4096)), (5, 5));
        assert_eq!(read(&disk, 7 * MIB + 512), 9);
    }

    #[test]
    fn whoever_waits_gets_an_answer_when_the_host_stays_full() {
        let (disk, file) = disk_of(ClusterSize::new(MIB).unwrap(), 8);
        let piece = Piece::from_bytes(&[5; 512]);
        let write = |at| disk.serve(WRITE, ByteRange::new(at, 512), &piece);
        *file.slow_writes.lock().unwrap() = true;
        let mut waiting: Vec<Answer<'_>> = Vec::new();
        waiting.extend((0..8).map(|cluster| Box::pin(write(cluster * MIB)) as Answer<'_>));
        assert_eq!(go_on(&mut waiting, Ok(())), 8);
        *file.fail_writes.lock().unwrap() = Some(Errno::NOSPC);
        *file.slow_writes.lock().unwrap() = false;
        assert_eq!(go_on(&mut waiting, Err(Errno::NOSPC)), 0);
        *file.fail_writes.lock().unwrap() = None;
        waiting.extend((0..8).map(|cluster| Box::pin(write(cluster * MIB)) as Answer<'_>));
        assert_eq!(go_on(&mut waiting, Ok(())), 0);
    }
}
