//! What a client says and hears about disks: plain types, no word of the wire.

use std::path::{Path, PathBuf};

/// How an image file is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// A ploop image.
    Ploop,
    /// A plain file; the lowest of a chain only.
    Raw,
}

/// The identity of a sealed image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Seal {
    /// Bytes of the file.
    pub length: u64,
    /// CRC-32 of header and index.
    pub digest: u32,
    /// Bytes that the host held for it when it was sealed.
    pub allocated: u64,
}

/// One image file of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Delta {
    /// Where it is; absolute.
    pub path: PathBuf,
    /// How it is laid out.
    pub format: Format,
    /// What it must be, if it is sealed.
    pub seal: Option<Seal>,
}

/// A chain that is served as a block device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The caller's name for it.
    pub id: String,
    /// Its device node.
    pub device: PathBuf,
    /// A path of the device that never means another disk's, if its server has one.
    pub alias: Option<PathBuf>,
    /// The node's major number.
    pub major: u32,
    /// The node's minor number.
    pub minor: u32,
    /// Bytes of the disk.
    pub size: u64,
    /// Bytes of a cluster of its chain.
    pub cluster: u64,
    /// Is nothing ever written to it?
    pub read_only: bool,
    /// Its chain, lowest first.
    pub deltas: Vec<Delta>,
    /// Why it answers errors only, if it does.
    pub failed: Option<String>,
}

impl Disk {
    /// The path by which to mount or open it: once the disk is gone, it is not there, while the node
    /// may be somebody else's.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.alias.as_ref().unwrap_or(&self.device)
    }
}

/// What is done with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everything is sealed, nothing is written.
    Read,
    /// The top is written; the device is exactly as large as the disk.
    Write,
    /// The top is written, and the disk may have to grow while it is served. Where the kernel cannot
    /// change a device's size, the device is announced larger than the disk.
    Grow,
}

/// What a detach did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detached {
    /// Was it attached? Detaching what is gone succeeds.
    pub existed: bool,
    /// The identity of the top, if a seal was asked for and the disk existed.
    pub seal: Option<Seal>,
}

/// Who answers at the socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Version of the server's binary.
    pub version: String,
    /// The protocol that it speaks.
    pub protocol: u32,
    /// Its process.
    pub pid: u32,
    /// How its devices reach the kernel: `fuse`, `ublk`.
    pub transport: String,
    /// Do its devices outlive its process?
    pub survives_restart: bool,
    /// Does it take no new disks?
    pub draining: bool,
    /// What of the protocol it knows; 0 where it says nothing.
    pub revision: u32,
    /// Which build of its program it runs; empty where it says nothing.
    pub build: String,
}

/// Counters of one disk since it was attached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in disks.proto, which explains them")]
pub struct DiskStats {
    pub id: String,
    pub allocated: u64,
    pub reads: u64,
    pub read_bytes: u64,
    pub writes: u64,
    pub written_bytes: u64,
    pub flushes: u64,
    pub discards: u64,
    pub discarded_bytes: u64,
    pub copied_up_clusters: u64,
    pub copied_up_bytes: u64,
    pub placed_clusters: u64,
    pub pending_clusters: u64,
    pub held_requests: u64,
    pub errors: u64,
    pub no_space: u64,
    pub depth: u32,
    pub failed: Option<String>,
    pub latencies: Vec<Latency>,
}

/// What a disk's requests of one kind took since it was attached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// `read`, `write`, `flush`, or `discard`.
    pub op: &'static str,
    /// Steps by their upper bounds in nanoseconds, rising, with the requests in each.
    pub steps: Vec<(u64, u64)>,
    /// Requests that took longer than the last bound.
    pub longer: u64,
    /// Nanoseconds of all of them together.
    pub nanoseconds: u64,
}
