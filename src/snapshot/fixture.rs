//! A root with two snapshotters over a disk server without devices, for tests.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::double::{Double, fast_dir};
use super::steps::Steps;
use super::{Error, ErrorKind, Labels, Mount, NameOptions, Options, Snapshotter, Snapshotters};
use crate::units::ClusterSize;

pub(super) struct House {
    pub(super) dir: tempfile::TempDir,
    pub(super) disks: Arc<Double>,
    pub(super) all: Snapshotters,
    pub(super) ploop: Arc<Snapshotter>,
}

pub(super) fn options(root: PathBuf) -> Options {
    let mut options = Options::new(root);
    options.busy_wait = Duration::from_millis(150);
    options.cleanup_wait = Duration::from_secs(5);
    options.names = ["ploop", "other"]
        .map(|name| NameOptions {
            name: name.to_owned(),
            size: 64 << 20,
            cluster: ClusterSize::DEFAULT,
            ..NameOptions::new(name)
        })
        .to_vec();
    options
}

/// Opens a root that may just have been closed.
///
/// Other tests of this process start programs: between fork and exec the child has our descriptors, and
/// with them the root's lock.
pub(super) async fn open(
    options: Options,
    disks: &Arc<Double>,
    steps: Steps,
) -> Result<Snapshotters, Error> {
    let mut tries = 0;
    loop {
        let disks = Arc::clone(disks) as _;
        match Snapshotters::open_with(options.clone(), disks, steps.clone()).await {
            Err(error) if tries < 200 && taken(&error) => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            done => return done,
        }
    }
}

fn taken(error: &Error) -> bool {
    match error {
        Error::RootTaken { .. } => true,
        Error::Store(error) => error.in_use(),
        _ => false,
    }
}

impl House {
    pub(super) async fn new() -> Self {
        let dir = fast_dir();
        let disks = Double::new(&dir.path().join("devices"));
        Self::open(dir, disks).await.unwrap()
    }

    pub(super) async fn open(dir: tempfile::TempDir, disks: Arc<Double>) -> Result<Self, Error> {
        let mut options = options(dir.path().join("root"));
        options.run = Some(dir.path().join("run"));
        let all = open(options, &disks, Steps::default()).await?;
        let ploop = all.named("ploop").unwrap();
        Ok(Self {
            dir,
            disks,
            all,
            ploop,
        })
    }

    /// The daemon ends; what it kept stays.
    pub(super) fn close(self) -> (tempfile::TempDir, Arc<Double>) {
        drop((self.all, self.ploop));
        (self.dir, self.disks)
    }

    pub(super) async fn reopen(self) -> Result<Self, Error> {
        let (dir, disks) = self.close();
        Self::open(dir, disks).await
    }

    pub(super) fn deltas(&self) -> Vec<String> {
        let dir = self.dir.path().join("root/deltas");
        let mut names: Vec<_> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    pub(super) fn delta(&self, id: u64) -> PathBuf {
        self.dir.path().join(format!("root/deltas/{id}.hds"))
    }

    pub(super) async fn prepare(&self, key: &str, parent: &str) -> Vec<Mount> {
        self.ploop
            .prepare(key, parent, Labels::new())
            .await
            .unwrap()
    }

    pub(super) async fn commit(&self, name: &str, key: &str) {
        self.ploop.commit(name, key, Labels::new()).await.unwrap();
    }

    /// `A` over nothing, `B` over `A`, deltas 1 and 2.
    pub(super) async fn two_layers(&self) {
        self.prepare("a", "").await;
        self.commit("A", "a").await;
        self.prepare("b", "A").await;
        self.commit("B", "b").await;
    }
}

pub(super) fn kind<T: std::fmt::Debug>(done: Result<T, Error>) -> ErrorKind {
    done.unwrap_err().kind()
}

pub(super) fn labels(pairs: &[(&str, &str)]) -> Labels {
    let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(own).collect()
}
