//! A disk over files in memory that write down what is asked of them, and fail on demand.

use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use super::flush::Rounds;
use super::gate::Gate;
use super::place::Writable;
use super::request::{Errno, Op};
use super::serve::Disk;
use super::shared::Shared;
use crate::chain::{Base, Top};
use crate::image::{Image, ploop};
use crate::io::{File, Memory, Piece, Pool, now};
use crate::units::{ByteRange, ClusterSize};

/// What was asked of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Write(u64, u64),
    Sync,
    Zero(u64, u64),
}

/// A file in memory that writes down what is asked of it, can fail, and can make its callers wait.
#[derive(Default)]
pub(super) struct Watched {
    pub(super) memory: Memory,
    log: Mutex<Vec<Asked>>,
    pub(super) fail_writes: Mutex<Option<Errno>>,
    pub(super) fail_syncs: Mutex<Option<Errno>>,
    pub(super) fail_zeroes: Mutex<Option<Errno>>,
    /// What syncs answer once something was zeroed.
    pub(super) then_fail_syncs: Mutex<Option<Errno>>,
    /// Syncs wait while this is true.
    pub(super) slow: Mutex<bool>,
    /// Writes wait while this is true.
    pub(super) slow_writes: Mutex<bool>,
}

impl Watched {
    fn log(&self, asked: Asked) {
        self.log.lock().unwrap().push(asked);
    }

    pub(super) fn taken(&self) -> Vec<Asked> {
        std::mem::take(&mut self.log.lock().unwrap())
    }
}

fn fails(errno: &Mutex<Option<Errno>>) -> io::Result<()> {
    errno
        .lock()
        .unwrap()
        .map_or(Ok(()), |errno| Err(errno.into()))
}

/// Waits; whoever asks again finds out.
async fn while_true(slow: &Mutex<bool>) {
    let slow = || *slow.lock().unwrap();
    std::future::poll_fn(|_| {
        if slow() {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    })
    .await;
}

impl File for Arc<Watched> {
    async fn read_at(&self, at: u64, into: Piece) -> io::Result<()> {
        self.memory.read_at(at, into).await
    }

    async fn write_at(&self, at: u64, from: Piece) -> io::Result<()> {
        self.log(Asked::Write(at, from.len() as u64));
        while_true(&self.slow_writes).await;
        fails(&self.fail_writes)?;
        self.memory.write_at(at, from).await
    }

    async fn sync(&self) -> io::Result<()> {
        self.log(Asked::Sync);
        while_true(&self.slow).await;
        fails(&self.fail_syncs)
    }

    async fn zero(&self, range: ByteRange) -> io::Result<()> {
        self.log(Asked::Zero(range.start, range.len));
        fails(&self.fail_zeroes)?;
        if let Some(errno) = self.then_fail_syncs.lock().unwrap().take() {
            *self.fail_syncs.lock().unwrap() = Some(errno);
        }
        self.memory.zero(range).await
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        self.memory.set_len(len).await
    }

    fn len(&self) -> io::Result<u64> {
        self.memory.len()
    }

    fn next_data(&self, from: u64) -> io::Result<Option<ByteRange>> {
        self.memory.next_data(from)
    }
}

/// A disk of sixteen clusters, the first four of which a parent has; one index page, at place 0.
pub(super) fn disk() -> (Disk<Arc<Watched>>, Arc<Watched>) {
    disk_of(ClusterSize::DEFAULT, 4)
}

/// The same of clusters of this size, the first `below` of which a parent has.
pub(super) fn disk_of(size: ClusterSize, below: usize) -> (Disk<Arc<Watched>>, Arc<Watched>) {
    let bytes = usize::try_from(size.bytes()).unwrap();
    let all = 16 * size.bytes();
    let parent = Arc::new(Watched::default());
    now(parent
        .memory
        .write_at(0, Piece::from_bytes(&vec![9; below * bytes])))
    .unwrap();
    now(parent.memory.set_len(all)).unwrap();
    let image = now(Image::open_sealed(
        &parent,
        Some(crate::image::Format::Raw),
        None,
        size,
    ))
    .unwrap();
    let base = Base::empty(size)
        .with(&image, Arc::new(parent), "base".as_ref())
        .unwrap();

    let file = Arc::new(Watched::default());
    now(ploop::create(&file, all, size)).unwrap();
    let opened = now(ploop::open_top(&file)).unwrap();
    file.taken();
    let writable = Writable {
        file: Arc::clone(&file),
        header: opened.header.into(),
        top: Top::new(&opened.entries, opened.end).into(),
        pending: None.into(),
        length: size.bytes().into(),
        growing: false.into(),
        copying: 0.into(),
        dirty: false.into(),
        unkept: 0.into(),
        changed: Gate::default(),
        rounds: Rounds::default(),
    };
    let disk = Disk {
        base: Arc::new(base),
        writable: Some(writable),
        shared: Arc::new(Shared::new("test".into(), all, size, 2, false)),
        pool: Rc::new(Pool::new(bytes)),
        patience: Duration::ZERO,
    };
    (disk, file)
}

pub(super) fn write(disk: &Disk<Arc<Watched>>, at: u64, len: usize) -> Result<(), Errno> {
    let piece = Piece::from_bytes(&vec![1; len]);
    now(disk.serve(
        Op::Write { fua: false },
        ByteRange::new(at, len as u64),
        &piece,
    ))
}

pub(super) fn flush(disk: &Disk<Arc<Watched>>) -> Result<(), Errno> {
    now(disk.serve(Op::Flush, ByteRange::new(0, 0), &Piece::empty()))
}

pub(super) fn read(disk: &Disk<Arc<Watched>>, at: u64) -> u8 {
    let piece = Piece::zeroed(512);
    now(disk.serve(Op::Read, ByteRange::new(at, 512), &piece)).unwrap();
    piece.to_vec()[0]
}
