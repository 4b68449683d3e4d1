//! One FUSE file system for a disk server, one file a disk: translate, hand over, answer.
//!
//! No thread here waits for a disk. Data are copied once into an aligned piece and submitted; the
//! disk's thread answers the kernel when it is done.
//!
//! A trap, seen with another block exporter on this stack: `mkfs.ext4` and then `mount` said
//! "Structure needs cleaning". The loop driver turns *both* a discard and a write of zeros into
//! `fallocate(PUNCH_HOLE)`, whose contract is that the range reads as zeros. An exporter that takes it
//! for a mere hint leaves old bytes where mkfs was told that there are zeros now. So every fallocate
//! that punches or zeroes is a *write of zeros* here, never a discard.

use std::ffi::{CString, OsStr};
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, ReplyAttr,
    ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request,
    Session, SessionACL, TimeOrNow, WriteFlags,
};
use rustix::fs::{FallocateFlags, OFlags};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::error::{Error, kernel};
use super::files::{BLOCK, Files, Served};
use crate::disk;
use crate::disk::DiskHandle;
use crate::io::Piece;
use crate::units::{ByteRange, SECTOR};

/// The largest read or write in one request; the kernel's own limit is the same (256 pages).
const MOST: u32 = 1 << 20;
/// Requests that the kernel may have under way for *all* disks together: as many as it can count. Writes that wait for
/// the host's space keep their places, and with fewer those of eight containers (a loop device has 128) had them all:
/// nobody else could even read. So each disk's loop device is what limits it.
///
/// What this costs: a write is here once more as long as it is held. Its bytes are dirty pages of the kernel, whose
/// number `vm.dirty_ratio` limits for all containers together, or memory of a container that writes past its cache.
const AT_ONCE: u16 = u16::MAX;
/// Names and attributes are asked for each time: a disk that is gone is gone at once, and nothing on
/// the data path asks.
const NEVER_KEEP: Duration = Duration::ZERO;

/// The mounted file system.
pub(super) struct Fuse {
    files: Arc<Files>,
    folder: PathBuf,
    /// Held only while it is taken out.
    session: Mutex<Option<BackgroundSession>>,
}

impl Fuse {
    /// Mounts at `folder`, which exists, with so many threads.
    pub(super) fn mount(folder: &Path, threads: usize) -> Result<Self, Error> {
        let failed = |source| Error::Mount {
            folder: folder.to_owned(),
            source,
        };
        let files = Arc::new(Files::new());
        let mut config = Config::default();
        // The loop driver's requests carry whatever credentials; the folder above is root's alone.
        config.acl = SessionACL::All;
        config.n_threads = Some(threads.max(1));
        config.clone_fd = true;
        let connection = connect(folder).map_err(failed)?;
        let door = Door(Arc::clone(&files));
        let session = Session::from_fd(door, connection, config.acl, config)
            .and_then(Session::spawn)
            .inspect_err(|_| {
                let _ = unmount(folder, UnmountFlags::DETACH);
            })
            .map_err(failed)?;
        Ok(Self {
            files,
            folder: folder.to_owned(),
            session: Mutex::new(Some(session)),
        })
    }

    /// Shows a disk as a file, and says where.
    pub(super) fn add(&self, name: &str, disk: DiskHandle) -> Result<PathBuf, Error> {
        if !self.files.add(name, disk) {
            return Err(Error::Exists {
                name: name.to_owned(),
            });
        }
        Ok(self.folder.join(name))
    }

    /// Stops showing a disk. Its file was closed by the loop driver; the kernel says so a moment later.
    pub(super) fn remove(&self, name: &str) {
        let deadline = Instant::now() + Duration::from_millis(500);
        while self.files.opened(name) > 0 && Instant::now() < deadline {
            sleep(Duration::from_millis(1));
        }
        self.files.remove(name);
    }

    /// Unmounts, and ends the threads.
    pub(super) fn unmount(&self) -> Result<(), Error> {
        let session = self
            .session
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(session) = session else {
            return Ok(());
        };
        // Lazily: somebody who looks into the folder at this moment must not keep us.
        match unmount(&self.folder, UnmountFlags::DETACH) {
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(kernel("unmount", &self.folder)(error)),
        }
        // Dropped, not joined: a file that somebody still holds open would make us wait for them.
        drop(session);
        Ok(())
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        if let Err(error) = self.unmount() {
            tracing::warn!(%error, "the FUSE file system stays mounted; the next start cleans it up");
        }
    }
}

/// Mounts, and returns the connection to the kernel. The crate could do it, but it would also unmount,
/// and only where nobody looks in.
fn connect(folder: &Path) -> io::Result<OwnedFd> {
    let connection = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/fuse")?;
    let options = CString::new(format!(
        "fd={},rootmode=40700,user_id=0,group_id=0,allow_other",
        connection.as_raw_fd()
    ))?;
    let flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    mount("ploopd", folder, "fuse.ploop", flags, options.as_c_str())?;
    Ok(connection.into())
}

/// What the kernel asks.
struct Door(Arc<Files>);

impl Door {
    fn file(&self, ino: INodeNo) -> Result<Arc<Served>, Errno> {
        self.0.numbered(ino).ok_or(Errno::ENOENT)
    }
}

fn errno(error: disk::Errno) -> Errno {
    Errno::from_i32(error.raw_os_error())
}

