//! Survey: every snapshot of every name at one moment, what it costs the host, and what a container sees of it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::statvfs;

use super::mounts::{Mounted, place_of, table};
use super::paths::disk_of;
use super::shared::blocking;
use super::{Error, Kind, Snapshotters, Usage};
use crate::link::Disk;
use crate::store::{Id, Record, Store};

/// Bytes that `stat` counts in.
const BLOCK: u64 = 512;

/// All snapshots, and the host's file system under them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// Our root.
    pub root: PathBuf,
    /// Bytes of the host's file system.
    pub host_size: u64,
    /// Bytes of it that are free to us.
    pub host_free: u64,
    /// Bytes that new containers leave free, see `Options::reserve`.
    pub reserve: u64,
    /// Every snapshot, parents before those who stand on them.
    pub snapshots: Vec<Seen>,
}

/// One snapshot of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The snapshotter's name.
    pub snapshotter: String,
    /// containerd's word for it.
    pub key: String,
    /// What it stands on, in containerd's words; empty if on nothing.
    pub parent: String,
    /// What it is.
    pub kind: Kind,
    /// Bytes of its disk.
    pub size: u64,
    /// Bytes that the host holds for it alone.
    pub own: u64,
    /// Bytes that the host holds for what it stands on, which others may stand on too.
    pub shared: u64,
    /// Image files in its chain.
    pub depth: u32,
    /// When it was made.
    pub created: SystemTime,
    /// The name of its disk at the disk server, while that serves it.
    pub disk: Option<String>,
    /// Its device, while it is served.
    pub device: Option<PathBuf>,
    /// What is in it, while it is mounted where we can see it.
    pub inside: Option<Inside>,
}

/// A mounted file system, as `df` inside the container says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inside {
    /// Where it is mounted.
    pub at: PathBuf,
    /// Bytes.
    pub size: u64,
    /// Bytes in use.
    pub used: u64,
    /// Bytes that an ordinary user may still write.
    pub available: u64,
    /// Inodes.
    pub inodes: u64,
    /// Inodes that are free.
    pub free_inodes: u64,
}

/// What lies below a record: bytes on the host, and image files.
#[derive(Clone, Copy, Debug, Default)]
struct Below {
    bytes: u64,
    files: u32,
}

impl Snapshotters {
    /// Looks at everything: one question to the store, one to each disk server, one to the host for each active
    /// snapshot. Nothing is attached for it, and no device is touched.
    ///
    /// # Errors
    /// If the store or the host's file system cannot be read.
    pub async fn survey(&self) -> Result<Survey, Error> {
        let shared = &self.shared;
        let records = shared.store(Store::all).await?;
        let served = shared.disks.glance().await;
        let (paths, reserve) = (shared.paths.clone(), shared.options.reserve);
        blocking("looking at everything", move || {
            let root = paths.root().to_owned();
            let host =
                statvfs(&root).map_err(|error| Error::file("look at", &root)(error.into()))?;
            let mounts = table().unwrap_or_else(|error| {
                tracing::warn!(%error, "cannot read the mounts of this process");
                Vec::new()
            });
            let served: BTreeMap<&str, &Disk> =
                served.iter().map(|disk| (disk.id.as_str(), disk)).collect();
            let host_bytes = |record: &Record| match record.kind {
                Kind::Active => on_host(&paths.delta(record.id)),
                Kind::View => 0,
                Kind::Committed | Kind::Fitted => cost(record.usage),
            };
            let golden_bytes = |name: &str| on_host(&paths.golden(name));
            let known: BTreeMap<Id, &Record> = records.iter().map(|it| (it.id, it)).collect();
            let snapshots = records.iter().filter(|record| record.visible());
            let snapshots = snapshots.map(|record| {
                let disk = served.get(disk_of(record).as_str()).copied();
                let below = below(record, &known, golden_bytes);
                Seen {
                    snapshotter: record.space.clone(),
                    key: record.key.clone(),
                    parent: record
                        .parent
                        .as_ref()
                        .map_or_else(String::new, |parent| parent.name.clone()),
                    kind: record.kind,
                    size: record.size,
                    own: host_bytes(record),
                    shared: below.bytes,
                    depth: below.files + u32::from(record.kind != Kind::View),
                    created: record.created.into(),
                    disk: disk.map(|disk| disk.id.clone()),
                    device: disk.map(|disk| disk.device.clone()),
                    inside: disk.and_then(|disk| inside(disk, &mounts)),
                }
            });
            Ok(Survey {
                root,
                host_size: host.f_blocks.saturating_mul(host.f_frsize),
                host_free: host.f_bavail.saturating_mul(host.f_frsize),
                reserve,
                snapshots: snapshots.collect(),
            })
        })
        .await?
    }
}

fn cost(usage: Option<Usage>) -> u64 {
    usage.map_or(0, |usage| usage.bytes)
}

/// A file that is gone this moment holds nothing.
fn on_host(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).map_or(0, |file| file.blocks() * BLOCK)
}

/// Everything under a record. A chain that leads in a circle is `ploop check`'s to find; here it ends.
fn below(record: &Record, known: &BTreeMap<Id, &Record>, golden: impl Fn(&str) -> u64) -> Below {
    let mut below = Below::default();
    let mut at = record;
    for _ in 0..known.len() {
        if let Some(name) = &at.golden {
            below.bytes += golden(name);
            below.files += 1;
        }
        let parent = at.parent.as_ref().and_then(|parent| known.get(&parent.id));
        let Some(parent) = parent else { break };
        below.bytes += cost(parent.usage);
        below.files += 1;
        at = parent;
    }
    below
}

/// What the file system on a disk says, if it is mounted here. ext4 answers from memory.
fn inside(disk: &Disk, mounts: &[Mounted]) -> Option<Inside> {
    let at = place_of(disk, mounts)?;
    let found = statvfs(&at).map_err(io::Error::from);
    let found = found
        .inspect_err(|error| tracing::debug!(at = %at.display(), %error, "cannot look inside"))
        .ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Some(Inside {
        at,
        size: bytes(found.f_blocks),
        used: bytes(found.f_blocks.saturating_sub(found.f_bfree)),
        available: bytes(found.f_bavail),
        inodes: found.f_files,
        free_inodes: found.f_ffree,
    })
}
