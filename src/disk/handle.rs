//! Disks as other threads see them: start the shards, open a disk, send it requests, close it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;

use super::Error;
use super::front::Front;
use super::latency::Latencies;
use super::mailbox::Mailbox;
use super::open::open;
use super::pending::boot_id;
use super::request::Request;
use super::shard::{Letter, Shard, send};
use super::shared::Shared;
use super::stats::Stats;
use crate::chain::{Chains, Delta};
use crate::image::Seal;
use crate::units::ClusterSize;

/// How the shards are run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Threads that serve disks.
    pub shards: usize,
    /// How long a write waits for space on the host before it fails with ENOSPC.
    pub patience: Duration,
}

impl Default for Options {
    /// As many shards as cores, at most four; ten minutes of patience.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            shards: cores.min(4),
            patience: Duration::from_secs(600),
        }
    }
}

/// A disk to be opened.
#[derive(Clone, Debug)]
pub struct Spec {
    /// What to call it.
    pub id: String,
    /// Its chain, lowest first.
    pub deltas: Vec<Delta>,
    /// Are all of them sealed?
    pub read_only: bool,
    /// Its pending file, on tmpfs. Not used by a read-only disk.
    pub pending: PathBuf,
}

/// The threads that serve disks, and the chains that are open.
#[derive(Debug)]
pub struct Shards {
    shards: Vec<Shard>,
    chains: Arc<Chains>,
    options: Options,
    boot: [u8; 16],
    next: AtomicU64,
}

impl Shards {
    /// Starts the threads.
    ///
    /// # Errors
    /// If the kernel refuses io_uring.
    pub fn start(options: Options) -> Result<Self, Error> {
        let shards = (0..options.shards.max(1))
            .map(Shard::start)
            .collect::<Result<Vec<_>, _>>()?;
        let boot = boot_id().map_err(Error::Ring)?;
        Ok(Self {
            shards,
            chains: Arc::new(Chains::default()),
            options,
            boot,
            next: AtomicU64::new(1),
        })
    }

    /// Opens a disk on the shard with the fewest.
    ///
    /// # Errors
    /// If its chain is not what it should be, see [`Error`]. Nothing is left behind then.
    pub async fn open(&self, spec: Spec) -> Result<DiskHandle, Error> {
        let id = spec.id.clone();
        let (chains, boot, patience) = (Arc::clone(&self.chains), self.boot, self.options.patience);
        let opened = tokio::task::spawn_blocking(move || open(&chains, &spec, boot, patience))
            .await
            .map_err(|_| Error::Closed { id: id.clone() })??;
        let Some(shard) = self
            .shards
            .iter()
            .min_by_key(|shard| shard.disks.load(Ordering::Relaxed))
        else {
            return Err(Error::Closed { id });
        };
        shard.disks.fetch_add(1, Ordering::Relaxed);
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, lives) = oneshot::channel();
        let handle = DiskHandle {
            shared: opened.shared,
            key,
            mailbox: Arc::clone(&shard.mailbox),
        };
        send(
            &shard.mailbox,
            Letter::Open(key, opened.buffer, opened.build, answer),
        );
        lives.await.map_err(|_| Error::Closed { id })?;
        Ok(handle)
    }
}

impl Drop for Shards {
    fn drop(&mut self) {
        for shard in &self.shards {
            send(&shard.mailbox, Letter::Stop);
        }
    }
}

/// A disk that lives on some shard. Cheap to clone.
#[derive(Clone, Debug)]
pub struct DiskHandle {
    shared: Arc<Shared>,
    key: u64,
    mailbox: Arc<Mailbox<Letter>>,
}

impl DiskHandle {
    /// Sends a request. Never blocks; the request's `done` is called once, on the disk's thread;
    /// with `ENODEV` on this one if that thread has ended.
    pub fn submit(&self, request: Request) {
        send(&self.mailbox, Letter::Request(self.key, request));
    }

    /// Puts something in front of the disk that takes requests on the disk's own thread. Dropped
    /// unused if that thread or the disk has ended.
    pub fn stand_before(&self, front: Box<dyn Front>) {
        send(&self.mailbox, Letter::Front(self.key, front));
    }

    /// What it is called.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.shared.id
    }

    /// Its size in bytes, now.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.shared.size()
    }

    /// Does it refuse writes?
    #[must_use]
    pub fn read_only(&self) -> bool {
        self.shared.read_only
    }

    /// The cluster size of its chain.
    #[must_use]
    pub fn cluster(&self) -> ClusterSize {
        self.shared.cluster
    }

    /// How many deltas its chain has.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.shared.depth
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.counters.read()
    }

    /// What its requests took so far.
    #[must_use]
    pub fn latencies(&self) -> Latencies {
        self.shared.clock.read()
    }

    /// Why it answers errors for good, if it does.
    #[must_use]
    pub fn failed(&self) -> Option<String> {
        self.shared.failed().map(str::to_owned)
    }

    /// Makes everything that was answered survive the power.
    ///
    /// # Errors
    /// If the host's disk fails, or the disk is closed.
    pub async fn sync(&self) -> Result<(), Error> {
        let (answer, done) = oneshot::channel();
        self.submit(Request::flush(Box::new(move |result| {
            let _ = answer.send(result.map(drop));
        })));
        let id = || self.shared.id.clone();
        match done.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(errno)) => Err(match self.failed() {
                Some(why) => Error::Failed { id: id(), why },
                None if errno == super::Errno::NODEV => Error::Closed { id: id() },
                None => Error::Io {
                    id: id(),
                    source: errno.into(),
                },
            }),
            Err(_) => Err(Error::Closed { id: id() }),
        }
    }

    /// Makes the disk at least `size` bytes large, in whole clusters. Requests wait meanwhile, for
    /// milliseconds.
    ///
    /// # Errors
    /// [`Error::NotGrown`] if it is read-only, has failed, or would become smaller; what the host says.
    pub async fn grow(&self, size: u64) -> Result<(), Error> {
        let (answer, done) = oneshot::channel();
        send(&self.mailbox, Letter::Grow(self.key, size, answer));
        done.await.map_err(|_| Error::Closed {
            id: self.shared.id.clone(),
        })?
    }

    /// Ends the disk: answers what is under way, writes everything into the image, closes the files.
    /// With `seal` the top becomes a sealed delta, whose identity is returned, and a full host is waited for.
    ///
    /// # Errors
    /// If something could not be written; the image is then still marked in use, and the next disk
    /// that opens it goes on from what was answered.
    pub async fn close(&self, seal: bool) -> Result<Option<Seal>, Error> {
        let (answer, done) = oneshot::channel();
        send(&self.mailbox, Letter::Close(self.key, seal, answer));
        let closed = || Error::Closed {
            id: self.shared.id.clone(),
        };
        match done.await {
            Ok(Err(Error::Closed { .. })) | Err(_) => Err(closed()),
            Ok(answer) => answer,
        }
    }
}
