//! So many at a time on one thread: who finds none left waits until one is back.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// A number of permits.
pub(super) struct Permits {
    free: Cell<usize>,
    waiting: RefCell<VecDeque<Waker>>,
}

/// One of them; it goes back when it is dropped.
pub(super) struct Permit<'a>(&'a Permits);

impl Permits {
    pub(super) fn new(most: usize) -> Self {
        Self {
            free: Cell::new(most),
            waiting: RefCell::default(),
        }
    }

    /// One of them, when there is one.
    pub(super) async fn take(&self) -> Permit<'_> {
        poll_fn(|context| {
            let Some(left) = self.free.get().checked_sub(1) else {
                self.waiting.borrow_mut().push_back(context.waker().clone());
                return Poll::Pending;
            };
            self.free.set(left);
            Poll::Ready(())
        })
        .await;
        Permit(self)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.free.set(self.0.free.get() + 1);
        let next = self.0.waiting.borrow_mut().pop_front();
        if let Some(waker) = next {
            waker.wake();
        }
    }
}
