//! Which disks this process serves, kept in memory and written down for the next process.
//!
//! The list on disk is a plain JSON file in the run folder, replaced whole at each change. It is an
//! account for people and for the next server, which takes the devices over by it: so a device is in
//! it before anything can go through the device.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::error::{Error, host};
use super::wanted::{Delta, Wanted};
use crate::device::Device;
use crate::disk::DiskHandle;
use crate::image;

/// Version of the file. The same since 2, but the devices that are named in it have another word of their server's: a
/// program that knows only the former one would take none of them for its own.
const VERSION: u32 = 3;
const OLDEST: u32 = 2;

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
    /// Devices that are about to be, or wait to be taken over: a process that dies now leaves them to the next. Held for
    /// a change; taken after `path`, before `disks`.
    promised: Mutex<BTreeMap<String, Entry>>,
    /// Who got a device's number last. The kernel gives a number out again as soon as its device is gone, and the disk
    /// that had it may still be closing then: an older note of it must not lead the next server to this device. Held
    /// for a look-up or a change.
    owners: Mutex<BTreeMap<u32, String>>,
    /// Held while the file is replaced, so that the last change is the last to be written; taken
    /// before the others.
    path: Mutex<PathBuf>,
}

/// The list as it is written down.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Account {
    pub(super) version: u32,
    pub(super) pid: u32,
    pub(super) disks: Vec<Entry>,
}

/// One disk of it: enough to serve it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) id: String,
    pub(super) device: PathBuf,
    /// The ublk device's number; nothing on other transports.
    pub(super) number: Option<u32>,
    pub(super) read_only: bool,
    /// Versions before revision 2 wrote nothing of it.
    #[serde(default)]
    pub(super) will_grow: bool,
    pub(super) deltas: Vec<Noted>,
}

/// One file of a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Noted {
    path: PathBuf,
    /// Is it a plain file? Nothing: look at it.
    raw: Option<bool>,
    /// Length and digest of a sealed one.
    seal: Option<(u64, u32)>,
    allocated: u64,
}

impl Registry {
    /// No disks; the list will be at `path`.
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            disks: Mutex::default(),
            promised: Mutex::default(),
            owners: Mutex::default(),
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

    /// The disk is served; a promise of it is kept by that.
    pub(super) fn insert(&self, served: Arc<Served>) {
        let id = served.wanted.id.clone();
        if let Some(number) = served.device.number {
            self.owners().insert(number, id.clone());
        }
        self.lock().insert(id.clone(), served);
        self.promised().remove(&id);
    }

    pub(super) fn remove(&self, id: &str) {
        self.lock().remove(id);
    }

    /// Notes a device that is about to be, and writes the list down before it returns.
    pub(super) fn promise(&self, wanted: &Wanted, number: u32) -> Result<(), Error> {
        self.expect(wanted, number);
        self.write()
    }

    /// Notes a device of the server before that waits to be taken over; written down with the next change.
    pub(super) fn expect(&self, wanted: &Wanted, number: u32) {
        let device = PathBuf::from(format!("/dev/ublkb{number}"));
        let entry = Entry::new(wanted, device, Some(number));
        self.owners().insert(number, wanted.id.clone());
        self.promised().insert(wanted.id.clone(), entry);
    }

    /// Is the disk promised, and this its device? Who has the disk's turn and asks so asks whether it waits to be taken
    /// over.
    pub(super) fn promises(&self, id: &str, number: Option<u32>) -> bool {
        let entry = self.promised().get(id).cloned();
        let owners = self.owners();
        entry.is_some_and(|it| it.owns(&owners) && (number.is_none() || it.number == number))
    }

    /// The ids of those that are promised and not served yet.
    pub(super) fn waiting(&self) -> Vec<String> {
        let promised = self.promised();
        let owners = self.owners();
        let ours = promised.values().filter(|entry| entry.owns(&owners));
        ours.map(|entry| entry.id.clone()).collect()
    }

    /// How many are promised.
    pub(super) fn promises_count(&self) -> usize {
        self.promised().len()
    }

    /// There will be no such device.
    pub(super) fn withdraw(&self, id: &str) {
        self.promised().remove(id);
    }

