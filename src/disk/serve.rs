//! A disk: a chain that serves requests.
//!
//! One thread owns it; requests are futures on that thread, so state changes between two awaits are
//! atomic and no lock exists. The rules it guards (each has a test or a row in the model):
//!
//! - An entry is published only after its data is written: a reader never sees a cluster half copied.
//! - A request is answered only when a dead process would leave enough behind (level 1): data in the
//!   file, entry in the pending file. What a power cut leaves (level 2) is `flush`'s business.
//! - Every step may run twice: a request that is issued again after a crash does no harm.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::lent::Lent;
use super::pending::Kept;
use super::place::Writable;
use super::request::{Errno, Op, admit, errno_of};
use super::shared::Shared;
use crate::chain::{Base, Source, Step, Top, View};
use crate::failpoint::pass;
use crate::io::{Bug, File, Piece, Pool, sabotaged};
use crate::units::ByteRange;

/// Discards are cut to this: the host frees whole blocks, and zeroing a part of one is work for nothing.
const BLOCK: u64 = 4096;

/// A chain that serves requests.
pub(super) struct Disk<F> {
    pub(super) base: Arc<Base<F>>,
    pub(super) writable: Option<Writable<F>>,
    pub(super) shared: Arc<Shared>,
    pub(super) pool: Rc<Pool>,
    /// How long a request waits for space on the host before it fails.
    pub(super) patience: Duration,
}

impl<F: File> Disk<F> {
    /// Serves one request. `piece` is the data, as long as the range; empty for other requests.
    pub(super) async fn serve(&self, op: Op, range: ByteRange, piece: &Piece) -> Result<(), Errno> {
        let begun = Instant::now();
        let answer = self.dispatch(op, range, piece).await;
        self.shared.clock.took(op, begun.elapsed());
        self.count(op, range, answer.is_err());
        answer
    }

    async fn dispatch(&self, op: Op, range: ByteRange, piece: &Piece) -> Result<(), Errno> {
        admit(op, range, self.shared.size(), self.shared.read_only)?;
        let Some(writable) = &self.writable else {
            return if op == Op::Read {
                self.read(range, piece).await
            } else {
                Ok(())
            };
        };
        if op != Op::Read && self.shared.failed().is_some() {
            return Err(Errno::IO);
        }
        match op {
            Op::Read => self.read(range, piece).await,
            Op::Write { fua } => {
                let kept = self.write(writable, range, piece).await?;
                let fua = fua && !sabotaged(Bug::FuaForgotten);
                if fua || (kept == Kept::NoRoom && !sabotaged(Bug::UnkeptAnswered)) {
                    self.flush().await
                } else {
                    Ok(())
                }
            }
            Op::Flush => self.flush().await,
            Op::Discard => self.discard(writable, range).await,
            Op::WriteZeroes => {
                let kept = self.write_zeroes(writable, range).await?;
                if kept == Kept::NoRoom {
                    self.flush().await
                } else {
                    Ok(())
                }
            }
        }
    }

    fn count(&self, op: Op, range: ByteRange, failed: bool) {
        let counters = &self.shared.counters;
        match op {
            Op::Read => {
                counters.reads.add(1);
                counters.read_bytes.add(range.len);
            }
            Op::Write { .. } => {
                counters.writes.add(1);
                counters.written_bytes.add(range.len);
            }
            Op::Flush => counters.flushes.add(1),
            Op::Discard | Op::WriteZeroes => {
                counters.discards.add(1);
                counters.discarded_bytes.add(range.len);
            }
        }
        if failed {
            counters.errors.add(1);
            if matches!(op, Op::Write { .. } | Op::WriteZeroes) {
                counters.lost_writes.add(1);
                self.remember_lost(counters.lost_writes.get());
            }
        }
    }

    /// A sync failed, and what it was to make durable may be gone: the disk is given up, and who opens it next finds what
    /// a power cut would have left, also in the same boot.
    pub(super) fn give_up_unsynced(&self, why: &str) {
        self.give_up(why);
        if sabotaged(Bug::EntriesAfterFailedSync) {
            return;
        }
        if let Some(writable) = &self.writable {
            // Whoever is still writing, in place too, must flush before he is answered, and that fails.
            writable.unkept.set(u64::MAX);
            if let Some(pending) = writable.pending.borrow_mut().as_mut() {
                pending.void();
            }
        }
    }

