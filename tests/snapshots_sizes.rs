//! Sizes on real devices: what is asked for is what `df` says, at Prepare and afterwards.
#![expect(
    clippy::print_stdout,
    reason = "how long it took is for a person to see"
)]

use std::fs;
use std::io::{Seek, SeekFrom};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use ploop_snapshotter::ext4;
use ploop_snapshotter::filesystem::Choices;
use ploop_snapshotter::snapshot::{ErrorKind, Labels, Mount, NameOptions};
use ploop_snapshotter::units::Bytes;

use super::checked::{check, whats};
use super::{Mounted, Node, chain, try_mount, usual, whole};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const OURS: &str = "containerd.io/snapshot/ploop.size";
const THEIRS: &str = "containerd.io/snapshot/max-size";

pub(super) fn label(key: &str, value: &str) -> Labels {
    Labels::from([(key.to_owned(), value.to_owned())])
}

/// Bytes and inodes of a mounted file system, and bytes that are used.
pub(super) fn df(point: &Path) -> (u64, u64, u64) {
    let found = rustix::fs::statvfs(point).unwrap();
    let used = found.f_blocks - found.f_bfree;
    (
        found.f_blocks * found.f_frsize,
        found.f_files,
        used * found.f_frsize,
    )
}

/// Is a file system what a disk of so many bytes holds? Its own tables take a part.
fn fits(found: u64, size: u64) -> bool {
    found <= size && found > size - size / 16 - 24 * MIB
}

impl Node {
    pub(super) async fn sized(&self, key: &str, parent: &str, labels: Labels) -> Vec<Mount> {
        let made = self.ploop.prepare(key, parent, labels).await;
        made.unwrap_or_else(|error| panic!("prepare {key}: {}", chain(&error)))
    }

    /// An image with a file of 50 MiB in it.
    pub(super) async fn image(&self) {
        self.layer("image", "", |root| {
            fs::write(root.join("content"), vec![7; 50 << 20]).unwrap();
        })
        .await;
    }

