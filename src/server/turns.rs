//! One act at a time for one id.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

/// Forgotten ids are swept when there are this many.
const MANY: usize = 256;

/// Whose turn it is, by id.
///
/// A turn is the one lock of this room that is held across awaits, which is its purpose; it is taken
/// before any other, and nobody takes two. The map's own lock is held for a look-up only.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<String, Weak<Turn<()>>>>);

impl Turns {
    /// Waits until nobody else acts on this id.
    pub(super) async fn take(&self, id: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if turns.len() >= MANY {
                turns.retain(|_, turn| turn.strong_count() > 0);
            }
            match turns.get(id).and_then(Weak::upgrade) {
                Some(turn) => turn,
                None => {
                    let turn = Arc::new(Turn::new(()));
                    turns.insert(id.to_owned(), Arc::downgrade(&turn));
                    turn
                }
            }
        };
        turn.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::{MANY, Turns};

    #[tokio::test]
    async fn one_id_waits_and_another_does_not() {
        let turns = Turns::default();
        let first = turns.take("a").await;
        let _other = turns.take("b").await;
        let again = turns.take("a");
        tokio::pin!(again);
        tokio::select! {
            biased;
            _ = &mut again => panic!("two at once"),
            () = tokio::task::yield_now() => {}
        }
        drop(first);
        again.await;
    }

    #[tokio::test]
    async fn forgotten_ids_do_not_pile_up() {
        let turns = Turns::default();
        for id in 0..MANY * 3 {
            turns.take(&id.to_string()).await;
        }
        assert!(turns.0.lock().unwrap().len() <= MANY);
    }
}
