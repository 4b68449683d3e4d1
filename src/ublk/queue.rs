//! A device's queue: fetch a request, move its bytes, commit its result.
//!
//! The kernel describes the request with tag `t` in the `t`-th slot of a mapped table, and says by the
//! answer to a *fetch* that it is there. The answer to the request is a *commit*, which fetches the next
//! one for the same tag. The task that fetched a tag must be the one that commits it. With user copy the
//! request's bytes are at a place of the tag's own on the character device; they are copied, so this
//! never waits for a disk.
#![expect(unsafe_code, reason = "the kernel's table of requests is mapped")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;

use rustix::fs::FileType;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::error::Error;
use super::uapi;
use crate::io::{Command, Inbox, Piece, Ring};
use crate::node::{self, Number};
use crate::units::ByteRange;

/// A request's number on its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(pub u16);

/// What the kernel wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// The bytes of the range.
    Read,
    /// The bytes of the range replaced; with `true` they survive the power before the answer.
    Write(bool),
    /// Everything answered so far to survive the power.
    Flush,
    /// The range forgotten.
    Discard,
    /// The range to read as zeros.
    WriteZeroes,
    /// Something that we did not offer.
    Other(u32),
}

/// Where the kernel puts the pages of a device's requests in the ring's table of buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Nowhere: the device was made without that.
    None,
    /// Nowhere: there is no room in the table. Every request is marked as not registered.
    Full,
    /// Tag 0's pages into this slot, tag 1's into the next.
    First(u16),
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What to do.
    pub op: Op,
    /// Where, in bytes.
    pub range: ByteRange,
    /// Are its pages a registered buffer of the ring, under the tag's index?
    pub registered: bool,
}

/// Opens a device's character node; makes it where no devtmpfs does. It can be open only once.
///
/// # Errors
/// What the kernel says; `EBUSY` while somebody has it open.
pub fn open(id: u32) -> Result<File, Error> {
    let path = PathBuf::from(format!("/dev/ublkc{id}"));
    let failed = |act| {
        let path = path.clone();
        move |source| Error::Node { act, path, source }
    };
    let open = || OpenOptions::new().read(true).write(true).open(&path);
    match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let file = PathBuf::from(format!("/sys/class/ublk-char/ublkc{id}/dev"));
            let number = Number::read(&file).map_err(failed("find the number of"))?;
            node::make(&path, FileType::CharacterDevice, number).map_err(failed("make"))?;
            open().map_err(failed("open"))
        }
        answer => answer.map_err(failed("open")),
    }
}

/// The queue of one device, on the thread that serves it.
pub struct Queue {
    device: Arc<File>,
    ring: Rc<Ring>,
    inbox: Rc<Inbox>,
    /// Answers come to the inbox under this number plus the tag.
    number: u64,
    depth: u16,
    table: NonNull<uapi::ublksrv_io_desc>,
    bytes: usize,
    slots: Slot,
}

