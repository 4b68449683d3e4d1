//! Who waits for an act, and whether still: what its caller was told has failed must not be done in the end.
//!
//! containerd that hears of a failure takes everything back on its side: the key of a Commit is active for it, the
//! name free. An act that came to its end after that would have taken the key that the next attempt asks for, and
//! made a layer that nobody names and the next collection removes. So there is one moment at which an act is
//! decided, right before its last transaction, and it has come or the caller has given up, never both. A caller who
//! comes too late to give up waits for that one transaction.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::Error;

const WAITS: u8 = 0;
const GONE: u8 = 1;
const DECIDED: u8 = 2;

tokio::task_local! {
    static CALLER: Caller;
}

/// Who waits for one act.
#[derive(Clone, Debug, Default)]
pub struct Caller(Arc<AtomicU8>);

impl Caller {
    /// An act that is done for this caller. One that is done for none is decided by itself.
    pub async fn asks<T>(&self, act: impl Future<Output = T>) -> T {
        CALLER.scope(self.clone(), act).await
    }

    /// Waits no more: the act undoes itself, wherever it is. Not if this answers false: it is decided, and as good as
    /// done.
    #[must_use]
    pub fn gives_up(&self) -> bool {
        self.becomes(GONE)
    }

    /// Decides the act that this task does, for good.
    ///
    /// # Errors
    /// [`Error::Abandoned`] if its caller has given up.
    pub fn decide(key: &str) -> Result<(), Error> {
        Self::of_this_task(key, |caller| caller.becomes(DECIDED))
    }

    /// Is it worth while to begin?
    ///
    /// # Errors
    /// [`Error::Abandoned`] if its caller has given up.
    pub(super) fn still_waits(key: &str) -> Result<(), Error> {
        Self::of_this_task(key, |caller| caller.0.load(Ordering::SeqCst) != GONE)
    }

    fn becomes(&self, new: u8) -> bool {
        let all = Ordering::SeqCst;
        match self.0.compare_exchange(WAITS, new, all, all) {
            Ok(_) => true,
            Err(found) => found == new,
        }
    }

    fn of_this_task(key: &str, is: impl FnOnce(&Self) -> bool) -> Result<(), Error> {
        // Without a caller there is nobody to give up.
        if CALLER.try_with(is).unwrap_or(true) {
            return Ok(());
        }
        Err(Error::Abandoned {
            key: key.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{House, kind};
    use super::super::{ErrorKind, Kind, Labels};
    use super::Caller;

    #[tokio::test]
    async fn an_act_is_decided_or_given_up_never_both() {
        let decide = async || Caller::decide("k").is_ok();
        let caller = Caller::default();
        assert!(caller.asks(decide()).await && caller.asks(decide()).await);
        assert!(!caller.gives_up(), "too late");
        let caller = Caller::default();
        assert!(caller.gives_up() && caller.gives_up());
        assert!(!caller.asks(decide()).await);
        assert!(decide().await, "nobody waits who could give up");
    }

    /// containerd took back on its side what it heard had failed: the key was active for it, and the name free. Our
    /// commit went on and took the key; every further attempt heard "not found", and the next collection removed the
    /// layer that nobody named.
    #[tokio::test]
    async fn a_commit_that_nobody_waits_for_is_undone() {
        let house = House::new().await;
        house.prepare("a", "").await;
        house.disks.hang("s1", true);
        let (caller, ploop) = (Caller::default(), house.ploop.clone());
        let waits = caller.clone();
        let late = tokio::spawn(async move {
            let act = ploop.commit("A", "a", Labels::new());
            waits.asks(act).await
        });
        house.disks.somebody_hangs().await;
        assert!(caller.gives_up());
        house.disks.hang("s1", false);
        assert_eq!(kind(late.await.unwrap()), ErrorKind::DeadlineExceeded);
        assert_eq!(house.ploop.stat("a").await.unwrap().kind, Kind::Active);
        assert_eq!(kind(house.ploop.stat("A").await), ErrorKind::NotFound);
        house.ploop.mounts("a").await.unwrap();
        house.commit("A", "a").await;
    }

    /// Nobody would ever detach its disk.
    #[tokio::test]
    async fn a_snapshot_that_nobody_waits_for_is_not_prepared() {
        let house = House::new().await;
        house.two_layers().await;
        for (key, disk) in [("c", "s3"), ("v", "v2")] {
            house.disks.hang(disk, true);
            let (caller, ploop) = (Caller::default(), house.ploop.clone());
            let waits = caller.clone();
            let late = tokio::spawn(async move {
                let act = async {
                    match key {
                        "c" => ploop.prepare(key, "B", Labels::new()).await,
                        _ => ploop.view(key, "B", Labels::new()).await,
                    }
                };
                waits.asks(act).await
            });
            house.disks.somebody_hangs().await;
            assert!(caller.gives_up());
            house.disks.hang(disk, false);
            assert_eq!(kind(late.await.unwrap()), ErrorKind::DeadlineExceeded);
            assert_eq!(kind(house.ploop.stat(key).await), ErrorKind::NotFound);
            house.ploop.cleanup().await.unwrap();
            assert_eq!(house.disks.served(), [""; 0]);
        }
        assert_eq!(house.deltas(), ["1.hds", "2.hds"]);
        house.prepare("c", "B").await;
    }

    /// Who repeats a call again and again gets no further ahead of those before.
    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_not_even_begun() {
        let house = House::new().await;
        house.prepare("a", "").await;
        let caller = Caller::default();
        assert!(caller.gives_up());
        let commit = caller.asks(house.ploop.commit("A", "a", Labels::new()));
        assert_eq!(kind(commit.await), ErrorKind::DeadlineExceeded);
        let prepare = caller.asks(house.ploop.prepare("b", "", Labels::new()));
        assert_eq!(kind(prepare.await), ErrorKind::DeadlineExceeded);
        assert_eq!(house.disks.served(), ["s1"], "nothing was touched");
    }
}
