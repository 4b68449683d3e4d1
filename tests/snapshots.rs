//! Snapshots on real devices: a disk server of our own, ext4 mounted as containerd would, as root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ploop_snapshotter::link::{self, Servers, StartOptions};
use ploop_snapshotter::snapshot::{
    Error, ErrorKind, Labels, Mount, NameOptions, Options, Snapshotter, Snapshotters,
};

use crate::support::host;

#[path = "snapshots_checked.rs"]
mod checked;
#[path = "snapshots_lost.rs"]
mod lost;
#[path = "snapshots_sizes.rs"]
mod sizes;

/// A node: root, disk server, snapshotter. Everything goes when it is dropped.
struct Node {
    ploop: Arc<Snapshotter>,
    all: Snapshotters,
    servers: Arc<Servers>,
    /// Last: it ends the disk server.
    folder: Folder,
}

/// A directory, and the disk server that runs in it.
struct Folder {
    dir: tempfile::TempDir,
    servers: Arc<Servers>,
}

impl Folder {
    fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Node {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (root, run) = (folder.path().join("root"), folder.path().join("run"));
        let config = folder.path().join("config.toml");
        fs::create_dir_all(&run).unwrap();
        let text = format!("root = {root:?}\nrun_dir = {run:?}\n");
        fs::write(&config, text).unwrap();
        let servers = Servers::start(link::Options {
            run,
            servers: 1,
            start: Some(StartOptions {
                binary: env!("CARGO_BIN_EXE_ploopd").into(),
                config_path: config,
                arguments: Vec::new(),
            }),
            limits: link::Limits::default(),
        });
        let servers = Arc::new(servers.await.unwrap());
        host::meets(&servers.seen()[0].hello.transport);
        let dir = folder;
        Self::open(Folder { dir, servers }).await
    }

    /// The snapshotter ends in order, and another one starts.
    async fn restarted(self) -> Self {
        let Self {
            folder, all, ploop, ..
        } = self;
        drop((all, ploop));
        Self::open(folder).await
    }