    fn holds(&self, mounts: &[Mount], key: &str, size: u64) -> u64 {
        whole(&mounts[0]);
        let mounted = Mounted::new(mounts, &self.point(key));
        let (bytes, inodes, _) = df(&mounted.point);
        assert!(fits(bytes, size), "{key}: {bytes} of {size}");
        assert_eq!(
            fs::read(mounted.path("content")).unwrap(),
            vec![7; 50 << 20]
        );
        inodes
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_has_the_size_that_its_labels_ask_for() {
    let node = Node::new().await;
    node.image().await;
    let before = node.files().len();
    let plain = node.prepare("plain", "image").await;
    let inodes = node.holds(&plain, "plain", 256 * MIB);
    let begun = Instant::now();
    let large = node.sized("large", "image", label(OURS, "3Gi")).await;
    let first = begun.elapsed();
    assert!(
        node.holds(&large, "large", 3 * GIB) > 8 * inodes,
        "inodes grow too"
    );
    let begun = Instant::now();
    let bytes = (3 * GIB).to_string();
    let again = node.sized("again", "image", label(THEIRS, &bytes)).await;
    let second = begun.elapsed();
    node.holds(&again, "again", 3 * GIB);
    let small = node
        .sized("small", "image", label(THEIRS, "134217728"))
        .await;
    node.holds(&small, "small", 128 * MIB);
    println!("the first of its size took {first:?}, the second {second:?}");
    // One delta for each container, and one for each size.
    assert_eq!(node.files().len(), before + 4 + 2);
    // What nobody can read is nobody's wish.
    let odd = node.sized("odd", "image", label(THEIRS, "3Gi")).await;
    node.holds(&odd, "odd", 256 * MIB);
    for (value, kind, words) in [
        (
            "much",
            ErrorKind::InvalidArgument,
            "no size: write one such as 20Gi",
        ),
        (
            "1Mi",
            ErrorKind::InvalidArgument,
            "a size is from 64.0 MiB to 8.00 TiB here",
        ),
        (
            "64Mi",
            ErrorKind::FailedPrecondition,
            "are used, its journal and tables counted, which does not fit",
        ),
    ] {
        let error = node
            .ploop
            .prepare("bad", "image", label(OURS, value))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), kind, "{}", chain(&error));
        assert!(chain(&error).contains(words), "{}", chain(&error));
    }
    // Nothing of it is seen from outside, and it goes with its image.
    let infos = node.ploop.list().await.unwrap();
    assert_eq!(infos.len(), 6);
    assert!(
        infos
            .iter()
            .all(|info| info.name == "image" || info.parent == "image")
    );
    let refused = node.ploop.remove("image").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::FailedPrecondition);
    for key in ["plain", "large", "again", "small", "odd", "image"] {
        node.ploop.remove(key).await.unwrap();
    }
    node.ploop.cleanup().await.unwrap();
    assert_eq!(node.files(), [""; 0]);
    node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_images_annotation_is_its_containers_size() {
    let node = Node::new().await;
    let wish = label(OURS, "1Gi");
    let mounts = node.sized("unpacking", "", wish.clone()).await;
    let mounted = Mounted::new(&mounts, &node.point("layer"));
    assert!(fits(df(&mounted.point).0, GIB));
    fs::write(mounted.path("content"), vec![7; 50 << 20]).unwrap();
    drop(mounted);
    node.ploop.commit("lower", "unpacking", wish).await.unwrap();
    node.layer("upper", "lower", |_| {}).await;
    let mounts = node.prepare("inherits", "upper").await;
    node.holds(&mounts, "inherits", GIB);
    let own = node.sized("own", "upper", label(OURS, "512Mi")).await;
    node.holds(&own, "own", 512 * MIB);
    for key in ["inherits", "own"] {
        node.ploop.remove(key).await.unwrap();
    }
    node.end().await;
}

