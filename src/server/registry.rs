//! Which disks this process serves, kept in memory and written down for the next process.
//!
//! The list on disk is a plain JSON file in the run folder, replaced whole at each change. It is an
//! account for the next server and for people; nothing is lost if it is.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::error::{Error, host};
use super::wanted::Wanted;
use crate::device::Device;
use crate::disk::DiskHandle;

/// Version of the file.
const VERSION: u32 = 1;

/// A disk that is attached.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) wanted: Wanted,
    pub(super) disk: DiskHandle,
    pub(super) device: Device,
}

/// The disks of this process.
#[derive(Debug)]
pub(super) struct Registry {
    /// Held for a look-up or a change.
    disks: Mutex<BTreeMap<String, Arc<Served>>>,
    /// Held while the file is replaced, so that the last change is the last to be written; taken
    /// before `disks`.
    path: Mutex<PathBuf>,
}

/// The list as it is written down.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Account {
    pub(super) version: u32,
    pub(super) pid: u32,
    pub(super) disks: Vec<Entry>,
}

/// One disk of it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) id: String,
    pub(super) device: PathBuf,
    pub(super) read_only: bool,
    pub(super) deltas: Vec<PathBuf>,
}

impl Registry {
    /// No disks; the list will be at `path`.
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            disks: Mutex::default(),
            path: Mutex::new(path),
        }
    }

    pub(super) fn find(&self, id: &str) -> Option<Arc<Served>> {
        self.lock().get(id).cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<Served>> {
        self.lock().values().cloned().collect()
    }

    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    pub(super) fn insert(&self, served: Arc<Served>) {
        self.lock().insert(served.wanted.id.clone(), served);
    }

    pub(super) fn remove(&self, id: &str) {
        self.lock().remove(id);
    }

    /// Writes the list down. Blocks, on tmpfs.
    pub(super) fn write(&self) -> Result<(), Error> {
        let path = self.path.lock().unwrap_or_else(PoisonError::into_inner);
        let account = Account {
            version: VERSION,
            pid: std::process::id(),
            disks: self.all().iter().map(|served| entry(served)).collect(),
        };
        let failed = |error: serde_json::Error| host("write", &path)(io::Error::from(error));
        let text = serde_json::to_vec_pretty(&account).map_err(failed)?;
        let fresh = path.with_extension("json.new");
        fs::write(&fresh, text).map_err(host("write", &fresh))?;
        fs::rename(&fresh, &*path).map_err(host("replace", &path))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Served>>> {
        self.disks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn entry(served: &Served) -> Entry {
    let deltas = served.wanted.deltas.iter();
    Entry {
        id: served.wanted.id.clone(),
        device: served.device.path.clone(),
        read_only: served.wanted.read_only,
        deltas: deltas.map(|delta| delta.path.clone()).collect(),
    }
}

/// What an earlier process wrote down, if it can be read.
pub(super) fn read_account(path: &Path) -> Option<Account> {
    let text = fs::read(path).ok()?;
    let account: Account = serde_json::from_slice(&text).ok()?;
    (account.version == VERSION).then_some(account)
}

#[cfg(test)]
mod tests {
    use super::{Registry, read_account};

    #[test]
    fn the_account_is_read_back_and_a_strange_one_is_nothing() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("registry.json");
        assert!(read_account(&path).is_none());
        Registry::new(path.clone()).write().unwrap();
        let account = read_account(&path).unwrap();
        assert_eq!(account.pid, std::process::id());
        assert!(account.disks.is_empty());
        for strange in ["", "{}", r#"{"version":2,"pid":1,"disks":[]}"#, "\u{0}"] {
            std::fs::write(&path, strange).unwrap();
            assert!(read_account(&path).is_none(), "{strange}");
        }
    }
}