    /// Writes the list down. Blocks, on tmpfs.
    pub(super) fn write(&self) -> Result<(), Error> {
        let path = self.path.lock().unwrap_or_else(PoisonError::into_inner);
        // By id: what is served may still be promised.
        let mut disks = self.promised().clone();
        disks.extend(self.all().iter().map(|served| {
            let device = &served.device;
            let entry = Entry::new(&served.wanted, device.path.clone(), device.number);
            (served.wanted.id.clone(), entry)
        }));
        let mut disks: Vec<Entry> = disks.into_values().collect();
        {
            let owners = self.owners();
            disks.retain(|it| it.owns(&owners));
        }
        let account = Account {
            version: VERSION,
            pid: std::process::id(),
            disks,
        };
        let failed = |error: serde_json::Error| host("write", &path)(io::Error::from(error));
        let text = serde_json::to_vec_pretty(&account).map_err(failed)?;
        let fresh = path.with_extension("json.new");
        fs::write(&fresh, text).map_err(host("write", &fresh))?;
        fs::rename(&fresh, &*path).map_err(host("replace", &path))
    }

    fn owners(&self) -> std::sync::MutexGuard<'_, BTreeMap<u32, String>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn promised(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Entry>> {
        self.promised.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Served>>> {
        self.disks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn new(wanted: &Wanted, device: PathBuf, number: Option<u32>) -> Self {
        let deltas = wanted.deltas.iter();
        Self {
            id: wanted.id.clone(),
            device,
            number,
            read_only: wanted.read_only,
            will_grow: wanted.will_grow,
            deltas: deltas
                .map(|delta| Noted {
                    path: delta.path.clone(),
                    raw: delta.format.map(|format| format == image::Format::Raw),
                    seal: delta.seal.map(|seal| (seal.length, seal.digest)),
                    allocated: delta.allocated,
                })
                .collect(),
        }
    }

    /// Is its device still its own?
    fn owns(&self, owners: &BTreeMap<u32, String>) -> bool {
        let owner = self.number.and_then(|number| owners.get(&number));
        owner.is_none_or(|id| *id == self.id)
    }

    /// What was asked for when the disk was attached.
    pub(super) fn wanted(&self) -> Wanted {
        let deltas = self.deltas.iter();
        Wanted {
            id: self.id.clone(),
            deltas: deltas
                .map(|noted| Delta {
                    path: noted.path.clone(),
                    format: noted.raw.map(|raw| {
                        if raw {
                            image::Format::Raw
                        } else {
                            image::Format::Ploop
                        }
                    }),
                    seal: noted
                        .seal
                        .map(|(length, digest)| image::Seal { length, digest }),
                    allocated: noted.allocated,
                })
                .collect(),
            read_only: self.read_only,
            will_grow: self.will_grow,
        }
    }
}

/// What an earlier process wrote down, if it wrote anything.
///
/// # Errors
/// If it cannot be understood: whoever took that for "nothing" would take the devices of running containers away.
pub(super) fn read_account(path: &Path) -> Result<Option<Account>, Error> {
    let strange = |why: String| Error::Account {
        path: path.to_owned(),
        why,
    };
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(host("read", path)(error)),
    };
    let account: Account =
        serde_json::from_slice(&text).map_err(|error| strange(error.to_string()))?;
    if !(OLDEST..=VERSION).contains(&account.version) {
        return Err(strange(format!(
            "it is of version {}, and this ploopd knows {VERSION}",
            account.version
        )));
    }
    Ok(Some(account))
}

#[cfg(test)]
mod tests {
    use super::{Entry, Registry, read_account};
    use crate::image;
    use crate::server::wanted::{Delta, Wanted};