/// What nobody who starts a container can change is no reason to refuse it.
#[tokio::test(flavor = "multi_thread")]
async fn an_annotation_outside_the_limits_gives_what_they_allow() {
    let node = Node::new().await;
    node.image().await;
    for wish in ["20Gi", "64Mi"] {
        node.prepare("top", "image").await;
        let done = node.ploop.commit(wish, "top", label(OURS, wish)).await;
        done.unwrap_or_else(|error| panic!("{}", chain(&error)));
    }
    let limits = NameOptions {
        // No multiple of a cluster: rounded down it would be refused.
        smallest: 128 * MIB + 4096,
        largest: 2 * GIB,
        ..usual()
    };
    let node = node.restarted_as(limits).await;
    for (image, size) in [("20Gi", 2 * GIB), ("64Mi", 128 * MIB)] {
        let key = format!("on {image}");
        let mounts = node.prepare(&key, image).await;
        node.holds(&mounts, &key, size);
    }
    // As containerd's unpacker asks for the layers of an image.
    for (wish, parent, size) in [
        ("20Gi", "image", 2 * GIB),
        ("1Mi", "image", 128 * MIB),
        ("20Gi", "", 2 * GIB),
        ("1Mi", "", 128 * MIB),
        ("much", "image", 256 * MIB),
    ] {
        let key = format!("{wish} over {parent}");
        let mut labels = label(OURS, wish);
        labels.insert("containerd.io/snapshot.ref".to_owned(), key.clone());
        let mounts = node.sized(&key, parent, labels).await;
        let mounted = Mounted::new(&mounts, &node.point(&key));
        let (found, ..) = df(&mounted.point);
        assert!(fits(found, size), "{key}: {found}");
    }
    let asked = node.ploop.prepare("asked", "image", label(OURS, "20Gi"));
    let error = asked.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

/// mkfs leaves out a last block group that is too small for anything: here, of 380 blocks.
#[tokio::test(flavor = "multi_thread")]
async fn a_size_that_is_no_multiple_of_a_block_group_is_one() {
    let node = Node::new().await;
    let mounts = node.sized("base", "", label(OURS, "20G")).await;
    let mounted = Mounted::new(&mounts, &node.point("base"));
    assert!(fits(df(&mounted.point).0, 20_000_000_000));
    fs::write(mounted.path("content"), vec![7; 50 << 20]).unwrap();
    drop(mounted);
    node.commit("odd", "base").await;
    // A golden file that is there is looked at again, and so are layers.
    let node = node.restarted().await;
    for key in ["a", "b"] {
        let mounts = node.sized(key, "odd", label(OURS, "20G")).await;
        node.holds(&mounts, key, 20_000_000_000);
    }
    let mounts = node.sized("other", "", label(OURS, "20G")).await;
    whole(&mounts[0]);
    let root = node.folder.path().join("root");
    node.ploop.cleanup().await.unwrap();
    assert_eq!(node.all.detach_idle().await.unwrap(), 0);
    drop((node.all, node.ploop));
    let (code, answer, said) = check(&root, &[]);
    assert_eq!(code, 0, "{said} {:?}", whats(&answer));
}

/// Somebody died between the file system and the record.
#[tokio::test(flavor = "multi_thread")]
async fn a_resize_that_was_cut_short_is_brought_to_its_end_by_another() {
    let node = Node::new().await;
    node.image().await;
    let mounts = node.prepare("a", "image").await;
    let resize = |size: &str| {
        let mut tool = Command::new("resize2fs");
        let done = tool.args(["-f", &mounts[0].source, size]).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    resize("128M");
    let found = node.ploop.resize("a", 256 * MIB).await;
    assert_eq!(found.unwrap(), 256 * MIB);
    node.holds(&mounts, "a", 256 * MIB);

    // It grew, and a layer is made of it: what stands on it is not cut off.
    node.ploop.resize("a", GIB).await.unwrap();
    resize("128M");
    node.ploop.resize("a", 128 * MIB).await.unwrap();
    resize("1G");
    node.commit("A", "a").await;
    let mounts = node.sized("b", "A", label(OURS, "128Mi")).await;
    node.holds(&mounts, "b", 128 * MIB);
    let mounts = node.sized("c", "A", label(OURS, "1Gi")).await;
    node.holds(&mounts, "c", GIB);
}

/// `df -i`: from the first layer on a chain has the ratio that it was made with.
#[tokio::test(flavor = "multi_thread")]
async fn inodes_scale_with_the_size_as_configured() {
    let mut name = usual();
    name.file_system = Choices::Ext4(ext4::Choices {
        bytes_per_inode: 4096,
        ..ext4::Choices::default()
    });
    let node = Node::of(name).await;
    node.image().await;
    for (key, size) in [("a", "256Mi"), ("b", "2Gi"), ("c", "128Mi")] {
        let mounts = node.sized(key, "image", label(OURS, size)).await;
        let size = size.parse::<Bytes>().unwrap().0;
        assert_eq!(node.holds(&mounts, key, size), size / 4096, "{key}");
    }
    // The configuration changes: what stands on the image keeps its ratio, what stands on nothing has the new one.
    let node = node.restarted_as(usual()).await;
    let mounts = node.prepare("d", "image").await;
    assert_eq!(node.holds(&mounts, "d", 256 * MIB), 256 * MIB / 4096);
    let mounts = node.prepare("e", "").await;
    let mounted = Mounted::new(&mounts, &node.point("e"));
    assert_eq!(df(&mounted.point).1, 256 * MIB / 16384);
    drop(mounted);
    for key in ["a", "b", "c", "d", "e"] {
        node.ploop.remove(key).await.unwrap();
    }
    node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_not_mounted_is_resized_either_way() {
    let node = Node::new().await;
    node.image().await;
    node.prepare("a", "image").await;
    for size in [GIB, 128 * MIB, 2 * GIB, 300 * MIB, 301 * MIB] {
        node.ploop
            .resize("a", size)
            .await
            .unwrap_or_else(|error| panic!("{}", chain(&error)));
        let mounts = node.ploop.mounts("a").await.unwrap();
        node.holds(&mounts, "a", size);
    }
    // The same by a label, as `ctr snapshots label` does it.
    let info = node
        .ploop
        .update("a", label(OURS, "512Mi"), None)
        .await
        .unwrap();
    assert_eq!(info.labels, label(OURS, "512Mi"));
    let mounts = node.ploop.mounts("a").await.unwrap();
    node.holds(&mounts, "a", 512 * MIB);
    let error = node.ploop.resize("a", 64 * MIB).await.unwrap_err();
    assert!(
        chain(&error).contains("are used, its journal and tables counted, which does not fit"),
        "{}",
        chain(&error)
    );
    let error = node.ploop.resize("image", GIB).await.unwrap_err();
    assert!(chain(&error).contains("is not active"), "{}", chain(&error));
    // Mounted it does not shrink, and stays as it was.
    let mounted = Mounted::new(&mounts, &node.point("a"));
    let error = node.ploop.resize("a", 256 * MIB).await.unwrap_err();
    assert!(
        chain(&error).contains("stop its container first"),
        "{}",
        chain(&error)
    );
    assert!(fits(df(&mounted.point).0, 512 * MIB));
    drop(mounted);
    // What was resized is committed and inherited like anything else.
    node.commit("B", "a").await;
    let mounts = node.prepare("b", "B").await;
    node.holds(&mounts, "b", 256 * MIB);
    node.ploop.remove("b").await.unwrap();
    let root = node.folder.path().join("root");
    let all = node.restarted().await;
    assert_eq!(all.all.detach_idle().await.unwrap(), 0);
    drop((all.all, all.ploop));
    let (code, answer, said) = check(&root, &[]);
    assert_eq!(code, 0, "{said} {:?}", whats(&answer));
    drop(all.folder);
}

/// As after a power cut: its journal is to be replayed, and would be over whatever a resize changed.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_not_unmounted_is_not_resized_until_it_was_mounted() {
    let node = Node::new().await;
    node.image().await;
    let mounts = node.prepare("a", "image").await;
    let device = mounts[0].source.clone();
    let torn = Command::new("debugfs")
        .args(["-w", "-R", "feature needs_recovery", &device])
        .output()
        .unwrap();
    assert!(torn.status.success(), "{torn:?}");
    let length = || {
        fs::File::open(&device)
            .unwrap()
            .seek(SeekFrom::End(0))
            .unwrap()
    };
    let before = length();
    for size in [GIB, 128 * MIB] {
        let error = node.ploop.resize("a", size).await.unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::FailedPrecondition,
            "{}",
            chain(&error)
        );
        for words in ["was not unmounted to the end", "start its container once"] {
            assert!(chain(&error).contains(words), "{}", chain(&error));
        }
    }
    assert_eq!(length(), before, "nothing grew");
    drop(Mounted::new(&mounts, &node.point("a")));
    node.holds(&mounts, "a", 256 * MIB);
    node.ploop.resize("a", GIB).await.unwrap();
    node.holds(&node.ploop.mounts("a").await.unwrap(), "a", GIB);
    node.end().await;
}

/// What it stands on, with nothing between, keeps its own size.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_stands_on_nothing_is_resized_and_stood_on() {
    let node = Node::new().await;
    node.prepare("a", "").await;
    for size in [GIB, 128 * MIB] {
        node.ploop.resize("a", size).await.unwrap();
        let mounts = node.ploop.mounts("a").await;
        let mounts = mounts.unwrap_or_else(|error| panic!("{}", chain(&error)));
        whole(&mounts[0]);
        let mounted = Mounted::new(&mounts, &node.point("a"));
        assert!(fits(df(&mounted.point).0, size));
        fs::write(mounted.path("content"), vec![7; 50 << 20]).unwrap();
    }
    node.commit("A", "a").await;
    let mounts = node.prepare("b", "A").await;
    node.holds(&mounts, "b", 256 * MIB);
    let root = node.folder.path().join("root");
    let node = node.restarted().await;
    node.ploop.remove("b").await.unwrap();
    assert_eq!(node.all.detach_idle().await.unwrap(), 0);
    drop((node.all, node.ploop));
    let (code, answer, said) = check(&root, &[]);
    assert_eq!(code, 0, "{said} {:?}", whats(&answer));
    drop(node.folder);
}

