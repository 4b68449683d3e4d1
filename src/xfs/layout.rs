//! How a golden XFS is laid out.
//!
//! The features are named one by one: a newer mkfs switches some on by default that an older kernel does not
//! mount. These are what Linux 5.10 has. What a mkfs may have switched on unasked its superblock tells.
//!
//! *Groups*: a file system grows by more allocation groups of the size it was made with, and each costs a cluster of
//! the delta for its headers, and a read at every mount. So it is made of as few as can be, which is two: one of 10 GiB
//! that grows to 1 TiB has 200 of them, where mkfs's usual four would make it 400. Few groups keep what is written close
//! together, too, and a container has few writers that meet in one.
//!
//! *The log* is the smallest that mkfs makes: 64 MiB. It takes that much of the disk, and of the host as much as was ever
//! written to it.

use super::Error;
use crate::tool::Version;

/// Bytes of a block and of a sector. Our devices have sectors of 4 KiB, and the grain of a size is as much.
pub(super) const BLOCK: u64 = 4096;
/// Below this mkfs makes none.
const SMALLEST: u64 = 300 << 20;
/// Above this files on the host may end: ext4 has none above 16 TiB.
const LARGEST: u64 = 8 << 40;
/// No group is larger: a TiB less a block.
const LARGEST_GROUP: u64 = (1 << 40) - BLOCK;
const FEWEST_GROUPS: u64 = 2;
/// More than this would take seconds to mount, and a tenth of the smallest disks for their headers.
const MOST_GROUPS: u64 = 1024;
const META: &str = "crc=1,finobt=1,inobtcount=1,rmapbt=0,reflink=1,bigtime=1";
const INODES: &str = "size=512,maxpct=25,sparse=1,nrext64=0";
const NAMES: &str = "size=4096,version=2,ftype=1";
const LOG: &str = "internal=1,size=64m,version=2,lazy-count=1";
/// The first mkfs that knows `exchange` and `parent`, which a later one switches on by default.
const KNOWS_PARENT: Version = (6, 10);

/// How a golden file system is laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    size: u64,
    groups: u64,
}

/// Refuses a size of which we make no file system.
pub(super) fn check_size(size: u64) -> Result<(), Error> {
    let bad = |why| Err(Error::BadSize { size, why });
    if !size.is_multiple_of(BLOCK) {
        return bad("it is not a multiple of 4096");
    }
    if size < SMALLEST {
        return bad("the smallest is 300 MiB");
    }
    if size > LARGEST {
        return bad("the largest is 8 TiB");
    }
    Ok(())
}

/// Refuses what a file system with groups of so many bytes cannot grow to.
///
/// # Errors
/// [`Error::BadSize`], [`Error::TooManyGroups`].
pub fn check_growth(group: u64, size: u64) -> Result<(), Error> {
    check_size(size)?;
    let most = group.saturating_mul(MOST_GROUPS);
    if size > most {
        return Err(Error::TooManyGroups {
            part: group,
            most,
            asked: size,
        });
    }
    Ok(())
}

impl Layout {
    /// The smallest disk that can have one.
    pub const SMALLEST: u64 = SMALLEST;

    /// The layout for a disk of `size` bytes.
    ///
    /// # Errors
    /// [`Error::BadSize`].
    pub fn new(size: u64) -> Result<Self, Error> {
        check_size(size)?;
        Ok(Self {
            size,
            groups: size.div_ceil(LARGEST_GROUP).max(FEWEST_GROUPS),
        })
    }

    /// Bytes of the disk.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What mkfs of this version is told, but for the file.
    pub(super) fn arguments(&self, version: Version) -> Vec<String> {
        let mut words = self.always();
        if version >= KNOWS_PARENT {
            let more = ["-i", "exchange=0", "-n", "parent=0"];
            words.extend(more.map(str::to_owned));
        }
        words
    }

    fn always(&self) -> Vec<String> {
        let data = format!("agcount={},noalign", self.groups);
        let words = [
            "-q",
            "-f",
            "-K",
            "-b",
            "size=4096",
            "-s",
            "size=4096",
            "-m",
            META,
            "-i",
            INODES,
            "-n",
            NAMES,
            "-l",
            LOG,
            "-d",
            &data,
        ];
        words.map(str::to_owned).to_vec()
    }

    /// A name that changes with everything that is chosen about the file: `10737418240-1a2b3c4d`.
    #[must_use]
    pub fn tag(&self) -> String {
        let digest = crc32fast::hash(self.always().join("\0").as_bytes());
        format!("{}-{digest:08x}", self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::{Error, Layout, check_growth};

    #[test]
    fn sizes_that_make_no_sense_are_refused() {
        for size in [0, 299 << 20, (10 << 30) + 512, 9 << 40, u64::MAX] {
            let error = Layout::new(size).unwrap_err();
            assert!(matches!(error, Error::BadSize { .. }), "{size}: {error}");
        }
        let error = Layout::new(64 << 20).unwrap_err().to_string();
        assert!(error.contains("the smallest is 300 MiB"), "{error}");
    }

    #[test]
    fn growth_ends_where_groups_would_be_too_many() {
        check_growth(150 << 20, 150 << 30).unwrap();
        let error = check_growth(150 << 20, 151 << 30).unwrap_err().to_string();
        assert!(error.contains("grows up to 150 GiB"), "{error}");
    }

    #[test]
    fn there_are_two_groups_until_they_would_be_too_large() {
        let groups = |size| Layout::new(size).unwrap().groups;
        assert_eq!(groups(300 << 20), 2);
        assert_eq!(groups(1 << 40), 2);
        assert_eq!(groups(2 << 40), 3);
        assert_eq!(groups(8 << 40), 9);
    }

    /// Chains that are there stand on the file with this name: with another one all of them were lost.
    #[test]
    fn the_name_stays_what_it_was() {
        assert_eq!(Layout::new(10 << 30).unwrap().tag(), "10737418240-1f50e4b9");
    }
}
