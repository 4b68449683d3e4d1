//! This thread's io_uring: a request in, a future out.
//!
//! A ring belongs to one thread. Each operation has a slot that keeps what the kernel uses (the
//! file, the memory) until its completion arrives, even if the future was dropped meanwhile: so no
//! buffer is ever freed under the kernel's hands.
#![expect(unsafe_code, reason = "submission entries carry raw pointers")]

use std::cell::{Cell, RefCell};
use std::fs;
use std::future::Future;
use std::io;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use io_uring::squeue::Entry;
use io_uring::types::{Fd, Timespec};
use io_uring::{IoUring, Probe, opcode};
use slab::Slab;

use super::Piece;
use super::buffer::Address;
use super::inbox::Inbox;

/// Submission entries. More are handed to the kernel in several calls.
const ENTRIES: u32 = 1024;

/// Completion entries: requests of hundreds of devices, each with a few operations. Rings of this size
/// take 336 KiB of the kernel's memory.
const ANSWERS: u32 = 16 * 1024;

/// The most slots for registered buffers that a ring can have.
const MAX_SLOTS: u32 = 16 * 1024;

/// What a ring should have.
#[derive(Clone, Copy, Debug, Default)]
pub struct Setup {
    /// Slots for registered buffers, at most 16,384; 8 bytes of the kernel's memory each.
    pub slots: u32,
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Ring>>> = const { RefCell::new(None) };
}

/// One thread's io_uring.
pub struct Ring {
    uring: RefCell<IoUring>,
    slots: RefCell<Slab<Slot>>,
    can_truncate: bool,
    /// Slots for registered buffers.
    buffers: u32,
    submitted: Cell<u64>,
    entered: Cell<u64>,
}

/// A command of a device (`IORING_OP_URING_CMD`).
#[derive(Clone, Copy, Debug)]
pub struct Command<'a> {
    /// The device, as a plain descriptor.
    pub device: &'a fs::File,
    /// The device's number for the command.
    pub op: u32,
    /// Its argument.
    pub bytes: [u8; 16],
    /// Another argument; no address in our memory.
    pub addr: u64,
}

/// What the kernel may still use.
#[derive(Default)]
#[expect(dead_code, reason = "held for the kernel, never read")]
struct Keep {
    file: Option<Arc<fs::File>>,
    piece: Option<Piece>,
    time: Option<Box<Timespec>>,
}

impl Keep {
    fn of(file: &Arc<fs::File>, piece: Option<Piece>) -> Self {
        Self {
            file: Some(Arc::clone(file)),
            piece,
            time: None,
        }
    }
}

enum Slot {
    /// The kernel works on it; whom to wake.
    Running(Keep, Option<Waker>),
    /// The kernel works on it and nobody waits.
    Abandoned(Keep),
    /// The kernel's answer, not yet fetched.
    Done(i32),
    /// A command of a device; its answer goes to an inbox, with this number.
    Posted(Rc<Inbox>, u64),
}

/// The best ring that this kernel makes.
fn build() -> io::Result<IoUring> {
    // Answers are handed over only when this thread waits for them: no interruption, one call a round
    // (Linux 6.1). A refused operation does not hold back those queued behind it (5.18).
    let mut best = IoUring::builder();
    best.setup_cqsize(ANSWERS)
        .setup_submit_all()
        .setup_single_issuer()
        .setup_defer_taskrun();
    let mut plain = IoUring::builder();
    plain.setup_cqsize(ANSWERS);
    best.build(ENTRIES).or_else(|_| plain.build(ENTRIES))
}

