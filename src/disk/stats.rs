//! Plain counters of one disk, written by its thread and read by anyone.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What a disk has done so far, at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Stats { $($(#[$doc])* pub $name: u64,)* }

        /// The counters behind [`Stats`].
        #[derive(Debug, Default)]
        pub(super) struct Counters { $(pub(super) $name: Counter,)* }

        impl Counters {
            pub(super) fn read(&self) -> Stats {
                Stats { $($name: self.$name.get(),)* }
            }
        }
    };
}

counters! {
    /// Reads served.
    reads,
    /// Bytes they asked for.
    read_bytes,
    /// Writes served.
    writes,
    /// Bytes they brought.
    written_bytes,
    /// Flushes served.
    flushes,
    /// Rounds of data, sync, index, sync that served them.
    rounds,
    /// Discards and write-zeroes served.
    discards,
    /// Bytes they named.
    discarded_bytes,
    /// Clusters copied up from a parent.
    copied_up_clusters,
    /// Bytes read from parents for that.
    copied_up_bytes,
    /// Clusters given a place in the top.
    placed_clusters,
    /// Map entries that are answered for but not yet in the image's index (now).
    pending_clusters,
    /// Requests that wait for space on the host (now).
    held_requests,
    /// Requests refused because the host had no space for too long.
    no_space,
    /// Requests answered with an error.
    errors,
    /// The ones that should have changed what the disk holds or made it durable, answered by an earlier process since the boot too: the kernel
    /// tries none again.
    lost_writes,
}

/// One counter. Only its disk's thread writes it, so that a load and a store are enough.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, more: u64) {
        self.set(self.get() + more);
    }

    pub(super) fn sub(&self, less: u64) {
        self.set(self.get() - less);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}
