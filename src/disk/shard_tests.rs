//! The end of a shard: what was begun is finished, and nobody waits for a thread that is gone.

use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use crate::chain::Delta;
use crate::disk::{DiskHandle, Errno, Front, Local, Options, Request, Shards, Spec};
use crate::image::ploop;
use crate::io::{Direct, Piece, now};
use crate::units::ClusterSize;

const SOON: Duration = Duration::from_secs(20);

fn start() -> Shards {
    Shards::start(Options {
        shards: 1,
        patience: Duration::ZERO,
    })
    .unwrap()
}

fn spec(folder: &Path) -> Spec {
    let path = folder.join("top.hds");
    if !path.exists() {
        std::fs::File::create(&path).unwrap();
        let file = Direct::open_write(&path).unwrap();
        now(ploop::create(&file, 64 << 20, ClusterSize::DEFAULT)).unwrap();
    }
    let top = Delta {
        path,
        format: None,
        seal: None,
    };
    Spec {
        id: "disk".into(),
        deltas: vec![top],
        read_only: false,
        pending: folder.join("pending"),
    }
}

fn write(disk: &DiskHandle) -> mpsc::Receiver<Result<(), Errno>> {
    let (answer, answers) = mpsc::channel();
    let done = Box::new(move |result: Result<Piece, Errno>| {
        let _ = answer.send(result.map(drop));
    });
    disk.submit(Request::write(
        0,
        Piece::from_bytes(&vec![7; 1 << 20]),
        false,
        done,
    ));
    answers
}

#[tokio::test]
async fn a_disk_that_is_being_closed_is_closed_before_its_shard_ends() {
    for _ in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        let shards = start();
        let disk = shards.open(spec(folder.path())).await.unwrap();
        let written = write(&disk);
        let mut closing = Box::pin(disk.close(true));
        // Sends the letter.
        assert!(futures_util::poll!(closing.as_mut()).is_pending());
        drop(shards);
        let answer = tokio::time::timeout(SOON, closing).await.unwrap();
        assert!(answer.unwrap().is_some(), "sealed");
        assert_eq!(written.recv_timeout(SOON), Ok(Ok(())));
    }
}

#[tokio::test]
async fn a_request_for_a_shard_that_ended_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let shards = start();
    let disk = shards.open(spec(folder.path())).await.unwrap();
    disk.close(false).await.unwrap();
    drop(shards);
    // Before, while and after the thread ends.
    for _ in 0..10 {
        assert_eq!(write(&disk).recv_timeout(SOON), Ok(Err(Errno::NODEV)));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let closed = tokio::time::timeout(SOON, disk.close(false)).await.unwrap();
    assert!(closed.is_err());
}

#[tokio::test]
async fn a_burst_far_beyond_the_rings_size_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let shards = start();
    let disk = shards.open(spec(folder.path())).await.unwrap();
    assert_eq!(write(&disk).recv_timeout(SOON), Ok(Ok(())));
    let (answer, answers) = mpsc::channel();
    for index in 0..4000_u64 {
        let answer = answer.clone();
        let done = Box::new(move |result: Result<Piece, Errno>| {
            let _ = answer.send(result.map(|piece| piece.to_vec()[0]));
        });
        let at = index % 256 * 4096;
        disk.submit(Request::read(at, Piece::zeroed(4096), done));
    }
    for _ in 0..4000 {
        assert_eq!(answers.recv_timeout(SOON), Ok(Ok(7)));
    }
    disk.close(false).await.unwrap();
}

/// Stands before a disk until something on the ring has happened.
struct Slow(Duration);

impl Front for Slow {
    fn begin(self: Box<Self>, disk: Local) {
        disk.spawner().spawn(async move {
            let _ = crate::io::sleep(self.0).await;
            drop(disk);
        });
    }
}

#[tokio::test]
async fn a_disk_that_somebody_still_holds_is_closed_when_they_let_go_and_its_neighbour_is_served() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let shards = start();
    let disk = shards.open(spec(folders[0].path())).await.unwrap();
    let neighbour = shards.open(spec(folders[1].path())).await.unwrap();
    disk.stand_before(Box::new(Slow(Duration::from_millis(300))));
    let mut closing = Box::pin(disk.close(true));
    assert!(futures_util::poll!(closing.as_mut()).is_pending());
    assert_eq!(write(&neighbour).recv_timeout(SOON), Ok(Ok(())));
    let answer = tokio::time::timeout(SOON, closing).await.unwrap();
    assert!(answer.unwrap().is_some(), "sealed");
    neighbour.close(false).await.unwrap();
}