impl Ring {
    /// Makes this thread's ring. Operations of [`super::Uring`] files work on this thread from now on.
    ///
    /// # Errors
    /// What the kernel says; io_uring may be switched off (`kernel.io_uring_disabled`) or forbidden.
    pub fn install(setup: Setup) -> io::Result<Rc<Self>> {
        let uring = build()?;
        let mut probe = Probe::new();
        let can_truncate = uring.submitter().register_probe(&mut probe).is_ok()
            && probe.is_supported(opcode::Ftruncate::CODE);
        let buffers = setup.slots.min(MAX_SLOTS);
        let stands = buffers > 0 && uring.submitter().register_buffers_sparse(buffers).is_ok();
        let ring = Rc::new(Self {
            uring: RefCell::new(uring),
            slots: RefCell::new(Slab::with_capacity(ENTRIES as usize)),
            can_truncate,
            buffers: if stands { buffers } else { 0 },
            submitted: Cell::new(0),
            entered: Cell::new(0),
        });
        CURRENT.with_borrow_mut(|current| *current = Some(Rc::clone(&ring)));
        Ok(ring)
    }

    /// Puts memory of ours into the slots from the first on, as the kernel does with a request's pages.
    #[cfg(test)]
    pub(super) fn register(&self, pieces: &[Piece]) -> io::Result<()> {
        for (index, piece) in (0..).zip(pieces) {
            piece.with_bytes(|bytes| {
                let vector = io::IoSlice::new(bytes);
                // SAFETY: an `IoSlice` is laid out as an iovec; the test keeps the memory until the
                // ring is gone.
                unsafe {
                    let vectors = std::slice::from_raw_parts((&raw const vector).cast(), 1);
                    let uring = self.uring.borrow();
                    uring
                        .submitter()
                        .register_buffers_update(index, vectors, None)
                }
            })?;
        }
        Ok(())
    }

    /// Slots for registered buffers: what was asked for, or 0 where the kernel refuses them.
    #[must_use]
    pub fn buffers(&self) -> u32 {
        self.buffers
    }

    /// This thread's ring.
    ///
    /// # Errors
    /// If it has none.
    pub fn current() -> io::Result<Rc<Self>> {
        CURRENT
            .with_borrow(Clone::clone)
            .ok_or_else(|| io::Error::other("a file of a ring is used on a thread without one"))
    }

    /// Takes this thread's ring away again.
    pub fn uninstall() {
        CURRENT.with_borrow_mut(Option::take);
    }

    /// Can the ring itself set a file's length (Linux 6.9)?
    pub(super) fn can_truncate(&self) -> bool {
        self.can_truncate
    }

    /// Operations given to the kernel so far.
    #[must_use]
    pub fn submitted(&self) -> u64 {
        self.submitted.get()
    }

    /// Calls of `io_uring_enter` so far.
    #[must_use]
    pub fn entered(&self) -> u64 {
        self.entered.get()
    }

    /// Hands the queued operations to the kernel, waits for at least one answer, wakes whoever
    /// waited for it.
    ///
    /// # Errors
    /// What `io_uring_enter` says, but for interruptions and a full completion queue.
    pub fn wait(&self) -> io::Result<()> {
        self.entered.set(self.entered.get() + 1);
        let waited = self.uring.borrow().submit_and_wait(1);
        match waited {
            Err(error) if !for_now(&error) => return Err(error),
            _ => {}
        }
        self.reap();
        Ok(())
    }

    fn reap(&self) {
        loop {
            // The borrow ends before a waker runs.
            let Some(entry) = self.uring.borrow_mut().completion().next() else {
                break;
            };
            let Ok(key) = usize::try_from(entry.user_data()) else {
                continue;
            };
            let mut slots = self.slots.borrow_mut();
            let Some(slot) = slots.get_mut(key) else {
                continue;
            };
            match std::mem::replace(slot, Slot::Done(entry.result())) {
                Slot::Running(keep, waker) => {
                    drop(slots);
                    drop(keep);
                    if let Some(waker) = waker {
                        waker.wake();
                    }
                }
                Slot::Abandoned(keep) => {
                    slots.remove(key);
                    drop(slots);
                    drop(keep);
                }
                Slot::Posted(inbox, number) => {
                    slots.remove(key);
                    drop(slots);
                    inbox.put(number, entry.result());
                }
                Slot::Done(_) => {}
            }
        }
    }

