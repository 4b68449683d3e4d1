use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::super::Choices;
use super::{Error, Filesystem, Layout, Superblock, Tools};

/// Every size class: empty root with the right mode, clean, small on the host, grows to where it should.
#[tokio::test]
async fn a_golden_file_system_is_empty_clean_and_sparse() {
    let tools = Tools::find().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    for (size, most) in [
        (64 << 20, 1 << 20),
        (1 << 30, 1 << 20),
        (10_u64 << 30, 2 << 20),
        (100 << 30, 8 << 20),
        (2 << 40, 64 << 20),
    ] {
        let path = dir.path().join(size.to_string());
        let layout = Layout::new(size, &Choices::default()).unwrap();
        let made = Filesystem::make(&path, &layout, &tools).await.unwrap();
        made.check(&tools).await.unwrap();
        let superblock = Superblock::read(&path).unwrap();
        assert_eq!(superblock.size(), size);
        assert!(superblock.clean && !superblock.needs_recovery);
        let held = path.metadata().unwrap().blocks() * 512;
        assert!(held < most, "{size}: {held} bytes on the host");
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o444);
        let root = tools
            .debugfs
            .run(&["-R", "stat /", path.to_str().unwrap()])
            .await;
        let root = root.unwrap().success().unwrap();
        assert!(root.contains("Mode:  0755"), "{root}");
        assert!(root.contains("User:     0   Group:     0"), "{root}");
    }
}

/// From the start or later, and at other sizes.
#[tokio::test]
async fn quota_counts_from_the_start() {
    let tools = Tools::find().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    for user_quota in [true, false] {
        let path = dir.path().join(user_quota.to_string());
        let choices = Choices {
            user_quota,
            ..Choices::default()
        };
        let layout = Layout::new(1 << 30, &choices).unwrap();
        let made = Filesystem::make(&path, &layout, &tools).await.unwrap();
        assert_eq!(Superblock::read(&path).unwrap().user_quota, user_quota);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_len(4 << 30).unwrap();
        if !user_quota {
            made.keep_user_quota(&tools).await.unwrap();
        }
        for size in [4 << 30, 128 << 20, 2 << 30] {
            made.check(&tools).await.unwrap();
            made.resize(size, &tools).await.unwrap();
            assert!(Superblock::read(&path).unwrap().user_quota);
        }
        made.check(&tools).await.unwrap();
    }
}

#[tokio::test]
async fn damage_is_found() {
    use std::os::unix::fs::FileExt;
    let tools = Tools::find().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    let layout = Layout::new(64 << 20, &Choices::default()).unwrap();
    let made = Filesystem::make(&path, &layout, &tools).await.unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    // The block bitmaps follow the group descriptors; wipe what lies after the first few blocks.
    file.write_all_at(&[0x55; 64 << 10], 8192).unwrap();
    let error = made.check(&tools).await.unwrap_err();
    assert!(matches!(error, Error::Tool(_)), "{error}");
}

/// An empty one of a GiB that may be written to.
async fn writable(path: &std::path::Path, tools: &Tools) -> Filesystem {
    let layout = Layout::new(1 << 30, &Choices::default()).unwrap();
    let made = Filesystem::make(path, &layout, tools).await.unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_len(4 << 30).unwrap();
    made
}

/// debugfs's commands, one after another.
async fn debugfs(path: &std::path::Path, commands: &str, tools: &Tools) {
    let script = path.with_extension("commands");
    std::fs::write(&script, commands).unwrap();
    let words = ["-w", "-f", script.to_str().unwrap(), path.to_str().unwrap()];
    let said = tools.debugfs.run(&words).await.unwrap();
    said.success().unwrap();
}

/// Where a golden file system has all that it has: bytes, and blocks on the host.
fn begin(path: &std::path::Path) -> (Vec<u8>, u64) {
    use std::io::Read;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).unwrap();
    let blocks = file.metadata().unwrap().blocks();
    file.take(64 << 20).read_to_end(&mut bytes).unwrap();
    (bytes, blocks)
}

/// A journal that is to be replayed would undo the half of what a resize did.
#[tokio::test]
async fn one_that_was_not_unmounted_keeps_its_size() {
    let tools = Tools::find().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    let made = writable(&path, &tools).await;
    for (commands, how) in [
        ("feature needs_recovery", "not unmounted to the end"),
        ("feature ^needs_recovery\nset_super_value state 3", "errors"),
    ] {
        debugfs(&path, commands, &tools).await;
        let before = begin(&path);
        for size in [2 << 30, 512 << 20] {
            let error = made.resize(size, &tools).await.unwrap_err();
            assert!(matches!(error, Error::Torn { .. }), "{error}");
            assert!(error.to_string().contains(how), "{error}");
        }
        assert!(begin(&path) == before, "it was written to");
    }
}

/// Files need inodes: more than the smaller one would have.
#[tokio::test]
async fn what_does_not_fit_leaves_no_trace() {
    let tools = Tools::find().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    let made = writable(&path, &tools).await;
    // 65,536 inodes in eight groups; in one there would be 8,192.
    let many: String = (0..9000).map(|it| format!("mknod p{it} p\n")).collect();
    debugfs(&path, &many, &tools).await;
    made.check(&tools).await.unwrap();
    let error = made.resize(128 << 20, &tools).await.unwrap_err();
    assert!(
        matches!(error, Error::TooFewInodes { inodes: 8192, .. }),
        "{error}"
    );
    assert!(
        error.to_string().starts_with("9010 files are there"),
        "{error}"
    );
    made.check(&tools).await.unwrap();
    // Where they fit.
    made.resize(256 << 20, &tools).await.unwrap();
    made.check(&tools).await.unwrap();
}

/// A last group too small to be one is left out, which resize2fs alone knows: it finds that there is no room when it has
/// marked the file system already.
#[tokio::test]
async fn a_resize_that_fails_leaves_no_mark() {
    let tools = Tools::find().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    let made = writable(&path, &tools).await;
    let many: String = (0..9000).map(|it| format!("mknod p{it} p\n")).collect();
    debugfs(&path, &many, &tools).await;
    let error = made.resize(129 << 20, &tools).await.unwrap_err();
    assert!(matches!(error, Error::TooSmall { .. }), "{error}");
    assert_eq!(Superblock::read(&path).unwrap().torn(), None);
    made.check(&tools).await.unwrap();
    made.resize(256 << 20, &tools).await.unwrap();
    made.check(&tools).await.unwrap();
}
