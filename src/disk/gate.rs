//! Waiting on one thread for a change of state: whoever changes it opens the gate, whoever waited
//! looks again.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// A place to wait for "something changed".
#[derive(Debug)]
pub(super) struct Gate {
    opened: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
}

impl Default for Gate {
    /// Has room for every request that a device has under way: none of them allocates to wait.
    fn default() -> Self {
        Self {
            opened: Cell::new(0),
            waiting: RefCell::new(Vec::with_capacity(64)),
        }
    }
}

impl Gate {
    /// Something changed: all who wait now go on.
    pub(super) fn open(&self) {
        self.opened.set(self.opened.get() + 1);
        // Wakers only put their task on the executor's list; none runs before we return.
        for waker in self.waiting.borrow_mut().drain(..) {
            waker.wake();
        }
    }

    /// Until the gate is opened after this call.
    pub(super) async fn pass(&self) {
        let before = self.opened.get();
        poll_fn(|context| {
            if self.opened.get() != before {
                return Poll::Ready(());
            }
            let mut waiting = self.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}
