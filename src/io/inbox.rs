//! Answers that nobody waits for one by one: whoever is free takes the next.
//!
//! A device's fetched requests come this way. On one thread; who came last goes first, since it is warm.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Answers of a ring's commands, each with the number it was posted under.
#[derive(Debug, Default)]
pub struct Inbox {
    answers: RefCell<VecDeque<(u64, i32)>>,
    waiting: RefCell<VecDeque<Waker>>,
}

impl Inbox {
    pub(super) fn put(&self, number: u64, result: i32) {
        self.answers.borrow_mut().push_back((number, result));
        // A waker only puts its task on the executor's list.
        if let Some(waker) = self.waiting.borrow_mut().pop_front() {
            waker.wake();
        }
    }

    /// The next answer: its number, and the kernel's result.
    pub async fn next(&self) -> (u64, i32) {
        poll_fn(|context| match self.answers.borrow_mut().pop_front() {
            Some(answer) => Poll::Ready(answer),
            None => {
                // At the front: the lanes that worked last are warm, the others stay asleep.
                self.waiting
                    .borrow_mut()
                    .push_front(context.waker().clone());
                Poll::Pending
            }
        })
        .await
    }

    /// How many wait for an answer.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.borrow().len()
    }
}
