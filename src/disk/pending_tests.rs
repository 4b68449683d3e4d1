//! What a pending file keeps, and for whom.

use std::fs;

use super::{Identity, Kept, Pending, answered_for, boot_id, void_left};
use crate::units::{Cluster, ClusterSize, Place};

fn identity(folder: &std::path::Path, name: &str, boot: u8) -> Identity {
    let file = fs::File::create(folder.join(name)).unwrap();
    Identity::new(&file, [boot; 16], 5000, ClusterSize::DEFAULT).unwrap()
}

#[test]
fn entries_outlive_the_process_but_not_the_boot_and_serve_no_other_image() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = folder.path().join("pending");
    let image = identity(folder.path(), "image", 1);
    let (mut pending, left) = Pending::open(&path, &image).unwrap();
    assert_eq!(left, []);
    for (cluster, place) in [(0, 5), (1023, 6), (4999, 7), (70, 8)] {
        assert_eq!(pending.keep(Cluster(cluster), Place(place)), Kept::Yes);
    }
    assert_eq!(
        pending.keep(Cluster(5000), Place(9)),
        Kept::NoRoom,
        "past the end"
    );
    pending.settle(Cluster(1023));
    pending.settle(Cluster(3000));
    // As after kill -9: unmapped without any farewell.
    drop(pending);

    let (pending, left) = Pending::open(&path, &image).unwrap();
    let expected = [(0, 5), (70, 8), (4999, 7)].map(|(c, p)| (Cluster(c), Place(p)));
    assert_eq!(left, expected);
    let mut pending = pending;
    pending.settle(Cluster(70));
    drop(pending);
    let (pending, left) = Pending::open(&path, &image).unwrap();
    assert_eq!(left, [(Cluster(0), Place(5)), (Cluster(4999), Place(7))]);
    drop(pending);

    for stranger in [
        identity(folder.path(), "image", 2),
        identity(folder.path(), "other", 1),
    ] {
        let (pending, left) = Pending::open(&path, &stranger).unwrap();
        assert_eq!(left, []);
        pending.remove().unwrap();
        let (mut pending, _) = Pending::open(&path, &image).unwrap();
        assert_eq!(pending.keep(Cluster(1), Place(1)), Kept::Yes);
    }
}

/// A tmpfs of so many pages, one of which is a pending file's header, and somebody who takes every page that is free.
struct Full {
    folder: tempfile::TempDir,
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    taker: Option<std::thread::JoinHandle<()>>,
}

impl Full {
    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("pending")
    }

    fn fill(&mut self) {
        let mut filler = fs::File::create(self.folder.path().join("filler")).unwrap();
        let (full, is_full) = std::sync::mpsc::channel();
        let stop = std::sync::Arc::clone(&self.stop);
        self.taker = Some(std::thread::spawn(move || {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                if std::io::Write::write(&mut filler, &[1; 4096]).is_err() {
                    let _ = full.send(());
                }
            }
        }));
        is_full.recv().unwrap();
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let _ = self.taker.take().map(std::thread::JoinHandle::join);
        let mut umount = std::process::Command::new("umount");
        let _ = umount.arg("-l").arg(self.folder.path()).status();
    }
}

/// A run directory that is full at the moment of a take-over: the file gave its page back to ask for it again, and
/// whoever took it in between took the disk from its container. Needs root.
#[test]
fn a_full_tmpfs_keeps_the_header_of_a_file_that_is_opened_again() {
    let mut full = Full {
        folder: tempfile::tempdir().unwrap(),
        stop: std::sync::Arc::default(),
        taker: None,
    };
    let mut mount = std::process::Command::new("mount");
    let mount = mount.args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]);
    assert!(mount.arg(full.folder.path()).status().unwrap().success());
    let images = tempfile::tempdir().unwrap();
    let ours = identity(images.path(), "image", 1);
    drop(Pending::open(&full.path(), &ours).unwrap());
    full.fill();
    for round in 0..2000 {
        let (pending, left) = Pending::open(&full.path(), &ours)
            .unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!(left, []);
        drop(pending);
    }
}

/// What stands in a file that is used again is this image's alone.
#[test]
fn a_file_that_another_image_left_says_nothing_of_ours() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = folder.path().join("pending");
    let [one, other] = ["one", "other"].map(|name| identity(folder.path(), name, 1));
    let (mut pending, _) = Pending::open(&path, &one).unwrap();
    pending.lose(3).unwrap();
    for cluster in [0, 4999] {
        assert_eq!(pending.keep(Cluster(cluster), Place(5)), Kept::Yes);
    }
    drop(pending);
    for _ in 0..2 {
        let (pending, left) = Pending::open(&path, &other).unwrap();
        assert_eq!((pending.lost(), left), (0, Vec::new()));
    }
    let (pending, left) = Pending::open(&path, &one).unwrap();
    assert_eq!(
        (pending.lost(), left),
        (0, Vec::new()),
        "it is the other's now"
    );
    drop(pending);
}

