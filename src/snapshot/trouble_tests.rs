//! What happens when something else fails: the disk server, the host's disk, a file, a neighbour.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::super::double::Double;
use super::super::fixture::{House, kind, labels, options};
use super::super::{Error, ErrorKind, Kind, Labels, Snapshotters};
use crate::link::{self, DiskStats};
use crate::seat::{Name, Seat};
use crate::store::{Record, Store};

#[tokio::test]
async fn a_commit_that_fails_leaves_the_snapshot_active() {
    let house = House::new().await;
    let ploop = &house.ploop;
    house.prepare("a", "").await;
    let before = ploop.stat("a").await.unwrap();

    house.disks.set_busy("s1", true);
    let error = ploop.commit("A", "a", Labels::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
    assert_eq!(ploop.stat("a").await.unwrap(), before);
    assert_eq!(kind(ploop.stat("A").await), ErrorKind::NotFound);
    house.disks.set_busy("s1", false);

    for (down, expected) in [
        (link::Kind::Unavailable, ErrorKind::Unavailable),
        (link::Kind::Timeout, ErrorKind::DeadlineExceeded),
        (link::Kind::Exhausted, ErrorKind::ResourceExhausted),
        (link::Kind::Corrupt, ErrorKind::DataLoss),
    ] {
        house.disks.set_down(Some(down));
        assert_eq!(kind(ploop.commit("A", "a", Labels::new()).await), expected);
        house.disks.set_down(None);
    }
    // The name was free all the time, and the key may go on.
    house.prepare("A", "").await;
    ploop.remove("A").await.unwrap();
    house.commit("A", "a").await;
}

#[tokio::test]
async fn a_server_that_restarts_during_a_commit_is_asked_again() {
    let house = House::new().await;
    house.prepare("a", "").await;
    house.disks.forget_seals(2);
    house.commit("A", "a").await;
    house.prepare("b", "A").await;
    house.disks.forget_seals(1000);
    let done = house.ploop.commit("B", "b", Labels::new()).await;
    assert_eq!(kind(done), ErrorKind::Unavailable);
    house.disks.forget_seals(0);
    house.commit("B", "b").await;
}

#[tokio::test]
async fn a_prepare_that_fails_leaves_nothing() {
    let house = House::new().await;
    let ploop = &house.ploop;
    house.two_layers().await;
    house.disks.set_down(Some(link::Kind::Exhausted));
    let done = ploop.prepare("c", "B", Labels::new()).await;
    assert_eq!(kind(done), ErrorKind::ResourceExhausted);
    assert_eq!(kind(ploop.stat("c").await), ErrorKind::NotFound);
    // While the server is down its parts wait; the key does not.
    house.disks.set_down(None);
    house.prepare("c", "B").await;
    ploop.cleanup().await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    ploop.cleanup().await.unwrap();
    assert_eq!(house.deltas(), ["1.hds", "2.hds", "4.hds"]);
    ploop.remove("c").await.unwrap();
    ploop.remove("B").await.unwrap();
}

/// Another act's durable step had taken its reservation along, and then the store had to be opened again.
#[tokio::test]
async fn a_prepare_that_failed_does_not_come_back() {
    let house = House::new().await;
    house.two_layers().await;
    house.disks.hang("s3", true);
    let ploop = Arc::clone(&house.ploop);
    let failing = tokio::spawn(async move { ploop.prepare("c", "B", Labels::new()).await });
    house.disks.somebody_hangs().await;
    house.all.shared.store.flush();
    house.disks.set_down(Some(link::Kind::Exhausted));
    house.disks.hang("s3", false);
    let failed = kind(failing.await.unwrap());
    assert_eq!(failed, ErrorKind::ResourceExhausted);
    house.disks.set_down(None);
    let again = house.dir.path().join("again.redb");
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if house.deltas() == ["1.hds", "2.hds"] && house.ploop.cleanup().await.is_ok() {
            break;
        }
    }
    std::fs::copy(house.dir.path().join("root/store.redb"), &again).unwrap();
    let records = Store::open(&again).unwrap().all().unwrap();
    assert!(records.iter().all(Record::visible), "{records:?}");
}

