//! What the host's disk refuses, told without a flood.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Errors of the host under one disk: a reader that tries a broken block again and again is told of once a second.
#[derive(Debug)]
pub(super) struct Complaints {
    since: Instant,
    /// The second, counted from `since`, from which on the next line may be written.
    next: AtomicU64,
    untold: AtomicU64,
}

impl Default for Complaints {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            next: AtomicU64::new(0),
            untold: AtomicU64::new(0),
        }
    }
}

impl Complaints {
    /// The host refused something of this disk, at this byte of it if it is known.
    pub(super) fn tell(&self, what: &str, disk: &str, at: Option<u64>, error: &io::Error) {
        if let Some(untold) = self.turn(self.since.elapsed().as_secs()) {
            tracing::error!(disk, at, untold, %error, "{what}");
        }
    }

    /// Is it time for a line, in this second? Answers how many were left out since the last.
    fn turn(&self, second: u64) -> Option<u64> {
        let due = self
            .next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
                (second >= next).then_some(second + 1)
            });
        if due.is_err() {
            self.untold.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.untold.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::Complaints;

    #[test]
    fn a_line_a_second_says_how_many_it_stands_for() {
        let complaints = Complaints::default();
        let turns = [0, 0, 0, 1, 1, 5, 6].map(|second| complaints.turn(second));
        let [first, again, third, next, last, later, end] = turns;
        assert_eq!((first, again, third), (Some(0), None, None));
        assert_eq!((next, last), (Some(2), None));
        assert_eq!((later, end), (Some(1), Some(0)));
    }
}
