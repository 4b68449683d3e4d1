//! How a golden file system is laid out, and what may be chosen about it.
//!
//! Every chain begins on such a file, so its layout is chosen for copy-on-write: metadata packed at
//! the front (a container may get another size by `resize2fs` for half a megabyte), a small journal,
//! nothing written that may stay a hole. The features are named one by one, because a newer mkfs adds
//! some by default that an older kernel does not mount (`orphan_file`, `metadata_csum_seed`).

use std::ops::RangeInclusive;

use super::{Error, MkfsOptions};

/// Bytes of a block, and the grain of a size.
const BLOCK: u64 = 4096;
/// Below this ext4 has no room for the journal.
const SMALLEST: u64 = 64 << 20;
/// Above this ext4 in 4 KiB blocks has no room for growth, and ext4 files on the host end.
const LARGEST: u64 = 8 << 40;
/// Growth that an ordinary file system is prepared for: 1 TiB.
const GROWTH: u64 = (1 << 40) / BLOCK;
/// How much a larger one may grow.
const FACTOR: u64 = 2;
const FEATURES: &str = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,\
                        flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum";

/// What may be chosen about a file system that is made. One that is there keeps what it was made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choices {
    /// One inode for so many bytes of the disk.
    pub bytes_per_inode: u64,
    /// Count what each user and group has, so that limits can be set on it inside.
    pub user_quota: bool,
    /// More words for mkfs.
    pub mkfs: MkfsOptions,
}

impl Choices {
    /// From an inode for each block, above which none could ever be used, to four for the smallest group.
    pub const BYTES_PER_INODE: RangeInclusive<u64> = BLOCK..=4 << 20;
}

impl Default for Choices {
    fn default() -> Self {
        Self {
            bytes_per_inode: 16 << 10,
            user_quota: false,
            mkfs: MkfsOptions::default(),
        }
    }
}

/// How a golden file system is laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    size: u64,
    arguments: Vec<String>,
    user_quota: bool,
}

/// Refuses a size of which we make no file system.
pub(super) fn check_size(size: u64) -> Result<(), Error> {
    let bad = |why| Err(Error::BadSize { size, why });
    if !size.is_multiple_of(BLOCK) {
        return bad("it is not a multiple of 4096");
    }
    if size < SMALLEST {
        return bad("the smallest is 64 MiB");
    }
    if size > LARGEST {
        return bad("the largest is 8 TiB");
    }
    Ok(())
}

impl Layout {
    /// The smallest disk that can have one.
    pub const SMALLEST: u64 = SMALLEST;

    /// The layout for a disk of `size` bytes.
    ///
    /// # Errors
    /// [`Error::BadSize`], [`Error::BadRatio`].
    pub fn new(size: u64, choices: &Choices) -> Result<Self, Error> {
        check_size(size)?;
        let bytes = choices.bytes_per_inode;
        if !Choices::BYTES_PER_INODE.contains(&bytes) {
            return Err(Error::BadRatio { bytes });
        }
        let blocks = size / BLOCK;
        let growth = if blocks < GROWTH {
            GROWTH
        } else {
            blocks * FACTOR
        };
        let journal = if size < 256 << 20 {
            "size=4"
        } else {
            "size=16"
        };
        let more = |ours: &str, words: &[String]| {
            let all: Vec<_> = std::iter::once(ours)
                .chain(words.iter().map(String::as_str))
                .collect();
            all.join(",")
        };
        let mkfs = &choices.mkfs;
        let features = more(FEATURES, mkfs.features());
        let extended = format!(
            "lazy_itable_init=1,lazy_journal_init=1,nodiscard,packed_meta_blocks=1,\
             root_owner=0:0,resize={growth}"
        );
        let extended = more(&extended, mkfs.extended());
        let ratio = bytes.to_string();
        let arguments = [
            "-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-i", &ratio, "-m", "0", "-G",
            "4096", "-J", journal, "-O", &features, "-E", &extended,
        ];
        Ok(Self {
            size,
            arguments: arguments
                .map(str::to_owned)
                .into_iter()
                .chain(mkfs.others().iter().cloned())
                .collect(),
            user_quota: choices.user_quota,
        })
    }

    /// Bytes of the disk.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Is it to count what each user and group has?
    pub(super) fn user_quota(&self) -> bool {
        self.user_quota
    }

    /// What mkfs is told, but for the file.
    pub(super) fn arguments(&self) -> impl Iterator<Item = &str> {
        self.arguments.iter().map(String::as_str)
    }

    /// A name that changes with everything that goes into the file: `10737418240-1a2b3c4d`.
    #[must_use]
    pub fn tag(&self) -> String {
        let mut words = self.arguments.join("\0");
        if self.user_quota {
            words.push_str("\0user_quota");
        }
        let digest = crc32fast::hash(words.as_bytes());
        format!("{}-{digest:08x}", self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::{Choices, Error, Layout};

    fn plain(size: u64) -> Result<Layout, Error> {
        Layout::new(size, &Choices::default())
    }

    #[test]
    fn sizes_that_make_no_sense_are_refused() {
        for size in [0, 4096, 63 << 20, (10 << 30) + 512, 9 << 40, u64::MAX] {
            let error = plain(size).unwrap_err();
            assert!(matches!(error, Error::BadSize { .. }), "{size}: {error}");
        }
    }

    #[test]
    fn ratios_that_make_no_sense_are_refused() {
        for bytes_per_inode in [0, 4095, (4 << 20) + 1, u64::MAX] {
            let choices = Choices {
                bytes_per_inode,
                ..Choices::default()
            };
            let error = Layout::new(1 << 30, &choices).unwrap_err();
            assert!(matches!(error, Error::BadRatio { .. }), "{error}");
        }
    }

    #[test]
    fn a_tag_changes_with_size_and_options() {
        let small = plain(1 << 30).unwrap();
        let big = plain(10 << 30).unwrap();
        assert!(big.tag().starts_with("10737418240-"), "{}", big.tag());
        assert_ne!(small.tag(), big.tag());
        for other in [
            Choices {
                bytes_per_inode: 4096,
                ..Choices::default()
            },
            Choices {
                user_quota: true,
                ..Choices::default()
            },
        ] {
            assert_ne!(Layout::new(10 << 30, &other).unwrap().tag(), big.tag());
        }
    }

    /// Chains that are there stand on the file with this name: with another one all of them were lost.
    #[test]
    fn the_layout_of_nothing_chosen_stays_what_it_was() {
        assert_eq!(plain(10 << 30).unwrap().tag(), "10737418240-cf6bf133");
    }
}
