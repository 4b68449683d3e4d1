//! Map entries that are answered for but not yet in the image's index.
//!
//! They must survive the process and need not survive the power, which is what a file on tmpfs does:
//! a mapped file, one little-endian u32 for each cluster of the disk (0: none), sparse.
//!
//! ```text
//! byte 0     8 magic "PLOOPPND"   u32 version   u32 cluster size   u64 clusters
//!                                                             (when it was made: the disk may have grown)
//!      24    16 boot id (the text's 32 hex digits as bytes)
//!      40    identity of the image: u64 device, u64 inode, u64 birth (ns)
//!      64    u64 writes that were answered with an error: what the disk holds is not what was written
//!      4096  u32 place of cluster 0, of cluster 1, ...
//! ```
//!
//! That number outlives the process like the entries: the kernel tells nobody of such a write but who synced it, and a
//! disk that lacks one is not to be sealed, as long as the machine runs.
//!
//! An entry is stored whole (an aligned u32) before the kernel hears that the write is done. After
//! the death of the process the next one replays the file; with another boot id, or another image,
//! it means nothing and is thrown away.
#![expect(unsafe_code, reason = "a mapped file")]

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{AtFlags, FallocateFlags, StatxFlags, fallocate, statx};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::io::{Bug, Direct, File, Piece, now, sabotaged};
use crate::units::{Cluster, ClusterSize, Place};

const MAGIC: &[u8; 8] = b"PLOOPPND";
const VERSION: u32 = 1;
const HEADER: usize = 4096;
const LOST: u64 = 64;
/// Entries in a page of tmpfs.
const PAGE: usize = 1024;

/// What a pending file must belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    boot: [u8; 16],
    device: u64,
    inode: u64,
    birth: u64,
    clusters: u32,
    cluster: ClusterSize,
}

/// The running kernel's boot id.
pub(super) fn boot_id() -> io::Result<[u8; 16]> {
    let mut text = String::new();
    fs::File::open("/proc/sys/kernel/random/boot_id")?.read_to_string(&mut text)?;
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let mut id = [0; 16];
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = std::str::from_utf8(pair)
            .ok()
            .and_then(|pair| u8::from_str_radix(pair, 16).ok())
            .ok_or(io::ErrorKind::InvalidData)?;
    }
    Ok(id)
}

impl Identity {
    /// Of this image file, on a kernel that was booted as `boot`.
    pub(super) fn new(
        file: &fs::File,
        boot: [u8; 16],
        clusters: u32,
        cluster: ClusterSize,
    ) -> io::Result<Self> {
        let stat = statx(
            file,
            "",
            AtFlags::EMPTY_PATH,
            StatxFlags::INO | StatxFlags::BTIME,
        )?;
        let device = u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor);
        let birth = stat
            .stx_btime
            .tv_sec
            .cast_unsigned()
            .wrapping_mul(1_000_000_000)
            + u64::from(stat.stx_btime.tv_nsec);
        Ok(Self {
            boot,
            device,
            inode: stat.stx_ino,
            birth,
            clusters,
            cluster,
        })
    }

    /// The same image, when its disk has so many clusters.
    #[cfg(test)]
    pub(super) fn with(&self, clusters: u32) -> Self {
        Self {
            clusters,
            ..self.clone()
        }
    }

    fn encode(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(
            &u32::try_from(self.cluster.bytes())
                .unwrap_or(u32::MAX)
                .to_le_bytes(),
        );
        bytes[16..24].copy_from_slice(&u64::from(self.clusters).to_le_bytes());
        bytes[24..40].copy_from_slice(&self.boot);
        bytes[40..48].copy_from_slice(&self.device.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.inode.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.birth.to_le_bytes());
        bytes
    }
}

/// Was the entry kept where a dead process leaves it?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// Yes: the write may be answered.
    Yes,
    /// No room: it must go into the index before the write is answered.
    NoRoom,
}

impl Kept {
    /// Were both?
    pub(super) fn and(self, other: Self) -> Self {
        if self == Self::Yes { other } else { self }
    }
}

/// The pending file of one disk.
#[derive(Debug)]
pub(super) struct Pending {
    file: fs::File,
    path: PathBuf,
    start: NonNull<AtomicU32>,
    bytes: usize,
    clusters: u32,
    /// Writes that were answered with an error, by processes before this one too.
    lost: u64,
    /// Pages of tmpfs that are ours: storing into any other could fault when tmpfs is full.
    backed: Vec<bool>,
    /// A sync has failed: nothing is kept any more.
    void: bool,
    /// An entry that a deliberate bug keeps too late.
    #[cfg(test)]
    late: Option<(Cluster, Place)>,
}

// SAFETY: the mapping belongs to this value, and is touched only through atomics.
unsafe impl Send for Pending {}

