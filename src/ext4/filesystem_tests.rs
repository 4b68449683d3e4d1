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