/// The kernel needs no zeros behind the end of what it makes larger, and writing any would race with a growth that is
/// under way.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "grows a mounted file system: needs CAP_SYS_RESOURCE"]
async fn a_running_container_grows_over_what_a_larger_one_left() {
    use std::os::unix::fs::FileExt as _;
    let node = Node::new().await;
    node.image().await;
    node.prepare("a", "image").await;
    for size in [512 * MIB, 256 * MIB] {
        node.ploop.resize("a", size).await.unwrap();
    }
    let mounts = node.ploop.mounts("a").await.unwrap();
    let device = fs::File::options().write(true).open(&mounts[0].source);
    let device = device.unwrap();
    for at in 256..512 {
        device.write_all_at(&vec![0x5a; 1 << 20], at * MIB).unwrap();
    }
    device.sync_all().unwrap();
    drop(device);
    let mounted = Mounted::new(&mounts, &node.point("a"));
    node.ploop.resize("a", 512 * MIB).await.unwrap();
    assert!(fits(df(&mounted.point).0, 512 * MIB));
    for number in 0..20_000 {
        fs::write(mounted.path(&format!("file {number}")), "x").unwrap();
    }
    drop(mounted);
    whole(&mounts[0]);
    node.holds(&mounts, "a", 512 * MIB);
    node.ploop.remove("a").await.unwrap();
    node.end().await;
}

