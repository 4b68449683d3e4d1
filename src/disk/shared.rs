//! What everybody may know of a disk while its own thread works.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::complaints::Complaints;
use super::latency::Clock;
use super::stats::Counters;
use crate::units::ClusterSize;

/// A disk's shape, counters and condition.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) id: String,
    size: AtomicU64,
    pub(super) cluster: ClusterSize,
    pub(super) depth: usize,
    pub(super) read_only: bool,
    pub(super) counters: Counters,
    pub(super) clock: Clock,
    pub(super) complaints: Complaints,
    failed: OnceLock<String>,
    closing: AtomicBool,
    growing: AtomicBool,
}

/// The disk is becoming larger, as long as this lives.
pub(super) struct Growing<'a>(&'a Shared);

impl Drop for Growing<'_> {
    fn drop(&mut self) {
        self.0.growing.store(false, Ordering::Relaxed);
    }
}

impl Shared {
    pub(super) fn new(
        id: String,
        size: u64,
        cluster: ClusterSize,
        depth: usize,
        read_only: bool,
    ) -> Self {
        Self {
            id,
            size: size.into(),
            cluster,
            depth,
            read_only,
            counters: Counters::default(),
            clock: Clock::default(),
            complaints: Complaints::default(),
            failed: OnceLock::new(),
            closing: AtomicBool::new(false),
            growing: AtomicBool::new(false),
        }
    }

    /// Bytes of the disk. It only grows, and only while nobody is served.
    pub(super) fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    pub(super) fn grow(&self, size: u64) {
        self.size.store(size, Ordering::Release);
    }

    /// Why the disk answers errors for good, if it does.
    pub(super) fn failed(&self) -> Option<&str> {
        self.failed.get().map(String::as_str)
    }

    /// From now on the disk answers errors.
    pub(super) fn fail(&self, why: &str) {
        if self.failed.set(why.to_owned()).is_ok() {
            tracing::error!(disk = self.id, why, "the disk answers errors from now on");
        }
    }

    /// Nobody waits for anything any more: the disk is being closed.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Does every request wait until the disk is larger? Then that must not wait for space.
    pub(super) fn is_growing(&self) -> bool {
        self.growing.load(Ordering::Relaxed)
    }

    /// From now on, as long as the answer lives, it is becoming larger.
    pub(super) fn growing(&self) -> Growing<'_> {
        self.growing.store(true, Ordering::Relaxed);
        Growing(self)
    }

    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// Everyone who waited is answered: the last flush may wait again.
    pub(super) fn reopen(&self) {
        self.closing.store(false, Ordering::Relaxed);
    }
}
