//! What to mount and how: the one decision table.
//!
//! | disk | mounted here already? | answer |
//! |---|---|---|
//! | of a view | any | the device, `ro` and `noload`, or `nouuid` of an XFS |
//! | writable | no | the device, `rw` |
//! | writable | writable, whole | a bind of that mount |
//! | writable | only read only | the device, `rw` |
//!
//! The kind is the disk's own, whatever the snapshotter's name makes now. Every XFS over one golden file has its identity,
//! which only `nouuid` lets the kernel mount twice.
//! Where users' quota is kept, a writable device is mounted with `usrquota,grpquota`: without them the kernel
//! counts, and lets everybody exceed their limits.
//!
//! *The device*: by a path that never means another disk's. Its number may be somebody else's by the time
//! of the mount, if its server dies in between; the path is then not there, and the caller tries again.
//! *Bind*: the differ mounts a running container's disk again, read only; a second mount of one
//! device with another flag is refused by the kernel (EBUSY), a bind is not.
//! *A view* needs none: all its mounts are read only and so share one superblock, and a mount that
//! somebody else made may be gone the next moment.
//! *Only read only*: a differ looks at it right now. Binding that would start a container whose root
//! cannot be written; the device answers EBUSY instead, and the caller tries again.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Mount;
use crate::filesystem::Kind;
use crate::link::Disk;
use crate::mountinfo::unescape;

const MOUNTINFO: &str = "/proc/self/mountinfo";
/// How a disk is mounted to be written.
fn writable(kind: Kind) -> [&'static str; 4] {
    match kind {
        Kind::Ext4 => ["rw", "noatime", "noinit_itable", "discard"],
        Kind::Xfs => ["rw", "noatime", "nouuid", "discard"],
    }
}

/// How one is mounted to be looked at. Nothing is there to be replayed: what is sealed was unmounted in order.
fn read_only(kind: Kind) -> [&'static str; 2] {
    match kind {
        Kind::Ext4 => ["ro", "noload"],
        Kind::Xfs => ["ro", "nouuid"],
    }
}

/// One mount in our mount namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mounted {
    /// The device's numbers.
    device: (u32, u32),
    /// Is the file system's root mounted, not a part of it?
    whole: bool,
    /// Where.
    pub(super) at: PathBuf,
    /// Can neither the mount nor its file system be written?
    read_only: bool,
}

/// Where this disk is mounted in our mount namespace, as far as it can be reached.
///
/// Blocks: looks at each place, because another mount may lie on top of it.
pub(super) fn mounted(disk: &Disk) -> std::io::Result<Vec<Mounted>> {
    let device = (disk.major, disk.minor);
    let mut mounts = table()?;
    mounts.retain(|mount| mount.device == device && reachable(mount));
    Ok(mounts)
}

/// Every mount in our mount namespace.
pub(super) fn table() -> std::io::Result<Vec<Mounted>> {
    Ok(parse(&fs::read(MOUNTINFO)?))
}

/// Where a disk's file system can be looked at, if these mounts have it. Blocks.
pub(super) fn place_of(disk: &Disk, mounts: &[Mounted]) -> Option<PathBuf> {
    let device = (disk.major, disk.minor);
    let mut ours = mounts.iter().filter(|mount| mount.device == device);
    Some(ours.find(|mount| reachable(mount))?.at.clone())
}

fn reachable(mount: &Mounted) -> bool {
    let (major, minor) = mount.device;
    let Ok(found) = fs::metadata(&mount.at) else {
        return false;
    };
    found.dev() == rustix::fs::makedev(major, minor)
}

/// The answer for a disk that is mounted at `mounts`.
pub(super) fn decide(disk: &Disk, mounts: &[Mounted], kind: Kind, user_quota: bool) -> Vec<Mount> {
    let (ro, rw) = (read_only(kind), writable(kind));
    let mounted = mounts.iter().find(|mount| mount.whole && !mount.read_only);
    let (name, source, options): (_, &Path, &[&str]) = match mounted {
        _ if disk.read_only => (kind.name(), disk.path(), &ro),
        Some(mount) => ("bind", &mount.at, &["rbind", "rw"]),
        None => (kind.name(), disk.path(), &rw),
    };
    let quota: &[&str] = match mounted {
        None if user_quota && kind == Kind::Ext4 && !disk.read_only => &["usrquota", "grpquota"],
        _ => &[],
    };
    let options = options.iter().chain(quota);
    vec![Mount {
        kind: name.to_owned(),
        source: source.to_string_lossy().into_owned(),
        options: options.map(|option| (*option).to_owned()).collect(),
    }]
}

/// Reads lines such as `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`.
fn parse(text: &[u8]) -> Vec<Mounted> {
    text.split(|byte| *byte == b'\n').filter_map(line).collect()
}

