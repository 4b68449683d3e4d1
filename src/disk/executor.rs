//! The tasks of one thread.
//!
//! Small on purpose, and with one rule: to wake a task allocates nothing, so that a request does not
//! either. (A general executor's queue is made of blocks, one new for every 31 wakes.)

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use async_task::Runnable;
use futures_util::FutureExt;
use slab::Slab;

/// Tasks, and those of them that can go on.
#[derive(Default)]
pub(super) struct Executor {
    ready: Arc<Ready>,
    /// Every task that has not ended.
    alive: Rc<RefCell<Slab<Waker>>>,
}

/// Tasks that were woken, first come, first served.
#[derive(Default)]
struct Ready {
    /// Held for a push or a pop; no other lock is taken under it. Nobody waits for it on a request's
    /// way: tasks are woken by their own thread.
    queue: Mutex<VecDeque<Runnable>>,
}

impl Ready {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Runnable>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Strikes a task off when it ends, or is dropped.
struct Alive {
    alive: Rc<RefCell<Slab<Waker>>>,
    key: usize,
}

impl Drop for Alive {
    fn drop(&mut self) {
        // The borrow ends before the waker is dropped.
        let waker = self.alive.borrow_mut().try_remove(self.key);
        drop(waker);
    }
}

impl Executor {
    /// Begins a task. It first runs in a later [`Executor::tick`].
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let mut alive = self.alive.borrow_mut();
        let entry = alive.vacant_entry();
        let mark = Alive {
            alive: Rc::clone(&self.alive),
            key: entry.key(),
        };
        let ready = Arc::clone(&self.ready);
        let (runnable, task) =
            async_task::spawn_local(task.map(move |()| drop(mark)), move |runnable| {
                ready.lock().push_back(runnable)
            });
        entry.insert(runnable.waker());
        drop(alive);
        task.detach();
        runnable.schedule();
    }

    /// Runs one task until it waits. Was there one?
    pub(super) fn tick(&self) -> bool {
        let next = self.ready.lock().pop_front();
        next.map(Runnable::run).is_some()
    }
}

impl Drop for Executor {
    /// Drops every task. Without this, a task that waits and its waker would keep each other.
    fn drop(&mut self) {
        let alive = std::mem::take(&mut *self.alive.borrow_mut());
        alive.into_iter().for_each(|(_, waker)| waker.wake());
        loop {
            // The lock ends before a task is dropped: it may wake another one.
            let next = self.ready.lock().pop_front();
            if next.is_none() {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::{pending, poll_fn};
    use std::rc::Rc;
    use std::task::Poll;

    use super::Executor;

    #[test]
    fn tasks_take_turns_and_each_is_woken_where_it_waits() {
        let executor = Executor::default();
        let log = Rc::new(Cell::new(0));
        for number in [1, 2] {
            let log = Rc::clone(&log);
            executor.spawn(async move {
                let mut turns = 0;
                poll_fn(|context| {
                    log.set(log.get() * 10 + number);
                    turns += 1;
                    context.waker().wake_by_ref();
                    if turns == 2 {
                        Poll::Ready(())
                    } else {
                        Poll::Pending
                    }
                })
                .await;
            });
        }
        while executor.tick() {}
        assert_eq!(log.get(), 1212);
        assert!(executor.alive.borrow().is_empty());
    }

    #[test]
    fn tasks_that_wait_for_ever_are_dropped_with_their_executor() {
        let held = Rc::new(());
        let executor = Executor::default();
        for _ in 0..3 {
            let held = Rc::clone(&held);
            executor.spawn(async move {
                pending::<()>().await;
                drop(held);
            });
        }
        while executor.tick() {}
        assert_eq!(Rc::strong_count(&held), 4);
        drop(executor);
        assert_eq!(Rc::strong_count(&held), 1);
    }
}