impl Queue {
    /// Maps the table of requests. `depth` is what the kernel granted.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new(
        device: Arc<File>,
        depth: u16,
        (inbox, number): (Rc<Inbox>, u64),
        slots: Slot,
    ) -> io::Result<Self> {
        let ring = Ring::current()?;
        let entry = size_of::<uapi::ublksrv_io_desc>();
        // Exactly so long: the driver refuses anything else.
        let bytes = (usize::from(depth) * entry).next_multiple_of(4096);
        // SAFETY: a fresh mapping, read only, of the kernel's table for queue 0.
        let table = unsafe {
            mmap(
                std::ptr::null_mut(),
                bytes,
                ProtFlags::READ,
                MapFlags::SHARED | MapFlags::POPULATE,
                &*device,
                0,
            )?
        };
        Ok(Self {
            device,
            ring,
            inbox,
            number,
            depth,
            table: NonNull::new(table.cast()).ok_or(io::ErrorKind::OutOfMemory)?,
            bytes,
            slots,
        })
    }

    /// Asks for the first request of every tag, at once: how many tags were asked for, which is all of them unless the
    /// kernel refused. Those answer, whatever it says of the others.
    pub fn fetch_all(&self) -> (u16, io::Result<()>) {
        fetch_every(
            &self.ring,
            &self.device,
            self.slots,
            (&self.inbox, self.number),
            self.depth,
        )
    }

    /// Requests under way at once.
    #[must_use]
    pub fn depth(&self) -> u16 {
        self.depth
    }

    /// The request of a tag whose fetch was answered.
    #[must_use]
    pub fn request(&self, tag: Tag) -> Request {
        assert!(
            tag.0 < self.depth,
            "the kernel answers only what was fetched"
        );
        // SAFETY: the table has `depth` entries, and any bytes are valid ones. The kernel wrote this
        // entry before it answered the fetch, and leaves it alone until the commit.
        let entry = unsafe { self.table.add(usize::from(tag.0)).read_volatile() };
        let op = match entry.op_flags & 0xff {
            uapi::OP_READ => Op::Read,
            uapi::OP_WRITE => Op::Write(entry.op_flags & uapi::FLAG_FUA != 0),
            uapi::OP_FLUSH => Op::Flush,
            uapi::OP_DISCARD => Op::Discard,
            uapi::OP_WRITE_ZEROES => Op::WriteZeroes,
            other => Op::Other(other),
        };
        let range = match op {
            // It has no place: the kernel writes -1 there.
            Op::Flush => ByteRange::new(0, 0),
            _ => ByteRange::new(entry.start_sector << 9, u64::from(entry.nr_sectors) << 9),
        };
        Request {
            op,
            range,
            registered: self.slots != Slot::None && entry.op_flags & uapi::FLAG_NOT_REGISTERED == 0,
        }
    }

    /// Answers a request, and asks for the next one of its tag. The kernel hears it when the ring is
    /// next entered. `result` is a count of bytes, or a negative errno.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn commit(&self, tag: Tag, result: i32) -> io::Result<()> {
        let op = uapi::UBLK_U_IO_COMMIT_AND_FETCH_REQ;
        let command = command(&self.device, op, tag, result, self.slots);
        self.ring
            .post(&command, &self.inbox, self.number + u64::from(tag.0))
    }

    /// Copies the bytes of a write request.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn take(&self, tag: Tag, into: &Piece) -> io::Result<()> {
        into.with_bytes_mut(|bytes| self.device.read_exact_at(bytes, self.payload(tag)))
    }

    /// Copies the bytes that a read request wants.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn give(&self, tag: Tag, from: &Piece) -> io::Result<()> {
        from.with_bytes(|bytes| self.device.write_all_at(bytes, self.payload(tag)))
    }

    /// Where a tag's bytes begin on the character device.
    #[must_use]
    pub fn payload(&self, tag: Tag) -> u64 {
        uapi::PAYLOAD + (u64::from(tag.0) << uapi::TAG_SHIFT)
    }

    /// The character device.
    #[must_use]
    pub fn device(&self) -> &Arc<File> {
        &self.device
    }

    /// The slot of a tag's pages in the ring's table of buffers, if it has one.
    #[must_use]
    pub fn slot(&self, tag: Tag) -> Option<u16> {
        match self.slots {
            Slot::First(first) => Some(first + tag.0),
            Slot::None | Slot::Full => None,
        }
    }
}

/// Asks for the first request of every tag of a device, in one call to the kernel.
///
/// In one, because of what a server leaves that dies between two: on Linux 6.12 the kernel cannot end a
/// part of a queue's fetches, so the process would never end, and the device stay as it is.
pub(super) fn fetch_every(
    ring: &Ring,
    device: &File,
    slots: Slot,
    (inbox, number): (&Rc<Inbox>, u64),
    depth: u16,
) -> (u16, io::Result<()>) {
    if let Err(error) = ring.make_room(depth.into()) {
        return (0, Err(error));
    }
    for tag in 0..depth {
        let command = command(device, uapi::UBLK_U_IO_FETCH_REQ, Tag(tag), -1, slots);
        if let Err(error) = ring.post(&command, inbox, number + u64::from(tag)) {
            return (tag, Err(error));
        }
    }
    (depth, ring.submit())
}

fn command(device: &File, op: u32, tag: Tag, result: i32, slots: Slot) -> Command<'_> {
    // With registration the argument says where; with user copy the kernel wants none.
    let addr = match slots {
        Slot::None => 0,
        Slot::Full => u64::from(u16::MAX) | uapi::REGISTER_OR_COPY << 16,
        Slot::First(first) => u64::from(first + tag.0) | uapi::REGISTER_OR_COPY << 16,
    };
    Command {
        device,
        op,
        bytes: words(tag, result),
        addr,
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length; nothing borrowed from it is left.
        // An error would mean that the mapping was not ours, which `new` rules out.
        let _ = unsafe { munmap(self.table.as_ptr().cast(), self.bytes) };
    }
}

/// `struct ublksrv_io_cmd`: queue u16, tag u16, result i32, address u64.
#[expect(
    clippy::host_endian_bytes,
    reason = "the kernel's interface, not a file's layout"
)]
fn words(tag: Tag, result: i32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[2..4].copy_from_slice(&tag.0.to_ne_bytes());
    bytes[4..8].copy_from_slice(&result.to_ne_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::{Tag, words};

    #[test]
    fn a_command_is_laid_out_as_the_kernel_reads_it() {
        let expected = if cfg!(target_endian = "little") {
            [0, 0, 7, 0, 0xfb, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]
        } else {
            [0, 0, 0, 7, 0xff, 0xff, 0xff, 0xfb, 0, 0, 0, 0, 0, 0, 0, 0]
        };
        assert_eq!(words(Tag(7), -5), expected);
    }
}
