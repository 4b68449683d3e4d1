//! What an ext4 superblock says, read without mounting: size, use, clean or not.
//!
//! ```text
//! byte 1024 of the device, little endian
//!  0x00 u32 inodes          0x04 u32 blocks, low     0x0c u32 free blocks, low  0x10 u32 free inodes
//!  0x18 u32 log2(block)-10  0x20 u32 blocks a group  0x28 u32 inodes a group
//!  0x38 u16 magic ef53      0x3a u16 state           0x60 u32 incompatible features
//!  0x64 u32 features without which it is only read   0x68 [u8;16] uuid
//!  0x150 u32 blocks, high   0x158 u32 free blocks, high
//!  0x240 u32 inode of users' quota   0x244 u32 of groups'
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::Error;

const AT: u64 = 1024;
const LEN: usize = 1024;
const MAGIC: u16 = 0xef53;
/// State: it was unmounted, and no error was seen.
const CLEAN: u16 = 1;
/// State: the kernel saw errors.
const ERRORS: u16 = 2;
/// Incompatible feature: the journal must be replayed.
const RECOVER: u32 = 0x4;
/// Incompatible feature: more than 2^32 blocks are possible; the high halves mean something.
const WIDE: u32 = 0x80;
/// Feature without which it is only read: what each user and group has is counted.
const QUOTA: u32 = 0x100;

/// What we want to know of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Bytes of a block.
    pub block: u64,
    /// Blocks of the file system.
    pub blocks: u64,
    /// Blocks that are free.
    pub free_blocks: u64,
    /// Inodes of the file system.
    pub inodes: u32,
    /// Inodes that are free.
    pub free_inodes: u32,
    /// Blocks of a group; never 0.
    pub group_blocks: u32,
    /// Inodes of a group.
    pub group_inodes: u32,
    /// Its identity.
    pub uuid: [u8; 16],
    /// Was it unmounted in order, with no error seen?
    pub clean: bool,
    /// Must the journal be replayed?
    pub needs_recovery: bool,
    /// Is it counted what each user and each group has?
    pub user_quota: bool,
}

/// Do these first 2 KiB of a disk say that an ext4 begins there?
#[must_use]
pub fn is_ext4(first: &[u8; 2048]) -> bool {
    first[1024 + 0x38..][..2] == MAGIC.to_le_bytes()
}