    /// Something that was to be written is not there: the disk answers errors from now on, and what is on it is no
    /// layer, whoever serves it.
    pub(super) fn give_up(&self, why: &str) {
        self.shared.fail(why);
        let lost = &self.shared.counters.lost_writes;
        lost.add(1);
        self.remember_lost(lost.get());
    }

    /// A write was answered with an error: whoever serves the disk next must know too.
    fn remember_lost(&self, writes: u64) {
        let Some(writable) = &self.writable else {
            return;
        };
        if let Some(pending) = writable.pending.borrow_mut().as_mut()
            && let Err(error) = pending.lose(writes)
        {
            tracing::error!(
                disk = self.shared.id, %error,
                "a lost write cannot be noted: the next ploopd would not know that this disk is not to be sealed"
            );
        }
    }

    /// Looks at both maps. The borrow ends with the call: nobody holds it across an await.
    pub(super) fn look<T>(&self, ask: impl FnOnce(View<'_>) -> T) -> T {
        let top = self.writable.as_ref().map(|writable| writable.top.borrow());
        let top = top.as_deref().map(Top::map);
        ask(View {
            size: self.base.cluster(),
            top,
            base: self.base.map(),
        })
    }

    async fn write(
        &self,
        writable: &Writable<F>,
        range: ByteRange,
        piece: &Piece,
    ) -> Result<Kept, Errno> {
        let mut kept = Kept::Yes;
        let mut waited = Duration::ZERO;
        let mut rest = range;
        while rest.len > 0 {
            let done = match self.step(writable, rest) {
                Step::InPlace(run, offset) => {
                    let data = part(piece, range, run);
                    self.hold(|| writable.file.write_at(offset, data.clone()))
                        .await?;
                    if !sabotaged(Bug::WriteNotDirty) {
                        writable.dirty.set(true);
                    }
                    kept = kept.and(writable.kept());
                    run
                }
                Step::Fresh(run) => {
                    let reservation = self.reserve(writable, run)?;
                    let offset = reservation.offset(run.start);
                    self.make_room(writable, reservation.end()).await?;
                    let data = part(piece, range, run);
                    #[cfg(test)]
                    if sabotaged(Bug::PublishedEarly) {
                        self.publish_early(writable, run, offset);
                    }
                    self.hold(|| writable.file.write_at(offset, data.clone()))
                        .await?;
                    pass("fresh-written");
                    kept = kept.and(reservation.publish());
                    run
                }
                Step::CopyUp(run) => {
                    let data = part(piece, range, run);
                    let copied = self.copy_up(writable, run, Some(&data), &mut waited);
                    let Some(copied) = copied.await? else {
                        continue;
                    };
                    kept = kept.and(copied);
                    run
                }
                Step::Wait(_) => {
                    writable.changed.pass().await;
                    continue;
                }
            };
            rest = ByteRange::new(done.end(), rest.end() - done.end());
        }
        Ok(kept)
    }

    async fn write_zeroes(&self, writable: &Writable<F>, range: ByteRange) -> Result<Kept, Errno> {
        let mut kept = Kept::Yes;
        let mut waited = Duration::ZERO;
        let mut rest = range;
        while rest.len > 0 {
            let run = self.look(|view| view.run(rest));
            let done = if run.source == Source::Nowhere {
                run.range
            } else {
                // Of this run alone: looking further each time would make a long range quadratic.
                match self.step(writable, run.range) {
                    Step::InPlace(run, offset) => {
                        let hole = ByteRange::new(offset, run.len);
                        self.hold(|| writable.file.zero(hole)).await?;
                        if !sabotaged(Bug::HoleNotDirty) {
                            writable.dirty.set(true);
                        }
                        kept = kept.and(writable.kept());
                        run
                    }
                    // Fresh places read as zeros as they are: an entry without a write.
                    Step::Fresh(run) => {
                        let reservation = self.reserve(writable, run)?;
                        self.make_room(writable, reservation.end()).await?;
                        kept = kept.and(reservation.publish());
                        run
                    }
                    Step::CopyUp(run) => {
                        let copied = self.copy_up(writable, run, None, &mut waited);
                        let Some(copied) = copied.await? else {
                            continue;
                        };
                        kept = kept.and(copied);
                        run
                    }
                    Step::Wait(_) => {
                        writable.changed.pass().await;
                        continue;
                    }
                }
            };
            rest = ByteRange::new(done.end(), rest.end() - done.end());
        }
        Ok(kept)
    }

    async fn discard(&self, writable: &Writable<F>, range: ByteRange) -> Result<(), Errno> {
        let mut rest = range;
        while rest.len > 0 {
            let run = self.look(|view| view.run(rest));
            // Only what the top owns: an entry can hide a parent's data, but not take it away.
            if let Source::Top(offset) = run.source {
                #[cfg(test)]
                if sabotaged(Bug::DiscardDropsEntry) {
                    self.forget(writable, run.range);
                }
                let start = if sabotaged(Bug::DiscardTooWide) {
                    offset / BLOCK * BLOCK
                } else {
                    offset.next_multiple_of(BLOCK)
                };
                let end = (offset + run.range.len) / BLOCK * BLOCK;
                if start < end {
                    let hole = ByteRange::new(start, end - start);
                    self.hold(|| writable.file.zero(hole)).await?;
                    writable.dirty.set(true);
                }
            }
            rest = ByteRange::new(run.range.end(), rest.end() - run.range.end());
        }
        Ok(())
    }

    fn step(&self, writable: &Writable<F>, range: ByteRange) -> Step {
        let top = writable.top.borrow();
        let view = View {
            size: self.base.cluster(),
            top: Some(top.map()),
            base: self.base.map(),
        };
        view.step(range, |cluster| {
            top.is_busy(cluster) && !sabotaged(Bug::CopyUpTwice)
        })
    }

    /// Gives one cluster a place of its own: what lies below, with `data` (or zeros) over it.
    ///
    /// `None`: others had to end first, and what is to be done may be another thing now; so long has it `waited` for them.
    async fn copy_up(
        &self,
        writable: &Writable<F>,
        run: ByteRange,
        data: Option<&Piece>,
        waited: &mut Duration,
    ) -> Result<Option<Kept>, Errno> {
        let size = self.base.cluster();
        let Some(_copying) = writable.begin_copying(size) else {
            let begun = Instant::now();
            writable.changed.pass().await;
            *waited += begun.elapsed();
            return Ok(None);
        };
        let reservation = self.reserve(writable, run)?;
        let within = size.offset_in(run.start);
        let whole = ByteRange::new(run.start - within, size.bytes());
        let buffer = Lent::new(&self.pool);
        let below = self.look(|view| view.run(whole));
        self.fill(below, buffer.clone()).await?;
        if sabotaged(Bug::CopyUpAlone) {
            buffer.fill_zero().map_err(|error| errno_of(&error))?;
        }
        pass("copy-up-read");
        let at = usize::try_from(within).map_err(|_| Errno::INVAL)?;
        let copied = match data {
            Some(data) => buffer.copy_from_piece(at, data),
            None => {
                let len = usize::try_from(run.len).map_err(|_| Errno::INVAL)?;
                buffer.slice(at, len).fill_zero()
            }
        };
        copied.map_err(|error| {
            tracing::error!(disk = self.shared.id, ?run, %error, "a request's data cannot be fetched");
            errno_of(&error)
        })?;
        self.make_room(writable, reservation.end()).await?;
        // A fresh place reads as zeros: what is zero at both ends needs neither time nor space.
        let solid = buffer.with_bytes(solid);
        if !solid.is_empty() {
            let offset = reservation.offset(whole.start) + solid.start as u64;
            let data = buffer.slice(solid.start, solid.len());
            self.hold_after(*waited, || writable.file.write_at(offset, data.clone()))
                .await?;
        }
        pass("copy-up-written");
        self.shared.counters.copied_up_clusters.add(1);
        self.shared.counters.copied_up_bytes.add(size.bytes());
        let kept = reservation.publish();
        pass("copy-up-published");
        Ok(Some(kept))
    }
}

/// The bytes from the first block that is not all zeros to the last.
fn solid(bytes: &[u8]) -> Range<usize> {
    let block = usize::try_from(BLOCK).unwrap_or(usize::MAX);
    let full = |block: &[u8]| block.iter().any(|byte| *byte != 0);
    let mut blocks = bytes.chunks(block);
    match (blocks.position(full), bytes.chunks(block).rposition(full)) {
        (Some(first), Some(last)) => first * block..((last + 1) * block).min(bytes.len()),
        _ => 0..0,
    }
}

/// The part of a request's data that belongs to `run`.
pub(super) fn part(piece: &Piece, range: ByteRange, run: ByteRange) -> Piece {
    // Both differences are within the piece, whose length is a usize.
    let at = usize::try_from(run.start - range.start).unwrap_or(usize::MAX);
    let len = usize::try_from(run.len).unwrap_or(usize::MAX);
    piece.slice(at, len)
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