/// Needs CAP_SYS_RESOURCE, which the kernel asks for: in the virtual machine.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "grows a mounted file system: needs CAP_SYS_RESOURCE"]
async fn a_running_container_grows_and_goes_on() {
    let node = Node::new().await;
    node.image().await;
    let mounts = node.prepare("a", "image").await;
    let mounted = Mounted::new(&mounts, &node.point("a"));
    // A container that fills its disk.
    let mut file = fs::File::create(mounted.path("fill")).unwrap();
    let full = loop {
        use std::io::Write as _;
        if let Err(error) = file.write_all(&[1; 1 << 20]) {
            break error;
        }
    };
    assert_eq!(full.raw_os_error(), Some(28), "{full}");
    let written = file.metadata().unwrap().len();
    for size in [512 * MIB, 3 * GIB, 10 * GIB] {
        let begun = Instant::now();
        node.ploop
            .resize("a", size)
            .await
            .unwrap_or_else(|error| panic!("{}", chain(&error)));
        println!("to {} MiB while mounted: {:?}", size / MIB, begun.elapsed());
        assert!(fits(df(&mounted.point).0, size), "{:?}", df(&mounted.point));
        use std::io::Write as _;
        file.write_all(&[2; 1 << 20]).unwrap();
    }
    file.sync_all().unwrap();
    assert_eq!(file.metadata().unwrap().len(), written + (3 << 20));
    drop(file);
    drop(mounted);
    node.ploop.mounts("a").await.unwrap();
    whole(&mounts[0]);
    assert!(try_mount(&mounts, &node.point("a"), &[]));
    let mounted = node.point("a");
    assert_eq!(
        fs::read(mounted.join("content")).unwrap(),
        vec![7; 50 << 20]
    );
    assert!(
        Command::new("umount")
            .arg(&mounted)
            .status()
            .unwrap()
            .success()
    );
    node.ploop.remove("a").await.unwrap();
    node.end().await;
}
