//! One turn at a time for one name: a key, or a disk.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::OwnedMutexGuard;

/// Turns by name. A name that nobody waits for costs nothing.
#[derive(Debug, Default)]
pub(super) struct Locks {
    /// Held for a look-up only, never across an await. The locks within are tokio's: they are held across
    /// awaits, that is what they are for.
    names: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

/// It is our turn until this is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _guard: OwnedMutexGuard<()>,
}

impl Locks {
    /// Waits for our turn.
    pub(super) async fn turn(&self, name: &str) -> Turn {
        let lock = {
            let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(lock) = names.get(name).and_then(Weak::upgrade) {
                lock
            } else {
                // The dead are swept when the living double, so a sweep costs little per name.
                if names.len() == names.capacity() {
                    names.retain(|_, lock| lock.strong_count() > 0);
                }
                let lock = Arc::new(tokio::sync::Mutex::new(()));
                names.insert(name.to_owned(), Arc::downgrade(&lock));
                lock
            }
        };
        Turn {
            _guard: lock.lock_owned().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::Locks;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn one_name_is_held_by_one_and_others_do_not_wait() {
        let locks = Arc::new(Locks::default());
        let inside = Arc::new(AtomicU32::new(0));
        let other = locks.turn("other").await;
        let tasks: Vec<_> = (0..32)
            .map(|_| {
                let (locks, inside) = (Arc::clone(&locks), Arc::clone(&inside));
                tokio::spawn(async move {
                    let _turn = locks.turn("one").await;
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    tokio::task::yield_now().await;
                    inside.fetch_sub(1, Ordering::SeqCst);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        drop(other);
    }

    #[tokio::test]
    async fn names_are_forgotten() {
        let locks = Locks::default();
        for number in 0..10_000 {
            locks.turn(&number.to_string()).await;
        }
        assert!(locks.names.lock().unwrap().len() < 100);
    }
}
