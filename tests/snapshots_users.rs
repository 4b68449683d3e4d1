//! Users' quota on real devices, as far as it needs no kernel that mounts it: the rest is `tests/e2e/user-quota`.

use std::path::Path;

use ploop_snapshotter::ext4::{self, Superblock};
use ploop_snapshotter::filesystem::Choices;
use ploop_snapshotter::snapshot::{Labels, Mount, NameOptions};

use super::sizes::label;
use super::{Node, usual, whole};

const PLAIN: [&str; 4] = ["rw", "noatime", "noinit_itable", "discard"];
const ENFORCED: [&str; 6] = [
    "rw",
    "noatime",
    "noinit_itable",
    "discard",
    "usrquota",
    "grpquota",
];

pub(super) fn counting() -> NameOptions {
    let mut name = usual();
    name.file_system = Choices::Ext4(ext4::Choices {
        user_quota: true,
        ..ext4::Choices::default()
    });
    name
}

fn superblock(mounts: &[Mount]) -> Superblock {
    Superblock::read(Path::new(&mounts[0].source)).unwrap()
}

/// Whether something is counted is the file system's to know, whether it matters the configuration's.
#[tokio::test(flavor = "multi_thread")]
async fn users_are_counted_from_the_first_layer_or_when_a_container_is_prepared() {
    let node = Node::new().await;
    node.layer("image", "", |root| {
        std::fs::write(root.join("content"), vec![7; 50 << 20]).unwrap();
    })
    .await;
    let before = node.prepare("before", "image").await;
    assert_eq!(before[0].options, PLAIN);

    let node = node.restarted_as(counting()).await;
    // One that was there before stays as it was.
    let before = node.ploop.mounts("before").await.unwrap();
    assert_eq!(before[0].options, PLAIN);
    assert!(!superblock(&before).user_quota);
    let view = node.view("view", "image").await;
    assert_eq!(view[0].options, ["ro", "noload"]);
    assert!(!superblock(&view).user_quota);
    for (key, parent, size) in [
        ("nothing", "", "256Mi"),
        ("large nothing", "", "2Gi"),
        ("image's", "image", "256Mi"),
        ("small", "image", "128Mi"),
        ("large", "image", "3Gi"),
    ] {
        let size = label("containerd.io/snapshot/ploop.size", size);
        let mounts = node.ploop.prepare(key, parent, size).await.unwrap();
        assert_eq!(mounts[0].options, ENFORCED, "{key}");
        assert!(superblock(&mounts).user_quota, "{key}");
        whole(&mounts[0]);
        for size in [1 << 30, 200 << 20] {
            node.ploop.resize(key, size).await.unwrap();
            let mounts = node.ploop.mounts(key).await.unwrap();
            assert_eq!(mounts[0].options, ENFORCED, "{key}");
            assert!(superblock(&mounts).user_quota, "{key}");
            whole(&mounts[0]);
        }
    }
    // What is committed hands it on.
    node.commit("layer", "nothing").await;
    let above = node.prepare("above", "layer").await;
    assert_eq!(above[0].options, ENFORCED);
    whole(&above[0]);

    let node = node.restarted_as(usual()).await;
    let above = node.ploop.mounts("above").await.unwrap();
    assert!(superblock(&above).user_quota);
    assert_eq!(above[0].options, PLAIN);
    for key in [
        "before",
        "view",
        "large nothing",
        "image's",
        "small",
        "large",
        "above",
    ] {
        node.ploop.remove(key).await.unwrap();
    }
    let left = node.ploop.prepare("last", "image", Labels::new()).await;
    assert!(!superblock(&left.unwrap()).user_quota);
    node.ploop.remove("last").await.unwrap();
    node.end().await;
}
