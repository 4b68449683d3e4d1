//! Was an XFS unmounted in order since it was last mounted? Its log tells, its superblock does not.
//!
//! The last thing that an unmount writes is a record that says so, and the first thing that a mount writes are sectors
//! in front of the log's head that look like records of the cycle before: so no old one is ever taken for new. They
//! carry the tail that the log had then. The record of an unmount, with a sector of that very tail behind it, therefore
//! means that somebody mounted it since and wrote nothing to the log after that: the kernel takes such a log for clean,
//! and of what was written to its files nothing need have arrived.
//!
//! ```text
//! the log: a ring of sectors of 512 bytes, big endian; each begins with its cycle, or is a record's header:
//!  0x00 u32 feedbabe    0x04 u32 cycle       0x08 u32 version   0x0c u32 bytes behind the header
//!  0x18 u64 tail        0x28 u32 operations  0x130 [u8;16] uuid 0x140 u32 bytes of a buffer
//! an operation: 8 bytes, then u8 client, u8 flags
//! ```

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{Advice, fadvise};

use super::{Error, Superblock};
use crate::units::ByteRange;

const SECTOR: u64 = 512;
const MAGIC: u32 = 0xfeed_babe;
/// Version: the header may be of several sectors, one for so many bytes of a buffer.
const LONG_HEADERS: u32 = 2;
const BUFFER_OF_A_HEADER: u64 = 32 << 10;
/// Flag of an operation: the file system was unmounted.
const UNMOUNTED: u8 = 0x20;
/// The record of an unmount is not longer: eight sectors of header, and one operation on a block of its own.
const LONGEST: u64 = 32;

type Sector = [u8; 512];

/// What is wrong with the last unmount of the file system in a file or device, if anything is. Nobody may have it
/// mounted; `path` is for the message.
///
/// # Errors
/// [`Error::File`], [`Error::NotXfs`].
pub fn torn(file: &File, path: &Path) -> Result<Option<&'static str>, Error> {
    // XFS writes past a device's page cache: what somebody read while it was mounted may still be there.
    let _ = fadvise(file, 0, None, Advice::DontNeed);
    let superblock = Superblock::read_at(file, 0, path)?;
    let log = Log {
        at: superblock.log,
        read: |at, sector: &mut Sector| {
            file.read_exact_at(sector, at)
                .map_err(|source| Error::File {
                    act: "read the log of",
                    path: path.to_owned(),
                    source,
                })
        },
    };
    Ok(match log.last()? {
        Last::Unmount => None,
        Last::Mount => Some(
            "was mounted, and not unmounted to the end (or only to be read, which looks the same: then mount it \
             writable once and unmount it)",
        ),
        Last::Other => Some("was not unmounted to the end"),
    })
}

/// What was done last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    Unmount,
    Mount,
    Other,
}

struct Log<R> {
    at: ByteRange,
    read: R,
}

impl<R: Fn(u64, &mut Sector) -> Result<(), Error>> Log<R> {
    fn sectors(&self) -> u64 {
        self.at.len / SECTOR
    }

    /// A sector of the ring.
    fn sector(&self, number: u64) -> Result<Sector, Error> {
        let mut sector = [0; 512];
        let at = self.at.start + number % self.sectors() * SECTOR;
        (self.read)(at, &mut sector)?;
        Ok(sector)
    }

    fn last(&self) -> Result<Last, Error> {
        let head = self.head()?;
        for back in 2..=LONGEST.min(self.sectors()) {
            let start = head + self.sectors() - back;
            let header = self.sector(start)?;
            if u32_at(&header, 0) != MAGIC {
                continue;
            }
            let long = u32_at(&header, 8) & LONG_HEADERS != 0;
            let buffer = u64::from(u32_at(&header, 0x140));
            let headers = match buffer.div_ceil(BUFFER_OF_A_HEADER) {
                headers @ 1..=8 if long => headers,
                _ => 1,
            };
            let content = u64::from(u32_at(&header, 0x0c)).div_ceil(SECTOR);
            let operation = self.sector(start + headers)?;
            if headers + content != back
                || u32_at(&header, 0x28) != 1
                || operation[9] & UNMOUNTED == 0
            {
                return Ok(Last::Other);
            }
            let next = self.sector(head)?;
            let mark = u32_at(&next, 0) == MAGIC && next[0x18..0x20] == header[0x18..0x20];
            return Ok(if mark { Last::Mount } else { Last::Unmount });
        }
        Ok(Last::Other)
    }

    /// The sector that is written next: the first of an older cycle, or that after the last.
    fn head(&self) -> Result<u64, Error> {
        let first = cycle(&self.sector(0)?);
        let (mut newer, mut older) = (0, self.sectors());
        while newer + 1 < older {
            let middle = newer.midpoint(older);
            if cycle(&self.sector(middle)?) == first {
                newer = middle;
            } else {
                older = middle;
            }
        }
        Ok(older)
    }
}

