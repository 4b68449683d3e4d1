//! The writable level: its file, and fresh places in it.

use std::cell::{Cell, RefCell};
use std::ops::Range;

use super::flush::Rounds;
use super::gate::Gate;
use super::pending::{Kept, Pending};
use super::request::Errno;
use super::serve::Disk;
use crate::chain::Top;
use crate::image::Header;
use crate::io::{Bug, File, sabotaged};
use crate::units::{ByteRange, Cluster, Place};

/// How far ahead the top's file is lengthened, in bytes: one act of the host for many clusters.
const AHEAD: u64 = 16 << 20;

#[cfg(not(test))]
const fn ahead() -> u64 {
    AHEAD
}

#[cfg(test)]
fn ahead() -> u64 {
    crate::io::hardship().ahead.unwrap_or(AHEAD)
}

/// The writable level of a disk: its file, and what is known of it.
pub(super) struct Writable<F> {
    pub(super) file: F,
    pub(super) header: Cell<Header>,
    pub(super) top: RefCell<Top>,
    /// Where entries outlive the process; `None` for a disk that need not (tests over memory).
    pub(super) pending: RefCell<Option<Pending>>,
    /// Length of the file in bytes, at least `top.end()`'s.
    pub(super) length: Cell<u64>,
    /// Is somebody lengthening it? Two at once could finish in the wrong order and cut it.
    pub(super) growing: Cell<bool>,
    /// How many clusters are being copied up.
    pub(super) copying: Cell<u64>,
    /// Has the file changed since the last sync began?
    pub(super) dirty: Cell<bool>,
    /// The round that brings the last entry into the index for which the pending file had no room.
    pub(super) unkept: Cell<u64>,
    /// A place was published, a reservation dropped, the file grew, a copy ended.
    pub(super) changed: Gate,
    pub(super) rounds: Rounds,
}

impl<F> Writable<F> {
    /// Does every published entry outlive the process? Until then no write in place is answered: it
    /// may lie in a cluster whose entry does not.
    pub(super) fn kept(&self) -> Kept {
        if self.rounds.is_done(self.unkept.get()) {
            Kept::Yes
        } else {
            Kept::NoRoom
        }
    }
}

impl<F: File> Disk<F> {
    pub(super) fn reserve<'a>(
        &'a self,
        writable: &'a Writable<F>,
        range: ByteRange,
    ) -> Result<Reservation<'a, F>, Errno> {
        let clusters = self.base.cluster().clusters(range).ok_or(Errno::NOSPC)?;
        let place = writable
            .top
            .borrow_mut()
            .reserve(clusters.clone().map(Cluster))
            .ok_or(Errno::NOSPC)?;
        Ok(Reservation {
            disk: self,
            writable,
            clusters,
            place,
            start: range.start,
        })
    }

    /// Makes the top's file at least `end` bytes long.
    pub(super) async fn make_room(&self, writable: &Writable<F>, end: u64) -> Result<(), Errno> {
        while writable.length.get() < end {
            if writable.growing.get() && !sabotaged(Bug::GrownTwice) {
                writable.changed.pass().await;
                continue;
            }
            writable.growing.set(true);
            let length = self.base.cluster().round_up(end + ahead());
            let answer = self.hold(|| writable.file.set_len(length)).await;
            writable.growing.set(false);
            if answer.is_ok() {
                writable.length.set(length);
            }
            writable.changed.open();
            answer?;
        }
        Ok(())
    }
}

/// Fresh places for clusters. Completed by `publish`; dropped, the clusters stay where they were.
pub(super) struct Reservation<'a, F: File> {
    disk: &'a Disk<F>,
    writable: &'a Writable<F>,
    clusters: Range<u32>,
    place: Place,
    /// First byte of the disk in the first cluster that matters.
    start: u64,
}

impl<F: File> Reservation<'_, F> {
    /// Where byte `at` of the disk, in one of the clusters, goes in the file.
    pub(super) fn offset(&self, at: u64) -> u64 {
        let size = self.disk.base.cluster();
        let first = self.start - size.offset_in(self.start);
        size.start_of_place(self.place) + (at - first)
    }

    /// The byte of the file after the last place.
    pub(super) fn end(&self) -> u64 {
        let size = self.disk.base.cluster();
        size.start_of_place(self.place) + size.bytes() * self.clusters.len() as u64
    }

    pub(super) fn publish(mut self) -> Kept {
        let clusters = std::mem::take(&mut self.clusters);
        let count = clusters.len() as u64;
        let mut kept = Kept::Yes;
        let mut top = self.writable.top.borrow_mut();
        for (place, cluster) in (self.place.0..).map(Place).zip(clusters.map(Cluster)) {
            if let Some(pending) = self.writable.pending.borrow_mut().as_mut() {
                kept = kept.and(pending.keep(cluster, place));
            }
            top.publish(cluster, place);
        }
        let counters = &self.disk.shared.counters;
        counters.placed_clusters.add(count);
        counters.pending_clusters.set(top.pending() as u64);
        drop(top);
        if kept == Kept::NoRoom {
            self.writable.unkept.set(self.writable.rounds.next());
        }
        self.writable.dirty.set(true);
        self.writable.changed.open();
        kept
    }
}

impl<F: File> Drop for Reservation<'_, F> {
    fn drop(&mut self) {
        if self.clusters.is_empty() {
            return;
        }
        let mut top = self.writable.top.borrow_mut();
        for cluster in self.clusters.clone() {
            top.release(Cluster(cluster));
        }
        drop(top);
        self.writable.changed.open();
    }
}