impl Pending {
    /// Opens the pending file of an image, and returns what an earlier process left in it.
    ///
    /// # Errors
    /// What the host says.
    pub(super) fn open(
        path: &Path,
        identity: &Identity,
    ) -> io::Result<(Self, Vec<(Cluster, Place)>)> {
        let clusters = identity.clusters;
        let (left, lost) = read_left(path, identity)?;
        let bytes = HEADER + clusters as usize * 4;
        let bytes = bytes.next_multiple_of(4096);
        let mut options = fs::File::options();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.mode(0o600).open(path)?;
        if left.is_empty() && lost == 0 {
            // Entries of whatever image this was for go before it is said to be for ours. The page of the header stays:
            // on a tmpfs that is full it might not be had again, and a take-over would fail for that.
            file.set_len(HEADER as u64)?;
        }
        file.set_len(bytes as u64)?;
        // In one: never this image with the losses of another.
        let header = [&identity.encode()[..], &lost.to_le_bytes()].concat();
        file.write_all_at(&header, 0)?;
        let start = map(&file, bytes)?;
        let mut backed = vec![false; bytes / 4096];
        for (cluster, _) in &left {
            backed[page_of(*cluster)] = true;
        }
        Ok((
            Self {
                file,
                path: path.to_owned(),
                start,
                bytes,
                clusters,
                lost,
                backed,
                void: false,
                #[cfg(test)]
                late: None,
            },
            left,
        ))
    }

    /// Writes that were answered with an error.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// So many writes were answered with an error by now.
    ///
    /// # Errors
    /// What the host says.
    pub(super) fn lose(&mut self, writes: u64) -> io::Result<()> {
        self.lost = writes;
        self.file.write_all_at(&writes.to_le_bytes(), LOST)
    }

    /// Makes room for the entries of a larger disk. What is kept stays.
    ///
    /// # Errors
    /// What the host says; the file then keeps as many entries as before.
    pub(super) fn grow(&mut self, clusters: u32) -> io::Result<()> {
        let bytes = (HEADER + clusters as usize * 4).next_multiple_of(4096);
        if bytes > self.bytes {
            self.file.set_len(bytes as u64)?;
            let start = map(&self.file, bytes)?;
            // SAFETY: mapped in `open` or here with this length, and no entry of it is borrowed.
            let _ = unsafe { munmap(self.start.as_ptr().cast(), self.bytes) };
            (self.start, self.bytes) = (start, bytes);
            self.backed.resize(bytes / 4096, false);
        }
        self.clusters = self.clusters.max(clusters);
        Ok(())
    }

    fn entry(&self, cluster: Cluster) -> Option<&AtomicU32> {
        if cluster.0 >= self.clusters {
            return None;
        }
        let index = HEADER / 4 + cluster.0 as usize;
        // SAFETY: the mapping has `HEADER + 4 * clusters` bytes, page-aligned, and lives as long
        // as `self`.
        Some(unsafe { self.start.add(index).as_ref() })
    }

    /// Keeps an entry for whoever comes after this process.
    pub(super) fn keep(&mut self, cluster: Cluster, place: Place) -> Kept {
        if sabotaged(Bug::PendingNever) {
            return Kept::Yes;
        }
        #[cfg(test)]
        if crate::io::hardship().no_room && cluster.0.is_multiple_of(3) {
            return Kept::NoRoom;
        }
        #[cfg(test)]
        let (cluster, place) = if sabotaged(Bug::PendingLate) {
            match self.late.replace((cluster, place)) {
                Some(last) => last,
                None => return Kept::Yes,
            }
        } else {
            (cluster, place)
        };
        if self.void {
            return Kept::NoRoom;
        }
        let page = page_of(cluster);
        match self.backed.get(page) {
            None => return Kept::NoRoom,
            Some(true) => {}
            Some(false) => {
                let room = fallocate(
                    &self.file,
                    FallocateFlags::KEEP_SIZE,
                    page as u64 * 4096,
                    4096,
                );
                if room.is_err() {
                    return Kept::NoRoom;
                }
                self.backed[page] = true;
            }
        }
        let Some(entry) = self.entry(cluster) else {
            return Kept::NoRoom;
        };
        // Released before the kernel is told; a dead process' stores are the kernel's already.
        entry.store(place.0.to_le(), Ordering::Release);
        Kept::Yes
    }

    /// The entry is in the index, durably.
    pub(super) fn settle(&mut self, cluster: Cluster) {
        let page = page_of(cluster);
        // A page that is not backed holds no entry: writing a zero there would make it one.
        if self.backed.get(page) == Some(&true)
            && let Some(entry) = self.entry(cluster)
        {
            entry.store(0, Ordering::Release);
        }
    }

