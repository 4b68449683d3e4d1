//! The tasks of a shard that carry ublk requests to its disks: fetch, serve, commit.
//!
//! A *line* is one device's queue with the disk behind it. All lines of a thread share one inbox and a
//! handful of *lanes*: a lane takes the next request of whichever line, serves it to its end, commits
//! the result and takes another. So an idle device costs no task and no buffer, and a request in steady
//! state allocates nothing. There is always a lane that waits: the last one starts another before it
//! goes to work.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, SyncSender};

use slab::Slab;

use super::buffers::Buffers;
use super::permits::Permits;
use super::slots::Slots;
use crate::disk::{Errno, Front, Local, Op, Spawner, errno_of};
use crate::failpoint::pass;
use crate::io::{Inbox, Piece, Registered, Ring};
use crate::ublk::{self, Queue, Slot, Tag};
use crate::units::ByteRange;

/// The longest request whose bytes may be copied.
pub(super) const LONGEST: u32 = 1 << 20;
/// Buffers that a thread lends at most to reads, and to writes.
const BUFFERS: usize = 64;
/// Of these, the ones that the writes of one device may have: they may wait for the host's space for minutes.
const WRITES: usize = BUFFERS / 2;
/// Lanes that may wait for work; more than that end.
const IDLE: usize = 256;
/// A tag's part of an answer's number; the rest is the line.
const TAG_BITS: u32 = 16;

thread_local! {
    static LANES: RefCell<Option<Rc<Lanes>>> = const { RefCell::new(None) };
}

struct Lanes {
    inbox: Rc<Inbox>,
    lines: RefCell<Slab<Rc<Line>>>,
    /// Reads never wait for the host's space, and so not for writes that do.
    reads: Buffers,
    writes: Buffers,
    slots: Slots,
    spawner: Spawner,
}

/// One device's queue and the disk behind it.
struct Line {
    queue: Queue,
    disk: Local,
    /// Each tag's pages where they are, in a slot of the ring; nothing where bytes are copied.
    pages: Vec<Piece>,
    /// Tags that are fetched or being served.
    live: Cell<u16>,
    /// For writes through a buffer.
    writes: Permits,
    /// Dropped last, when queue and disk are let go: its receiver hears the end.
    _ended: Sender<()>,
}

/// Puts a device's queue before a disk.
pub(super) struct Begin {
    /// The device's character node; closed when the line ends.
    pub(super) device: Arc<File>,
    /// Requests under way at once, as the kernel granted.
    pub(super) depth: u16,
    /// Are requests' pages registered with the ring?
    pub(super) zero_copy: bool,
    /// Whoever sets it first has decided: the shard that it begins, or who asked that it is too late.
    pub(super) taken: Arc<AtomicBool>,
    /// Hears whether every tag was fetched.
    pub(super) begun: SyncSender<io::Result<()>>,
    /// Its receiver hears the end of the line.
    pub(super) ended: Sender<()>,
}

impl Front for Begin {
    fn begin(self: Box<Self>, disk: Local) {
        if self.taken.swap(true, Ordering::AcqRel) {
            // Nobody would know of a line that began now, and its number may be another device's.
            return;
        }
        let lanes = Lanes::here(&disk);
        let begun = self.begun;
        let answer = lanes.open(self.device, self.depth, self.zero_copy, disk, self.ended);
        // Whoever asked may have given up.
        let _ = begun.send(answer);
    }
}

impl Lanes {
    /// This thread's lanes.
    fn here(disk: &Local) -> Rc<Self> {
        let known = LANES.with_borrow(Clone::clone);
        known.unwrap_or_else(|| {
            let lanes = Rc::new(Self {
                inbox: Rc::default(),
                lines: RefCell::default(),
                reads: Buffers::new(LONGEST as usize, BUFFERS),
                writes: Buffers::new(LONGEST as usize, BUFFERS),
                slots: Slots::new(Ring::current().map_or(0, |ring| ring.buffers())),
                spawner: disk.spawner(),
            });
            LANES.set(Some(Rc::clone(&lanes)));
            lanes.spawner.spawn(lane(Rc::clone(&lanes)));
            lanes
        })
    }

    fn open(
        &self,
        device: Arc<File>,
        depth: u16,
        zero_copy: bool,
        disk: Local,
        ended: Sender<()>,
    ) -> io::Result<()> {
        let number = (self.lines.borrow().vacant_key() as u64) << TAG_BITS;
        let first = zero_copy.then(|| self.slots.take(depth)).flatten();
        let slots = match (zero_copy, first) {
            (false, _) => Slot::None,
            (true, None) => Slot::Full,
            (true, Some(first)) => Slot::First(first),
        };
        let inbox = Rc::clone(&self.inbox);
        let queue = Queue::new(device, depth, (inbox, number), slots);
        let queue = queue.inspect_err(|_| {
            if let Some(first) = first {
                self.slots.give(first, depth);
            }
        })?;
        pass("queue-mapped");
        let tags = (0..depth).map(Tag);
        let pages = tags
            .filter_map(|tag| {
                let slot = Registered {
                    index: queue.slot(tag)?,
                    device: Arc::clone(queue.device()),
                    position: queue.payload(tag),
                };
                Some(Piece::registered(slot, LONGEST as usize))
            })
            .collect();
        let line = Rc::new(Line {
            queue,
            disk,
            pages,
            live: Cell::new(depth),
            writes: Permits::new(WRITES),
            _ended: ended,
        });
        let key = self.lines.borrow_mut().insert(Rc::clone(&line));
        // A tag that the kernel refuses answers so, and counts as ended. One that it was never given never answers.
        let (asked, fetched) = line.queue.fetch_all();
        line.live.set(asked);
        self.end(key, &line);
        fetched
    }

