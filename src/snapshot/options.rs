//! What can be chosen about snapshots.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::filesystem::Choices;
use crate::units::ClusterSize;

/// Options of all snapshotters over one root.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where everything is kept. One daemon at a time.
    pub root: PathBuf,
    /// Where disk servers keep what is not in a delta yet: it goes with its delta. `None`: it stays.
    pub run: Option<PathBuf>,
    /// The snapshotters, each with records of its own.
    pub names: Vec<NameOptions>,
    /// Bytes that the host's disk must have free for a new active snapshot; 0: none.
    pub reserve: u64,
    /// How long a commit waits for a device that is still open.
    ///
    /// `umount` in another mount namespace can lag; containerd's writers wait for us meanwhile.
    pub busy_wait: Duration,
    /// How long flushing one device may take.
    pub flush_limit: Duration,
    /// How long a clean-up waits for removals that are under way.
    pub cleanup_wait: Duration,
    /// The clock.
    pub clock: fn() -> SystemTime,
}

impl Options {
    /// The defaults, with no snapshotter yet.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self {
            root,
            run: None,
            names: Vec::new(),
            reserve: 0,
            busy_wait: Duration::from_secs(2),
            flush_limit: Duration::from_secs(60),
            cleanup_wait: Duration::from_secs(10),
            clock: SystemTime::now,
        }
    }
}

/// Options of one snapshotter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameOptions {
    /// What containerd calls it.
    pub name: String,
    /// Bytes of a new chain's disk; a multiple of 4096.
    pub size: u64,
    /// Cluster size of a new chain.
    pub cluster: ClusterSize,
    /// How the file system of a new chain is made.
    pub file_system: Choices,
    /// The smallest disk that may be asked for.
    pub smallest: u64,
    /// The largest disk that may be asked for.
    pub largest: u64,
}

impl NameOptions {
    /// The defaults: a disk of 10 GiB.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            size: 10 << 30,
            cluster: ClusterSize::DEFAULT,
            file_system: Choices::default(),
            smallest: 64 << 20,
            largest: 8 << 40,
        }
    }
}