    /// A sync has failed, and the kernel drops what it could not write: what these entries name may be gone. Whoever comes
    /// next finds none of them, as after a power cut, and none is kept any more. Lost writes are remembered.
    pub(super) fn void(&mut self) {
        self.void = true;
        let firsts = (0_u32..).step_by(PAGE);
        for (first, _) in firsts.zip(&self.backed[HEADER / 4096..]).filter(|it| *it.1) {
            for cluster in (first..=u32::MAX).take(PAGE).map(Cluster) {
                if let Some(entry) = self.entry(cluster) {
                    entry.store(0, Ordering::Release);
                }
            }
        }
    }

    /// Nothing is pending any more and nobody will come to look, unless writes were lost: who opens the image again must
    /// hear of that.
    pub(super) fn remove(self) -> io::Result<()> {
        if self.lost > 0 {
            return self.file.set_len(HEADER as u64);
        }
        fs::remove_file(&self.path)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // SAFETY: mapped in `open` with this length; entries borrowed from it are gone.
        // An error would mean that the mapping was not ours, which `open` rules out.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// A sync has failed before anybody could open the file: what it names is void, and one more write is lost.
pub(super) fn void_left(path: &Path) -> io::Result<()> {
    let file = match fs::File::options().read(true).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    if file.metadata()?.len() < HEADER as u64 {
        // Nobody's.
        return Ok(());
    }
    let mut lost = [0; 8];
    file.read_exact_at(&mut lost, LOST)?;
    let lost = u64::from_le_bytes(lost).saturating_add(1);
    file.write_all_at(&lost.to_le_bytes(), LOST)?;
    file.set_len(HEADER as u64)
}

/// A mapping of the file's first bytes.
fn map(file: &fs::File, bytes: usize) -> io::Result<NonNull<AtomicU32>> {
    // SAFETY: a fresh mapping of a file that is that long; nobody touches it after `remove` truncates it.
    let start = unsafe {
        mmap(
            std::ptr::null_mut(),
            bytes,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED,
            file,
            0,
        )?
    };
    Ok(NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?)
}

/// The page of the file that holds a cluster's entry.
const fn page_of(cluster: Cluster) -> usize {
    HEADER / 4096 + cluster.0 as usize / PAGE
}

/// How many clusters of an image, with clusters of this size, only the pending files in `folder` name: what was answered for
/// since the last boot by a disk server that is dead now. The caller has the image locked.
///
/// # Errors
/// What the host says; a folder that is not there names none.
pub fn answered_for(folder: &Path, image: &fs::File, cluster: ClusterSize) -> io::Result<usize> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    let identity = Identity::new(image, boot_id()?, 0, cluster)?;
    let mut count = 0;
    for entry in entries {
        let entry = entry?;
        let room = match entry.metadata() {
            // Another disk's: its server lives, and has closed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            found => found?.len().saturating_sub(HEADER as u64) / 4,
        };
        let identity = Identity {
            clusters: u32::try_from(room).unwrap_or(u32::MAX),
            ..identity.clone()
        };
        count += read_left(&entry.path(), &identity)?.0.len();
    }
    Ok(count)
}

/// The entries of a file that an earlier process left for this very image since the last boot, and how many writes it
/// lost.
fn read_left(path: &Path, identity: &Identity) -> io::Result<(Vec<(Cluster, Place)>, u64)> {
    let file = match fs::File::open(path) {
        Ok(file) => Direct::new(file)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
        Err(error) => return Err(error),
    };
    let header = Piece::zeroed(72);
    now(file.read_at(0, header.clone()))?;
    let (found, expected) = (header.to_vec(), identity.encode());
    // How many clusters it was made for says nothing: the disk may have grown since.
    let mut same = found[..16] == expected[..16] && found[24..64] == expected[24..];
    same |= sabotaged(Bug::PendingOfAnyBoot);
    if !same {
        return Ok((Vec::new(), 0));
    }
    let lost = found[64..].iter().rev();
    let lost = lost.fold(0, |number, byte| number << 8 | u64::from(*byte));
    let mut left = Vec::new();
    let end = HEADER as u64 + u64::from(identity.clusters) * 4;
    let mut at = HEADER as u64;
    while let Some(data) = file.next_data(at)? {
        // Holes end on pages, so entries are never cut.
        let data_end = data.end().min(end);
        if data.start >= data_end {
            break;
        }
        let length = usize::try_from(data_end - data.start).map_err(io::Error::other)?;
        let bytes = Piece::zeroed(length);
        now(file.read_at(data.start, bytes.clone()))?;
        bytes.with_bytes(|bytes| {
            let first = u32::try_from((data.start - HEADER as u64) / 4).unwrap_or(u32::MAX);
            for (index, entry) in (first..).zip(bytes.chunks_exact(4)) {
                let place = u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]);
                if place != 0 {
                    left.push((Cluster(index), Place(place)));
                }
            }
        });
        at = data_end;
    }
    Ok((left, lost))
}

#[cfg(test)]
#[path = "pending_tests.rs"]
mod tests;
