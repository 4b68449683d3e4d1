//! The seven verbs on this thread's io_uring.

use std::fs;
use std::future::Future;
use std::io;
use std::io::IoSliceMut;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{FlockOperation, OFlags, fcntl_getfl, flock};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use super::direct::next_data;
use super::ring::Ring;
use super::{File, Piece};
use crate::units::ByteRange;

/// A file whose operations run on the ring of whichever thread asks for them.
#[derive(Clone, Debug)]
pub struct Uring {
    file: Arc<fs::File>,
    alignment: u64,
    /// Is it read through the page cache, and can that be asked without waiting?
    cached: bool,
    _lock: Option<Arc<Lock>>,
}

/// A lock (flock) that ends with its last owner.
///
/// The kernel would end it with the last descriptor; but a program that another thread is about to
/// start has copies of ours for a moment, and the ring drops its own a little late.
#[derive(Debug)]
struct Lock(Arc<fs::File>);

impl Drop for Lock {
    fn drop(&mut self) {
        // The descriptor is open: nothing can go wrong.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

impl Uring {
    /// Wraps an open file, with or without O_DIRECT.
    ///
    /// # Errors
    /// If the descriptor's flags cannot be read.
    pub fn new(file: fs::File) -> io::Result<Self> {
        let direct = fcntl_getfl(&file)?.contains(OFlags::DIRECT);
        let alignment = if direct { granularity(&file) } else { 1 };
        Ok(Self {
            cached: !direct && answers_at_once(&file),
            file: Arc::new(file),
            alignment,
            _lock: None,
        })
    }

    /// Wraps an open file on which the caller holds a lock; it ends when nobody uses the file any more.
    ///
    /// # Errors
    /// If the descriptor's flags cannot be read.
    pub fn locked(file: fs::File) -> io::Result<Self> {
        let unlocked = Self::new(file)?;
        let lock = Arc::new(Lock(Arc::clone(&unlocked.file)));
        Ok(Self {
            _lock: Some(lock),
            ..unlocked
        })
    }

    /// The file within.
    #[must_use]
    pub fn as_file(&self) -> &fs::File {
        &self.file
    }

    /// Reads what the page cache has of it, up to the first byte that it lacks: a turn of the ring
    /// saved. Says how many bytes.
    fn read_cached(&self, at: u64, into: &Piece) -> usize {
        if !self.cached || into.is_registered() {
            return 0;
        }
        into.with_bytes_mut(|bytes| {
            let mut into = [IoSliceMut::new(bytes)];
            preadv2(&*self.file, &mut into, at, ReadWriteFlags::NOWAIT).unwrap_or(0)
        })
    }

    /// Reads once; for descriptors that are no files, such as an eventfd.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn read_once(&self, into: Piece) -> io::Result<usize> {
        Ok(Ring::current()?.read(&self.file, u64::MAX, into)?.await? as usize)
    }
}

/// Can the page cache of this file be asked without waiting for its disk?
fn answers_at_once(file: &fs::File) -> bool {
    let mut byte = [0];
    let asked = preadv2(
        file,
        &mut [IoSliceMut::new(&mut byte)],
        0,
        ReadWriteFlags::NOWAIT,
    );
    matches!(asked, Ok(_) | Err(Errno::AGAIN))
}

/// The smallest block that a file with O_DIRECT reads: what the host's disk says, found out by trying.
fn granularity(file: &fs::File) -> u64 {
    let sector = Piece::zeroed(1024).slice(512, 512);
    match sector.with_bytes_mut(|bytes| file.read_at(bytes, 512)) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => 4096,
        _ => 512,
    }
}

/// Did the kernel only say "ask again"?
fn again(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
    )
}

impl File for Uring {
    // Blocks instead of async functions: those keep their arguments twice, and a request may have many
    // of these under way.
    fn read_at(&self, at: u64, into: Piece) -> impl Future<Output = io::Result<()>> {
        let mut done = 0;
        async move {
            done += self.read_cached(at, &into);
            while done < into.len() {
                let rest = into.slice(done, into.len() - done);
                let read = Ring::current()?.read(&self.file, at + done as u64, rest)?;
                match read.await {
                    Ok(count) => {
                        done += count as usize;
                        // A direct read stops inside a sector only at the end of the file.
                        if count == 0 || !u64::from(count).is_multiple_of(self.alignment) {
                            into.slice(done, into.len() - done).fill_zero()?;
                            break;
                        }
                    }
                    Err(error) if again(&error) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        }
    }

    fn write_at(&self, at: u64, from: Piece) -> impl Future<Output = io::Result<()>> {
        let mut done = 0;
        async move {
            while done < from.len() {
                let rest = from.slice(done, from.len() - done);
                let write = Ring::current()?.write(&self.file, at + done as u64, rest)?;
                match write.await {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(count) => done += count as usize,
                    Err(error) if again(&error) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        }
    }

    async fn sync(&self) -> io::Result<()> {
        // Never asked twice: after a failed sync the kernel has dropped what it could not write.
        Ring::current()?.sync(&self.file)?.await.map(drop)
    }

    async fn zero(&self, range: ByteRange) -> io::Result<()> {
        loop {
            match Ring::current()?
                .punch(&self.file, range.start, range.len)?
                .await
            {
                Err(error) if again(&error) => {}
                answer => return answer.map(drop),
            }
        }
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        let ring = Ring::current()?;
        if !ring.can_truncate() {
            // Before Linux 6.9. A change of length is a short act on the host's metadata.
            return self.file.set_len(len);
        }
        ring.truncate(&self.file, len)?.await.map(drop)
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

#[cfg(test)]
#[path = "uring_tests.rs"]
mod tests;
