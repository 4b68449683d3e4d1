//! What was written and never arrived is never committed.

use std::fs;
use std::process::Command;
use std::time::Duration;

use ploop_snapshotter::snapshot::{ErrorKind, Labels};

use super::{Mounted, Node, chain};

/// containerd unpacks a layer without a single fsync, and its unmount says nothing of lost writes.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_disk_server_took_along_is_never_committed() {
    let node = Node::new().await;
    let mounts = node.prepare("a", "").await;
    let mounted = Mounted::new(&mounts, &node.point("a"));
    fs::write(mounted.path("synced"), "1").unwrap();
    assert!(Command::new("sync").status().unwrap().success());
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