/// The tool asks before it cuts off what no index names.
#[test]
fn what_is_only_pending_is_found_without_knowing_its_file() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let pendings = folder.path().join("pending");
    let (image, other) = (folder.path().join("image"), folder.path().join("other"));
    let count = |image: &std::path::Path, cluster| {
        let file = fs::File::open(image).unwrap();
        answered_for(&pendings, &file, cluster).unwrap()
    };
    let size = ClusterSize::DEFAULT;
    for path in [&image, &other] {
        fs::write(path, "").unwrap();
    }
    assert_eq!(count(&image, size), 0, "no folder");
    fs::create_dir(&pendings).unwrap();
    fs::write(pendings.join("short"), "x").unwrap();
    assert_eq!(count(&image, size), 0);
    let file = fs::File::open(&image).unwrap();
    let identity = Identity::new(&file, boot_id().unwrap(), 5000, size).unwrap();
    let (mut pending, _) = Pending::open(&pendings.join("a"), &identity).unwrap();
    for (cluster, place) in [(0, 5), (4999, 7)] {
        assert_eq!(pending.keep(Cluster(cluster), Place(place)), Kept::Yes);
    }
    drop(pending);
    assert_eq!((count(&image, size), count(&other, size)), (2, 0));
    assert_eq!(count(&image, ClusterSize::new(131_072).unwrap()), 0);
}

#[test]
fn lost_writes_are_remembered_as_long_as_the_image_is_there() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = folder.path().join("pending");
    let image = identity(folder.path(), "image", 1);
    let (mut pending, _) = Pending::open(&path, &image).unwrap();
    assert_eq!(pending.lost(), 0);
    pending.lose(1).unwrap();
    pending.lose(0x1_0002).unwrap();
    drop(pending);
    // Nothing is pending, and it is closed in order: twice.
    for _ in 0..2 {
        let (pending, left) = Pending::open(&path, &image).unwrap();
        assert_eq!((pending.lost(), left), (0x1_0002, Vec::new()));
        pending.remove().unwrap();
    }
    let other = identity(folder.path(), "other", 1);
    let (pending, _) = Pending::open(&path, &other).unwrap();
    assert_eq!(pending.lost(), 0);
    pending.remove().unwrap();
    assert!(!path.exists());
}

#[test]
fn it_grows_with_its_disk_and_is_found_again_by_either_size() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = folder.path().join("pending");
    let image = identity(folder.path(), "image", 1);
    let (mut pending, _) = Pending::open(&path, &image).unwrap();
    assert_eq!(pending.keep(Cluster(4999), Place(7)), Kept::Yes);
    pending.grow(50_000).unwrap();
    for (cluster, kept) in [(49_999, Kept::Yes), (50_000, Kept::NoRoom)] {
        assert_eq!(pending.keep(Cluster(cluster), Place(8)), kept);
    }
    drop(pending);
    let larger = Identity {
        clusters: 50_000,
        ..image
    };
    let (pending, left) = Pending::open(&path, &larger).unwrap();
    assert_eq!(
        left,
        [(4999, 7), (49_999, 8)].map(|(c, p)| (Cluster(c), Place(p)))
    );
    drop(pending);
    // Its disk never became larger.
    let (_, left) = Pending::open(&path, &image).unwrap();
    assert_eq!(left, [(Cluster(4999), Place(7))]);
}

#[test]
fn it_costs_one_page_for_each_thousand_clusters_in_use() {
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = folder.path().join("pending");
    let (mut pending, _) = Pending::open(&path, &identity(folder.path(), "image", 1)).unwrap();
    pending.settle(Cluster(2000));
    assert_eq!(
        fs::metadata(&path).unwrap().blocks() * 512,
        4096,
        "the header alone"
    );
    assert_eq!(pending.keep(Cluster(4000), Place(1)), Kept::Yes);
    assert_eq!(fs::metadata(&path).unwrap().blocks() * 512, 8192);
}

/// A sync has failed: what was pending may be gone, and what is refused from then on is remembered.
#[test]
fn what_is_void_is_found_by_nobody() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = folder.path().join("pending");
    let image = identity(folder.path(), "image", 1);
    void_left(&path).unwrap();
    for opened in [true, false] {
        let (mut pending, left) = Pending::open(&path, &image).unwrap();
        assert_eq!((pending.lost(), left), (u64::from(!opened), Vec::new()));
        for cluster in [0, 1023, 1024, 4999] {
            assert_eq!(pending.keep(Cluster(cluster), Place(5)), Kept::Yes);
        }
        if opened {
            pending.lose(1).unwrap();
            pending.void();
            assert_eq!(pending.keep(Cluster(70), Place(6)), Kept::NoRoom);
        } else {
            drop(pending);
            void_left(&path).unwrap();
        }
    }
    let (pending, left) = Pending::open(&path, &image).unwrap();
    assert_eq!((pending.lost(), left), (2, Vec::new()));
}
