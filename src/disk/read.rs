//! Reads: the runs of a request, together.
//!
//! Nothing is allocated for a request, whatever it needs: a fixed number of hands share its runs, each
//! takes the next one when it has finished its last. The runs of all but the longest requests are under
//! way at once.

use std::cell::Cell;
use std::future::Future;
use std::io;

use futures_util::TryFutureExt;
use futures_util::future::{Either, join, join4, ready};

use super::request::{Errno, errno_of};
use super::serve::{Disk, part};
use crate::chain::{Run, Source};
use crate::io::{File, Piece};
use crate::units::ByteRange;

/// A request whose runs are shared out.
struct Shares<'a> {
    range: ByteRange,
    piece: &'a Piece,
    /// Where the runs begin that nobody has taken.
    next: Cell<u64>,
    answer: Cell<Result<(), Errno>>,
}

impl<F: File> Disk<F> {
    pub(super) async fn read(&self, range: ByteRange, piece: &Piece) -> Result<(), Errno> {
        if range.len == 0 {
            return Ok(());
        }
        let first = self.look(|view| view.run(range));
        if first.range == range {
            return self.fill(first, piece.clone()).await;
        }
        let shares = Shares {
            range,
            piece,
            next: Cell::new(range.start),
            answer: Cell::new(Ok(())),
        };
        // All end before the answer: no read is still writing into a request that is answered.
        let hand = || self.take_shares(&shares);
        join(
            join4(hand(), hand(), hand(), hand()),
            join4(hand(), hand(), hand(), hand()),
        )
        .await;
        shares.answer.get()
    }

    /// Fills one run after the other until none is left, or one has failed.
    async fn take_shares(&self, shares: &Shares<'_>) {
        while let Some((run, cut)) = self.take_share(shares) {
            if let Err(errno) = self.fill(run, cut).await {
                shares.answer.set(Err(errno));
            }
        }
    }

    fn take_share(&self, shares: &Shares<'_>) -> Option<(Run, Piece)> {
        let start = shares.next.get();
        if shares.answer.get().is_err() || start >= shares.range.end() {
            return None;
        }
        let rest = ByteRange::new(start, shares.range.end() - start);
        let run = self.look(|view| view.run(rest));
        shares.next.set(run.range.end());
        Some((run, part(shares.piece, shares.range, run.range)))
    }

    /// Fills `piece` with what a run says, from its first byte on.
    pub(super) fn fill(
        &self,
        run: Run,
        piece: Piece,
    ) -> impl Future<Output = Result<(), Errno>> + use<'_, F> {
        let found = match run.source {
            Source::Nowhere => Err(piece.fill_zero()),
            Source::Top(offset) => Ok(self.writable.as_ref().map(|top| (&top.file, offset))),
            Source::Below(level, offset) => Ok(self.base.file(level).map(|file| (file, offset))),
        };
        let read = match found {
            Ok(Some((file, offset))) => Either::Left(file.read_at(offset, piece)),
            Ok(None) => Either::Right(ready(Err(io::ErrorKind::NotFound.into()))),
            Err(zeroed) => Either::Right(ready(zeroed)),
        };
        let at = run.range.start;
        read.map_err(move |error| self.unread(at, &error))
    }

    fn unread(&self, at: u64, error: &io::Error) -> Errno {
        let complaints = &self.shared.complaints;
        complaints.tell("read failed", &self.shared.id, Some(at), error);
        errno_of(error)
    }
}
