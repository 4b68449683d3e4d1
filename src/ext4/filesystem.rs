//! Making and checking an ext4 file system in a file that nobody has mounted.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::layout::check_size;
use super::{Error, Layout, Superblock, Tools};
use crate::tool;

/// What resize2fs says when the content does not fit: before it begins, and on its way.
const NO_ROOM: [&str; 3] = [
    "smaller than minimum",
    "Not enough space",
    "No space left on device",
];

/// A size as resize2fs reads it.
fn kibibytes(size: u64) -> String {
    format!("{}K", size / 1024)
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
    /// The file is durable when this returns; its name is not, that is the caller's. A last block group too small for
    /// anything is left out: the file system may be some MiB smaller than the file.
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
            .and_then(|file| file.set_len(layout.size()))
            .map_err(|source| file("make", source))?;
        let target = path.to_string_lossy();
        let mut arguments: Vec<&str> = layout.arguments().collect();
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
            return Err(Error::Tool(tool::Error::Failed {
                command: format!("debugfs -w -R 'rmdir lost+found' {target}"),
                status: "status 0".to_owned(),
                output: format!("{}; the root still holds {left:?}", said.trim()),
            }));
        }
        if layout.user_quota() {
            // Only now: mkfs would count lost+found too, and debugfs does not tell the quota that it is gone.
            made.keep_user_quota(tools).await?;
        }
        made.check(tools).await?;
        let superblock = Superblock::read(path)?;
        if !superblock.fills(layout.size()) || !superblock.clean {
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

    /// Gives a file system that nobody has mounted another size, in bytes: any that its content fits into.
    ///
    /// With the layout of a golden file system the content stays where it is. A last block group too small
    /// for anything is left out, so that the file system may be some MiB smaller than asked for.
    ///
    /// What is begun is brought to its end, whoever waits for it: cut short it would leave bitmaps that call free what
    /// files have.
    ///
    /// # Errors
    /// [`Error::Torn`]; [`Error::TooSmall`] or [`Error::TooFewInodes`] with what is used; [`Error::BadSize`];
    /// [`Error::Tool`] with what resize2fs said.
    pub async fn resize(&self, size: u64, tools: &Tools) -> Result<(), Error> {
        check_size(size)?;
        let before = Superblock::read(&self.path)?;
        // resize2fs would ask the same, but for -f; and that has to be: else it asks for an e2fsck each time.
        if let Some(how) = before.torn() {
            let path = self.path.clone();
            return Err(Error::Torn { path, how });
        }
        let used = (before.blocks - before.free_blocks).saturating_mul(before.block);
        let too_small = || Error::TooSmall { size, used };
        let shrinks = size < before.size();
        if shrinks && used > size {
            return Err(too_small());
        }
        let (files, inodes) = (before.used_inodes(), before.inodes_at(size));
        if shrinks && u64::from(files) > inodes {
            return Err(Error::TooFewInodes {
                size,
                files,
                inodes,
            });
        }
        let target = self.path.to_string_lossy();
        let words = ["-f", &target, &kibibytes(size)];
        let done = tools.resize.run_to_the_end(&words).await?;
        let Err(error) = done.success() else {
            return Ok(());
        };
        match error {
            tool::Error::Failed { output, .. }
                if shrinks && NO_ROOM.iter().any(|no| output.contains(no)) =>
            {
                if let Err(error) = self.unmark(tools).await {
                    // The mark stays, and with it the file system is no layer.
                    tracing::warn!(path = %self.path.display(), %error, "a resize that was refused left a mark of damage");
                }
                Err(too_small())
            }
            // What it had done by then nobody knows: the mark says so to whoever comes next.
            error => Err(error.into()),
        }
    }

    /// Makes a file system larger that is mounted in our namespace.
    ///
    /// # Errors
    /// [`Error::NotPermitted`]; [`Error::BadSize`]; [`Error::Tool`] with what resize2fs said.
    pub async fn grow_mounted(&self, size: u64, tools: &Tools) -> Result<(), Error> {
        check_size(size)?;
        let target = self.path.to_string_lossy();
        let words = [&*target, &kibibytes(size)];
        // The kernel does it, and it is whole at every moment; and goes on with it when the program is killed. Without -f one that was unmounted meanwhile is not touched:
        // that would be another act, see `resize`.
        let done = tools.resize.run_to_the_end(&words).await?;
        match done.success() {
            Ok(_) => Ok(()),
            Err(tool::Error::Failed { output, .. })
                if output.contains("Permission denied to resize") =>
            {
                Err(Error::NotPermitted)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// After a resize for which there was no room: resize2fs marks a file system as damaged before it looks for any, and
    /// leaves that mark. It writes nothing else before, and the file system was clean, so the mark is all that e2fsck finds.
    async fn unmark(&self, tools: &Tools) -> Result<(), Error> {
        if Superblock::read(&self.path)?.torn().is_none() {
            return Ok(());
        }
        let target = self.path.to_string_lossy();
        let mended = tools.e2fsck.run_to_the_end(&["-fy", &target]).await?;
        match mended.status {
            // 1: something was mended.
            Some(0 | 1) => Ok(()),
            _ => Err(mended.failure().into()),
        }
    }

    /// Counts what each user and group has, and keeps counting. Nobody may have it mounted, and it must have been
    /// unmounted in order.
    ///
    /// # Errors
    /// [`Error::Tool`] with what tune2fs said.
    pub async fn keep_user_quota(&self, tools: &Tools) -> Result<(), Error> {
        let target = self.path.to_string_lossy();
        let words = ["-O", "quota", "-Q", "usrquota,grpquota", &target];
        tools.tune.run(&words).await?.success()?;
        if Superblock::read(&self.path)?.user_quota {
            return Ok(());
        }
        Err(Error::NotExt4 {
            path: self.path.clone(),
            why: "tune2fs did not switch its quota on",
        })
    }

    /// Is the file system whole? Changes nothing.
    ///
    /// # Errors
    /// [`Error::Tool`] with everything that e2fsck found.
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
