//! The host's disk is full while disks are written: the writes wait, nothing is lost, they go on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use crate::support::engine::Engine;
use ploop_snapshotter::disk::{Errno, Options, Request};
use ploop_snapshotter::io::Piece;
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