impl Filesystem for Door {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for wish in [
            // Without it the loop driver's direct I/O runs one request after the other.
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_PARALLEL_DIROPS,
        ] {
            if let Err(missing) = config.add_capabilities(wish) {
                tracing::info!(?missing, "this kernel's FUSE is slower than it might be");
            }
        }
        // Both refuse only numbers out of their range, which these are not.
        let _ = config.set_max_write(MOST);
        let _ = config.set_max_background(AT_ONCE);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = (parent == INodeNo::ROOT)
            .then(|| name.to_str())
            .flatten()
            .and_then(|name| self.0.named(name));
        match found {
            Some(file) => reply.entry(&NEVER_KEEP, &file.attributes(), Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        if ino == INodeNo::ROOT {
            return reply.attr(&NEVER_KEEP, &self.0.folder());
        }
        match self.file(ino) {
            Ok(file) => reply.attr(&NEVER_KEEP, &file.attributes()),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        _: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<std::time::SystemTime>,
        _: Option<FileHandle>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply.error(Errno::EPERM);
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let file = match self.file(ino) {
            Ok(file) => file,
            Err(error) => return reply.error(error),
        };
        if file.disk.read_only() && flags.acc_mode() != OpenAccMode::O_RDONLY {
            return reply.error(Errno::EROFS);
        }
        file.count_open();
        // No page cache of this file: the block device above has one. No message on close: there is
        // nothing to write back. Writes side by side: the disk orders what must be ordered.
        let how = FopenFlags::FOPEN_DIRECT_IO
            | FopenFlags::FOPEN_NOFLUSH
            | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES;
        reply.opened(FileHandle(ino.0), how);
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        if let Ok(file) = self.file(ino) {
            file.count_release();
        }
        reply.ok();
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let file = match self.file(ino) {
            Ok(file) => file,
            Err(error) => return reply.error(error),
        };
        let left = file.disk.size().saturating_sub(offset);
        let Ok(len) = usize::try_from(u64::from(size).min(left)) else {
            return reply.error(Errno::EINVAL);
        };
        if len == 0 {
            return reply.data(&[]);
        }
        // The loop driver asks for whole sectors; anybody else may ask for anything.
        let start = offset - offset % SECTOR;
        let end = (offset + len as u64).next_multiple_of(SECTOR);
        let (Ok(skip), Ok(whole)) = (
            usize::try_from(offset - start),
            usize::try_from(end - start),
        ) else {
            return reply.error(Errno::EINVAL);
        };
        let done: disk::Done = Box::new(move |answer| match answer {
            Ok(piece) => piece.slice(skip, len).with_bytes(|bytes| reply.data(bytes)),
            Err(error) => reply.error(errno(error)),
        });
        file.disk
            .submit(disk::Request::read(start, Piece::zeroed(whole), done));
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let file = match self.file(ino) {
            Ok(file) => file,
            Err(error) => return reply.error(error),
        };
        let Ok(written) = u32::try_from(data.len()) else {
            return reply.error(Errno::EINVAL);
        };
        let len = u64::from(written);
        if file.disk.read_only() {
            return reply.error(Errno::EROFS);
        }
        if offset
            .checked_add(len)
            .is_none_or(|end| end > file.disk.size())
        {
            return reply.error(Errno::ENOSPC);
        }
        if !offset.is_multiple_of(SECTOR) || !len.is_multiple_of(SECTOR) {
            return reply.error(Errno::EINVAL);
        }
        if len == 0 {
            return reply.written(0);
        }
        let sync = OFlags::DSYNC | OFlags::SYNC;
        let fua = OFlags::from_bits_retain(flags.0.cast_unsigned()).intersects(sync);
        let done: disk::Done = Box::new(move |answer| match answer {
            Ok(_) => reply.written(written),
            Err(error) => reply.error(errno(error)),
        });
        let piece = Piece::from_bytes(data);
        file.disk
            .submit(disk::Request::write(offset, piece, fua, done));
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // A close, not a sync: nothing waits here to be written.
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        match self.file(ino) {
            Ok(file) => file.disk.submit(disk::Request::flush(empty(reply))),
            Err(error) => reply.error(error),
        }
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let file = match self.file(ino) {
            Ok(file) => file,
            Err(error) => return reply.error(error),
        };
        let mode = FallocateFlags::from_bits_retain(mode.cast_unsigned());
        let zeroes = [
            FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
        ];
        if !zeroes.contains(&mode) {
            return reply.error(Errno::EOPNOTSUPP);
        }
        if file.disk.read_only() {
            return reply.error(Errno::EROFS);
        }
        // Past the end there is nothing to zero, and the size stays.
        let end = offset.saturating_add(length).min(file.disk.size());
        let Some(len) = end.checked_sub(offset).filter(|len| *len > 0) else {
            return reply.ok();
        };
        if !offset.is_multiple_of(SECTOR) || !len.is_multiple_of(SECTOR) {
            return reply.error(Errno::EINVAL);
        }
        file.disk.submit(disk::Request::write_zeroes(
            ByteRange::new(offset, len),
            empty(reply),
        ));
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(0, 0, 0, 0, 0, BLOCK, 255, BLOCK);
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        if ino != INodeNo::ROOT {
            return reply.error(Errno::ENOTDIR);
        }
        // An entry's offset is its inode number; the root's two come first.
        let dots = [(1, "."), (2, "..")];
        for (next, name) in dots {
            if next > offset && reply.add(INodeNo::ROOT, next, FileType::Directory, name) {
                return reply.ok();
            }
        }
        for (name, ino) in self.0.names() {
            let next = ino + 1;
            if next > offset && reply.add(INodeNo(ino), next, FileType::RegularFile, name) {
                break;
            }
        }
        reply.ok();
    }
}

/// Answers a request without data.
fn empty(reply: ReplyEmpty) -> disk::Done {
    Box::new(move |answer| match answer {
        Ok(_) => reply.ok(),
        Err(error) => reply.error(errno(error)),
    })
}
