//! Snapshotters: what they hold, and whose turn it is.
//!
//! Lock order: a key's turn, then a disk's turn, then (inside the store) a transaction. Turns are held
//! across awaits, a transaction never is.

use std::collections::HashMap;
use std::sync::Arc;

use super::device::file_system;
use super::disks::Disks;
use super::locks::{Locks, Turn};
use super::mounts::{decide, mounted};
use super::paths::{Paths, our_disk};
use super::remove::Removals;
use super::shared::{Shared, blocking};
use super::steps::Steps;
use super::words::check_key;
use super::{Error, Kind, Mount, NameOptions, Options, golden, root};
use crate::filesystem::Tools;
use crate::link::Disk;
use crate::store::{Origin, Record, Store};

/// Where a key was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The snapshotter's name.
    pub snapshotter: String,
    /// The key.
    pub key: String,
    /// Bytes of its disk.
    pub size: u64,
}

/// Every snapshotter over one root.
#[derive(Debug)]
pub struct Snapshotters {
    names: HashMap<String, Arc<Snapshotter>>,
    pub(super) shared: Arc<Shared>,
}

impl Snapshotters {
    /// Locks the root, finishes or undoes what was under way, and opens the snapshotters.
    ///
    /// # Errors
    /// If the root is in use, unfit or damaged.
    pub async fn open(options: Options, disks: Arc<dyn Disks>) -> Result<Self, Error> {
        Self::open_with(options, disks, Steps::default()).await
    }

    /// The same, with places where a test may pull the plug.
    pub(super) async fn open_with(
        options: Options,
        disks: Arc<dyn Disks>,
        steps: Steps,
    ) -> Result<Self, Error> {
        let paths = Paths::new(&options.root);
        let tree = paths.clone();
        let (lock, store) = blocking("opening the root", move || {
            let lock = root::claim(&tree)?;
            root::probe(&tree)?;
            root::refuse_without_store(&tree)?;
            let store = Store::open(&tree.store())?;
            root::sync_dir(tree.root())?;
            Ok::<_, Error>((lock, store))
        })
        .await??;
        let shared = Arc::new(Shared {
            options,
            paths,
            disks,
            turns: Locks::default(),
            removals: Removals::default(),
            steps,
            store: Arc::new(store),
            tools: Tools::default(),
            _lock: lock,
        });
        shared.recover().await?;
        let records = shared.store(Store::all).await?;
        let mut names = HashMap::new();
        for name in &shared.options.names {
            let snapshotter = Snapshotter {
                options: name.clone(),
                origin: golden::ensure(&shared.paths, name, &records).await?,
                keys: Locks::default(),
                shared: Arc::clone(&shared),
            };
            names.insert(name.name.clone(), Arc::new(snapshotter));
        }
        Ok(Self { names, shared })
    }

    /// The snapshotter with this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<Arc<Snapshotter>> {
        self.names.get(name).cloned()
    }

    /// The names of all, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// The first active snapshot of any name whose key is the one that is looked for.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn find_active(
        &self,
        is: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<Option<Found>, Error> {
        let records = self.shared.store(Store::all).await?;
        let found = records
            .into_iter()
            .find(|record| record.kind == Kind::Active && record.visible() && is(&record.key));
        Ok(found.map(|record| Found {
            snapshotter: record.space,
            key: record.key,
            size: record.size,
        }))
    }

    /// Detaches every disk of ours that nobody uses; says how many are left.
    ///
    /// For a stop that leaves nothing behind, in tests and demonstrations. `mounts` attaches them again.
    ///
    /// # Errors
    /// If the disk server does not answer.
    pub async fn detach_idle(&self) -> Result<usize, Error> {
        let shared = &self.shared;
        shared.removals.settled(shared.options.cleanup_wait).await;
        let all = "all disks";
        let served = shared.disks.list().await;
        let served = served.map_err(Error::disk("", "list", all))?;
        let mut left = 0;
        let ours = |disk: &&Disk| our_disk(&disk.id) && shared.paths.holds(disk);
        for disk in served.iter().filter(ours) {
            let _turn = shared.turns.turn(&disk.id).await;
            if let Err(reason) = shared.set_down(disk).await {
                tracing::info!(disk = disk.id, reason, "a disk stays attached");
                left += 1;
            }
        }
        Ok(left)
    }
}

/// One snapshotter: its own set of records over the shared root.
///
/// Acts are not undone when their future is dropped: run each in a task of its own.
#[derive(Debug)]
pub struct Snapshotter {
    options: NameOptions,
    origin: Origin,
    keys: Locks,
    shared: Arc<Shared>,
}

impl Snapshotter {
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The name of its set of records.
    pub(super) fn space(&self) -> &str {
        &self.options.name
    }

    /// What can be chosen about it.
    pub(super) fn options(&self) -> &NameOptions {
        &self.options
    }

    /// What a chain without a parent stands on.
    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Waits for our turn with a key.
    pub(super) async fn turn(&self, key: &str) -> Turn {
        self.keys.turn(key).await
    }

    /// The record that answers to a key.
    pub(super) async fn find(&self, key: &str) -> Result<Record, Error> {
        check_key(key)?;
        let (space, key) = (self.space().to_owned(), key.to_owned());
        self.shared
            .store(move |store| store.find(&space, &key))
            .await
    }

    /// What to mount for an active snapshot or a view. Attaches its disk if nobody serves it now.
    ///
    /// # Errors
    /// `NotFound`, `FailedPrecondition` for a committed one, `DataLoss` if its files are not whole.
    pub async fn mounts(&self, key: &str) -> Result<Vec<Mount>, Error> {
        check_key(key)?;
        let _turn = self.turn(key).await;
        let record = self.find(key).await?;
        if record.kind == Kind::Committed {
            return Err(Error::Committed {
                key: key.to_owned(),
            });
        }
        let disk = self.shared.serve(&record).await?;
        let asked = disk.clone();
        let mounts = blocking("reading the mounts", move || mounted(&asked)).await?;
        // Without the table the device is still right in all but one case, and says so if not.
        let mounts = mounts.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read the mounts of this process");
            Vec::new()
        });
        let kind = file_system(&disk, self.shared.options.flush_limit).await?;
        let user_quota = self.enforces(&record, &disk).await?;
        Ok(decide(&disk, &mounts, kind, user_quota))
    }
}

#[cfg(test)]
#[path = "acts_tests.rs"]
mod tests;
