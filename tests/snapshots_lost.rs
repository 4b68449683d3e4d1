//! What was written and never arrived is never committed.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use ploop_snapshotter::snapshot::{ErrorKind, Labels, NameOptions};

use super::{Mounted, Node, chain, usual};

/// containerd unpacks a layer without a single fsync, and its unmount says nothing of lost writes.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_disk_server_took_along_is_never_committed() {
    taken_along(usual(), true).await;
    taken_along(usual(), false).await;
}

/// Its pending file lay in memory until the next boot, for a delta that was gone.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_disk_server_left_goes_with_the_snapshot() {
    let node = Node::of(usual()).await;
    let pending = node.folder.path().join("run/pending");
    let left = || fs::read_dir(&pending).unwrap().count();
    let mounts = node.prepare("a", "").await;
    let mounted = Mounted::new(&mounts, &node.point("a"));
    fs::write(mounted.path("synced"), "1").unwrap();
    let root = fs::File::open(&mounted.point).unwrap();
    rustix::fs::syncfs(root).unwrap();
    let pid = node.servers.seen()[0].hello.pid;
    let kill = Command::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(kill.unwrap().success());
    drop(mounted);
    assert_eq!(left(), 1);
    node.ploop.remove("a").await.unwrap();
    let begun = Instant::now();
    while left() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(30), "it stays");
        node.ploop.cleanup().await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    node.end().await;
}

/// The same of any kind of file system: part of it had arrived, or nothing at all.
pub(super) async fn taken_along(kind: NameOptions, synced: bool) {
    let node = Node::of(kind).await;
    let mounts = node.prepare("a", "").await;
    let mounted = Mounted::new(&mounts, &node.point("a"));
    fs::write(mounted.path("synced"), "1").unwrap();
    if synced {
        let root = fs::File::open(&mounted.point).unwrap();
        rustix::fs::syncfs(root).unwrap();
    }
    fs::write(mounted.path("in the page cache"), vec![7; 1 << 20]).unwrap();
    let pid = node.servers.seen()[0].hello.pid;
    let kill = Command::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(kill.unwrap().success());
    drop(mounted);
    let error = loop {
        let done = node.ploop.commit("A", "a", Labels::new()).await;
        let error = done.expect_err("a layer with a file less was sealed");
        if error.kind() != ErrorKind::Unavailable {
            break error;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(error.kind(), ErrorKind::DataLoss, "{}", chain(&error));
    assert_eq!(
        node.ploop.stat("A").await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    node.ploop.remove("a").await.unwrap();
    node.layer("A", "", |root| fs::write(root.join("one"), "1").unwrap())
        .await;
    node.end().await;
}
