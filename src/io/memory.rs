//! A file in memory, for models and for reading a byte slice as an image.

use std::io;
use std::sync::{Mutex, PoisonError};

use super::buffer::ours;
use super::{File, Piece};
use crate::units::ByteRange;

/// Granularity at which `next_data` sees holes.
const BLOCK: usize = 4096;

/// Bytes in memory that behave like a file.
#[derive(Debug, Default)]
pub struct Memory {
    /// Held for a copy only, never across an await; no other lock is taken under it.
    bytes: Mutex<Vec<u8>>,
}

impl Memory {
    /// A file with these bytes.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self {
            bytes: Mutex::new(bytes),
        }
    }

    /// What it holds now.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        self.with(|bytes| bytes.clone())
    }

    fn with<T>(&self, act: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        act(&mut self.bytes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn index(at: u64) -> io::Result<usize> {
    usize::try_from(at).map_err(|_| io::ErrorKind::FileTooLarge.into())
}

impl File for Memory {
    async fn read_at(&self, at: u64, into: Piece) -> io::Result<()> {
        let at = index(at)?;
        ours(&into)?;
        into.fill_zero()?;
        self.with(|bytes| {
            let start = at.min(bytes.len());
            let end = (at + into.len()).min(bytes.len());
            into.copy_from(0, &bytes[start..end]);
        });
        Ok(())
    }

    async fn write_at(&self, at: u64, from: Piece) -> io::Result<()> {
        let at = index(at)?;
        ours(&from)?;
        self.with(|bytes| {
            if bytes.len() < at + from.len() {
                bytes.resize(at + from.len(), 0);
            }
            from.copy_to(&mut bytes[at..at + from.len()]);
        });
        Ok(())
    }

    async fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    async fn zero(&self, range: ByteRange) -> io::Result<()> {
        let (start, end) = (index(range.start)?, index(range.end())?);
        self.with(|bytes| {
            let (start, end) = (start.min(bytes.len()), end.min(bytes.len()));
            bytes[start..end].fill(0);
        });
        Ok(())
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        let len = index(len)?;
        self.with(|bytes| bytes.resize(len, 0));
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.with(|bytes| bytes.len()) as u64)
    }

    fn next_data(&self, from: u64) -> io::Result<Option<ByteRange>> {
        let from = index(from)?;
        Ok(self.with(|bytes| {
            let mut blocks = (from / BLOCK..bytes.len().div_ceil(BLOCK))
                .map(|block| (block * BLOCK, ((block + 1) * BLOCK).min(bytes.len())))
                .skip_while(|(start, end)| bytes[*start..*end].iter().all(|byte| *byte == 0));
            let (start, mut end) = blocks.next()?;
            for (_, next) in
                blocks.take_while(|(start, end)| bytes[*start..*end].iter().any(|byte| *byte != 0))
            {
                end = next;
            }
            let start = start.max(from);
            Some(ByteRange::new(start as u64, (end - start) as u64))
        }))
    }
}
