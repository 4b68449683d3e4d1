//! Making an empty XFS in a file, and checking one that nobody has mounted.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};

use super::{Error, Layout, Superblock, Tools};
use crate::units::ByteRange;

/// Zeros are looked for in so many bytes.
const STEP: u64 = 64 << 10;

/// Makes an empty one in a new sparse file: root 0755 and nothing in it.
///
/// The file is durable when this returns; its name is not, that is the caller's.
///
/// # Errors
/// If the host has no room, or a program fails.
pub async fn make(path: &Path, layout: &Layout, tools: &Tools) -> Result<(), Error> {
    let file = |act, source| Error::File {
        act,
        path: path.to_owned(),
        source,
    };
    File::create(path)
        .and_then(|file| file.set_len(layout.size()))
        .map_err(|source| file("make", source))?;
    let words = layout.arguments(tools.version);
    let target = path.to_string_lossy();
    let mut arguments: Vec<&str> = words.iter().map(String::as_str).collect();
    arguments.push(&target);
    tools.mkfs.run(&arguments).await?.success()?;
    let superblock = Superblock::read(path)?;
    if superblock.size() != layout.size() {
        return Err(Error::NotXfs {
            path: path.to_owned(),
            why: "mkfs made another size than the one asked for",
        });
    }
    // mkfs fills its log with zeros, which holes are as well.
    hollow(path, superblock.log).map_err(|source| file("punch holes into", source))?;
    check(path, tools).await?;
    fs::set_permissions(path, Permissions::from_mode(0o444))
        .and_then(|()| File::open(path)?.sync_all())
        .map_err(|source| file("sync", source))
}

/// Is the file system in a file or device whole? Changes nothing.
///
/// # Errors
/// [`Error::Tool`] with everything that xfs_repair found.
pub async fn check(path: &Path, tools: &Tools) -> Result<(), Error> {
    let target = path.to_string_lossy();
    tools.repair.run(&["-n", "-f", &target]).await?.success()?;
    Ok(())
}

/// Gives the host back what is zeros.
fn hollow(path: &Path, range: ByteRange) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let mut at = range.start;
    let mut bytes = Vec::new();
    while at < range.end() {
        let len = STEP.min(range.end() - at);
        bytes.resize(usize::try_from(len).unwrap_or(0), 0);
        file.read_exact_at(&mut bytes, at)?;
        if bytes.iter().all(|byte| *byte == 0) {
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(&file, hole, at, len)?;
        }
        at += len;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::super::fixture::{Loop, made};
    use super::super::{Layout, Superblock, Tools};
    use super::{Error, check};

    /// Every size class: empty root with the right mode, whole, small on the host.
    #[tokio::test]
    async fn a_golden_file_system_is_empty_whole_and_sparse() {
        let dir = tempfile::tempdir().unwrap();
        for (size, most) in [
            (300 << 20, 1 << 20),
            (10_u64 << 30, 1 << 20),
            (2 << 40, 1 << 20),
            (8 << 40, 2 << 20),
        ] {
            let path = dir.path().join(size.to_string());
            made(&path, size).await;
            assert_eq!(Superblock::read(&path).unwrap().size(), size);
            let held = path.metadata().unwrap().blocks() * 512;
            assert!(held < most, "{size}: {held} bytes on the host");
            let mounted = Loop::over(&path).mount("nouuid");
            let root = mounted.path();
            assert_eq!(root.read_dir().unwrap().count(), 0);
            let found = root.metadata().unwrap();
            assert_eq!(found.mode() & 0o7777, 0o755);
            assert_eq!((found.uid(), found.gid()), (0, 0));
        }
    }

    #[tokio::test]
    async fn damage_is_found() {
        use std::os::unix::fs::FileExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        made(&path, 300 << 20).await;
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[0x55; 4096], 4096).unwrap();
        let tools = Tools::find().await.unwrap();
        let error = check(&path, &tools).await.unwrap_err();
        assert!(matches!(error, Error::Tool(_)), "{error}");
    }

    #[test]
    fn a_newer_mkfs_is_told_of_what_it_would_add() {
        let layout = Layout::new(1 << 30).unwrap();
        let said = |version| layout.arguments(version).join(" ");
        assert!(!said((6, 9)).contains("parent"));
        assert!(said((6, 10)).contains("-i exchange=0 -n parent=0"));
    }
}
