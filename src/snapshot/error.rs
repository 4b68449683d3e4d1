//! What an act refuses, and why it fails. [`Error::kind`](super::Error::kind) is what the gRPC door translates.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::filesystem;
use crate::image;
use crate::link;
use crate::store;
use crate::units::{BadClusterSize, Bytes, ClusterSize};

/// Why an act was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A rule of the key space, or the store itself.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A snapshot must be called something.
    #[error("a snapshot's key or name must not be empty")]
    EmptyKey,
    /// Nobody means such a key.
    #[error("a key of {length} bytes is longer than {limit}")]
    LongKey {
        /// Its bytes.
        length: usize,
        /// What is allowed.
        limit: usize,
    },
    /// containerd's rule for labels.
    #[error(
        "label key and value length ({length} bytes) greater than maximum size ({limit} bytes), key: {key}"
    )]
    LongLabel {
        /// How its key begins.
        key: String,
        /// Bytes of key and value.
        length: usize,
        /// What is allowed.
        limit: usize,
    },
    /// A label that should be a size.
    #[error(
        "label {label} of snapshot {key:?} is {text:?}, which is no size: write one such as 20Gi"
    )]
    NoSize {
        /// The snapshot.
        key: String,
        /// The label.
        label: &'static str,
        /// How its text begins.
        text: String,
    },
    /// A size outside the limits of the snapshotter's name.
    #[error(
        "{} for snapshot {key:?} is not allowed: a size is from {} to {} here (min_size, max_size)",
        Bytes(*size), Bytes(*smallest), Bytes(*largest)
    )]
    SizeLimits {
        /// The snapshot.
        key: String,
        /// What was asked for.
        size: u64,
        /// The smallest.
        smallest: u64,
        /// The largest.
        largest: u64,
    },
    /// Only an active snapshot has a size of its own.
    #[error("snapshot {key:?} is not active: only a container's own disk can be resized")]
    NotResizable {
        /// The snapshot.
        key: String,
    },
    /// A file system does not shrink while it is mounted.
    #[error(
        "snapshot {key:?} has {} and is in use: a mounted file system does not shrink to {}; stop its \
         container first",
        Bytes(*size), Bytes(*asked)
    )]
    Shrinks {
        /// The snapshot.
        key: String,
        /// Its size.
        size: u64,
        /// What was asked for.
        asked: u64,
    },
    /// Somebody has its device, or did not let go of it in order.
    #[error("cannot resize snapshot {key:?}: its device {device} is {how}")]
    NotResized {
        /// The snapshot.
        key: String,
        /// Its device.
        device: PathBuf,
        /// Mounted where, or opened.
        how: String,
    },
    /// What a resize would change is to be replayed over, or is damaged already.
    #[error(
        "cannot resize snapshot {key:?}: its file system (on {device}) {how}: start its container once, or let e2fsck mend it"
    )]
    ResizesTorn {
        /// The snapshot.
        key: String,
        /// Its device.
        device: PathBuf,
        /// What is wrong with it.
        how: &'static str,
    },
    /// The file system does not take the size.
    #[error("cannot give snapshot {key:?} a size of {}", Bytes(*size))]
    Resize {
        /// The snapshot.
        key: String,
        /// What was asked for.
        size: u64,
        /// Why.
        #[source]
        source: Box<filesystem::Error>,
    },
    /// Its file system does not begin to count what each user has.
    #[error("cannot switch the users' quota of snapshot {key:?} on (user_quota)")]
    Quota {
        /// The snapshot.
        key: String,
        /// Why.
        #[source]
        source: Box<filesystem::Error>,
    },
    /// The host's disk is too full for another container.
    #[error(
        "the host's disk under {} has {} left, and {} are kept back (reserve): remove images or \
         containers, or make room",
        root.display(), Bytes(*free), Bytes(*reserve)
    )]
    Reserve {
        /// The root.
        root: PathBuf,
        /// Bytes that are free.
        free: u64,
        /// Bytes that are kept back.
        reserve: u64,
    },
    /// Only labels can be changed.
    #[error("cannot update {path:?} of snapshot {key:?}: only labels can be changed")]
    Immutable {
        /// The snapshot.
        key: String,
        /// The field.
        path: String,
    },
    /// A committed snapshot is no file system to mount.
    #[error("snapshot {key:?} is committed: prepare or view it to mount it")]
    Committed {
        /// The snapshot.
        key: String,
    },
    /// It is still in use.
    #[error("cannot commit snapshot {key:?}: its device {device} is still {how}")]
    InUse {
        /// The snapshot.
        key: String,
        /// Its device.
        device: PathBuf,
        /// Mounted where, or opened.
        how: String,
    },
    /// Its caller was told that it failed, or went away: it is undone.
    #[error("nobody waits any more for what was asked of snapshot {key:?}: it is undone")]
    Abandoned {
        /// The snapshot.
        key: String,
    },
    /// Whoever has its turn does not end.
    #[error("cannot remove snapshot {key:?}: another call on it is still under way; try again")]
    UnderWay {
        /// The snapshot.
        key: String,
    },
    /// It was removed and is still in use; it goes when that ends.
    #[error(
        "snapshot {key:?} is removed, but its device {device} is still open, or mounted somewhere"
    )]
    Held {
        /// The snapshot.
        key: String,
        /// Its device.
        device: PathBuf,
    },
    /// Something was written to it that never arrived.
    #[error(
        "cannot commit snapshot {key:?}: {what} {how}, so the last that was written to it may be lost: \
         remove the snapshot and make it again"
    )]
    Incomplete {
        /// The snapshot.
        key: String,
        /// Its file system, or its disk.
        what: String,
        /// What gives it away.
        how: String,
    },
    /// The disk server refused or failed.
    #[error("snapshot {key:?}: the disk server cannot {act} disk {disk}")]
    Disk {
        /// The snapshot.
        key: String,
        /// `attach`, `detach`, ...
        act: &'static str,
        /// The disk's id.
        disk: String,
        /// What it said.
        #[source]
        source: Box<link::Error>,
    },
    /// A disk answers errors only.
    #[error("snapshot {key:?}: its disk {disk} has failed ({reason}) and is still in use")]
    Failed {
        /// The snapshot.
        key: String,
        /// The disk's id.
        disk: String,
        /// Why it failed.
        reason: String,
    },
    /// A file of a snapshot is gone.
    #[error(
        "snapshot {key:?}: the file {path} is missing; nothing was removed: put it back, or remove the snapshot"
    )]
    Missing {
        /// The snapshot.
        key: String,
        /// The file.
        path: PathBuf,
    },
    /// The disk server let a disk go without sealing it.
    #[error(
        "cannot commit snapshot {key:?}: the disk server was restarted while it sealed {disk}; try again"
    )]
    NotSealed {
        /// The snapshot.
        key: String,
        /// The disk's id.
        disk: String,
    },
    /// An image file could not be made.
    #[error("cannot make the image {path}")]
    Image {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<image::Error>,
    },
    /// A record asks for clusters that cannot be.
    #[error("cannot make the image {path}")]
    BadCluster {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: BadClusterSize,
    },
    /// Another daemon has the root.
    #[error(
        "{root} is in use by another ploop-snapshotter ({owner}): stop it, or choose another root"
    )]
    RootTaken {
        /// The root.
        root: PathBuf,
        /// What its lock says about the holder.
        owner: String,
    },
    /// The disk servers have disks of another root, under ids that are ours to give.
    #[error(
        "the disk servers of this run_dir serve disk {disk} on {file}, which is not below {root}: two \
         ploop-snapshotters must not share disk servers; choose another run_dir, or start the one with that \
         root and detach its disks first"
    )]
    ForeignDisk {
        /// Its id.
        disk: String,
        /// One of its files.
        file: PathBuf,
        /// Our root.
        root: PathBuf,
    },
    /// The host's file system has no space for what was written.
    #[error(
        "cannot commit snapshot {key:?}: the host's file system below {root} is full, and {how}"
    )]
    HostFull {
        /// The snapshot.
        key: String,
        /// Where there is no space.
        root: PathBuf,
        /// What waits or was refused, and what to do.
        how: String,
        /// What the flush said.
        #[source]
        source: Box<Error>,
    },
    /// The records are gone and what they named is still there.
    #[error(
        "{store} is missing or empty, but {deltas} still holds the disks that it names: put the store back, or \
         move the deltas away to begin anew; nothing was touched"
    )]
    StoreLost {
        /// Where the records should be.
        store: PathBuf,
        /// Where the disks are.
        deltas: PathBuf,
    },
    /// A daemon has the root that is to be checked.
    #[error(
        "{root} is in use by ploop-snapshotter ({owner}): stop that first; its containers go on, their \
         disks are served by ploopd"
    )]
    RootBusy {
        /// The root.
        root: PathBuf,
        /// What its lock says about the holder.
        owner: String,
    },
    /// The directory is none of ours.
    #[error(
        "{path} is no root of ploop-snapshotter: it holds neither store.redb nor deltas; name the directory that \
         `root` in the configuration names"
    )]
    NoRoot {
        /// What was named.
        path: PathBuf,
    },
    /// The root lies on a file system that cannot do what we need.
    #[error(
        "{root} lies on a file system where one cannot {verb} a file: \
         use a root on ext4, xfs or btrfs"
    )]
    UnfitRoot {
        /// The root.
        root: PathBuf,
        /// What was tried.
        verb: &'static str,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// A snapshotter's golden file system could not be made or read.
    #[error("cannot provide the empty file system of snapshotter {name:?}")]
    Golden {
        /// The snapshotter.
        name: String,
        /// Why.
        #[source]
        source: Box<filesystem::Error>,
    },
    /// A size that clusters do not fill.
    #[error(
        "snapshotter {name:?}: a disk of {size} bytes is not a multiple of its cluster size, {cluster}"
    )]
    UnevenSize {
        /// The snapshotter.
        name: String,
        /// Bytes of the disk.
        size: u64,
        /// The cluster size.
        cluster: ClusterSize,
    },
    /// A golden file is gone, and snapshots stand on it.
    #[error(
        "{path} is missing and {standing} snapshots stand on it: put it back from a backup; \
         a new one would not be the same"
    )]
    GoldenLost {
        /// The file.
        path: PathBuf,
        /// How many.
        standing: usize,
    },
    /// A golden file is not what it was.
    #[error(
        "{path} is not the empty file system that was made: put it back from a backup, or, if no snapshot stands on it, remove it"
    )]
    GoldenChanged {
        /// The file.
        path: PathBuf,
    },
    /// The host's file system failed.
    #[error("cannot {act} {path}")]
    File {
        /// What was tried.
        act: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Something on the host did not come back.
    #[error("{what} did not end within {limit:?}")]
    Stuck {
        /// What.
        what: String,
        /// What it was given.
        limit: Duration,
    },
    /// A task of ours ended without an answer: it panicked, or the process is stopping.
    #[error("{what} was interrupted")]
    Interrupted {
        /// What.
        what: &'static str,
    },
}

impl Error {
    /// Wraps what the host said about a file.
    pub(super) fn file(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File {
            act,
            path: path.to_owned(),
            source,
        }
    }

    /// Wraps what the disk server said about a disk.
    pub(super) fn disk(
        key: &str,
        act: &'static str,
        disk: &str,
    ) -> impl FnOnce(link::Error) -> Self {
        move |source| Self::Disk {
            key: key.to_owned(),
            act,
            disk: disk.to_owned(),
            source: Box::new(source),
        }
    }

    /// Wraps why a file system does not take a size.
    pub(super) fn resize(key: &str, size: u64) -> impl FnOnce(filesystem::Error) -> Self {
        move |source| Self::Resize {
            key: key.to_owned(),
            size,
            source: Box::new(source),
        }
    }

    /// Wraps what went wrong with a snapshotter's golden file system.
    pub(super) fn golden(name: &str) -> impl FnOnce(filesystem::Error) -> Self {
        move |source| Self::Golden {
            name: name.to_owned(),
            source: Box::new(source),
        }
    }
}
