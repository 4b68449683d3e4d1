//! How much is measured: sizes, rounds, seconds.
//!
//! The rule it guards: a quick run measures the same things as a full one, only less of each.

/// One run's sizes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Bytes of each subject's disk.
    pub(crate) disk: u64,
    /// How often each timed case meets each subject. Rather many short rounds than few long ones: the speed of a machine that
    /// others use too changes within seconds, and quotients are of readings that are next to one another.
    pub(crate) rounds: usize,
    /// How often something is written onto a fresh snapshot.
    pub(crate) snapshots: usize,
    /// Seconds of one timed fio job.
    pub(crate) seconds: f64,
    /// Requests of a job whose requests are counted instead of its seconds.
    pub(crate) requests: u64,
    /// Requests written onto a fresh snapshot.
    pub(crate) fresh: u64,
    /// How often a call is timed.
    pub(crate) calls: usize,
    /// Idle disks at which density is read.
    pub(crate) densities: [usize; 3],
}

pub(crate) const MI: u64 = 1 << 20;

impl Plan {
    pub(crate) const FULL: Self = Self {
        disk: 512 * MI,
        rounds: 9,
        snapshots: 5,
        seconds: 1.0,
        requests: 4000,
        fresh: 3000,
        calls: 21,
        densities: [1, 50, 200],
    };

    /// For whoever works on the code: the ratios wobble, the counts do not.
    pub(crate) const QUICK: Self = Self {
        disk: 128 * MI,
        rounds: 3,
        snapshots: 3,
        seconds: 1.0,
        requests: 1000,
        fresh: 1000,
        calls: 7,
        densities: [1, 10, 50],
    };
}