fn line(line: &[u8]) -> Option<Mounted> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let numbers = std::str::from_utf8(fields.get(2)?).ok()?;
    let (major, minor) = numbers.split_once(':')?;
    // Optional fields end with a lone dash; then file system, source, its own options.
    let dash = fields.iter().position(|field| *field == b"-")?;
    let read_only = |options: &[u8]| options.split(|byte| *byte == b',').any(|o| o == b"ro");
    Some(Mounted {
        device: (major.parse().ok()?, minor.parse().ok()?),
        whole: *fields.get(3)? == b"/",
        at: PathBuf::from(OsString::from_vec(unescape(fields.get(4)?))),
        read_only: read_only(fields.get(5)?) || read_only(fields.get(dash + 3)?),
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{Disk, Kind, Mounted, decide, mounted, parse};

    const INFO: &[u8] = b"\
22 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw
40 22 7:3 / /run/a\\040b\\134c rw,noatime shared:7 master:2 - ext4 /dev/loop3 rw
41 22 7:3 /sub /mnt/part rw - ext4 /dev/loop3 rw
42 22 7:4 / /mnt/ro-mount ro - ext4 /dev/loop4 rw
43 22 7:5 / /mnt/ro-super rw - ext4 /dev/loop5 ro,noload
44 22 0:5 / /dev rw - devtmpfs none rw,size=4k,mode=755
garbage
45 22 x:y / /z rw - a b c
";

    fn disk(minor: u32, read_only: bool) -> Disk {
        Disk {
            id: "s1".into(),
            device: format!("/dev/loop{minor}").into(),
            alias: None,
            major: 7,
            minor,
            size: 1 << 30,
            cluster: 65536,
            read_only,
            deltas: Vec::new(),
            failed: None,
        }
    }

    fn at(minor: u32) -> Vec<Mounted> {
        let mut mounts = parse(INFO);
        mounts.retain(|mount| mount.device == (7, minor));
        mounts
    }

    #[test]
    fn mountinfo_is_read_with_its_escapes() {
        assert_eq!(parse(INFO).len(), 6);
        let whole = &at(3)[0];
        assert_eq!(whole.at, PathBuf::from("/run/a b\\c"));
        assert!(whole.whole && !whole.read_only);
        assert!(!at(3)[1].whole);
        assert!(at(4)[0].read_only);
        assert!(at(5)[0].read_only);
    }

    /// Every cell of the table.
    #[test]
    fn the_table() {
        let device = |minor: u32| format!("/dev/loop{minor}");
        let options = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        let rw = "rw,noatime,noinit_itable,discard";
        for (minor, view, kind, source, expected) in [
            (1, false, "ext4", device(1), rw),
            (3, false, "bind", "/run/a b\\c".to_owned(), "rbind,rw"),
            (4, false, "ext4", device(4), rw),
            (5, false, "ext4", device(5), rw),
            (1, true, "ext4", device(1), "ro,noload"),
            (3, true, "ext4", device(3), "ro,noload"),
            (5, true, "ext4", device(5), "ro,noload"),
        ] {
            for user_quota in [false, true] {
                let mounts = decide(&disk(minor, view), &at(minor), Kind::Ext4, user_quota);
                assert_eq!(mounts.len(), 1, "exactly one mount");
                let mount = &mounts[0];
                assert_eq!((mount.kind.as_str(), &mount.source), (kind, &source));
                let expected = match (user_quota, expected == rw) {
                    (true, true) => format!("{rw},usrquota,grpquota"),
                    _ => expected.to_owned(),
                };
                assert_eq!(mount.options, options(&expected));
                let other = decide(&disk(minor, view), &at(minor), Kind::Xfs, user_quota);
                let expected = match (kind, view) {
                    ("bind", _) => ("bind", "rbind,rw"),
                    (_, true) => ("xfs", "ro,nouuid"),
                    (_, false) => ("xfs", "rw,noatime,nouuid,discard"),
                };
                assert_eq!(
                    (other[0].kind.as_str(), &other[0].source),
                    (expected.0, &source)
                );
                assert_eq!(other[0].options, options(expected.1));
            }
        }
    }

    /// The node may be another disk's by the time of the mount; the path of its own cannot.
    #[test]
    fn a_device_is_named_by_the_disk_where_its_server_does() {
        for view in [false, true] {
            let mut disk = disk(1, view);
            disk.alias = Some("/run/p/servers/1-1/dev/s1".into());
            assert_eq!(
                decide(&disk, &[], Kind::Ext4, false)[0].source,
                "/run/p/servers/1-1/dev/s1"
            );
        }
    }

    /// A part of the file system is no substitute for all of it.
    #[test]
    fn a_mounted_part_is_not_bound() {
        let part = vec![at(3)[1].clone()];
        assert_eq!(
            decide(&disk(3, false), &part, Kind::Ext4, false)[0].kind,
            "ext4"
        );
    }

    #[test]
    fn a_mount_that_stands_is_found_here() {
        // The root of this mount namespace is on some device; ask for it by number.
        use std::os::unix::fs::MetadataExt;
        let dev = std::fs::metadata("/proc/self").unwrap().dev();
        let mut disk = disk(0, false);
        disk.major = rustix::fs::major(dev);
        disk.minor = rustix::fs::minor(dev);
        let found = mounted(&disk).unwrap();
        assert!(
            found.iter().any(|mount| mount.at.as_os_str() == "/proc"),
            "{found:?}"
        );
        disk.major = 4000;
        assert_eq!(mounted(&disk).unwrap(), Vec::new());
    }
}
