//! The tree under the root, and what files and disks are called there. Nobody else joins paths.
//!
//! ```text
//! root/lock                    whose root this is: flock, and the owner's process number
//! root/store.redb              the store
//! root/golden/ext4-<tag>.raw   empty file systems, one for each size and layout; those of XFS are xfs-<tag>.raw
//! root/deltas/<id>.hds         a snapshot's own delta
//! root/kept/<n>/               what a repair changed or set aside, as it was; for people to remove
//! ```
//!
//! Disks: `s<id>` is an active snapshot, `v<id>` all views of a committed one, `g-<tag>` or `g-xfs-<tag>` all views of
//! nothing.

use std::path::{Path, PathBuf};

use crate::filesystem::Kind as FileSystem;
use crate::link::Disk;
use crate::store::{Id, Kind, Record};

const DELTA: &str = ".hds";
const GOLDEN: &str = ".raw";
/// Ends the name of a file that is not finished.
const UNFINISHED: &str = ".tmp";

/// What belongs directly under the root; `lost+found` if it is a file system of its own.
pub(super) const OURS: [&str; 6] = [
    "lock",
    "store.redb",
    "deltas",
    "golden",
    "kept",
    "lost+found",
];

/// The tree under one root.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    root: PathBuf,
}

/// What a name under the root tells about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The delta of a snapshot.
    Delta(Id),
    /// A golden file system.
    Golden,
    /// Something of ours that was never finished.
    Unfinished,
    /// Not ours.
    Foreign,
}

impl Paths {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub(super) fn store(&self) -> PathBuf {
        self.root.join("store.redb")
    }

    pub(super) fn deltas(&self) -> PathBuf {
        self.root.join("deltas")
    }

    pub(super) fn goldens(&self) -> PathBuf {
        self.root.join("golden")
    }

    /// Where repairs keep what they change.
    pub(super) fn kept(&self) -> PathBuf {
        self.root.join("kept")
    }

    pub(super) fn delta(&self, id: Id) -> PathBuf {
        self.deltas().join(format!("{id}{DELTA}"))
    }

    /// A golden file by the name that records keep.
    pub(super) fn golden(&self, name: &str) -> PathBuf {
        self.goldens().join(name)
    }

    /// Where a golden file is made before it gets its name.
    pub(super) fn unfinished_golden(&self, name: &str) -> PathBuf {
        self.goldens().join(format!("{name}{UNFINISHED}"))
    }

    /// Does this disk stand on files below our root? One of another root may have the same id.
    pub(super) fn holds(&self, disk: &Disk) -> bool {
        let mut deltas = disk.deltas.iter();
        deltas.any(|delta| delta.path.starts_with(&self.root))
    }

    /// A file that tries out what the root's file system can do.
    pub(super) fn probe(&self) -> PathBuf {
        self.deltas().join(format!("probe{UNFINISHED}"))
    }
}

/// The name of a golden file with this tag.
pub(super) fn golden_name(kind: FileSystem, tag: &str) -> String {
    format!("{kind}-{tag}{GOLDEN}")
}

/// The kind and the tag in the name of a golden file.
fn golden_tag(name: &str) -> Option<(FileSystem, &str)> {
    let (kind, tag) = name.strip_suffix(GOLDEN)?.split_once('-')?;
    Some((kind.parse().ok()?, tag))
}

/// The kind of a golden file, and so of all that stands on it, as its name tells.
pub(super) fn golden_kind(name: &str) -> Option<FileSystem> {
    golden_tag(name).map(|(kind, _)| kind)
}

/// The bytes of a golden file, as its name tells; who stands on it may have another size since.
pub(super) fn golden_size(name: &str) -> Option<u64> {
    golden_tag(name)?.1.split_once('-')?.0.parse().ok()
}

/// What a file's name tells.
pub(super) fn found(name: &str) -> Found {
    if name.ends_with(UNFINISHED) {
        return Found::Unfinished;
    }
    if golden_tag(name).is_some() {
        return Found::Golden;
    }
    let number = name.strip_suffix(DELTA).and_then(number);
    number.map_or(Found::Foreign, |id| Found::Delta(Id(id)))
}

/// The disk that serves an active snapshot or a view.
pub(super) fn disk_of(record: &Record) -> String {
    match (record.kind, &record.parent, &record.golden) {
        (Kind::View, Some(parent), _) => format!("v{}", parent.id),
        (Kind::View, None, Some(golden)) => golden_disk(golden),
        _ => format!("s{}", record.id),
    }
}

/// The disk that serves views of a golden file.
fn golden_disk(golden: &str) -> String {
    match golden_tag(golden) {
        // As they were called when there was one kind.
        Some((FileSystem::Ext4, tag)) => format!("g-{tag}"),
        Some((kind, tag)) => format!("g-{kind}-{tag}"),
        None => format!("g-{golden}"),
    }
}

/// Is this the id of a disk that a snapshotter made?
pub(super) fn our_disk(id: &str) -> bool {
    id.starts_with("g-")
        || id
            .strip_prefix(['s', 'v'])
            .is_some_and(|rest| number(rest).is_some())
}

/// A number as we write it: no sign, no leading zero.
fn number(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{FileSystem, Found, Paths, found, golden_disk, golden_name, golden_size, our_disk};
    use crate::store::Id;

    #[test]
    fn a_file_is_known_by_its_name() {
        let paths = Paths::new(Path::new("/r"));
        let name =
            |path: std::path::PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(found(&name(paths.delta(Id(7)))), Found::Delta(Id(7)));
        for kind in [FileSystem::Ext4, FileSystem::Xfs] {
            assert_eq!(found(&golden_name(kind, "1024-0a")), Found::Golden);
            assert_eq!(golden_size(&golden_name(kind, "1024-0a")), Some(1024));
        }
        assert_eq!(found("ext4-1024-0a.raw"), Found::Golden);
        assert_eq!(golden_size("1024-0a"), None);
        let unfinished = paths.unfinished_golden(&golden_name(FileSystem::Ext4, "1024-0a"));
        assert_eq!(found(&name(unfinished)), Found::Unfinished);
        assert_eq!(found(&name(paths.probe())), Found::Unfinished);
        for foreign in [
            "",
            "7",
            "07.hds",
            "+7.hds",
            "x.hds",
            "-1.hds",
            "7.hds.bak",
            "raw",
        ] {
            assert_eq!(found(foreign), Found::Foreign, "{foreign}");
        }
    }

    #[test]
    fn a_disk_is_known_by_its_id() {
        let golden = golden_disk(&golden_name(FileSystem::Ext4, "10737418240-1a2b3c4d"));
        assert_eq!(golden, "g-10737418240-1a2b3c4d");
        let other = golden_disk(&golden_name(FileSystem::Xfs, "10737418240-1a2b3c4d"));
        assert_eq!(other, "g-xfs-10737418240-1a2b3c4d");
        for ours in ["s1", "v18446744073709551615", &golden, &other] {
            assert!(our_disk(ours), "{ours}");
        }
        for other in ["", "s", "sx", "s01", "disk1", "gold", "t1"] {
            assert!(!our_disk(other), "{other}");
        }
    }
}
