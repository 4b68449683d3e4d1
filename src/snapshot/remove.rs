//! Remove: gone for the caller at once; the parts follow.
//!
//! A device may be kept busy for seconds by somebody's private copy of a mount, and containerd gives up
//! a whole collection over one error. So the answer depends on the store alone, and a task takes the
//! parts away, again and again until it succeeds, over restarts if need be.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use super::device::held;
use super::paths::disk_of;
use super::shared::{Shared, blocking};
use super::words::check_key;
use super::{Error, Kind, Snapshotter};
use crate::seat::{Name, Seat};
use crate::store::{Record, Stage};

/// So long a removal waits for another call on its key. containerd's collector holds a lock meanwhile that all others
/// wait for.
const TURN_WAIT: Duration = Duration::from_secs(2);
/// So many are taken apart at a time.
const AT_ONCE: usize = 8;
/// A first attempt that failed is repeated after this, then after twice as long, ...
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// ... up to this.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Removals under way.
#[derive(Debug)]
pub(super) struct Removals {
    slots: Semaphore,
    count: watch::Sender<Count>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    /// Not yet forgotten.
    pending: usize,
    /// Of these, tried and waiting for another try.
    waiting: usize,
}

impl Default for Removals {
    fn default() -> Self {
        Self {
            slots: Semaphore::new(AT_ONCE),
            count: watch::Sender::new(Count::default()),
        }
    }
}

impl Removals {
    /// Waits until each removal is done or has met somebody who keeps the device.
    pub(super) async fn settled(&self, limit: Duration) -> bool {
        let mut count = self.count.subscribe();
        let settled = count.wait_for(|count| count.pending == count.waiting);
        tokio::time::timeout(limit, settled).await.is_ok()
    }
}

impl Snapshotter {
    /// Removes a snapshot: its key is free when this returns, its parts follow.
    ///
    /// # Errors
    /// `NotFound`, `FailedPrecondition` if others stand on it, or if another call on it does not end.
    pub async fn remove(&self, key: &str) -> Result<(), Error> {
        check_key(key)?;
        let turn = tokio::time::timeout(TURN_WAIT, self.turn(key)).await;
        // To this the collector says "not now" and goes on with others; any other error ends its round.
        let _turn = turn.map_err(|_| Error::UnderWay {
            key: key.to_owned(),
        })?;
        let shared = self.shared();
        let (space, asked) = (self.space().to_owned(), key.to_owned());
        let gone = shared
            .store(move |store| store.remove(&space, &asked))
            .await?;
        shared.steps.pass("removed").await;
        for record in gone {
            shared.take_apart_later(record);
        }
        Ok(())
    }

    /// Waits a while for removals that are under way.
    ///
    /// # Errors
    /// None: what is not done in time goes on.
    pub async fn cleanup(&self) -> Result<(), Error> {
        let shared = self.shared();
        if !shared.removals.settled(shared.options.cleanup_wait).await {
            tracing::info!("removals are still under way after a clean-up");
        }
        Ok(())
    }
}

impl Shared {
    /// Takes back a snapshot that could not be prepared. The key is free when this returns.
    pub(super) async fn undo(self: &Arc<Self>, record: Record) {
        let id = record.id;
        let abandoned = self.store(move |store| store.abandon(id)).await;
        if let Err(error) = abandoned {
            // The parts go all the same: with the store in trouble the record was never durable.
            tracing::error!(key = record.key, %error, "the record of a snapshot that failed stays");
        }
        if let Err(error) = self.take_apart(&record).await {
            tracing::debug!(key = record.key, %error, "the parts of a snapshot that failed go later");
            self.take_apart_later(record);
        }
    }

    /// Takes a removed snapshot apart in a task of its own, and forgets it then.
    pub(super) fn take_apart_later(self: &Arc<Self>, record: Record) {
        self.removals.count.send_modify(|count| count.pending += 1);
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            let mut wait = FIRST_WAIT;
            loop {
                let tried = match shared.removals.slots.acquire().await {
                    Ok(_slot) => shared.take_apart(&record).await,
                    // The semaphore is never closed.
                    Err(_) => return,
                };
                let Err(error) = tried else { break };
                if wait > Duration::from_secs(1) {
                    tracing::warn!(key = record.key, %error, "a removed snapshot is still in use");
                }
                let count = &shared.removals.count;
                count.send_modify(|count| count.waiting += 1);
                tokio::time::sleep(wait).await;
                count.send_modify(|count| count.waiting -= 1);
                wait = (wait * 2).min(LONGEST_WAIT);
            }
            shared
                .removals
                .count
                .send_modify(|count| count.pending -= 1);
        });
    }

    /// One attempt. Every step may be repeated.
    async fn take_apart(&self, record: &Record) -> Result<(), Error> {
        match record.kind {
            Kind::Active | Kind::Fitted => {
                self.release(record).await?;
                self.steps.pass("released").await;
                self.unlink(record).await?;
            }
            // Its readers are its children, and it had none left.
            Kind::Committed => self.unlink(record).await?,
            Kind::View => {
                let _turn = self.turns.turn(&disk_of(record)).await;
                if !self.still_viewed(record).await? {
                    self.release(record).await?;
                }
            }
        }
        self.steps.pass("taken apart").await;
        let id = record.id;
        let reserved = record.stage == Stage::Preparing;
        self.store(move |store| match reserved {
            true => store.forget_for_good(id),
            // Removed it is already, durably.
            false => store.forget(id),
        })
        .await
    }

    /// Nobody serves its disk.
    async fn release(&self, record: &Record) -> Result<(), Error> {
        let disk = disk_of(record);
        let failed = |error| Error::disk(&record.key, "find", &disk)(error);
        if let Some(served) = self.disks.find(&disk).await.map_err(failed)?
            && held(&served, self.options.flush_limit).await?
        {
            return Err(Error::Held {
                key: record.key.clone(),
                device: served.device,
            });
        }
        let detached = self.disks.detach(&disk, false).await;
        match detached {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == crate::link::Kind::NotFound => Ok(()),
            Err(error) => Err(Error::disk(&record.key, "detach", &disk)(error)),
        }
    }

    /// Does another view use the same disk?
    async fn still_viewed(&self, record: &Record) -> Result<bool, Error> {
        match (&record.parent, record.golden.clone()) {
            (Some(parent), _) => {
                let id = parent.id;
                self.store(move |store| store.viewed(id)).await
            }
            (None, Some(golden)) => self.store(move |store| store.golden_viewed(&golden)).await,
            (None, None) => Ok(false),
        }
    }

    async fn unlink(&self, record: &Record) -> Result<(), Error> {
        let (path, run) = (self.paths.delta(record.id), self.options.run.clone());
        blocking("removing a file", move || discard(&path, run.as_deref())).await?
    }
}

/// Removes a delta for good, and what a disk server that died or failed has left for who opens it next: nobody will.
pub(super) fn discard(delta: &Path, run: Option<&Path>) -> Result<(), Error> {
    gone(delta).map_err(Error::file("remove", delta))?;
    let pending = run.map(|run| Seat::new(run, Name::PLAIN).pending_of(delta));
    if let Some(pending) = pending
        && let Err(error) = gone(&pending)
    {
        // It takes memory until the next boot, and no more.
        tracing::warn!(file = %pending.display(), %error, "what a disk server left cannot be removed");
    }
    Ok(())
}

fn gone(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
