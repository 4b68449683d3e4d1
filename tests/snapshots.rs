//! Snapshots on real devices: a disk server of our own, ext4 mounted as containerd would, as root.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use ploop_snapshotter::snapshot::{ErrorKind, Labels, Mount, NameOptions};

use node::{Mounted, Node, chain, names, try_mount, usual, whole};

#[path = "snapshots_checked.rs"]
mod checked;
#[path = "snapshots_lost.rs"]
mod lost;
#[path = "snapshots_node.rs"]
mod node;
#[path = "snapshots_sizes.rs"]
mod sizes;
#[path = "snapshots_users.rs"]
mod users;
#[path = "snapshots_xfs.rs"]
mod xfs;

#[tokio::test(flavor = "multi_thread")]
async fn layers_are_made_stacked_seen_and_removed() {
    layers(usual()).await;
}

/// The same of any kind of file system.
async fn layers(kind: NameOptions) {
    let node = Node::of(kind).await;
    let mounts = node.prepare("a", "").await;
    let mounted = Mounted::new(&mounts, &node.point("a"));
    assert_eq!(names(&mounted.point), [""; 0], "a fresh root is empty");
    assert_eq!(mounted.point.metadata().unwrap().mode() & 0o7777, 0o755);
    fs::write(mounted.path("one"), vec![1; 3 << 20]).unwrap();
    drop(mounted);
    node.commit("A", "a").await;
    let cost = node.ploop.usage("A").await.unwrap();
    assert!(cost.bytes > 3 << 20 && cost.bytes < 8 << 20, "{cost:?}");

    node.layer("B", "A", |root| {
        assert_eq!(fs::read(root.join("one")).unwrap(), vec![1; 3 << 20]);
        fs::remove_file(root.join("one")).unwrap();
        fs::write(root.join("two"), "2").unwrap();
    })
    .await;

    // Two containers of one image do not see each other.
    let mounts = [node.prepare("c", "B").await, node.prepare("d", "B").await];
    assert_ne!(mounts[0], mounts[1]);
    let c = Mounted::new(&mounts[0], &node.point("c"));
    let d = Mounted::new(&mounts[1], &node.point("d"));
    fs::write(c.path("two"), "c").unwrap();
    fs::write(d.path("three"), "d").unwrap();
    assert_eq!(names(&c.point), ["two"]);
    assert_eq!(names(&d.point), ["three", "two"]);
    assert_eq!(fs::read(d.path("two")).unwrap(), b"2");
    drop((c, d));

    // Views: of each layer, read only, several at once, and of nothing.
    for (key, parent, expected) in [("v", "A", "one"), ("w", "B", "two"), ("x", "B", "two")] {
        let mounts = node.view(key, parent).await;
        let view = Mounted::new(&mounts, &node.point(key));
        assert_eq!(names(&view.point), [expected]);
        let refused = fs::write(view.path("new"), "").unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
        // Another mount of the same view, as a differ makes it.
        let _second = Mounted::new(
            &node.ploop.mounts(key).await.unwrap(),
            &node.point("second"),
        );
    }
    let empty = node.view("e", "").await;
    assert_eq!(
        names(&Mounted::new(&empty, &node.point("e")).point),
        [""; 0]
    );

    for key in ["c", "d", "v", "w", "x", "e", "B", "A"] {
        node.ploop.remove(key).await.unwrap();
    }
    node.ploop.cleanup().await.unwrap();
    assert_eq!(node.files(), [""; 0]);
    node.end().await;
}

/// `nerdctl commit` and `ctr snapshots diff` mount a running container's disk again, read only.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_containers_disk_is_bound_and_not_committed() {
    running(usual()).await;
}

/// The same of any kind of file system.
async fn running(kind: NameOptions) {
    let node = Node::of(kind).await;
    node.layer("A", "", |root| fs::write(root.join("one"), "1").unwrap())
        .await;
    let mounts = node.prepare("c", "A").await;
    let running = Mounted::new(&mounts, &node.point("rootfs with blank"));
    fs::write(running.path("live"), "x").unwrap();

    let again = node.ploop.mounts("c").await.unwrap();
    assert_eq!(again[0].kind, "bind");
    assert_eq!(Path::new(&again[0].source), running.point);
    let diff = Mounted::new(&again, &node.point("diff"));
    assert_eq!(names(&diff.point), ["live", "one"]);
    drop(diff);

    let error = node
        .ploop
        .commit("C", "c", Labels::new())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    assert!(error.to_string().contains("rootfs with blank"), "{error}");
    fs::write(running.path("still"), "x").unwrap();
    drop(running);
    assert_eq!(node.ploop.mounts("c").await.unwrap(), mounts);
    node.commit("C", "c").await;
    let view = node.view("v", "C").await;
    assert_eq!(
        names(&Mounted::new(&view, &node.point("v")).point),
        ["live", "one", "still"]
    );
    node.end().await;
}

/// Holds a mount in a mount namespace of its own, as runc's private copies do.
struct Elsewhere(Child);

