//! What an XFS superblock says, read without mounting.
//!
//! Its counters are true only after an unmount in order, and whether there was one it does not say: see `log`.
//!
//! ```text
//! byte 0 of the device, big endian
//!  0x00 "XFSB"             0x04 u32 bytes of a block    0x08 u64 blocks           0x20 [u8;16] uuid
//!  0x30 u64 log's first    0x54 u32 blocks of a group   0x58 u32 groups           0x60 u32 blocks of the log
//!  0x64 u16 version        0x66 u16 bytes of a sector   0x7c u8 log2 of a group's blocks, rounded up
//!  0xd4 u32 features without which it is only read      0xd8 u32 features without which it is not mounted
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::Error;
use super::layout::BLOCK;
use crate::units::ByteRange;

const LEN: usize = 512;
const MAGIC: &[u8] = b"XFSB";
/// Version 5: with checksums.
const VERSION: u16 = 5;
const VERSION_BITS: u16 = 0xf;
/// Free inodes' tree, reflinks, counts of inode trees.
const READ_ONLY_FEATURES: u32 = 0x1 | 0x4 | 0x8;
/// Types in directories, sparse inodes, wide times.
const FEATURES: u32 = 0x1 | 0x2 | 0x8;

/// What we want to know of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Blocks of 4096 bytes.
    pub blocks: u64,
    /// Its identity.
    pub uuid: [u8; 16],
    /// Blocks of an allocation group.
    pub group_blocks: u32,
    /// Where its log lies.
    pub log: ByteRange,
}

/// Do these first bytes of a disk say that an XFS begins there?
#[must_use]
pub fn is_xfs(first: &[u8]) -> bool {
    first.starts_with(MAGIC)
}

impl Superblock {
    /// Reads it from a file or device.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::NotXfs`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(cannot(path))?;
        Self::read_at(&file, 0, path)
    }

    /// Reads it from a file in which the file system begins at byte `start`; `path` is for the message.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::NotXfs`].
    pub fn read_at(file: &File, start: u64, path: &Path) -> Result<Self, Error> {
        let mut bytes = [0; LEN];
        file.read_exact_at(&mut bytes, start)
            .map_err(cannot(path))?;
        Self::parse(&bytes).map_err(|why| Error::NotXfs {
            path: path.to_owned(),
            why,
        })
    }

    /// Bytes of the file system.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.blocks.saturating_mul(BLOCK)
    }

    /// Is it what a disk of so many bytes has? A last allocation group of less than 64 blocks is left out.
    #[must_use]
    pub fn fills(&self, size: u64) -> bool {
        self.size() <= size && size - self.size() < 64 * BLOCK
    }

    /// Bytes of an allocation group.
    #[must_use]
    pub fn group(&self) -> u64 {
        u64::from(self.group_blocks) * BLOCK
    }

    fn parse(bytes: &[u8; LEN]) -> Result<Self, &'static str> {
        let u16_at = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| {
            u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let u64_at = |at: usize| u64::from(u32_at(at)) << 32 | u64::from(u32_at(at + 4));
        if !is_xfs(bytes) {
            return Err("the magic number is another");
        }
        if u16_at(0x64) & VERSION_BITS != VERSION {
            return Err("it is not of version 5");
        }
        if u64::from(u32_at(0x04)) != BLOCK || u64::from(u16_at(0x66)) != BLOCK {
            return Err("its blocks and sectors are not of 4096 bytes");
        }
        if u32_at(0xd4) & !READ_ONLY_FEATURES != 0 || u32_at(0xd8) & !FEATURES != 0 {
            return Err("it has features that were not asked for");
        }
        let (blocks, group_blocks, groups) = (u64_at(0x08), u32_at(0x54), u32_at(0x58));
        let full = u64::from(group_blocks).checked_mul(u64::from(groups));
        if blocks == 0 || groups == 0 || full.is_none_or(|full| full < blocks) {
            return Err("its counts contradict each other");
        }
        // The address of a block is the number of its group before its place in that.
        let (log, bits) = (u64_at(0x30), bytes[0x7c]);
        if bits == 0 || bits > 31 || u64::from(group_blocks) > 1 << bits {
            return Err("its counts contradict each other");
        }
        let first = (log >> bits).checked_mul(u64::from(group_blocks));
        let first = first.and_then(|first| first.checked_add(log & ((1 << bits) - 1)));
        let len = u64::from(u32_at(0x60));
        let inside =
            first.filter(|first| log != 0 && len > 0 && first.saturating_add(len) <= blocks);
        let Some(first) = inside.filter(|_| blocks < u64::MAX / BLOCK) else {
            return Err("its log is not inside");
        };
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&bytes[0x20..0x30]);
        Ok(Self {
            blocks,
            uuid,
            group_blocks,
            log: ByteRange::new(first * BLOCK, len * BLOCK),
        })
    }
}

