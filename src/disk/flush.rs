//! Data, sync, index, sync: the order that makes a power cut harmless.
//!
//! An entry that reached the platter before its data would show, after a power cut, whatever the
//! place held before: zeros or old bytes instead of the parent's data. So the index is written only
//! here, only what was pending when the round began, and only after the first sync.
//!
//! One round serves all who wait for it. A flush that arrives while a round runs needs the next one:
//! the running round may have taken its entries before the last write was answered.
//!
//! A failed sync is final. The kernel has dropped what it could not write, and a second sync that
//! succeeds would prove nothing: the disk answers errors from then on. What was pending is void with it: its data
//! may be among what was dropped, and an entry that outlived them would hide what was flushed before.

use std::cell::Cell;
use std::io;

use super::gate::Gate;
use super::lent::Lent;
use super::place::Writable;
use super::request::Errno;
use super::serve::Disk;
use super::shared::Shared;
use crate::failpoint::pass;
use crate::image;
use crate::image::ploop::{page_of, write_index_page};
use crate::io::{Bug, File, sabotaged};
use crate::units::Cluster;

/// Bytes of the index that are written at once.
const INDEX_PAGE: usize = 4096;

/// Rounds of one disk, by number.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    running: Cell<bool>,
    started: Cell<u64>,
    /// The last one that was done: it covers all before it.
    done: Cell<u64>,
    /// The last one that ended because the host had no space.
    full: Cell<u64>,
    gate: Gate,
}

impl Rounds {
    /// The number of the round that takes what is published now.
    pub(super) fn next(&self) -> u64 {
        self.started.get() + 1
    }

    pub(super) fn is_done(&self, number: u64) -> bool {
        self.done.get() >= number
    }
}

/// A round under way. However it ends, the next may begin and whoever waits looks again.
struct Running<'a> {
    rounds: &'a Rounds,
    shared: &'a Shared,
    finished: bool,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.finished {
            // What it had taken is neither pending nor known to be in the index.
            self.shared
                .fail("a flush was cut short by a panic; this is a bug");
        }
        self.rounds.running.set(false);
        self.rounds.gate.open();
    }
}

/// Why a round was not done.
enum Unfinished {
    /// The host had no space for the index. Nothing is lost: the entries are pending again.
    Full,
    /// What was written may be gone.
    Broken(String),
}

impl<F: File> Disk<F> {
    /// Everything that was answered before this call survives the power when it returns.
    pub(super) async fn flush(&self) -> Result<(), Errno> {
        let Some(writable) = &self.writable else {
            return Ok(());
        };
        let rounds = &writable.rounds;
        let mine = if sabotaged(Bug::FlushJoinsRound) && rounds.running.get() {
            rounds.started.get()
        } else {
            rounds.next()
        };
        loop {
            if self.shared.failed().is_some() {
                return Err(Errno::IO);
            }
            if rounds.is_done(mine) {
                return Ok(());
            }
            if rounds.full.get() >= mine {
                return Err(Errno::NOSPC);
            }
            if rounds.running.get() {
                rounds.gate.pass().await;
                continue;
            }
            let number = rounds.next();
            rounds.started.set(number);
            rounds.running.set(true);
            let mut running = Running {
                rounds,
                shared: &self.shared,
                finished: false,
            };
            let answer = self.round(writable).await;
            running.finished = true;
            match answer {
                Ok(()) => rounds.done.set(number),
                Err(Unfinished::Full) => rounds.full.set(number),
                Err(Unfinished::Broken(why)) => self.give_up_unsynced(&why),
            }
        }
    }

    async fn round(&self, writable: &Writable<F>) -> Result<(), Unfinished> {
        self.shared.counters.rounds.add(1);
        // Taken before the first sync: it covers the data of exactly these entries, and more.
        let mut round = writable.top.borrow_mut().take_pending();
        if sabotaged(Bug::SettledEarly)
            && let Some(pending) = writable.pending.borrow_mut().as_mut()
        {
            round.iter().for_each(|cluster| pending.settle(*cluster));
        }
        #[cfg(test)]
        if sabotaged(Bug::IndexBeforeData) {
            self.write_index(writable, &mut round).await?;
        }
        if writable.dirty.replace(false) {
            writable
                .file
                .sync()
                .await
                .map_err(|error| broken("sync of data", &error))?;
        }
        pass("flush-data-synced");
        if sabotaged(Bug::EntriesAfterSync) {
            round.append(&mut writable.top.borrow_mut().take_pending());
        }
        if !round.is_empty() {
            let written = self.write_index(writable, &mut round).await;
            if let Err(Unfinished::Full) = written {
                writable.top.borrow_mut().put_back(round);
                return written;
            }
            written?;
            pass("flush-index-written");
            if !sabotaged(Bug::NoSecondSync) {
                writable
                    .file
                    .sync()
                    .await
                    .map_err(|error| broken("sync of the index", &error))?;
            }
            pass("flush-index-synced");
            if let Some(pending) = writable.pending.borrow_mut().as_mut() {
                for cluster in &round {
                    pending.settle(*cluster);
                }
            }
        }
        let mut top = writable.top.borrow_mut();
        top.reuse(round);
        self.shared
            .counters
            .pending_clusters
            .set(top.pending() as u64);
        Ok(())
    }

    /// Writes the pages of the index that hold these entries, each once.
    async fn write_index(
        &self,
        writable: &Writable<F>,
        round: &mut [Cluster],
    ) -> Result<(), Unfinished> {
        round.sort_unstable();
        let mut last = None;
        let lent = Lent::new(&self.pool);
        let buffer = lent.slice(0, INDEX_PAGE);
        for cluster in round.iter() {
            let page = page_of(*cluster);
            if last.replace(page) == Some(page) {
                continue;
            }
            let write = || async {
                write_index_page(
                    &writable.file,
                    &writable.header.get(),
                    page,
                    buffer.clone(),
                    |cluster| {
                        let top = writable.top.borrow();
                        if sabotaged(Bug::IndexTellsAll) {
                            return top.map().find(cluster).map_or(0, |place| place.0);
                        }
                        top.map().settled(cluster)
                    },
                )
                .await
                .map_err(|error| match error {
                    // The host's own word: a full disk is waited for.
                    image::Error::Io { source, .. } => source,
                    other => io::Error::other(other),
                })
            };
            self.hold(write).await.map_err(|errno| match errno {
                Errno::NOSPC | Errno::DQUOT => Unfinished::Full,
                errno => broken("write of the index", &errno.into()),
            })?;
        }
        Ok(())
    }
}

fn broken(what: &str, error: &io::Error) -> Unfinished {
    Unfinished::Broken(format!("{what} failed: {error}"))
}