    #[test]
    fn a_promised_disk_is_read_back_as_it_was_wanted() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("registry.json");
        let registry = Registry::new(path.clone());
        let sealed = image::Seal {
            length: 1 << 40,
            digest: u32::MAX,
        };
        let delta = |format, seal| Delta {
            path: "/a b/\u{e9}".into(),
            format,
            seal,
            allocated: 7,
        };
        let wanted = Wanted {
            id: "one".to_owned(),
            deltas: vec![
                delta(Some(image::Format::Raw), Some(sealed)),
                delta(Some(image::Format::Ploop), None),
                delta(None, None),
            ],
            read_only: false,
            will_grow: true,
        };
        registry.promise(&wanted, 12).unwrap();
        let account = read_account(&path).unwrap().unwrap();
        assert_eq!(
            account.disks.iter().map(Entry::wanted).collect::<Vec<_>>(),
            [wanted]
        );
        assert_eq!(account.disks[0].number, Some(12));
        registry.withdraw("one");
        registry.write().unwrap();
        assert!(read_account(&path).unwrap().unwrap().disks.is_empty());
    }

    /// A server that lacks the descriptors for a disk dies before it has them: the next one must know of the disk.
    #[test]
    fn what_waits_to_be_taken_over_is_in_every_account() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("registry.json");
        let registry = Registry::new(path.clone());
        let wanted = Wanted {
            id: "one".to_owned(),
            deltas: Vec::new(),
            read_only: false,
            will_grow: false,
        };
        registry.expect(&wanted, 5);
        assert!(
            !path.exists(),
            "the old account stands until this one is complete"
        );
        assert!(registry.promises("one", None) && registry.promises("one", Some(5)));
        assert!(!registry.promises("one", Some(6)) && !registry.promises("two", None));
        assert_eq!(registry.promises_count(), 1);
        assert_eq!(registry.waiting(), ["one"]);
        registry.write().unwrap();
        let account = read_account(&path).unwrap().unwrap();
        assert_eq!(account.disks[0].wanted(), wanted);
        assert_eq!(account.disks[0].number, Some(5));
        // The kernel gave the number to another disk's device: this one's is gone.
        let other = Wanted {
            id: "two".to_owned(),
            ..wanted
        };
        registry.promise(&other, 5).unwrap();
        assert!(!registry.promises("one", Some(5)));
        assert_eq!(registry.waiting(), ["two"]);
        registry.withdraw("one");
        assert_eq!(registry.promises_count(), 1);
    }

    /// The kernel gives a number out again while the disk that had it is still closing.
    #[test]
    fn a_number_belongs_to_who_got_it_last() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("registry.json");
        let registry = Registry::new(path.clone());
        let wanted = |id: &str| Wanted {
            id: id.to_owned(),
            deltas: Vec::new(),
            read_only: false,
            will_grow: false,
        };
        let noted = || {
            let account = read_account(&path).unwrap().unwrap();
            let mut all: Vec<_> = account
                .disks
                .into_iter()
                .map(|it| (it.id, it.number.unwrap()))
                .collect();
            all.sort();
            all
        };
        let pair = |id: &str, number| (id.to_owned(), number);
        registry.promise(&wanted("one"), 5).unwrap();
        registry.promise(&wanted("two"), 6).unwrap();
        assert_eq!(noted(), [pair("one", 5), pair("two", 6)]);
        registry.promise(&wanted("three"), 5).unwrap();
        assert_eq!(noted(), [pair("three", 5), pair("two", 6)]);
        registry.withdraw("one");
        registry.promise(&wanted("one"), 7).unwrap();
        assert_eq!(noted(), [pair("one", 7), pair("three", 5), pair("two", 6)]);
    }

    #[test]
    fn the_account_is_read_back_and_a_strange_one_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("registry.json");
        assert!(read_account(&path).unwrap().is_none());
        Registry::new(path.clone()).write().unwrap();
        let account = read_account(&path).unwrap().unwrap();
        assert_eq!(account.pid, std::process::id());
        assert!(account.disks.is_empty());
        let empty = |version| format!(r#"{{"version":{version},"pid":1,"disks":[]}}"#);
        std::fs::write(&path, empty(2)).unwrap();
        assert!(read_account(&path).unwrap().is_some(), "the version before");
        for strange in ["", "{}", &empty(1), &empty(4), "\u{0}"] {
            std::fs::write(&path, strange).unwrap();
            let error = read_account(&path).unwrap_err().to_string();
            assert!(error.contains("install the version"), "{error}");
        }
    }
}
