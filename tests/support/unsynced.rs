//! A host's file system on which every sync of one file can be made to fail, and nothing else: a folder shown
//! again through FUSE. What is written goes through at once, as on a disk whose cache cannot be flushed.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty,
    ReplyEntry, ReplyLseek, ReplyOpen, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};

/// Names and sizes are asked for each time.
const NOW: Duration = Duration::ZERO;

/// The folder, and its second face.
pub(crate) struct Unsynced {
    folder: tempfile::TempDir,
    bad: Arc<Mutex<Option<String>>>,
    _session: BackgroundSession,
}

impl Unsynced {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        for name in ["behind", "face"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let bad = Arc::default();
        let door = Door {
            behind: folder.path().join("behind"),
            bad: Arc::clone(&bad),
            names: Mutex::default(),
        };
        let session = fuser::spawn_mount(door, folder.path().join("face"), &Config::default());
        Self {
            folder,
            bad,
            _session: session.unwrap(),
        }
    }

    /// Where a file really is.
    pub(crate) fn behind(&self, name: &str) -> PathBuf {
        self.folder.path().join("behind").join(name)
    }

    /// Where it is for who is to meet the fault.
    pub(crate) fn face(&self, name: &str) -> PathBuf {
        self.folder.path().join("face").join(name)
    }

    /// From now on the syncs of this file fail, or of none.
    pub(crate) fn fail(&self, name: Option<&str>) {
        *self.bad.lock().unwrap() = name.map(str::to_owned);
    }
}

struct Door {
    behind: PathBuf,
    bad: Arc<Mutex<Option<String>>>,
    /// Names that were asked for: a file's number is its place here, and the root's two more. An open one is
    /// opened again for each act: it is the same file.
    names: Mutex<Vec<String>>,
}

impl Door {
    fn name(&self, ino: INodeNo) -> Result<String, Errno> {
        let index = usize::try_from(ino.0).ok().and_then(|it| it.checked_sub(2));
        let names = self.names.lock().unwrap();
        let name = index.and_then(|index| names.get(index).cloned());
        name.ok_or(Errno::ENOENT)
    }

    fn file(&self, ino: INodeNo) -> Result<File, Errno> {
        let path = self.behind.join(self.name(ino)?);
        Ok(File::options().read(true).write(true).open(path)?)
    }

    fn attributes(&self, ino: INodeNo) -> Result<FileAttr, Errno> {
        if ino == INodeNo::ROOT {
            return attributes(ino, &self.behind);
        }
        attributes(ino, &self.behind.join(self.name(ino)?))
    }
}

fn attributes(ino: INodeNo, path: &Path) -> Result<FileAttr, Errno> {
    let found = path.metadata()?;
    Ok(FileAttr {
        ino,
        size: found.len(),
        blocks: found.blocks(),
        atime: SystemTime::UNIX_EPOCH,
        mtime: SystemTime::UNIX_EPOCH,
        ctime: SystemTime::UNIX_EPOCH,
        crtime: SystemTime::UNIX_EPOCH,
        kind: if found.is_dir() {
            FileType::Directory
        } else {
            FileType::RegularFile
        },
        perm: 0o700,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    })
}

fn done(answer: Result<(), Errno>, reply: ReplyEmpty) {
    match answer {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Door {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = name.to_str().unwrap_or_default().to_owned();
        if parent != INodeNo::ROOT || !self.behind.join(&name).is_file() {
            return reply.error(Errno::ENOENT);
        }
        let mut names = self.names.lock().unwrap();
        let known = names.iter().position(|known| *known == name);
        let index = known.unwrap_or_else(|| {
            names.push(name);
            names.len() - 1
        });
        drop(names);
        match self.attributes(INodeNo(index as u64 + 2)) {
            Ok(found) => reply.entry(&NOW, &found, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(ino) {
            Ok(found) => reply.attr(&NOW, &found),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = |size| Ok(self.file(ino)?.set_len(size)?);
        let answer = size.map_or(Ok(()), set).and_then(|()| self.attributes(ino));
        match answer {
            Ok(found) => reply.attr(&NOW, &found),
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.name(ino) {
            Ok(_) => reply.opened(FileHandle(ino.0), FopenFlags::FOPEN_DIRECT_IO),
            Err(error) => reply.error(error),
        }
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
        let mut bytes = vec![0; size as usize];
        let mut read = || Ok(self.file(ino)?.read_at(&mut bytes, offset)?);
        match read() {
            Ok(count) => reply.data(&bytes[..count]),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let write = || Ok(self.file(ino)?.write_all_at(data, offset)?);
        match write() {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap()),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let sync = || {
            let name = self.name(ino)?;
            if self.bad.lock().unwrap().as_ref() == Some(&name) {
                return Err(Errno::EIO);
            }
            Ok(self.file(ino)?.sync_data()?)
        };
        done(sync(), reply);
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
        let mode = FallocateFlags::from_bits_retain(mode.cast_unsigned());
        let act = || {
            fallocate(self.file(ino)?, mode, offset, length)
                .map_err(|error| Errno::from_i32(error.raw_os_error()))
        };
        done(act(), reply);
    }

    fn lseek(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let look = || {
            let from = offset.cast_unsigned();
            let from = match whence {
                3 => SeekFrom::Data(from),
                4 => SeekFrom::Hole(from),
                _ => return Err(Errno::EINVAL),
            };
            seek(self.file(ino)?, from).map_err(|error| Errno::from_i32(error.raw_os_error()))
        };
        match look() {
            Ok(at) => reply.offset(at.cast_signed()),
            Err(error) => reply.error(error),
        }
    }
}
