//! The seven verbs on pread and pwrite: always ready.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, OFlags, SeekFrom, fallocate, fcntl_getfl, seek};

use super::buffer::ours;
use super::{File, Piece};
use crate::units::ByteRange;

/// A file that is read and written by the calling thread.
#[derive(Debug)]
pub struct Direct {
    file: fs::File,
    alignment: u64,
}

impl Direct {
    /// Wraps an open file, with or without O_DIRECT.
    ///
    /// # Errors
    /// If the descriptor's flags cannot be read.
    pub fn new(file: fs::File) -> io::Result<Self> {
        let direct = fcntl_getfl(&file)?.contains(OFlags::DIRECT);
        Ok(Self {
            file,
            alignment: if direct { 4096 } else { 1 },
        })
    }

    /// Opens for reading through the page cache.
    ///
    /// # Errors
    /// What the host says.
    pub fn open_read(path: &Path) -> io::Result<Self> {
        Self::new(fs::File::open(path)?)
    }

    /// Opens for reading and writing through the page cache.
    ///
    /// # Errors
    /// What the host says.
    pub fn open_write(path: &Path) -> io::Result<Self> {
        Self::new(fs::File::options().read(true).write(true).open(path)?)
    }

    /// The file within.
    #[must_use]
    pub fn into_inner(self) -> fs::File {
        self.file
    }

    /// The file within.
    #[must_use]
    pub fn as_file(&self) -> &fs::File {
        &self.file
    }
}

impl File for Direct {
    async fn read_at(&self, at: u64, into: Piece) -> io::Result<()> {
        ours(&into)?;
        into.with_bytes_mut(|bytes| {
            let mut done = 0;
            while done < bytes.len() {
                match self.file.read_at(&mut bytes[done..], at + done as u64) {
                    Ok(0) => break,
                    Ok(count) => done += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            bytes[done..].fill(0);
            Ok(())
        })
    }

    async fn write_at(&self, at: u64, from: Piece) -> io::Result<()> {
        ours(&from)?;
        from.with_bytes(|bytes| self.file.write_all_at(bytes, at))
    }

    async fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    async fn zero(&self, range: ByteRange) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(&self.file, flags, range.start, range.len)?)
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn next_data(&self, from: u64) -> io::Result<Option<ByteRange>> {
        next_data(&self.file, from)
    }

    fn alignment(&self) -> u64 {
        self.alignment
    }
}

/// Asks the host for the next run of data (SEEK_DATA, SEEK_HOLE).
pub(super) fn next_data(file: &fs::File, from: u64) -> io::Result<Option<ByteRange>> {
    let start = match seek(file, SeekFrom::Data(from)) {
        Ok(start) => start,
        Err(rustix::io::Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let end = seek(file, SeekFrom::Hole(start))?;
    Ok(Some(ByteRange::new(start, end.saturating_sub(start))))
}
