//! The host's disk is full while disks are written: the writes wait, nothing is lost, they go on.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::support::engine::{Engine, ploop};
use ploop_snapshotter::disk::{Errno, Options, Request};
use ploop_snapshotter::image;
use ploop_snapshotter::io::{Direct, Piece, now};
use ploop_snapshotter::link::{self, Access, Servers};
use ploop_snapshotter::seat::{Name, Seat};
use ploop_snapshotter::server;
use ploop_snapshotter::units::ClusterSize;

/// A small file system of its own, taken down at the end.
struct SmallHost {
    folder: tempfile::TempDir,
}

impl SmallHost {
    fn new(megabytes: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("host.img");
        fs::File::create(&image)
            .unwrap()
            .set_len(megabytes << 20)
            .unwrap();
        let host = Self { folder };
        fs::create_dir(host.root()).unwrap();
        run("mkfs.ext4", &["-q", "-m", "0"], &[&image]);
        run("mount", &["-o", "loop"], &[&image, &host.root()]);
        host
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn fill(&self) -> PathBuf {
        let filler = self.root().join("filler");
        let file = fs::File::create(&filler).unwrap();
        let mut length = 0;
        for step in [1 << 20, 64 << 10, 4 << 10] {
            let none = rustix::fs::FallocateFlags::empty();
            while rustix::fs::fallocate(&file, none, length, step).is_ok() {
                length += step;
            }
        }
        filler
    }
}

impl Drop for SmallHost {
    fn drop(&mut self) {
        run("umount", &["-l"], &[&self.root()]);
    }
}

fn run(program: &str, options: &[&str], paths: &[&Path]) {
    let output = Command::new(program)
        .args(options)
        .args(paths)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn engine_on(host: &SmallHost, patience: Duration) -> Engine {
    Engine::in_folder(
        Options {
            shards: 1,
            patience,
        },
        &host.root(),
    )
}

#[test]
fn writes_wait_for_space_and_go_on() {
    let host = SmallHost::new(64);
    let engine = engine_on(&host, Duration::from_secs(60));
    let cluster = ClusterSize::DEFAULT;
    let delta = engine.create("0.hds", 32 << 20, cluster);
    let disk = engine.open(std::slice::from_ref(&delta));
    disk.try_write(0, &vec![1; 1 << 20], false).unwrap();
    disk.flush();
    let filler = host.fill();

    let (answer, answered) = mpsc::channel();
    let data = Piece::from_bytes(&vec![2; 8 << 20]);
    disk.handle.submit(Request::write(
        8 << 20,
        data,
        true,
        Box::new(move |result| answer.send(result.map(drop)).unwrap()),
    ));
    assert!(
        answered.recv_timeout(Duration::from_secs(1)).is_err(),
        "the write waits"
    );
    assert_eq!(disk.handle.stats().held_requests, 1, "and it shows");
    assert_eq!(
        disk.read(0, 1 << 20),
        vec![1; 1 << 20],
        "others go on meanwhile"
    );

    fs::remove_file(filler).unwrap();
    assert_eq!(
        answered.recv_timeout(Duration::from_secs(30)).unwrap(),
        Ok(())
    );
    assert_eq!(disk.handle.stats().held_requests, 0);
    assert_eq!(disk.handle.failed(), None);
    disk.close();
    let disk = engine.open(std::slice::from_ref(&delta));
    assert_eq!(disk.read(8 << 20, 8 << 20), vec![2; 8 << 20]);
    disk.close();
}

#[test]
fn patience_ends_with_enospc_and_nothing_else_is_touched() {
    let host = SmallHost::new(64);
    let engine = engine_on(&host, Duration::from_millis(400));
    let cluster = ClusterSize::DEFAULT;
    let delta = engine.create("0.hds", 32 << 20, cluster);
    let disk = engine.open(std::slice::from_ref(&delta));
    disk.try_write(0, &vec![1; 1 << 20], false).unwrap();
    disk.flush();
    let filler = host.fill();
    assert_eq!(
        disk.try_write(8 << 20, &vec![2; 8 << 20], false),
        Err(Errno::NOSPC)
    );
    assert_eq!(
        disk.handle.failed(),
        None,
        "a full host is no reason to give a disk up"
    );
    fs::remove_file(filler).unwrap();
    assert_eq!(
        disk.read(8 << 20, 8 << 20),
        vec![0; 8 << 20],
        "the write did not happen"
    );
    disk.try_write(8 << 20, &vec![3; 1 << 20], true).unwrap();
    assert_eq!(disk.read(0, 1 << 20), vec![1; 1 << 20]);
    disk.close();
}

/// Each of a device's requests held a cluster's memory for as long as the host was full.
#[test]
fn only_some_copies_wait_for_space_and_all_for_as_long() {
    let host = SmallHost::new(64);
    let engine = engine_on(&host, Duration::from_secs(2));
    let cluster = ClusterSize::new(1 << 20).unwrap();
    let base = engine.create("0.hds", 32 << 20, cluster);
    let disk = engine.open(std::slice::from_ref(&base));
    disk.try_write(0, &vec![1; 16 << 20], false).unwrap();
    let base = ploop(&base.path, Some(disk.seal()));
    let deltas = [base, engine.create("1.hds", 32 << 20, cluster)];
    let disk = engine.open(&deltas);
    let filler = host.fill();
    let begun = Instant::now();
    let (answer, answered) = mpsc::channel();
    for cluster in 0..16 {
        let answer = answer.clone();
        let data = Piece::from_bytes(&[2; 4096]);
        let done = Box::new(move |result: Result<Piece, Errno>| {
            let _ = answer.send(result.map(drop));
        });
        let write = Request::write(cluster << 20, data, false, done);
        disk.handle.submit(write);
    }
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(disk.handle.stats().held_requests, 4);
    for _ in 0..16 {
        let answer = answered.recv_timeout(Duration::from_secs(30));
        assert_eq!(answer.unwrap(), Err(Errno::NOSPC));
    }
    // One after the other it would have been eight seconds.
    assert!(
        begun.elapsed() < Duration::from_secs(6),
        "{:?}",
        begun.elapsed()
    );
    fs::remove_file(filler).unwrap();
    disk.try_write(15 << 20, &[3; 4096], false).unwrap();
    assert_eq!(disk.read((15 << 20) + 4096, 4096), [1; 4096]);
    disk.close();
}

/// What is about to be deleted waited for the space to be written first.
#[test]
fn a_disk_that_is_not_sealed_is_closed_on_a_full_host_at_once() {
    let host = SmallHost::new(64);
    let engine = engine_on(&host, Duration::from_secs(60));
    let delta = engine.create("0.hds", 512 << 20, ClusterSize::DEFAULT);
    let chain = std::slice::from_ref(&delta);
    let disk = engine.open(chain);
    // Its entry lies in a page of the index that the host has not placed yet.
    disk.try_write(256 << 20, &[1; 65536], false).unwrap();
    let filler = host.fill();
    let begun = Instant::now();
    disk.try_close().unwrap_err();
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
    fs::remove_file(filler).unwrap();
    let disk = engine.open(chain);
    assert_eq!(disk.read(256 << 20, 65536), [1; 65536], "it was answered");
    disk.close();
}

/// The kernel tries no write again and containerd's unmount says nothing: what was refused once is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_disk_that_refused_a_write_is_never_sealed() {
    let host = SmallHost::new(64);
    let run = tempfile::tempdir().unwrap();
    let mut options = server::Options::new(Seat::new(run.path(), Name::PLAIN));
    options.disk = Options {
        shards: 1,
        patience: Duration::from_millis(200),
    };
    let serving = tokio::spawn(server::run(options));
    let limits = link::Limits::default();
    let start = None;
    let servers = Servers::start(link::Options {
        run: run.path().to_owned(),
        servers: 1,
        installed: env!("CARGO_BIN_EXE_ploopd").into(),
        start,
        limits,
    })
    .await
    .unwrap();
    let path = host.root().join("1.hds");
    let file = fs::File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path);
    let file = Direct::new(file.unwrap()).unwrap();
    now(image::ploop::create(&file, 32 << 20, ClusterSize::DEFAULT)).unwrap();
    drop(file);
    let (format, seal) = (link::Format::Ploop, None);
    let deltas = [link::Delta { path, format, seal }];
    let disk = servers.attach("s1", &deltas, Access::Write).await.unwrap();

    let filler = host.fill();
    let device = disk.device.clone();
    let write = move || {
        let file = fs::File::options().write(true).open(device).unwrap();
        file.write_all_at(&vec![2; 8 << 20], 0)
            .and_then(|()| file.sync_all())
    };
    tokio::task::spawn_blocking(write)
        .await
        .unwrap()
        .unwrap_err();
    fs::remove_file(filler).unwrap();
    for _ in 0..2 {
        let error = servers.detach("s1", true).await.unwrap_err();
        assert_eq!(error.kind(), link::Kind::Corrupt, "{error}");
    }
    servers.detach("s1", false).await.unwrap();
    assert_eq!(servers.drain().await.unwrap(), 0);
    serving.await.unwrap().unwrap();
}
