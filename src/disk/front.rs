//! What stands before a disk on its own thread: a transport that takes requests there.
//!
//! Other threads send a disk letters; a front needs none. It runs on the disk's shard, takes requests
//! from the kernel on that thread's ring and serves them there: no request ever changes threads.

use std::future::Future;
use std::rc::{Rc, Weak};

use super::executor::Executor;
use super::request::{Errno, Op};
use super::resident::Resident;
use crate::io::Piece;
use crate::units::ByteRange;

/// Something that takes requests for a disk on the disk's own thread.
pub trait Front: Send {
    /// Begins. It must not block; what takes longer is a task ([`Local::spawner`]).
    ///
    /// The disk is closed only after every [`Local`] of it was dropped.
    fn begin(self: Box<Self>, disk: Local);
}

/// A disk, on its own thread.
pub struct Local {
    resident: Rc<Resident>,
    // A task that holds what it runs on would never end.
    executor: Weak<Executor>,
}

impl Local {
    pub(super) fn new(resident: Rc<Resident>, executor: &Rc<Executor>) -> Self {
        Self {
            resident,
            executor: Rc::downgrade(executor),
        }
    }

    /// Serves one request. `piece` is the data, as long as the range; empty for other requests.
    ///
    /// # Errors
    /// What the request's owner should hear.
    pub async fn serve(&self, op: Op, range: ByteRange, piece: &Piece) -> Result<(), Errno> {
        self.resident.serve(op, range, piece).await
    }

    /// Where tasks of this thread run.
    #[must_use]
    pub fn spawner(&self) -> Spawner {
        Spawner(Weak::clone(&self.executor))
    }

    /// Bytes of the disk, now.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.resident.size()
    }

    /// What the disk is called.
    #[must_use]
    pub fn id(&self) -> &str {
        self.resident.id()
    }
}

/// Starts tasks on a shard's thread, whatever disk they are for.
#[derive(Clone, Debug)]
pub struct Spawner(Weak<Executor>);

impl Spawner {
    /// Runs a task on this thread.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        if let Some(executor) = self.0.upgrade() {
            executor.spawn(task);
        }
    }
}