#[tokio::test]
async fn a_busy_device_hinders_no_remove() {
    let house = House::new().await;
    let ploop = &house.ploop;
    house.prepare("a", "").await;
    house.disks.set_busy("s1", true);
    ploop.remove("a").await.unwrap();
    // The key is free at once, and a clean-up does not wait for somebody else's mount.
    house.prepare("a", "").await;
    let start = std::time::Instant::now();
    ploop.cleanup().await.unwrap();
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(
        house.deltas(),
        ["1.hds", "2.hds"],
        "a served file is not unlinked"
    );
    house.disks.set_busy("s1", false);
    for _ in 0..100 {
        if house.deltas() == ["2.hds"] {
            assert_eq!(house.disks.served(), ["s2"]);
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("still there: {:?}", house.deltas());
}

/// containerd's collector waited a minute for the turn of one key, everybody else for the collector, and the answer
/// then ended its round.
#[tokio::test]
async fn a_call_that_hangs_holds_up_no_removal_but_its_own() {
    let house = House::new().await;
    house.prepare("a", "").await;
    house.prepare("b", "").await;
    house.disks.hang("s1", true);
    let ploop = Arc::clone(&house.ploop);
    let commit = tokio::spawn(async move { ploop.commit("A", "a", Labels::new()).await });
    house.disks.somebody_hangs().await;
    let begun = std::time::Instant::now();
    let error = house.ploop.remove("a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    assert!(error.to_string().contains("still under way"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    house.ploop.remove("b").await.unwrap();
    house.disks.hang("s1", false);
    commit.await.unwrap().unwrap();
    house.ploop.remove("A").await.unwrap();
}

#[tokio::test]
async fn a_missing_or_altered_file_is_data_loss_and_stays_a_record() {
    let house = House::new().await;
    let ploop = &house.ploop;
    house.two_layers().await;
    house.prepare("c", "B").await;
    house.disks.restart();

    let aside = house.dir.path().join("aside");
    for id in [1, 3] {
        std::fs::rename(house.delta(id), &aside).unwrap();
        let error = ploop.mounts("c").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DataLoss);
        let text = error.to_string();
        assert!(text.contains(&format!("{id}.hds is missing")), "{text}");
        std::fs::rename(&aside, house.delta(id)).unwrap();
    }
    ploop.mounts("c").await.unwrap();
    house.disks.restart();

    // A parent with another size, as somebody's copy of another layer would have.
    let parent = std::fs::File::options()
        .write(true)
        .open(house.delta(2))
        .unwrap();
    let length = parent.metadata().unwrap().len();
    parent.set_len(length + 65536).unwrap();
    assert_eq!(kind(ploop.mounts("c").await), ErrorKind::DataLoss);
    parent.set_len(length).unwrap();
    // A top with a header that makes no sense.
    let top = std::fs::File::options()
        .write(true)
        .open(house.delta(3))
        .unwrap();
    top.write_all_at(b"XXXX", 0).unwrap();
    let error = ploop.mounts("c").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DataLoss, "{error}");
    assert_eq!(ploop.stat("c").await.unwrap().kind, Kind::Active);
    // It can still be removed.
    ploop.remove("c").await.unwrap();
    ploop.cleanup().await.unwrap();
    assert_eq!(house.deltas(), ["1.hds", "2.hds"]);
}

#[tokio::test]
async fn a_failed_disk_is_opened_again_if_it_is_free() {
    let house = House::new().await;
    house.prepare("a", "").await;
    house.disks.fail("s1", "sync failed");
    house.ploop.mounts("a").await.unwrap();
    house.disks.fail("s1", "sync failed");
    house.disks.set_busy("s1", true);
    let error = house.ploop.mounts("a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("sync failed"), "{error}");
}

/// A sync that failed may have lost what was answered for; a second one would succeed and prove nothing.
#[tokio::test]
async fn a_failed_disk_is_not_committed() {
    let house = House::new().await;
    house.prepare("a", "").await;
    house.disks.fail("s1", "sync failed");
    for _ in 0..2 {
        let done = house.ploop.commit("A", "a", Labels::new()).await;
        let error = done.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DataLoss, "{error}");
        assert!(error.to_string().contains("sync failed"), "{error}");
    }
    assert_eq!(house.ploop.stat("a").await.unwrap().kind, Kind::Active);
    house.ploop.remove("a").await.unwrap();
}

/// A disk server that died or failed has left map entries for who opens the delta next: they were there until the next
/// boot, in memory, for deltas that nobody could ever open.
#[tokio::test]
async fn what_a_disk_server_left_goes_with_its_delta() {
    let house = House::new().await;
    house.prepare("a", "").await;
    house.prepare("b", "").await;
    std::fs::write(house.delta(99), "x").unwrap();
    let seat = Seat::new(&house.dir.path().join("run"), Name::PLAIN);
    std::fs::create_dir_all(seat.pending()).unwrap();
    let left = [1, 2, 99].map(|id| seat.pending_of(&house.delta(id)));
    for file in &left {
        std::fs::write(file, "x").unwrap();
    }
    let there = || left.iter().map(|file| file.exists()).collect::<Vec<_>>();
    house.ploop.remove("a").await.unwrap();
    house.ploop.cleanup().await.unwrap();
    assert_eq!(there(), [false, true, true]);
    let house = house.reopen().await.unwrap();
    assert_eq!(there(), [false, true, false]);
    house.ploop.remove("b").await.unwrap();
    house.ploop.cleanup().await.unwrap();
    assert_eq!(there(), [false; 3]);
}

#[tokio::test]
async fn strangers_are_swept_or_left_alone() {
    let house = House::new().await;
    house.prepare("a", "").await;
    let root = house.dir.path().join("root");
    let file = root.join("deltas/77.hds");
    house.disks.serve_stray("s77", &file);
    house.disks.serve_stray("v77", &file);
    house.disks.serve_stray("somebody-elses", &file);
    for name in [
        "deltas/99.hds",
        "deltas/x.tmp",
        "golden/ext4-1-1.raw.tmp",
        "deltas/notes.txt",
        "deltas/01.hds",
        "golden/mine.raw",
        "README",
    ] {
        std::fs::write(root.join(name), "x").unwrap();
    }
    let house = house.reopen().await.unwrap();
    assert_eq!(house.disks.served(), ["s1", "somebody-elses"]);
    assert_eq!(house.deltas(), ["01.hds", "1.hds", "notes.txt"]);
    assert!(root.join("golden/mine.raw").exists() && root.join("README").exists());
    assert!(!root.join("golden/ext4-1-1.raw.tmp").exists());
}

/// Ids are numbers that each root gives by itself: one day both would mean another disk by the same one,
/// and the first to look for strays would detach the other's.
#[tokio::test]
async fn disks_of_another_root_are_no_strays_but_a_reason_not_to_start() {
    let house = House::new().await;
    let other = Path::new("/other/root/deltas/9.hds");
    house.disks.serve_stray("s9", other);
    let (dir, disks) = house.close();
    let error = House::open(dir, Arc::clone(&disks)).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    let words = error.to_string();
    assert!(words.contains("s9 on /other/root/deltas/9.hds"), "{words}");
    assert!(words.contains("choose another run_dir"), "{words}");
    assert_eq!(disks.served(), ["s9"]);
}

/// The kernel says "Input/output error" to a flush that found no space below; the disk knows better.
#[tokio::test]
async fn a_commit_into_a_full_host_says_so() {
    let house = House::new().await;
    for (key, stats, words, kind) in [
        (
            "waits",
            DiskStats {
                held_requests: 2,
                ..DiskStats::default()
            },
            "is full, and writes to",
            ErrorKind::ResourceExhausted,
        ),
        (
            "lost",
            DiskStats {
                no_space: 3,
                ..DiskStats::default()
            },
            "is full, and 3 writes to",
            ErrorKind::ResourceExhausted,
        ),
        (
            "broken",
            DiskStats::default(),
            "cannot flush",
            ErrorKind::Internal,
        ),
    ] {
        house.prepare(key, "").await;
        let id = house.disks.served().pop().unwrap();
        house.disks.spoil(&id, stats);
        let error = house.ploop.commit("A", key, Labels::new()).await;
        let error = error.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(error.kind(), kind);
        house.ploop.remove(key).await.unwrap();
    }
}

/// A device that goes away may take along what is dirty: a disk that cannot be flushed stays.
#[tokio::test]
async fn a_disk_that_cannot_be_flushed_is_not_set_down() {
    let house = House::new().await;
    house.prepare("a", "").await;
    house.prepare("b", "").await;
    house.disks.spoil("s1", DiskStats::default());
    assert_eq!(house.all.detach_idle().await.unwrap(), 1);
    assert_eq!(house.disks.served(), ["s1"]);
}

#[tokio::test]
async fn a_second_daemon_is_refused() {
    let house = House::new().await;
    let root = house.dir.path().join("root");
    let disks = Arc::clone(&house.disks) as _;
    let error = Snapshotters::open(options(root.clone()), disks)
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(text.contains(root.to_str().unwrap()), "{text}");
    assert!(text.contains(&std::process::id().to_string()), "{text}");
}

#[tokio::test]
async fn a_golden_file_that_somebody_stands_on_is_never_made_again() {
    let house = House::new().await;
    house.prepare("a", "").await;
    let dir = house.dir.path().join("root/golden");
    let golden = std::fs::read_dir(&dir)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let aside = house.dir.path().join("aside");
    std::fs::rename(&golden, &aside).unwrap();
    let error = house.reopen().await.err().unwrap();
    assert!(
        matches!(error, Error::GoldenLost { standing: 1, .. }),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::DataLoss);
}

/// An annotation had one made, and when its image was long gone it was still there.
#[tokio::test]
async fn a_golden_file_that_nobody_names_goes_with_the_next_start() {
    let house = House::new().await;
    let sized = |size: &str| labels(&[("containerd.io/snapshot/ploop.size", size)]);
    for (key, size) in [("gone", "96Mi"), ("layer", "80Mi"), ("active", "72Mi")] {
        let made = house.ploop.prepare(key, "", sized(size)).await;
        made.unwrap();
    }
    house.commit("LAYER", "layer").await;
    house.ploop.remove("gone").await.unwrap();
    house.ploop.cleanup().await.unwrap();
    let goldens = |house: &House| {
        let dir = std::fs::read_dir(house.dir.path().join("root/golden")).unwrap();
        let mut sizes: Vec<u64> = dir
            .map(|entry| entry.unwrap().metadata().unwrap().len() >> 20)
            .collect();
        sizes.sort_unstable();
        sizes
    };
    assert_eq!(goldens(&house), [64, 72, 80, 96]);
    let house = house.reopen().await.unwrap();
    assert_eq!(goldens(&house), [64, 72, 80]);
    house.disks.restart();
    house.ploop.mounts("active").await.unwrap();
    let above = house.ploop.prepare("above", "LAYER", sized("80Mi"));
    above.await.unwrap();
    for key in ["active", "above", "LAYER"] {
        house.ploop.remove(key).await.unwrap();
        house.ploop.cleanup().await.unwrap();
    }
    let house = house.reopen().await.unwrap();
    assert_eq!(goldens(&house), [64]);
}

/// The host's disk is full in the middle of things: the acts say so, nothing is lost, and when there is
/// space again everything goes on, the store included.
#[tokio::test]
async fn a_full_host_is_said_and_survived() {
    let dir = tempfile::tempdir().unwrap();
    let small = dir.path().join("root");
    std::fs::create_dir(&small).unwrap();
    let mounted = Unmount(small.clone());
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("none", &small, "tmpfs", flags, Some(c"size=16m")).unwrap();
    let house = House::open(dir, Double::new(small.join("../devices").as_path()))
        .await
        .unwrap();
    let ploop = &house.ploop;
    house.two_layers().await;
    house.prepare("c", "B").await;

    let ballast = small.join("lost+found");
    let mut file = std::fs::File::create(&ballast).unwrap();
    let full = loop {
        if let Err(error) = std::io::Write::write_all(&mut file, &[1; 4096]) {
            break error;
        }
    };
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    let error = ploop.prepare("d", "B", Labels::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error:?}");
    // The store needs room for its pages too; however often it fails, it must not stay broken.
    // A record that grows: one that stays as it was finds its pages in what the store gave up before.
    let grown = |pages: usize| -> Labels {
        let label = |page| (format!("l{page}"), "x".repeat(4000));
        (0..=pages).map(label).collect()
    };
    let mut failed = 0;
    for number in 0..200 {
        match ploop.update("c", grown(number), None).await {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error:?}");
                failed += 1;
            }
        }
        if number > 20 && failed > 3 {
            break;
        }
        // What others ask for meanwhile must not wear it out either.
        let _ = ploop.view(&format!("v{number}"), "B", grown(0)).await;
    }
    assert!(failed > 0, "the store never met the full disk");
    // Cut first: a program that another test is starting may hold the file for a moment.
    file.set_len(0).unwrap();
    drop(file);
    std::fs::remove_file(&ballast).unwrap();

    ploop
        .update("c", labels(&[("l", "good")]), None)
        .await
        .unwrap();
    house.prepare("d", "B").await;
    house.commit("D", "d").await;
    let house = house.reopen().await.unwrap();
    assert_eq!(
        house.ploop.stat("c").await.unwrap().labels,
        labels(&[("l", "good")])
    );
    house.ploop.mounts("c").await.unwrap();
    drop(house.all);
    drop(mounted);
}

/// Unmounts when dropped, also by a failed assertion.
struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}
