//! Waiting for space on the host.

use std::future::Future;
use std::io;
use std::time::Duration;

use super::request::{Errno, errno_of, is_full};
use super::serve::Disk;
use super::shared::Shared;
use crate::io::{File, sleep};

/// How often a request that waits for space on the host tries again.
const RETRY: Duration = Duration::from_millis(200);

impl<F: File> Disk<F> {
    /// Does something to the host's file; while the host has no space, the request waits.
    ///
    /// A full host is not an I/O error: ext4 would go read-only over it. It is shown (log, counter)
    /// and ends when there is space, when the configured patience does, or when the disk is closed or grows.
    pub(super) async fn hold<A>(&self, act: impl FnMut() -> A) -> Result<(), Errno>
    where
        A: Future<Output = io::Result<()>>,
    {
        self.hold_after(Duration::ZERO, act).await
    }

    /// The same for a request that has waited behind others: its patience began with theirs.
    pub(super) async fn hold_after<A>(
        &self,
        mut waited: Duration,
        mut act: impl FnMut() -> A,
    ) -> Result<(), Errno>
    where
        A: Future<Output = io::Result<()>>,
    {
        let mut held: Option<Held<'_>> = None;
        loop {
            match act().await {
                Ok(()) => return Ok(()),
                Err(error) if is_full(&error) => {
                    if self.shared.is_growing() {
                        // Nothing is lost by that: the disk stays as it is.
                        return Err(Errno::NOSPC);
                    }
                    if waited >= self.patience || self.shared.is_closing() {
                        self.shared.counters.no_space.add(1);
                        return Err(Errno::NOSPC);
                    }
                    held.get_or_insert_with(|| Held::new(&self.shared));
                    if sleep(RETRY).await.is_err() {
                        return Err(Errno::NOSPC);
                    }
                    waited += RETRY;
                }
                Err(error) => {
                    let complaints = &self.shared.complaints;
                    complaints.tell("the host's disk failed", &self.shared.id, None, &error);
                    return Err(errno_of(&error));
                }
            }
        }
    }
}

/// A request that waits for space on the host, as people see it.
struct Held<'a>(&'a Shared);

impl<'a> Held<'a> {
    fn new(shared: &'a Shared) -> Self {
        if shared.counters.read().held_requests == 0 {
            tracing::warn!(
                disk = shared.id,
                "the host's disk is full: writes wait until there is space"
            );
        }
        shared.counters.held_requests.add(1);
        Self(shared)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.counters.held_requests.sub(1);
        if self.0.counters.read().held_requests == 0 {
            tracing::info!(disk = self.0.id, "no write waits for space any more");
        }
    }
}