    /// Forgets a line with no tag left.
    fn end(&self, key: usize, line: &Line) {
        if line.live.get() > 0 {
            return;
        }
        self.lines.borrow_mut().try_remove(key);
        if let Some(first) = line.queue.slot(Tag(0)) {
            self.slots.give(first, line.queue.depth());
        }
    }

    async fn handle(&self, number: u64, result: i32) {
        let key = usize::try_from(number >> TAG_BITS).unwrap_or(usize::MAX);
        let Some(line) = self.lines.borrow().get(key).cloned() else {
            tracing::error!(
                number,
                "an answer for a device that has ended; this is a bug"
            );
            return;
        };
        let tag = Tag(u16::try_from(number & 0xffff).unwrap_or(u16::MAX));
        if result == 0 {
            let answer = line.answer(tag, self).await;
            match line.queue.commit(tag, answer) {
                Ok(()) => return,
                Err(error) => {
                    tracing::error!(disk = line.disk.id(), %error, "a result cannot be committed");
                }
            }
        } else if result != -Errno::NODEV.raw_os_error() {
            let error = io::Error::from_raw_os_error(-result);
            tracing::error!(disk = line.disk.id(), %error, "the kernel refused a tag");
        }
        line.live.set(line.live.get() - 1);
        self.end(key, &line);
    }
}

async fn lane(lanes: Rc<Lanes>) {
    loop {
        let (number, result) = lanes.inbox.next().await;
        if lanes.inbox.waiting() == 0 {
            lanes.spawner.spawn(lane(Rc::clone(&lanes)));
        }
        lanes.handle(number, result).await;
        if lanes.inbox.waiting() > IDLE {
            return;
        }
    }
}

impl Line {
    /// Serves one request: a count of bytes, or a negative errno.
    async fn answer(&self, tag: Tag, lanes: &Lanes) -> i32 {
        let request = self.queue.request(tag);
        let range = request.range;
        let (op, data) = match request.op {
            ublk::Op::Read => (Op::Read, true),
            ublk::Op::Write(fua) => (Op::Write { fua }, true),
            ublk::Op::Flush => (Op::Flush, false),
            ublk::Op::Discard => (Op::Discard, false),
            ublk::Op::WriteZeroes => (Op::WriteZeroes, false),
            ublk::Op::Other(_) => return -Errno::OPNOTSUPP.raw_os_error(),
        };
        let served = if data {
            match self.pages.get(usize::from(tag.0)) {
                Some(pages) if request.registered => {
                    let len = usize::try_from(range.len).unwrap_or(usize::MAX);
                    if len > pages.len() {
                        return -Errno::INVAL.raw_os_error();
                    }
                    self.serve(op, range, &pages.slice(0, len)).await
                }
                _ if op == Op::Read => self.carry_out(tag, range, &lanes.reads).await,
                _ => {
                    let _ours = self.writes.take().await;
                    self.carry_in(tag, op, range, &lanes.writes).await
                }
            }
        } else {
            self.serve(op, range, &Piece::empty()).await
        };
        match served {
            // No length where no bytes moved: of a long discard it would look like an error.
            Ok(()) if data => i32::try_from(range.len).unwrap_or(i32::MAX),
            Ok(()) => 0,
            Err(errno) => -errno.raw_os_error(),
        }
    }

    /// Has the disk serve a request. Where the kernel cannot change a device's size, the device is larger
    /// than its disk: behind the disk's end there are zeros, and no space.
    async fn serve(&self, op: Op, range: ByteRange, piece: &Piece) -> Result<(), Errno> {
        let size = self.disk.size();
        if range.end() <= size {
            return self.disk.serve(op, range, piece).await;
        }
        match op {
            Op::Read => {
                let inside = ByteRange::new(range.start, size.saturating_sub(range.start));
                let cut = usize::try_from(inside.len).map_err(|_| Errno::INVAL)?;
                if cut > 0 {
                    self.disk.serve(op, inside, &piece.slice(0, cut)).await?;
                }
                let behind = piece.slice(cut, piece.len() - cut);
                behind.fill_zero().map_err(|error| errno_of(&error))
            }
            Op::Discard => Ok(()),
            _ => Err(Errno::NOSPC),
        }
    }

    /// A read, through a buffer.
    async fn carry_out(&self, tag: Tag, range: ByteRange, reads: &Buffers) -> Result<(), Errno> {
        let len = usize::try_from(range.len).map_err(|_| Errno::INVAL)?;
        let buffer = reads.lend(len).await.ok_or(Errno::INVAL)?;
        self.serve(Op::Read, range, &buffer).await?;
        let copied = self.queue.give(tag, &buffer);
        copied.map_err(|error| self.not_copied(&error))
    }

    /// A write, through a buffer.
    async fn carry_in(
        &self,
        tag: Tag,
        op: Op,
        range: ByteRange,
        writes: &Buffers,
    ) -> Result<(), Errno> {
        let len = usize::try_from(range.len).map_err(|_| Errno::INVAL)?;
        let buffer = writes.lend(len).await.ok_or(Errno::INVAL)?;
        let copied = self.queue.take(tag, &buffer);
        copied.map_err(|error| self.not_copied(&error))?;
        self.serve(op, range, &buffer).await
    }

    fn not_copied(&self, error: &io::Error) -> Errno {
        tracing::error!(disk = self.disk.id(), %error, "a request's bytes cannot be copied");
        Errno::IO
    }
}
