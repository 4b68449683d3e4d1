//! The host's disk has blocks of 4096 bytes: what lies on it is read and written in whole ones.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use crate::support::engine::Engine;
use ploop_snapshotter::chain;
use ploop_snapshotter::disk::{Error, Options};
use ploop_snapshotter::units::ClusterSize;

/// A file system on a disk of such blocks, taken down at the end.
struct LargeBlocks {
    folder: tempfile::TempDir,
}

impl LargeBlocks {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("host.img");
        fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        let image = image.to_str().unwrap();
        let device = run(&[
            "losetup",
            "--find",
            "--show",
            "--sector-size",
            "4096",
            image,
        ]);
        let host = Self { folder };
        let root = host.root();
        fs::create_dir(&root).unwrap();
        run(&["mkfs.ext4", "-q", &device]);
        run(&["mount", &device, root.to_str().unwrap()]);
        // From now on the device goes with its last user.
        run(&["losetup", "--detach", &device]);
        host
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }
}

impl Drop for LargeBlocks {
    fn drop(&mut self) {
        run(&["umount", "-l", self.root().to_str().unwrap()]);
    }
}

fn run(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(
        output.status.success(),
        "{words:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn engine(host: &LargeBlocks) -> Engine {
    let options = Options {
        shards: 1,
        ..Options::default()
    };
    Engine::in_folder(options, &host.root())
}

#[test]
fn whole_blocks_are_served_and_kept() {
    let host = LargeBlocks::new();
    let engine = engine(&host);
    let deltas = [engine.create("disk", 16 << 20, ClusterSize::DEFAULT)];
    let disk = engine.open(&deltas);
    disk.try_write(4096, &[7; 12_288], false).unwrap();
    disk.try_write(1 << 20, &[8; 4096], true).unwrap();
    disk.close();
    let disk = engine.open(&deltas);
    assert_eq!(disk.read(4096, 12_288), [7; 12_288]);
    assert_eq!(disk.read((1 << 20) - 4096, 4096), [0; 4096]);
    assert_eq!(disk.read(1 << 20, 4096), [8; 4096]);
}

#[test]
fn a_disk_that_ends_inside_a_block_is_refused() {
    let host = LargeBlocks::new();
    let engine = engine(&host);
    // Only another program's image ends so: ours are made of whole clusters.
    let deltas = [engine.create("odd", 16 << 20, ClusterSize::DEFAULT)];
    let size: u64 = (16 << 20) - 512;
    let file = fs::File::options().write(true).open(engine.path("odd"));
    let sectors = (size / 512).to_le_bytes();
    file.unwrap().write_all_at(&sectors, 36).unwrap();
    let before = fs::read(engine.path("odd")).unwrap();
    match engine.try_open(&deltas, false).map(drop) {
        Err(Error::Chain(chain::Error::Block {
            size: found,
            block: 4096,
            ..
        })) => assert_eq!(found, size),
        other => panic!("{other:?}"),
    }
    let after = fs::read(engine.path("odd")).unwrap();
    assert!(before == after, "it is not marked as in use");
}