impl Superblock {
    /// Reads it from a file or device.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::NotExt4`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(cannot(path))?;
        Self::read_at(&file, 0, path)
    }

    /// Reads it from a file in which the file system begins at byte `start`; `path` is for the message.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::NotExt4`].
    pub fn read_at(file: &File, start: u64, path: &Path) -> Result<Self, Error> {
        let mut bytes = [0; LEN];
        file.read_exact_at(&mut bytes, start.saturating_add(AT))
            .map_err(cannot(path))?;
        Self::parse(&bytes).map_err(|why| Error::NotExt4 {
            path: path.to_owned(),
            why,
        })
    }

    /// Bytes of the file system.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.blocks.saturating_mul(self.block)
    }

    /// Is it what a disk of so many bytes has? A last block group is left out that has hardly more blocks than its own
    /// tables take: bitmaps, inodes, and copies of the superblock and the descriptors, with room for more of them.
    #[must_use]
    pub fn fills(&self, size: u64) -> bool {
        const INODE: u64 = 256;
        const COPIES: u64 = 1200;
        let group = u64::from(self.group_blocks).saturating_mul(self.block);
        let rest = size.checked_rem(group).unwrap_or_default();
        let tables = u64::from(self.group_inodes) * INODE + COPIES * self.block;
        self.size() == size || (self.size() == size - rest && rest < tables)
    }

    /// Inodes that are used.
    #[must_use]
    pub fn used_inodes(&self) -> u32 {
        self.inodes - self.free_inodes
    }

    /// Inodes that there would be at another size, in bytes: each group has as many. At most, for a last group may be
    /// too small to be one.
    #[must_use]
    pub fn inodes_at(&self, size: u64) -> u64 {
        let groups = (size / self.block).div_ceil(u64::from(self.group_blocks));
        groups.saturating_mul(u64::from(self.group_inodes))
    }

    /// What is wrong with the last unmount of one that nobody has mounted, if anything is.
    #[must_use]
    pub fn torn(&self) -> Option<&'static str> {
        match (self.needs_recovery, self.clean) {
            (true, _) => Some("was not unmounted to the end"),
            (_, false) => Some("has met errors"),
            _ => None,
        }
    }

    fn parse(bytes: &[u8; LEN]) -> Result<Self, &'static str> {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        if u16_at(0x38) != MAGIC {
            return Err("the magic number is another");
        }
        let log = u32_at(0x18);
        if log > 6 {
            return Err("its block size is over 64 KiB");
        }
        let features = u32_at(0x60);
        let wide = |low: usize, high: usize| {
            let high = if features & WIDE == 0 {
                0
            } else {
                u32_at(high)
            };
            u64::from(high) << 32 | u64::from(u32_at(low))
        };
        let (blocks, free_blocks) = (wide(0x04, 0x150), wide(0x0c, 0x158));
        let (inodes, free_inodes) = (u32_at(0x00), u32_at(0x10));
        let (group_blocks, group_inodes) = (u32_at(0x20), u32_at(0x28));
        if blocks == 0 || free_blocks > blocks || free_inodes > inodes || group_blocks == 0 {
            return Err("its counts contradict each other");
        }
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&bytes[0x68..0x78]);
        let state = u16_at(0x3a);
        Ok(Self {
            block: 1024 << log,
            blocks,
            free_blocks,
            inodes,
            free_inodes,
            group_blocks,
            group_inodes,
            uuid,
            clean: state & CLEAN != 0 && state & ERRORS == 0,
            needs_recovery: features & RECOVER != 0,
            user_quota: u32_at(0x64) & QUOTA != 0 && u32_at(0x240) != 0 && u32_at(0x244) != 0,
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

    use super::{Error, LEN, Superblock};

    /// Hand-made, field by field: 10 GiB in 4 KiB blocks.
    fn bytes() -> [u8; LEN] {
        let mut bytes = [0; LEN];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0x00, &655_360_u32.to_le_bytes());
        put(0x04, &2_621_440_u32.to_le_bytes());
        put(0x0c, &2_500_000_u32.to_le_bytes());
        put(0x10, &655_349_u32.to_le_bytes());
        put(0x18, &2_u32.to_le_bytes());
        put(0x20, &32_768_u32.to_le_bytes());
        put(0x28, &8192_u32.to_le_bytes());
        put(0x38, &[0x53, 0xef]);
        put(0x3a, &[1, 0]);
        put(0x60, &0x2c2_u32.to_le_bytes());
        put(0x68, &[7; 16]);
        bytes
    }

    #[test]
    fn every_field_is_where_ext4_has_it() {
        let superblock = Superblock::parse(&bytes()).unwrap();
        let expected = Superblock {
            block: 4096,
            blocks: 2_621_440,
            free_blocks: 2_500_000,
            inodes: 655_360,
            free_inodes: 655_349,
            group_blocks: 32_768,
            group_inodes: 8192,
            uuid: [7; 16],
            clean: true,
            needs_recovery: false,
            user_quota: false,
        };
        assert_eq!(superblock, expected);
        assert_eq!(superblock.size(), 10 << 30);
        assert_eq!(superblock.used_inodes(), 11);
        assert_eq!(superblock.inodes_at(10 << 30), 655_360);
        assert_eq!(superblock.inodes_at((1 << 30) + 4096), 9 * 8192);
    }

    #[test]
    fn the_high_half_counts_only_with_its_feature() {
        let mut wide = bytes();
        wide[0x150] = 1;
        assert_eq!(
            Superblock::parse(&wide).unwrap().blocks,
            (1 << 32) + 2_621_440
        );
        wide[0x60] &= !0x80;
        assert_eq!(Superblock::parse(&wide).unwrap().blocks, 2_621_440);
    }

    #[test]
    fn errors_and_a_journal_to_replay_are_seen() {
        let mut dirty = bytes();
        dirty[0x3a] = 3;
        dirty[0x60] |= 4;
        let superblock = Superblock::parse(&dirty).unwrap();
        assert!(!superblock.clean);
        assert!(superblock.needs_recovery);
    }

    #[test]
    fn quota_is_a_feature_and_two_files() {
        let mut quota = bytes();
        for (at, byte, expected) in [
            (0x65, 1, false),
            (0x240, 3, false),
            (0x244, 4, true),
            (0x65, 0, false),
        ] {
            quota[at] = byte;
            assert_eq!(
                Superblock::parse(&quota).unwrap().user_quota,
                expected,
                "{at:#x}"
            );
        }
    }

    #[test]
    fn what_is_no_superblock_is_refused() {
        assert!(Superblock::parse(&[0; LEN]).is_err());
        let mut huge = bytes();
        huge[0x18] = 40;
        assert!(Superblock::parse(&huge).is_err());
        let mut groupless = bytes();
        groupless[0x20..0x24].fill(0);
        assert!(Superblock::parse(&groupless).is_err());
        let mut free = bytes();
        free[0x0f] = 0xff;
        assert!(Superblock::parse(&free).is_err());
        let short = tempfile::NamedTempFile::new().unwrap();
        let error = Superblock::read(short.path()).unwrap_err();
        assert!(matches!(error, Error::File { .. }));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut random in prop::collection::vec(any::<u8>(), LEN)) {
            random[0x38..0x3a].copy_from_slice(&[0x53, 0xef]);
            let bytes: &[u8; LEN] = random.as_slice().try_into().unwrap();
            if let Ok(superblock) = Superblock::parse(bytes) {
                prop_assert!(superblock.size() > 0);
            }
        }
    }
}
