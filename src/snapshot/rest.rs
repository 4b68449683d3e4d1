//! A root at rest with a bit of everything in it, for tests that damage it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use redb::{Database, ReadableTable, TableDefinition};

use super::check::{Report, check};
use super::fixture::House;
use super::{Error, Fault, Finding, Labels};
use crate::store::Record;

const RECORDS: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("records");
/// Clusters of a fixture's image begin here: one of header and index.
pub(super) const CLUSTER: u64 = 65536;

/// A root at rest.
pub(super) struct Rest {
    pub(super) dir: tempfile::TempDir,
    pub(super) root: PathBuf,
}

impl Rest {
    /// A (1) over nothing, with a first cluster of its own; B (2) over A; active `top` (3) over B, view
    /// `view` over B, active `alone` (5) over nothing.
    pub(super) async fn new() -> Self {
        let house = House::new().await;
        house.prepare("a", "").await;
        first_cluster(&house, 1);
        house.commit("A", "a").await;
        house.prepare("b", "A").await;
        house.commit("B", "b").await;
        house.prepare("top", "B").await;
        house.ploop.view("view", "B", Labels::new()).await.unwrap();
        house.prepare("alone", "").await;
        assert_eq!(house.all.detach_idle().await.unwrap(), 0);
        let (dir, _) = house.close();
        let root = dir.path().join("root");
        Self { dir, root }
    }

    pub(super) fn delta(&self, id: u64) -> PathBuf {
        self.root.join(format!("deltas/{id}.hds"))
    }

    pub(super) fn golden(&self) -> PathBuf {
        let mut names = fs::read_dir(self.root.join("golden")).unwrap();
        names.next().unwrap().unwrap().path()
    }

    pub(super) fn word(&self, id: u64, at: u64, word: u32) {
        let file = fs::File::options().write(true).open(self.delta(id));
        file.unwrap().write_all_at(&word.to_le_bytes(), at).unwrap();
    }

    /// Changes a record behind the store's back.
    pub(super) fn record(&self, id: u64, change: impl FnOnce(&mut Record)) {
        let database = Database::open(self.root.join("store.redb")).unwrap();
        let txn = database.begin_write().unwrap();
        let mut table = txn.open_table(RECORDS).unwrap();
        let mut bytes = table.get(id).unwrap().unwrap().value().to_vec();
        let mut record = serde_json::from_slice(&bytes[1..]).unwrap();
        change(&mut record);
        bytes.truncate(1);
        serde_json::to_writer(&mut bytes, &record).unwrap();
        table.insert(id, bytes.as_slice()).unwrap();
        drop(table);
        txn.commit().unwrap();
    }

    /// Every byte below the root.
    pub(super) fn bytes(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.is_file() {
                    found.insert(path.clone(), fs::read(&path).unwrap());
                }
            }
        }
        found
    }

    pub(super) fn check(&self) -> Report {
        let before = self.bytes();
        let report = loop {
            match check(&self.root) {
                // A child that another test just started has our descriptors until it runs.
                Err(Error::RootBusy { .. }) => std::thread::yield_now(),
                done => break done.unwrap(),
            }
        };
        assert!(before == self.bytes(), "a look changes nothing");
        report
    }

    pub(super) fn faults(&self) -> Vec<(String, Fault)> {
        told(&self.check())
    }
}

/// Each finding: its file's name or its snapshot's number, and the fault.
pub(super) fn told(report: &Report) -> Vec<(String, Fault)> {
    let tell = |finding: &Finding| {
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        let place = finding.file.as_ref().map(name);
        let number = || finding.snapshot.as_ref().map(|it| it.id.to_string());
        let fault = finding.fault.clone();
        assert!(!fault.to_string().is_empty() && !fault.advice().is_empty());
        (place.or_else(number).unwrap(), fault)
    };
    report.findings.iter().map(tell).collect()
}

/// The delta gets a first cluster, as a mounted file system writes one.
fn first_cluster(house: &House, id: u64) {
    let mut golden = fs::read_dir(house.dir.path().join("root/golden")).unwrap();
    let golden = fs::File::open(golden.next().unwrap().unwrap().path()).unwrap();
    let mut bytes = vec![0; usize::try_from(CLUSTER).unwrap()];
    golden.read_exact_at(&mut bytes, 0).unwrap();
    let file = fs::File::options()
        .write(true)
        .open(house.delta(id))
        .unwrap();
    file.write_all_at(&bytes, CLUSTER).unwrap();
    file.write_all_at(&1_u32.to_le_bytes(), 64).unwrap();
}
