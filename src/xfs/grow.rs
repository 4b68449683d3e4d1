//! An XFS becomes larger: the kernel does it, and only to one that is mounted.
//!
//! One that nobody has is mounted for that moment in no place at all: a mount that no directory shows and no other
//! process sees, and that ends with our file descriptor, however we end. Cut short it is as if it had never grown or it
//! has grown; its log knows which, and the next mount reads it.

#![expect(unsafe_code, reason = "the file system's ioctls")]

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::ioctl::{Getter, Opcode, Setter, ioctl, opcode};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use super::Error;
use super::layout::{BLOCK, check_growth};

/// `struct xfs_fsop_geom_v1`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Geometry {
    block: u32,
    realtime_extent: u32,
    group_blocks: u32,
    groups: u32,
    log_blocks: u32,
    sector: u32,
    inode: u32,
    inodes_percent: u32,
    blocks: u64,
    rest: [u64; 9],
}
const _: () = assert!(size_of::<Geometry>() == 112);

/// `struct xfs_growfs_data`.
#[repr(C)]
struct Growth {
    blocks: u64,
    inodes_percent: u32,
    padding: u32,
}
const _: () = assert!(size_of::<Growth>() == 16);

/// So long somebody may look at a device that nobody has mounted, and this often that is tried again.
const LOOK: Duration = Duration::from_secs(2);
const AGAIN: Duration = Duration::from_millis(20);

const GEOMETRY: Opcode = opcode::read::<Geometry>(b'X', 100);
const GROW: Opcode = opcode::write::<Growth>(b'X', 110);

/// Makes one larger that is mounted at `at`, while whoever uses it goes on; its device has this `number`. To the size that
/// it has: nothing is done.
///
/// # Errors
/// [`Error::Unmounted`], [`Error::Shrinks`], [`Error::TooManyGroups`], [`Error::NotPermitted`], [`Error::Kernel`].
pub fn grow_mounted(at: &Path, number: u64, size: u64) -> Result<(), Error> {
    let failed = |act| {
        move |source| Error::File {
            act,
            path: at.to_owned(),
            source,
        }
    };
    let root = File::open(at).map_err(failed("open"))?;
    // It may have been unmounted since somebody looked: below is the host's own directory, and that one may lie on an XFS.
    if root.metadata().map_err(failed("look at"))?.dev() != number {
        return Err(Error::Unmounted {
            path: at.to_owned(),
        });
    }
    grow(&root, at, size)
}

/// The same of one that nobody has mounted.
///
/// # Errors
/// As of [`grow_mounted`], and [`Error::NoKernel`].
pub fn grow_idle(device: &Path, size: u64) -> Result<(), Error> {
    let cannot = |act| move |error| kernel(act, device, error);
    let mount = || {
        // A context that could not be mounted is of no more use.
        let fs = fsopen("xfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&fs, "source", device)?;
        // Every chain over one golden file has its identity.
        fsconfig_set_flag(&fs, "nouuid")?;
        fsconfig_create(&fs)?;
        fsmount(
            &fs,
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::MOUNT_ATTR_NOATIME,
        )
    };
    let deadline = Instant::now() + LOOK;
    let mounted = loop {
        match mount() {
            Err(Errno::BUSY) if Instant::now() < deadline => thread::sleep(AGAIN),
            Err(Errno::NODEV) => return Err(Error::NoKernel),
            done => break done.map_err(cannot("mount"))?,
        }
    };
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(&mounted, ".", flags, Mode::empty()).map_err(cannot("open the root of"))?;
    let grown = grow(&root, device, size);
    // The last of them unmounts it, here and now.
    drop((root, mounted));
    grown
}

fn grow(root: &impl AsFd, path: &Path, size: u64) -> Result<(), Error> {
    // SAFETY: the kernel fills a structure of this size and nothing else.
    let geometry = unsafe { ioctl(root, Getter::<GEOMETRY, Geometry>::new()) };
    let found = geometry.map_err(|error| kernel("ask for the size of", path, error))?;
    let now = found.blocks.saturating_mul(u64::from(found.block));
    if size < now {
        return Err(Error::Shrinks {
            size: now,
            asked: size,
        });
    }
    if size == now {
        return Ok(());
    }
    check_growth(u64::from(found.group_blocks) * BLOCK, size)?;
    let growth = Growth {
        blocks: size / BLOCK,
        inodes_percent: found.inodes_percent,
        padding: 0,
    };
    // SAFETY: the kernel reads a structure of this size and nothing else.
    let grown = unsafe { ioctl(root, Setter::<GROW, Growth>::new(growth)) };
    grown.map_err(|error| kernel("make larger the file system on", path, error))
}

fn kernel(act: &'static str, path: &Path, error: Errno) -> Error {
    match error {
        Errno::PERM => Error::NotPermitted,
        error => Error::Kernel {
            act,
            path: path.to_owned(),
            source: error.into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::MetadataExt;

    use super::super::fixture::{Loop, made};
    use super::super::{Superblock, Tools, check, torn};
    use super::{Error, grow_idle, grow_mounted};

    /// It was unmounted in between, and what was made larger was the host's own XFS, in which the directory lies.
    #[test]
    fn a_directory_of_another_device_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let other = dir.path().metadata().unwrap().dev() + 1;
        let error = grow_mounted(dir.path(), other, 40 << 30).unwrap_err();
        assert!(matches!(error, Error::Unmounted { .. }), "{error}");
    }

    #[tokio::test]
    async fn it_grows_mounted_or_not_and_stays_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        made(&path, 300 << 20).await;
        let tools = Tools::find().await.unwrap();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(40 << 30)
            .unwrap();
        let disk = Loop::over(&path);
        let seen = |size: u64| {
            assert_eq!(
                torn(&File::open(&disk.path).unwrap(), &disk.path).unwrap(),
                None
            );
            assert_eq!(Superblock::read(&disk.path).unwrap().size(), size);
        };
        for size in [301 << 20, 1 << 30, 1 << 30, 10 << 30] {
            grow_idle(&disk.path, size).unwrap();
            seen(size);
            check(&disk.path, &tools).await.unwrap();
        }
        let shrinks = grow_idle(&disk.path, 9 << 30).unwrap_err();
        assert!(
            shrinks
                .to_string()
                .contains("XFS cannot shrink: it has 10.0 GiB"),
            "{shrinks}"
        );
        let many = grow_idle(&disk.path, 200 << 30).unwrap_err();
        assert!(matches!(many, Error::TooManyGroups { .. }), "{many}");
        let none = grow_idle(&disk.path, 100 << 30).unwrap_err();
        assert!(
            matches!(none, Error::Kernel { .. }),
            "beyond its device: {none}"
        );
        seen(10 << 30);
        let mounted = disk.mount("nouuid");
        fs::write(mounted.path().join("file"), vec![7; 1 << 20]).unwrap();
        let number = mounted.path().metadata().unwrap().dev();
        grow_mounted(mounted.path(), number, 40 << 30).unwrap();
        let shrinks = grow_mounted(mounted.path(), number, 10 << 30).unwrap_err();
        assert!(matches!(shrinks, Error::Shrinks { .. }), "{shrinks}");
        let gone = grow_mounted(dir.path(), number, 50 << 30).unwrap_err();
        assert!(matches!(gone, Error::Unmounted { .. }), "{gone}");
        drop(mounted);
        seen(40 << 30);
        check(&disk.path, &tools).await.unwrap();
    }
}
