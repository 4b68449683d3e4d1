//! A node of one snapshotter on a real disk server, and its mounts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ploop_snapshotter::link::{self, Servers, StartOptions};
use ploop_snapshotter::snapshot::{
    Error, Labels, Mount, NameOptions, Options, Snapshotter, Snapshotters,
};

use crate::support::host;

/// A node: root, disk server, snapshotter. Everything goes when it is dropped.
pub(super) struct Node {
    pub(super) ploop: Arc<Snapshotter>,
    pub(super) all: Snapshotters,
    pub(super) servers: Arc<Servers>,
    pub(super) name: NameOptions,
    /// Last: it ends the disk server.
    pub(super) folder: Folder,
}

/// A directory, and the disk server that runs in it.
pub(super) struct Folder {
    pub(super) dir: tempfile::TempDir,
    pub(super) servers: Arc<Servers>,
    /// Snapshotters over the same root beside the node's own.
    pub(super) others: Vec<NameOptions>,
}

impl Folder {
    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// The snapshotter of most tests.
pub(super) fn usual() -> NameOptions {
    NameOptions {
        size: 256 << 20,
        ..NameOptions::new("ploop")
    }
}

impl Node {
    pub(super) async fn new() -> Self {
        Self::of(usual()).await
    }

    pub(super) async fn of(name: NameOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (root, run) = (folder.path().join("root"), folder.path().join("run"));
        let config = folder.path().join("config.toml");
        fs::create_dir_all(&run).unwrap();
        let text = format!("root = {root:?}\nrun_dir = {run:?}\n");
        fs::write(&config, text).unwrap();
        let servers = Servers::start(link::Options {
            run,
            servers: 1,
            installed: env!("CARGO_BIN_EXE_ploopd").into(),
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
        let folder = Folder {
            dir,
            servers,
            others: Vec::new(),
        };
        Self::open(folder, name).await
    }

    /// The snapshotter ends in order, and another one starts.
    pub(super) async fn restarted(self) -> Self {
        let name = self.name.clone();
        self.restarted_as(name).await
    }

    /// The same with another configuration.
    pub(super) async fn restarted_as(self, name: NameOptions) -> Self {
        let Self {
            folder, all, ploop, ..
        } = self;
        drop((all, ploop));
        Self::open(folder, name).await
    }

    pub(super) async fn open(folder: Folder, name: NameOptions) -> Self {
        let mut options = Options::new(folder.path().join("root"));
        options.busy_wait = Duration::from_millis(500);
        options.run = Some(folder.path().join("run"));
        options.names = vec![name.clone()];
        options.names.extend(folder.others.iter().cloned());
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
            name,
        }
    }

    pub(super) fn point(&self, name: &str) -> PathBuf {
        let point = self.folder.path().join("mnt").join(name);
        fs::create_dir_all(&point).unwrap();
        point
    }

    pub(super) async fn prepare(&self, key: &str, parent: &str) -> Vec<Mount> {
        let made = self.ploop.prepare(key, parent, Labels::new()).await;
        made.unwrap_or_else(|error| panic!("prepare {key}: {}", chain(&error)))
    }

    pub(super) async fn view(&self, key: &str, parent: &str) -> Vec<Mount> {
        let made = self.ploop.view(key, parent, Labels::new()).await;
        made.unwrap_or_else(|error| panic!("view {key}: {}", chain(&error)))
    }

    pub(super) async fn commit(&self, name: &str, key: &str) {
        let done = self.ploop.commit(name, key, Labels::new()).await;
        done.unwrap_or_else(|error| panic!("commit {name}: {}", chain(&error)));
    }

    /// One layer: prepared, mounted, changed, unmounted, committed.
    pub(super) async fn layer(&self, name: &str, parent: &str, change: impl FnOnce(&Path)) {
        let key = format!("making {name}");
        let mounts = self.prepare(&key, parent).await;
        let mounted = Mounted::new(&mounts, &self.point("layer"));
        change(&mounted.point);
        drop(mounted);
        self.commit(name, &key).await;
    }

    pub(super) fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path().join("root/deltas")).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Ends the snapshotter, the disk server, and looks for what they left.
    pub(super) async fn end(self) {
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

pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

/// Mounted until dropped.
pub(super) struct Mounted {
    pub(super) point: PathBuf,
}

impl Mounted {
    pub(super) fn new(mounts: &[Mount], point: &Path) -> Self {
        assert!(try_mount(mounts, point, &[]), "cannot mount {mounts:?}");
        Self {
            point: point.to_owned(),
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.point.join(name)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A child that another test has just started holds our open files too, until it is a program of its own.
        let begun = Instant::now();
        let done = || Command::new("umount").arg(&self.point).status();
        let mut gone = done().is_ok_and(|status| status.success());
        while !gone && begun.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(20));
            gone = done().is_ok_and(|status| status.success());
        }
        assert!(gone || std::thread::panicking(), "cannot unmount");
    }
}

pub(super) fn try_mount(mounts: &[Mount], point: &Path, more: &[&str]) -> bool {
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

/// Is the file system on a disk that nobody has mounted whole? The kernel's own verdict is not enough.
pub(super) fn whole(mount: &Mount) {
    let (program, words) = match mount.kind.as_str() {
        "xfs" => ("xfs_repair", &["-n", "-f"][..]),
        _ => ("e2fsck", &["-fn"][..]),
    };
    let done = Command::new(program)
        .args(words)
        .arg(&mount.source)
        .output()
        .unwrap();
    let said = [done.stdout, done.stderr].concat();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&said));
}

pub(super) fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
