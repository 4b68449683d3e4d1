//! A request's memory that never leaves the kernel: zero copy.
//!
//! The kernel puts the pages of a request into a slot of the shard's ring; reads and writes of files
//! name the slot and go straight into these pages. What only a processor can do (fill with zeros, copy
//! to or from our own memory) goes through the device file at the request's position there: a copy by
//! the kernel, which never waits for a disk.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// A slot of this thread's ring that holds a request's pages, and the way to its bytes for a processor.
#[derive(Clone, Debug)]
pub struct Registered {
    /// The slot in the ring's table of buffers.
    pub index: u16,
    /// The file through which the bytes are copied: the character device of the block device.
    pub device: Arc<fs::File>,
    /// Where the request's first byte is in that file.
    pub position: u64,
}

/// What a run of the kernel's bytes is overwritten with.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

impl Registered {
    pub(super) fn copy_out(&self, at: usize, into: &mut [u8]) -> io::Result<()> {
        self.device.read_exact_at(into, self.position + at as u64)
    }

    pub(super) fn copy_in(&self, at: usize, from: &[u8]) -> io::Result<()> {
        self.device.write_all_at(from, self.position + at as u64)
    }

    pub(super) fn fill_zero(&self, at: usize, len: usize) -> io::Result<()> {
        let mut done = 0;
        while done < len {
            let count = ZEROS.len().min(len - done);
            self.copy_in(at + done, &ZEROS[..count])?;
            done += count;
        }
        Ok(())
    }
}
