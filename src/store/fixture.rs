//! A store in a directory of its own, for tests.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{Error, Kind, Labels, New, Origin, Record, Seal, Store, Usage};

pub(super) struct Fixture {
    pub(super) dir: tempfile::TempDir,
    pub(super) store: Store,
}

pub(super) const SEAL: Seal = Seal {
    length: 65536,
    digest: 7,
    allocated: 4096,
};
pub(super) const USAGE: Usage = Usage {
    bytes: 4096,
    inodes: 1,
};

pub(super) fn origin() -> Origin {
    Origin {
        golden: "g".into(),
        size: 1 << 30,
        cluster: 65536,
    }
}

/// A moment of its own for every second.
pub(super) fn at(second: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::new(1_790_000_000 + second, 123_456_789)
}

impl Fixture {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store.redb")).unwrap();
        Self { dir, store }
    }

    /// containerd's `basePopulate`: committed-1 and -2, and on top of each an active and a view.
    pub(super) fn populated() -> Self {
        let fixture = Self::new();
        for (name, parent) in [("committed-1", ""), ("committed-2", "committed-1")] {
            fixture.make(Kind::Active, "in the works", parent).unwrap();
            fixture.commit(name, "in the works").unwrap();
        }
        fixture.make(Kind::Active, "active-1", "").unwrap();
        fixture
            .make(Kind::Active, "active-2", "committed-1")
            .unwrap();
        fixture
            .make(Kind::Active, "active-3", "committed-2")
            .unwrap();
        fixture.make(Kind::View, "view-1", "").unwrap();
        fixture.make(Kind::View, "view-2", "committed-2").unwrap();
        fixture
    }

    pub(super) fn path(&self) -> PathBuf {
        self.dir.path().join("store.redb")
    }

    pub(super) fn reserve(&self, kind: Kind, key: &str, parent: &str) -> Result<Record, Error> {
        self.store.reserve(New {
            space: "ploop",
            key,
            kind,
            parent,
            origin: origin(),
            fitted: None,
            labels: Labels::from([("key".into(), key.into())]),
            now: at(0),
        })
    }

    pub(super) fn make(&self, kind: Kind, key: &str, parent: &str) -> Result<Record, Error> {
        let id = self.reserve(kind, key, parent)?.id;
        self.store.ready(id)
    }

    pub(super) fn commit(&self, name: &str, key: &str) -> Result<Record, Error> {
        let Record { id, size, .. } = self.store.committing("ploop", key, name)?;
        self.store
            .committed(id, SEAL, size, USAGE, Labels::new(), at(1))
    }

    pub(super) fn find(&self, key: &str) -> Result<Record, Error> {
        self.store.find("ploop", key)
    }

    pub(super) fn remove(&self, key: &str) -> Result<Record, Error> {
        Ok(self.store.remove("ploop", key)?.swap_remove(0))
    }

    pub(super) fn keys(&self) -> Vec<String> {
        let mut keys: Vec<_> = self
            .store
            .list("ploop")
            .unwrap()
            .into_iter()
            .map(|r| r.key)
            .collect();
        keys.sort();
        keys
    }

    /// The process dies: what the kernel has of the file is what the next one finds.
    pub(super) fn killed(self) -> Self {
        let saved = self.dir.path().join("saved");
        std::fs::copy(self.path(), &saved).unwrap();
        drop(self.store);
        let path = self.dir.path().join("store.redb");
        std::fs::rename(saved, &path).unwrap();
        Self {
            store: reopen(&path).unwrap(),
            dir: self.dir,
        }
    }
}

/// Opens a store that was just closed.
///
/// Other tests of this process start programs: between fork and exec the child has our descriptors, and
/// with them the file's lock.
pub(super) fn reopen(path: &Path) -> Result<Store, Error> {
    for _ in 0..200 {
        match Store::open(path) {
            Err(error) if error.in_use() => std::thread::sleep(Duration::from_millis(10)),
            done => return done,
        }
    }
    Store::open(path)
}