    async fn open(folder: Folder) -> Self {
        let mut options = Options::new(folder.path().join("root"));
        options.busy_wait = Duration::from_millis(500);
        options.names = vec![NameOptions {
            size: 256 << 20,
            ..NameOptions::new("ploop")
        }];
        let servers = Arc::clone(&folder.servers);
        let mut tries = 0;
        let all = loop {
            // Between fork and exec a program that another test starts has the lock's descriptor too.
            match Snapshotters::open(options.clone(), Arc::clone(&servers) as _).await {
                Err(Error::RootTaken { .. }) if tries < 100 => {
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                done => break done.unwrap_or_else(|error| panic!("{}", chain(&error))),
            }
        };
        let ploop = all.named("ploop").unwrap();
        Self {
            folder,
            servers,
            all,
            ploop,
        }
    }

    fn point(&self, name: &str) -> PathBuf {
        let point = self.folder.path().join("mnt").join(name);
        fs::create_dir_all(&point).unwrap();
        point
    }

    async fn prepare(&self, key: &str, parent: &str) -> Vec<Mount> {
        let made = self.ploop.prepare(key, parent, Labels::new()).await;
        made.unwrap_or_else(|error| panic!("prepare {key}: {}", chain(&error)))
    }

    async fn view(&self, key: &str, parent: &str) -> Vec<Mount> {
        let made = self.ploop.view(key, parent, Labels::new()).await;
        made.unwrap_or_else(|error| panic!("view {key}: {}", chain(&error)))
    }

    async fn commit(&self, name: &str, key: &str) {
        let done = self.ploop.commit(name, key, Labels::new()).await;
        done.unwrap_or_else(|error| panic!("commit {name}: {}", chain(&error)));
    }

    /// One layer: prepared, mounted, changed, unmounted, committed.
    async fn layer(&self, name: &str, parent: &str, change: impl FnOnce(&Path)) {
        let key = format!("making {name}");
        let mounts = self.prepare(&key, parent).await;
        let mounted = Mounted::new(&mounts, &self.point("layer"));
        change(&mounted.point);
        drop(mounted);
        self.commit(name, &key).await;
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path().join("root/deltas")).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Ends the snapshotter, the disk server, and looks for what they left.
    async fn end(self) {
        self.ploop.cleanup().await.unwrap();
        assert_eq!(self.all.detach_idle().await.unwrap(), 0);
        assert_eq!(self.servers.list().await.unwrap(), []);
        let run = self.folder.path().to_str().unwrap().to_owned();
        for entry in fs::read_dir("/sys/block").unwrap() {
            let backing = entry.unwrap().path().join("loop/backing_file");
            let backing = fs::read_to_string(backing).unwrap_or_default();
            assert!(!backing.contains(&run), "a loop device is left: {backing}");
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let pid = self.servers.seen()[0].hello.pid.to_string();
        let run = self.path().join("run");
        // Or whoever still holds the client would start another one.
        let _ = fs::remove_file(self.path().join("config.toml"));
        // The second signal ends it though disks may be left by a test that failed.
        for _ in 0..100 {
            if !Path::new("/proc").join(&pid).exists() {
                break;
            }
            let _ = Command::new("kill").arg(&pid).output();
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = Command::new("umount")
            .arg("-lq")
            .arg(run.join("fuse"))
            .status();
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

/// Mounted until dropped.
struct Mounted {
    point: PathBuf,
}

impl Mounted {
    fn new(mounts: &[Mount], point: &Path) -> Self {
        assert!(try_mount(mounts, point, &[]), "cannot mount {mounts:?}");
        Self {
            point: point.to_owned(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.point.join(name)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let done = Command::new("umount").arg(&self.point).status();
        if !std::thread::panicking() {
            assert!(done.unwrap().success(), "cannot unmount");
        }
    }
}

fn try_mount(mounts: &[Mount], point: &Path, more: &[&str]) -> bool {
    let [mount] = mounts else {
        panic!("exactly one mount: {mounts:?}")
    };
    let mut options = mount.options.clone();
    options.extend(more.iter().map(|option| (*option).to_owned()));
    let done = Command::new("mount")
        .args(["-t", &mount.kind, "-o", &options.join(",")])
        .args([Path::new(&mount.source), point])
        .stderr(std::process::Stdio::null())
        .status();
    done.unwrap().success()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_are_made_stacked_seen_and_removed() {
    use std::os::unix::fs::MetadataExt;
    let node = Node::new().await;
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
    let node = Node::new().await;
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
        let script = "mount --make-rprivate / && mount -t ext4 \"$1\" \"$2\" && exec sleep 600";
        let child = Command::new("unshare")
            .args(["-m", "sh", "-c", script, "sh", &mounts[0].source])
            .arg(point)
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
    let node = Node::new().await;
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
    let node = Node::new().await;
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
    let check = Command::new("e2fsck")
        .args(["-fn", &mounts[0].source])
        .output()
        .unwrap();
    assert!(
        check.status.success(),
        "{}",
        String::from_utf8_lossy(&check.stdout)
    );
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
    let mut parent = String::new();
    let (mut took, mut sealed) = (Vec::new(), Vec::new());
    for depth in 0..DEPTH {
        let name = format!("layer {depth}");
        let start = Instant::now();
        node.prepare("k", &parent).await;
        took.push(start.elapsed());
        let start = Instant::now();
        node.commit(&name, "k").await;
        sealed.push(start.elapsed());
        parent = name;
    }
    let median = |times: &[Duration]| {
        let mut times = times.to_vec();
        times.sort();
        times[times.len() / 2]
    };
    let (flat, deep) = (median(&took[1..16]), median(&took[DEPTH - 15..]));
    let sealed = median(&sealed);
    eprintln!("prepare: {flat:?} over few layers, {deep:?} over {DEPTH}; commit: {sealed:?}");
    // Opening a chain reads the header and index of each delta once: microseconds a layer.
    assert!(
        deep < flat * 3 + Duration::from_millis(20),
        "{flat:?}, then {deep:?}"
    );
    let view = node.view("v", &parent).await;
    assert_eq!(names(&Mounted::new(&view, &node.point("v")).point), [""; 0]);
    node.end().await;
}
