//! How long requests took, in a few steps from a tenth of a millisecond to ten seconds.

use std::time::Duration;

use super::request::Op;
use super::stats::Counter;

/// The steps' upper bounds in nanoseconds; what took longer is behind the last.
pub const BOUNDS: [u64; 9] = [
    100_000,
    500_000,
    1_000_000,
    5_000_000,
    10_000_000,
    50_000_000,
    250_000_000,
    1_000_000_000,
    10_000_000_000,
];

/// What requests of one kind took so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// Requests that took at most the bound of the same place in [`BOUNDS`] and longer than the one
    /// before; the last place has those that took longer than all.
    pub counts: [u64; BOUNDS.len() + 1],
    /// Nanoseconds that all of them took together.
    pub nanoseconds: u64,
}

/// What a disk's requests took so far, from their coming to the disk to its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    /// Reads.
    pub read: Latency,
    /// Writes, those that have to survive the power too.
    pub write: Latency,
    /// Flushes.
    pub flush: Latency,
    /// Discards and write-zeroes.
    pub discard: Latency,
}

/// The counters behind [`Latencies`].
#[derive(Debug, Default)]
pub(super) struct Clock {
    read: Steps,
    write: Steps,
    flush: Steps,
    discard: Steps,
}

#[derive(Debug, Default)]
struct Steps {
    counts: [Counter; BOUNDS.len() + 1],
    nanoseconds: Counter,
}

impl Clock {
    pub(super) fn took(&self, op: Op, time: Duration) {
        match op {
            Op::Read => &self.read,
            Op::Write { .. } => &self.write,
            Op::Flush => &self.flush,
            Op::Discard | Op::WriteZeroes => &self.discard,
        }
        .add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(super) fn read(&self) -> Latencies {
        Latencies {
            read: self.read.read(),
            write: self.write.read(),
            flush: self.flush.read(),
            discard: self.discard.read(),
        }
    }
}

impl Steps {
    fn add(&self, nanoseconds: u64) {
        let step = BOUNDS.partition_point(|bound| *bound < nanoseconds);
        if let Some(count) = self.counts.get(step) {
            count.add(1);
        }
        self.nanoseconds.add(nanoseconds);
    }

    fn read(&self) -> Latency {
        let mut counts = [0; BOUNDS.len() + 1];
        for (to, from) in counts.iter_mut().zip(&self.counts) {
            *to = from.get();
        }
        Latency {
            counts,
            nanoseconds: self.nanoseconds.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BOUNDS, Clock, Duration, Op};

    #[test]
    fn a_time_falls_into_the_first_step_that_is_long_enough() {
        let clock = Clock::default();
        let last = BOUNDS[BOUNDS.len() - 1];
        let times = [0, BOUNDS[0], BOUNDS[0] + 1, last, last + 1, 60 * last];
        for time in times {
            clock.took(Op::Write { fua: true }, Duration::from_nanos(time));
        }
        clock.took(Op::Flush, Duration::from_micros(700));
        let seen = clock.read();
        assert_eq!(seen.write.counts, [2, 1, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(seen.write.nanoseconds, times.iter().sum::<u64>());
        assert_eq!(seen.flush.counts, [0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(seen.read, super::Latency::default());
    }
}
