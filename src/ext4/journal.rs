//! What a journal holds that nobody will read again.
//!
//! A file system that was unmounted in order has written everything from its journal to its place; what
//! the journal's blocks still hold is waste, but for the first, which says that there is nothing to
//! replay. Where the blocks are, the superblock says itself: it keeps a copy of the journal's inode.
//!
//! ```text
//! byte 1024 of the device, little endian
//!  0x5c  u32 compatible features    0xe0 u32 journal's inode      0xfd u8 kind of the copy: 1 is blocks
//!  0x10c [u32;17] the copy: 60 bytes of map, then size, high and low
//!        map: u16 magic f30a  u16 extents  u16 room  u16 depth  u32 -     then for each extent
//!             u32 first block of the file  u16 length  u16 start, high  u32 start, low
//! ```

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{Error, Superblock};
use crate::units::ByteRange;

const AT: u64 = 1024;
const LEN: usize = 1024;
/// Compatible feature: there is a journal.
const HAS_JOURNAL: u32 = 0x4;
/// Where every ext4 keeps an internal journal.
const INODE: u32 = 8;
const MAP: usize = 0x10c;
const MAP_MAGIC: u16 = 0xf30a;
/// Extents that fit into an inode.
const MOST: u16 = 4;
/// A length above this means that the extent was never written.
const LONGEST: u16 = 32768;

/// The bytes of the file system that its journal left behind and nobody reads again.
///
/// None if it was not unmounted in order, or if its journal is any other than the one that mkfs makes
/// inside: what is not understood is left alone.
///
/// # Errors
/// [`Error::File`], [`Error::NotExt4`].
pub fn spent_journal(file: &File, start: u64, path: &Path) -> Result<Vec<ByteRange>, Error> {
    let superblock = Superblock::read_at(file, start, path)?;
    let mut bytes = [0; LEN];
    file.read_exact_at(&mut bytes, start.saturating_add(AT))
        .map_err(|source| Error::File {
            act: "read the superblock of",
            path: path.to_owned(),
            source,
        })?;
    if superblock.needs_recovery || !superblock.clean {
        return Ok(Vec::new());
    }
    Ok(blocks(&bytes, superblock.block, superblock.blocks)
        .unwrap_or_default()
        .into_iter()
        .map(|(first, count)| ByteRange::new(first * superblock.block, count * superblock.block))
        .collect())
}

/// The journal's blocks without its first: first and count of each run. `None` for what is not
/// understood, or cannot be: a run that lies over another, over the superblock, or where no byte has a number.
fn blocks(bytes: &[u8; LEN], size: u64, all: u64) -> Option<Vec<(u64, u64)>> {
    let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let u32_at =
        |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let (extents, depth) = (u16_at(MAP + 2), u16_at(MAP + 6));
    let inside = u32_at(0x5c) & HAS_JOURNAL != 0 && u32_at(0xe0) == INODE && bytes[0xfd] == 1;
    if !inside || u16_at(MAP) != MAP_MAGIC || depth != 0 || !(1..=MOST).contains(&extents) {
        return None;
    }
    let lowest = (AT + LEN as u64).div_ceil(size);
    let mut runs: Vec<(u64, u64)> = Vec::new();
    let mut next = 0;
    for extent in 0..usize::from(extents) {
        let at = MAP + 12 + 12 * extent;
        let (logical, len) = (u32_at(at), u16_at(at + 4));
        let first = u64::from(u16_at(at + 6)) << 32 | u64::from(u32_at(at + 8));
        if logical != next || len == 0 || len > LONGEST {
            return None;
        }
        let end = first.checked_add(u64::from(len))?;
        end.checked_mul(size)?;
        if first < lowest || end > all {
            return None;
        }
        next = next.checked_add(u32::from(len))?;
        runs.push((first, u64::from(len)));
    }
    let mut sorted = runs.clone();
    sorted.sort_unstable();
    if sorted
        .windows(2)
        .any(|pair| pair[0].0 + pair[0].1 > pair[1].0)
    {
        return None;
    }
    // The journal's own superblock stays.
    if let Some((first, count)) = runs.first_mut() {
        (*first, *count) = (*first + 1, *count - 1);
    }
    Some(runs)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, Permissions};
    use std::os::unix::fs::{FileExt, PermissionsExt};

    use super::super::{Choices, Filesystem, Layout, Tools};
    use super::{LEN, blocks, spent_journal};

    #[tokio::test]
    async fn the_journal_is_where_dumpe2fs_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fs");
        let tools = Tools::find().await.unwrap();
        let layout = Layout::new(1 << 30, &Choices::default()).unwrap();
        Filesystem::make(&path, &layout, &tools).await.unwrap();
        let said = tools
            .debugfs
            .run(&["-R", "blocks <8>", path.to_str().unwrap()])
            .await
            .unwrap()
            .success()
            .unwrap();
        let numbers: Vec<u64> = said
            .split_whitespace()
            .filter_map(|it| it.parse().ok())
            .collect();
        assert_eq!(numbers.len(), 4096, "16 MiB");
        let file = File::open(&path).unwrap();
        let spent = spent_journal(&file, 0, &path).unwrap();
        let found: Vec<u64> = spent
            .iter()
            .flat_map(|run| run.start / 4096..run.end() / 4096)
            .collect();
        assert_eq!(found, numbers[1..]);
        // With these gone it is as good as before.
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        for run in spent {
            let other = vec![0; usize::try_from(run.len).unwrap()];
            file.write_all_at(&other, run.start).unwrap();
        }
        Filesystem::at(&path).check(&tools).await.unwrap();
        // Not unmounted in order: every block may be needed.
        file.write_all_at(&[0x46], 1024 + 0x60).unwrap();
        assert_eq!(spent_journal(&file, 0, &path).unwrap(), []);
    }

    #[test]
    fn what_is_not_understood_is_left_alone() {
        let mut sound = [0; LEN];
        let mut put = |at: usize, bytes: &[u8]| sound[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x5c, &[4]);
        put(0xe0, &[8]);
        put(0xfd, &[1]);
        put(0x10c, &[0x0a, 0xf3, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
        put(0x118, &[0, 0, 0, 0, 8, 0, 0, 0, 100, 0, 0, 0]);
        put(0x124, &[8, 0, 0, 0, 4, 0, 0, 0, 200, 0, 0, 0]);
        let found = |bytes: &[u8; LEN]| blocks(bytes, 4096, 1000);
        assert_eq!(found(&sound), Some(vec![(101, 7), (200, 4)]));
        assert_eq!(blocks(&sound, 4096, 203), None, "beyond the end");
        // A run over the other one's first block or last, and over the superblock.
        for first in [100, 107, 97] {
            let mut other = sound;
            other[0x12c] = first;
            assert_eq!(found(&other), None, "{first}");
        }
        let mut other = sound;
        other[0x12c] = 1;
        assert_eq!(found(&other), Some(vec![(101, 7), (1, 4)]));
        assert_eq!(blocks(&other, 1024, 1000), None, "the superblock's");
        let mut other = sound;
        other[0x12a..0x130].fill(0xff);
        assert_eq!(blocks(&other, 1 << 16, u64::MAX), None, "2^64 and more");
        for (at, byte) in [
            (0x5c, 0),
            (0xe0, 9),
            (0xfd, 0),
            (0x10c, 0),
            (0x10e, 0),
            (0x10e, 5),
            (0x112, 1),
            (0x118, 1),
            (0x11d, 0xff),
            (0x120, 0),
            (0x124, 9),
        ] {
            let mut other = sound;
            other[at] = byte;
            assert_eq!(found(&other), None, "byte {at:#x}");
        }
    }
}
