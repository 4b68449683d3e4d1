//! A disk that lives on a shard, and who is busy with it.

use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::select;

use super::Error;
use super::gate::Gate;
use super::request::{Errno, Op};
use super::serve::Disk;
use crate::image::Seal;
use crate::io::{Piece, Uring};
use crate::units::ByteRange;

/// When a disk that is closed first looks again whether somebody still holds it.
const SHARED: Duration = Duration::from_millis(1);
/// How often a disk that is to grow looks whether what is under way waits for space.
const LOOK: Duration = Duration::from_millis(100);

/// A disk and who is busy with it.
pub(super) struct Resident {
    disk: Disk<Uring>,
    under_way: Cell<usize>,
    idle: Gate,
    /// Do new requests wait?
    held: Cell<bool>,
    free: Gate,
}

/// New requests wait, as long as this lives.
struct Held<'a>(&'a Resident);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.held.set(false);
        self.0.free.open();
    }
}

/// One request under way.
struct UnderWay<'a>(&'a Resident);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let left = self.0.under_way.get() - 1;
        self.0.under_way.set(left);
        if left == 0 {
            self.0.idle.open();
        }
    }
}

impl Resident {
    pub(super) fn new(disk: Disk<Uring>) -> Self {
        Self {
            disk,
            under_way: Cell::new(0),
            idle: Gate::default(),
            held: Cell::new(false),
            free: Gate::default(),
        }
    }

    /// What the disk is called.
    pub(super) fn id(&self) -> &str {
        &self.disk.shared.id
    }

    /// Bytes of the disk, now.
    pub(super) fn size(&self) -> u64 {
        self.disk.shared.size()
    }

    /// Serves one request; never panics.
    pub(super) async fn serve(&self, op: Op, range: ByteRange, piece: &Piece) -> Result<(), Errno> {
        while self.held.get() {
            self.free.pass().await;
        }
        self.under_way.set(self.under_way.get() + 1);
        let _under_way = UnderWay(self);
        // A request that is never answered hangs a container: even a bug of ours must end in an answer.
        AssertUnwindSafe(self.disk.serve(op, range, piece))
            .catch_unwind()
            .await
            .unwrap_or_else(|_| {
                // Whatever it was to write is not there: that makes no layer either.
                self.disk
                    .give_up("a request made the disk panic; this is a bug");
                Err(Errno::IO)
            })
    }

    /// Makes the disk larger. Requests that come meanwhile are served after it; never panics.
    pub(super) async fn grow(&self, size: u64) -> Result<(), Error> {
        let refused = |why: &str| {
            Err(Error::NotGrown {
                id: self.id().to_owned(),
                why: why.to_owned(),
            })
        };
        // Whoever waits for space may wait for minutes, and the others would wait behind us.
        if self.disk.shared.counters.read().held_requests > 0 {
            return refused("it waits for space on the host");
        }
        while self.held.replace(true) {
            self.free.pass().await;
        }
        let _held = Held(self);
        while self.under_way.get() > 0 {
            let look = std::pin::pin!(async {
                if crate::io::sleep(LOOK).await.is_err() {
                    yield_once().await;
                }
            });
            select(std::pin::pin!(self.idle.pass()), look).await;
            // What was under way may have met a full host since.
            if self.disk.shared.counters.read().held_requests > 0 {
                return refused("it waits for space on the host");
            }
        }
        let _growing = self.disk.shared.growing();
        let grown = AssertUnwindSafe(self.disk.grow(size)).catch_unwind().await;
        grown.unwrap_or_else(|_| {
            self.disk
                .give_up("growing the disk made it panic; this is a bug");
            refused("it panicked; this is a bug")
        })
    }

    /// Ends a disk: nobody can reach it any more, whoever waits for space gets an error.
    pub(super) async fn close(self: Rc<Self>, seal: bool) -> Result<Option<Seal>, Error> {
        self.disk.shared.close();
        while self.under_way.get() > 0 {
            self.idle.pass().await;
        }
        // The last task has answered but may still hold its share for a moment.
        let mut resident = self;
        let mut pause = SHARED;
        let resident = loop {
            match Rc::try_unwrap(resident) {
                Ok(resident) => break resident,
                Err(shared) => {
                    resident = shared;
                    // It may need an answer of the ring to let go, so the ring must be entered.
                    if crate::io::sleep(pause).await.is_err() {
                        yield_once().await;
                    }
                    pause = (pause * 2).min(LOOK);
                }
            }
        };
        resident.disk.finish(seal).await
    }
}

/// Lets the other tasks of this thread run once.
async fn yield_once() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if yielded {
            return std::task::Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}