fn cannot(path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::File {
        act: "read the superblock of",
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{ByteRange, Error, LEN, Superblock};

    /// Hand-made, field by field: 512 MiB in two groups, the log in the second.
    fn bytes() -> [u8; LEN] {
        let mut bytes = [0; LEN];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0x00, b"XFSB");
        put(0x04, &4096_u32.to_be_bytes());
        put(0x08, &131_072_u64.to_be_bytes());
        put(0x20, &[7; 16]);
        put(0x30, &65_545_u64.to_be_bytes());
        put(0x54, &65_536_u32.to_be_bytes());
        put(0x58, &2_u32.to_be_bytes());
        put(0x60, &16_384_u32.to_be_bytes());
        put(0x64, &0xb4b5_u16.to_be_bytes());
        put(0x66, &4096_u16.to_be_bytes());
        put(0x7c, &[16]);
        put(0xd4, &0xd_u32.to_be_bytes());
        put(0xd8, &0xb_u32.to_be_bytes());
        bytes
    }

    #[test]
    fn every_field_is_where_xfs_has_it() {
        let superblock = Superblock::parse(&bytes()).unwrap();
        let expected = Superblock {
            blocks: 131_072,
            uuid: [7; 16],
            group_blocks: 65_536,
            log: ByteRange::new(65_545 * 4096, 64 << 20),
        };
        assert_eq!(superblock, expected);
        assert_eq!(
            (superblock.size(), superblock.group()),
            (512 << 20, 256 << 20)
        );
    }

    /// A group whose blocks are no power of two leaves a gap between the addresses of one and the next.
    #[test]
    fn an_address_is_a_group_and_a_place() {
        let mut other = bytes();
        other[0x54..0x58].copy_from_slice(&65_600_u32.to_be_bytes());
        other[0x7c] = 17;
        other[0x30..0x38].copy_from_slice(&(1_u64 << 17 | 9).to_be_bytes());
        let found = Superblock::parse(&other).unwrap();
        assert_eq!(found.log.start, (65_600 + 9) * 4096);
    }

    #[test]
    fn what_is_no_superblock_of_ours_is_refused() {
        assert!(Superblock::parse(&[0; LEN]).is_err());
        for (at, byte) in [
            (0, b'x'),
            (0x06, 0),
            (0x65, 4),
            (0x66, 2),
            (0x0a, 1),
            (0x30, 1),
            (0x5b, 1),
            (0x60, 1),
            (0x7c, 15),
            (0x7c, 0),
            (0xd7, 0x1d),
            (0xdb, 0x8b),
        ] {
            let mut other = bytes();
            other[at] = byte;
            assert!(Superblock::parse(&other).is_err(), "{at:#x}");
        }
        let short = tempfile::NamedTempFile::new().unwrap();
        let error = Superblock::read(short.path()).unwrap_err();
        assert!(matches!(error, Error::File { .. }));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            random in prop::collection::vec(any::<u8>(), LEN),
            kept in prop::collection::vec(any::<bool>(), LEN),
        ) {
            let mut mixed = bytes();
            for (at, keep) in kept.iter().enumerate() {
                if at > 0x70 && !keep || at % 16 == 0 && at > 0 {
                    mixed[at] = random[at];
                }
            }
            if let Ok(found) = Superblock::parse(&mixed) {
                prop_assert!(found.size() > 0 && found.log.end() <= found.size());
            }
        }
    }
}