    /// Gives a device's command to the kernel; its answer goes to `inbox` under `number`.
    ///
    /// The caller keeps the device open until the answer is there.
    ///
    /// # Errors
    /// What the kernel says when the queue is full.
    pub fn post(&self, command: &Command<'_>, inbox: &Rc<Inbox>, number: u64) -> io::Result<()> {
        let entry = opcode::UringCmd16::new(Fd(command.device.as_raw_fd()), command.op)
            .cmd(command.bytes)
            .addr(Some(command.addr))
            .build();
        self.push(entry, Slot::Posted(Rc::clone(inbox), number))
            .map(drop)
    }

    /// Hands what is queued to the kernel where the queue has no room for so many more: what is posted
    /// then goes in one call.
    ///
    /// # Errors
    /// If the queue will never have so much room, or what the kernel says.
    pub fn make_room(&self, entries: usize) -> io::Result<()> {
        let free = || {
            let mut uring = self.uring.borrow_mut();
            let queue = uring.submission();
            queue.capacity() - queue.len()
        };
        if free() < entries {
            self.submit()?;
            self.reap();
        }
        if free() < entries {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        Ok(())
    }

    /// Hands the queued operations to the kernel without waiting for any answer. What it does not take now it takes when
    /// the ring is next entered.
    ///
    /// # Errors
    /// What `io_uring_enter` says, but for interruptions and a full completion queue.
    pub fn submit(&self) -> io::Result<()> {
        self.entered.set(self.entered.get() + 1);
        match self.uring.borrow().submit() {
            Err(error) if !for_now(&error) => Err(error),
            _ => Ok(()),
        }
    }

    fn start(self: &Rc<Self>, entry: Entry, keep: Keep) -> io::Result<Operation> {
        let key = self.push(entry, Slot::Running(keep, None))?;
        Ok(Operation {
            ring: Rc::clone(self),
            key: Some(key),
        })
    }

    /// Queues an entry; what it points at is in the slot until its completion arrives.
    fn push(&self, entry: Entry, slot: Slot) -> io::Result<usize> {
        let key = self.slots.borrow_mut().insert(slot);
        let entry = entry.user_data(key as u64);
        // SAFETY: everything that the entry points at is in the slot until its completion arrives.
        while unsafe { self.uring.borrow_mut().submission().push(&entry) }.is_err() {
            self.entered.set(self.entered.get() + 1);
            let submitted = self.uring.borrow().submit();
            // A kernel that says "busy" wants its answers fetched first; and in a long burst they
            // would overflow the completion queue. Wakers only put their tasks on a list.
            self.reap();
            if let Err(error) = submitted
                && !for_now(&error)
            {
                self.slots.borrow_mut().remove(key);
                return Err(error);
            }
        }
        self.submitted.set(self.submitted.get() + 1);
        Ok(key)
    }

    pub(super) fn read(
        self: &Rc<Self>,
        file: &Arc<fs::File>,
        at: u64,
        into: Piece,
    ) -> io::Result<Operation> {
        let length = u32::try_from(into.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let fd = Fd(file.as_raw_fd());
        let entry = match into.address() {
            Address::Memory(start) => opcode::Read::new(fd, start, length).offset(at).build(),
            Address::Slot(index, start) => opcode::ReadFixed::new(fd, start, length, index)
                .offset(at)
                .build(),
        };
        self.start(entry, Keep::of(file, Some(into)))
    }

    pub(super) fn write(
        self: &Rc<Self>,
        file: &Arc<fs::File>,
        at: u64,
        from: Piece,
    ) -> io::Result<Operation> {
        let length = u32::try_from(from.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let fd = Fd(file.as_raw_fd());
        let entry = match from.address() {
            Address::Memory(start) => opcode::Write::new(fd, start, length).offset(at).build(),
            Address::Slot(index, start) => opcode::WriteFixed::new(fd, start, length, index)
                .offset(at)
                .build(),
        };
        self.start(entry, Keep::of(file, Some(from)))
    }

    pub(super) fn sync(self: &Rc<Self>, file: &Arc<fs::File>) -> io::Result<Operation> {
        let entry = opcode::Fsync::new(Fd(file.as_raw_fd()))
            .flags(io_uring::types::FsyncFlags::DATASYNC)
            .build();
        self.start(entry, Keep::of(file, None))
    }

    pub(super) fn punch(
        self: &Rc<Self>,
        file: &Arc<fs::File>,
        at: u64,
        len: u64,
    ) -> io::Result<Operation> {
        let mode = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        let entry = opcode::Fallocate::new(Fd(file.as_raw_fd()), len)
            .offset(at)
            .mode(mode.bits().cast_signed())
            .build();
        self.start(entry, Keep::of(file, None))
    }

    pub(super) fn truncate(
        self: &Rc<Self>,
        file: &Arc<fs::File>,
        len: u64,
    ) -> io::Result<Operation> {
        let entry = opcode::Ftruncate::new(Fd(file.as_raw_fd()), len).build();
        self.start(entry, Keep::of(file, None))
    }

    fn timeout(self: &Rc<Self>, duration: Duration) -> io::Result<Operation> {
        let time = Box::new(
            Timespec::new()
                .sec(duration.as_secs())
                .nsec(duration.subsec_nanos()),
        );
        let entry = opcode::Timeout::new(&raw const *time).build();
        self.start(
            entry,
            Keep {
                time: Some(time),
                ..Keep::default()
            },
        )
    }
}

/// Does `io_uring_enter` only mean "again"?
fn for_now(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let again = [Errno::INTR, Errno::BUSY, Errno::AGAIN].map(Errno::raw_os_error);
    error
        .raw_os_error()
        .is_some_and(|errno| again.contains(&errno))
}

/// An operation under way: the kernel's answer, as a count or an error.
pub(super) struct Operation {
    ring: Rc<Ring>,
    /// `None` once the answer was fetched.
    key: Option<usize>,
}

impl Future for Operation {
    type Output = io::Result<u32>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(key) = self.key else {
            return Poll::Ready(Err(io::Error::other("an operation was asked twice")));
        };
        let mut slots = self.ring.slots.borrow_mut();
        match slots.get_mut(key) {
            Some(Slot::Running(_, waker)) => {
                *waker = Some(context.waker().clone());
                return Poll::Pending;
            }
            Some(Slot::Done(_)) => {}
            Some(Slot::Abandoned(_) | Slot::Posted(..)) | None => {
                return Poll::Ready(Err(io::Error::other("an operation lost its slot")));
            }
        }
        let Slot::Done(result) = slots.remove(key) else {
            return Poll::Ready(Err(io::Error::other("an operation lost its answer")));
        };
        drop(slots);
        self.key = None;
        Poll::Ready(u32::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result)))
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        let mut slots = self.ring.slots.borrow_mut();
        match slots.get_mut(key) {
            Some(Slot::Running(keep, _)) => {
                let keep = std::mem::take(keep);
                slots[key] = Slot::Abandoned(keep);
            }
            Some(Slot::Done(_)) => {
                slots.remove(key);
            }
            Some(Slot::Abandoned(_) | Slot::Posted(..)) | None => {}
        }
    }
}

/// Waits on this thread's ring.
///
/// # Errors
/// If this thread has no ring, or the kernel refuses the timer.
pub async fn sleep(duration: Duration) -> io::Result<()> {
    let ring = Ring::current()?;
    match ring.timeout(duration)?.await {
        Ok(_) => Ok(()),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::TIME.raw_os_error()) => {
            Ok(())
        }
        Err(error) => Err(error),
    }
}