impl Elsewhere {
    fn hold(mounts: &[Mount], point: &Path) -> Self {
        // The namespace begins with a copy of every mount, and so would keep what other tests unmount.
        let script = "mount --make-rprivate / && \
                      cut -d ' ' -f 5 /proc/self/mountinfo | grep -F \"$5/\" | sort -r | \
                      while read -r at; do umount -l \"$(printf \"$at\")\"; done; \
                      mount -t \"$3\" -o \"$4\" \"$1\" \"$2\" && exec sleep 600";
        let child = Command::new("unshare")
            .args(["-m", "sh", "-c", script, "sh", &mounts[0].source])
            .arg(point)
            .args([&mounts[0].kind, &mounts[0].options.join(",")])
            .arg(std::env::temp_dir())
            .spawn()
            .unwrap();
        let held = Self(child);
        let table = format!("/proc/{}/mountinfo", held.0.id());
        for _ in 0..250 {
            let text = fs::read_to_string(&table).unwrap_or_default();
            if text.contains(point.to_str().unwrap()) {
                return held;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("nothing was mounted elsewhere");
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_in_another_namespace_delays_commit_and_removal_and_hinders_neither() {
    elsewhere(usual()).await;
}

/// The same of any kind of file system.
async fn elsewhere(kind: NameOptions) {
    let node = Node::of(kind).await;
    let mounts = node.prepare("a", "").await;
    let held = Elsewhere::hold(&mounts, &node.point("elsewhere"));
    let start = Instant::now();
    let error = node
        .ploop
        .commit("A", "a", Labels::new())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
    assert!(
        error.to_string().contains("another mount namespace"),
        "{error}"
    );
    assert!(start.elapsed() >= Duration::from_millis(500), "it waited");
    // One that goes in time is waited for.
    let release = tokio::task::spawn_blocking(move || {
        std::thread::sleep(Duration::from_millis(150));
        drop(held);
    });
    node.commit("A", "a").await;
    release.await.unwrap();

    let mounts = node.prepare("b", "A").await;
    let held = Elsewhere::hold(&mounts, &node.point("elsewhere"));
    node.ploop.remove("b").await.unwrap();
    let other = node.prepare("b", "A").await;
    assert_ne!(other, mounts, "its device is still somebody's");
    node.ploop.cleanup().await.unwrap();
    assert_eq!(node.files(), ["1.hds", "2.hds", "3.hds"]);
    drop(held);
    for _ in 0..200 {
        if node.files() == ["1.hds", "3.hds"] {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(node.files(), ["1.hds", "3.hds"]);
    node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_outlives_both_daemons() {
    outlives(usual()).await;
}

/// The same of any kind of file system.
async fn outlives(kind: NameOptions) {
    let node = Node::of(kind).await;
    node.layer("A", "", |root| fs::write(root.join("one"), "1").unwrap())
        .await;
    let mounted = Mounted::new(&node.prepare("c", "A").await, &node.point("c"));
    fs::write(mounted.path("synced"), vec![7; 1 << 20]).unwrap();
    drop(mounted);

    // The snapshotter goes; the disk server does not notice.
    let served = node.servers.list().await.unwrap();
    let node = node.restarted().await;
    assert_eq!(node.servers.list().await.unwrap(), served);

    // The disk server is killed: the next one serves the disk again when somebody asks.
    let pid = node.servers.seen()[0].hello.pid;
    let kill = Command::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(kill.unwrap().success());
    let mut mounts = Vec::new();
    for _ in 0..200 {
        match node.ploop.mounts("c").await {
            Ok(found) => {
                mounts = found;
                break;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", chain(&error)),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The call waited for the new process; whoever looks after it says so a moment later.
    while node.servers.seen()[0].hello.pid == pid {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    whole(&mounts[0]);
    let mounted = Mounted::new(&mounts, &node.point("c"));
    assert_eq!(fs::read(mounted.path("synced")).unwrap(), vec![7; 1 << 20]);
    assert_eq!(fs::read(mounted.path("one")).unwrap(), b"1");
    drop(mounted);
    node.commit("C", "c").await;
    node.end().await;
}

/// How long an act takes does not depend on how deep the image is.
#[tokio::test(flavor = "multi_thread")]
async fn a_deep_image_is_prepared_as_fast_as_a_flat_one() {
    const DEPTH: usize = 100;
    let node = Node::new().await;
    let (mut parent, mut sealed) = (String::new(), Vec::new());
    for depth in 0..DEPTH {
        let name = format!("layer {depth}");
        node.prepare("k", &parent).await;
        let start = Instant::now();
        node.commit(&name, "k").await;
        sealed.push(start.elapsed());
        parent = name;
    }
    // One of each in turn: whatever else the machine does then is met by both.
    let mut took = [Vec::new(), Vec::new()];
    for _ in 0..21 {
        for (took, parent) in took.iter_mut().zip(["layer 0", parent.as_str()]) {
            let start = Instant::now();
            node.prepare("c", parent).await;
            took.push(start.elapsed());
            node.ploop.remove("c").await.unwrap();
        }
    }
    let median = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let [flat, deep] = took.map(median);
    let sealed = median(sealed);
    eprintln!("prepare: {flat:?} over one layer, {deep:?} over {DEPTH}; commit: {sealed:?}");
    // Opening a chain reads the header and index of each delta once: microseconds a layer.
    assert!(
        deep < flat * 3 + Duration::from_millis(20),
        "{flat:?}, then {deep:?}"
    );
    let view = node.view("v", &parent).await;
    assert_eq!(names(&Mounted::new(&view, &node.point("v")).point), [""; 0]);
    node.end().await;
}