fn cycle(sector: &Sector) -> u32 {
    match u32_at(sector, 0) {
        MAGIC => u32_at(sector, 4),
        cycle => cycle,
    }
}

fn u32_at(sector: &Sector, at: usize) -> u32 {
    u32::from_be_bytes([sector[at], sector[at + 1], sector[at + 2], sector[at + 3]])
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::Path;

    use proptest::prelude::*;

    use super::super::fixture::{Loop, made};
    use super::{ByteRange, Error, Last, Log, MAGIC, Sector, torn};

    fn said(path: &Path) -> Option<&'static str> {
        torn(&File::open(path).unwrap(), path).unwrap()
    }

    /// A copy of what the host would find if everything stopped now.
    fn stopped(path: &Path) -> Option<&'static str> {
        let copy = path.with_extension("stopped");
        fs::copy(path, &copy).unwrap();
        said(&copy)
    }

    /// Through the whole ring several times, so that its end is met in many ways.
    #[tokio::test]
    async fn every_mount_and_every_unmount_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        made(&path, 512 << 20).await;
        assert_eq!(said(&path), None, "never mounted");
        let disk = Loop::over(&path);
        for round in 0..6 {
            let mounted = disk.mount("nouuid");
            let found = stopped(&path);
            assert!(found.unwrap().contains("was mounted"), "{round}");
            if round % 2 == 1 {
                for number in 0..4000 {
                    let name = format!("a-rather-long-name-{round}-{number}");
                    fs::write(mounted.path().join(name), "x").unwrap();
                }
                rustix::fs::syncfs(File::open(mounted.path()).unwrap()).unwrap();
                let found = stopped(&path);
                assert_eq!(found, Some("was not unmounted to the end"), "{round}");
            }
            drop(mounted);
            assert_eq!(said(&disk.path), None, "{round}");
            // Who only reads its superblock there leaves it in the page cache.
            assert_eq!(said(&path), None, "{round}");
        }
    }

    const SECTORS: usize = 64;

    /// A ring that holds the record of an unmount which ends before `head`.
    fn ring(head: usize, marked: bool) -> Vec<Sector> {
        let put = |sector: &mut Sector, at: usize, word: u32| {
            sector[at..at + 4].copy_from_slice(&word.to_be_bytes());
        };
        let mut ring = vec![[0; 512]; SECTORS];
        for (number, sector) in ring.iter_mut().enumerate() {
            put(sector, 0, if number < head { 5 } else { 4 });
        }
        let start = (head + SECTORS - 8) % SECTORS;
        let cycle = if start < head { 5 } else { 4 };
        let header = &mut ring[start];
        put(header, 0, MAGIC);
        put(header, 4, cycle);
        put(header, 8, 2);
        put(header, 0x0c, 7 * 512);
        put(header, 0x1c, 77);
        put(header, 0x28, 1);
        put(header, 0x140, 32 << 10);
        ring[(start + 1) % SECTORS][9] = 0x20;
        if marked {
            let mark = &mut ring[head % SECTORS];
            put(mark, 0, MAGIC);
            put(mark, 4, 4);
            put(mark, 0x1c, 77);
        }
        ring
    }

    fn last(ring: &[Sector]) -> Last {
        let read = |at: u64, sector: &mut Sector| {
            *sector = ring[usize::try_from(at / 512).unwrap()];
            Ok::<_, Error>(())
        };
        let at = ByteRange::new(0, (SECTORS * 512) as u64);
        Log { at, read }.last().unwrap()
    }

    #[test]
    fn the_head_may_be_anywhere() {
        for head in 1..SECTORS {
            assert_eq!(last(&ring(head, false)), Last::Unmount, "{head}");
            assert_eq!(last(&ring(head, true)), Last::Mount, "{head}");
            let mut other = ring(head, false);
            other[(head + SECTORS - 7) % SECTORS][9] = 0;
            assert_eq!(last(&other), Last::Other, "{head}");
        }
        // At the very end everything has one cycle.
        assert_eq!(last(&ring(SECTORS, false)), Last::Unmount);
        assert_eq!(last(&vec![[0; 512]; SECTORS]), Last::Other);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(words in prop::collection::vec(prop_oneof![Just(MAGIC), any::<u32>()], SECTORS * 3)) {
            let mut ring = vec![[0; 512]; SECTORS];
            for (number, word) in words.iter().enumerate() {
                let at = [0, 0x0c, 0x140][number % 3];
                ring[number / 3][at..at + 4].copy_from_slice(&word.to_be_bytes());
            }
            last(&ring);
        }
    }
}
