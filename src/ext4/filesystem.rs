//! Making and checking an ext4 file system in a file that nobody has mounted.
//!
//! Every chain begins on such a file, so its layout is chosen for copy-on-write: metadata packed at
//! the front (a container may get another size by `resize2fs` for half a megabyte), a small journal,
//! nothing written that may stay a hole. The features are named one by one, because a newer mkfs adds
//! some by default that an older kernel does not mount (`orphan_file`, `metadata_csum_seed`).

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{Error, Superblock, Tools};

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

/// How a golden file system is laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    size: u64,
    arguments: Vec<String>,
}

impl Layout {
    /// The layout for a disk of `size` bytes.
    ///
    /// # Errors
    /// [`Error::BadSize`].
    pub fn new(size: u64) -> Result<Self, Error> {
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
        let extended = format!(
            "lazy_itable_init=1,lazy_journal_init=1,nodiscard,packed_meta_blocks=1,\
             root_owner=0:0,resize={growth}"
        );
        let arguments = [
            "-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-i", "16384", "-m", "0", "-G",
            "4096", "-J", journal, "-O", FEATURES, "-E", &extended,
        ];
        Ok(Self {
            size,
            arguments: arguments.map(str::to_owned).to_vec(),
        })
    }

    /// Bytes of the disk.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// A name that changes with everything that goes into the file: `10737418240-1a2b3c4d`.
    #[must_use]
    pub fn tag(&self) -> String {
        let digest = crc32fast::hash(self.arguments.join("\0").as_bytes());
        format!("{}-{digest:08x}", self.size)
    }
}

/// An ext4 file system in a file.
#[derive(Clone, Debug)]
pub struct Filesystem {
    path: PathBuf,
}

impl Filesystem {
    /// The file system in this file.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// Makes an empty one in a new sparse file: root 0755 and nothing in it, not even `lost+found`.
    ///
    /// The file is durable when this returns; its name is not, that is the caller's.
    ///
    /// # Errors
    /// If the host has no room, or a program fails.
    pub async fn make(path: &Path, layout: &Layout, tools: &Tools) -> Result<Self, Error> {
        let file = |act, source| Error::File {
            act,
            path: path.to_owned(),
            source,
        };
        File::create(path)
            .and_then(|file| file.set_len(layout.size))
            .map_err(|source| file("make", source))?;
        let target = path.to_string_lossy();
        let mut arguments: Vec<&str> = layout.arguments.iter().map(String::as_str).collect();
        arguments.push(&target);
        tools.mkfs.run(&arguments).await?.success()?;
        // containerd compares a fresh root with an empty directory, and so does its test suite.
        // debugfs ends with 0 whatever happens, so look at what it left.
        let said = tools
            .debugfs
            .run(&["-w", "-R", "rmdir lost+found", &target])
            .await?
            .success()?;
        let made = Self::at(path);
        let left = made.names_in_root(tools).await?;
        if left != [".", ".."] {
            return Err(Error::Program {
                command: format!("debugfs -w -R 'rmdir lost+found' {target}"),
                status: "status 0".to_owned(),
                output: format!("{}; the root still holds {left:?}", said.trim()),
            });
        }
        made.check(tools).await?;
        let superblock = Superblock::read(path)?;
        if superblock.size() != layout.size || !superblock.clean {
            return Err(Error::NotExt4 {
                path: path.to_owned(),
                why: "mkfs made another size than the one asked for",
            });
        }
        fs::set_permissions(path, Permissions::from_mode(0o444))
            .and_then(|()| File::open(path)?.sync_all())
            .map_err(|source| file("sync", source))?;
        Ok(made)
    }

    /// Gives a file system another size, in bytes: of one that nobody has mounted any size that its content
    /// fits into, of one that is mounted in our namespace a larger one.
    ///
    /// With the layout of a golden file system the content stays where it is. A last block group too small
    /// for anything is left out, so that the file system may be some MiB smaller than asked for.
    ///
    /// # Errors
    /// [`Error::TooSmall`] with what is used, [`Error::BadSize`], [`Error::Program`] with what resize2fs said.
    pub async fn resize(&self, size: u64, tools: &Tools) -> Result<(), Error> {
        Layout::new(size)?;
        let before = Superblock::read(&self.path)?;
        let used = (before.blocks - before.free_blocks).saturating_mul(before.block);
        let too_small = || Error::TooSmall { size, used };
        if size < before.size() && used > size {
            return Err(too_small());
        }
        let target = self.path.to_string_lossy();
        let kibibytes = format!("{}K", size / 1024);
        let done = tools.resize.run(&["-f", &target, &kibibytes]).await?;
        match done.success() {
            Ok(_) => Ok(()),
            Err(Error::Program { output, .. })
                if size < before.size()
                    && (output.contains("smaller than minimum")
                        || output.contains("Not enough space")) =>
            {
                Err(too_small())
            }
            Err(Error::Program { output, .. })
                if output.contains("Permission denied to resize") =>
            {
                Err(Error::NotPermitted)
            }
            Err(error) => Err(error),
        }
    }

    /// Is the file system whole? Changes nothing.
    ///
    /// # Errors
    /// [`Error::Program`] with everything that e2fsck found.
    pub async fn check(&self, tools: &Tools) -> Result<(), Error> {
        let target = self.path.to_string_lossy();
        tools.e2fsck.run(&["-fn", &target]).await?.success()?;
        Ok(())
    }

    /// What lies in the root directory.
    async fn names_in_root(&self, tools: &Tools) -> Result<Vec<String>, Error> {
        let target = self.path.to_string_lossy();
        let text = tools
            .debugfs
            .run(&["-R", "ls -p /", &target])
            .await?
            .success()?;
        // "/2/040755/0/0/..//": inode, mode, owner, group, name, size.
        Ok(text
            .lines()
            .filter(|line| line.starts_with('/'))
            .filter_map(|line| line.split('/').nth(5))
            .map(str::to_owned)
            .collect())
    }
}

#[cfg(test)]
#[path = "filesystem_tests.rs"]
mod tests;
