//! XFS on real devices: what is done with an ext4 is done with it, but for what it cannot.
#![expect(
    clippy::print_stdout,
    reason = "how long it took, and what it cost, is for a person to see"
)]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use ploop_snapshotter::filesystem::Choices;
use ploop_snapshotter::snapshot::{ErrorKind, Labels, Mount, NameOptions};

use super::checked::{check, whats};
use super::sizes::{df, label};
use super::users::counting;
use super::{Mounted, Node, chain, lost, names, usual, whole};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const OURS: &str = "containerd.io/snapshot/ploop.size";
const WRITABLE: [&str; 4] = ["rw", "noatime", "nouuid", "discard"];

/// The snapshotter of most tests, with the smallest disks that an XFS can have.
fn xfs() -> NameOptions {
    NameOptions {
        size: 300 << 20,
        file_system: Choices::Xfs,
        ..usual()
    }
}

/// Is a file system what a disk of so many bytes holds? Its log takes 64 MiB.
fn fits(found: u64, size: u64) -> bool {
    found <= size - 64 * MIB && found > size - size / 64 - 70 * MIB
}

fn holds(node: &Node, mounts: &[Mount], key: &str, size: u64) {
    assert_eq!(mounts[0].kind, "xfs");
    assert_eq!(mounts[0].options, WRITABLE);
    whole(&mounts[0]);
    let mounted = Mounted::new(mounts, &node.point(key));
    let (bytes, _, _) = df(&mounted.point);
    assert!(fits(bytes, size), "{key}: {bytes} of {size}");
    assert_eq!(
        fs::read(mounted.path("content")).unwrap(),
        vec![7; 50 << 20]
    );
}

/// Ends the node, and asks `ploop check` about its root.
async fn checked(node: Node) {
    let root = node.folder.path().join("root");
    node.ploop.cleanup().await.unwrap();
    assert_eq!(node.all.detach_idle().await.unwrap(), 0);
    drop((node.all, node.ploop));
    let (code, answer, said) = check(&root, &[]);
    assert_eq!(code, 0, "{said} {:?}", whats(&answer));
    drop(node.folder);
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_are_made_stacked_seen_and_removed() {
    super::layers(xfs()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_containers_disk_is_bound_and_not_committed() {
    super::running(xfs()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_in_another_namespace_delays_commit_and_removal_and_hinders_neither() {
    super::elsewhere(xfs()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_outlives_both_daemons() {
    super::outlives(xfs()).await;
}

mod fuse {
    //! On a transport whose disks end with their server.

    use super::{lost, xfs};

    /// The kernel calls a log clean to which nothing was written since the mount.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_dead_disk_server_took_along_is_never_committed() {
        lost::taken_along(xfs(), true).await;
        lost::taken_along(xfs(), false).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_has_the_size_that_its_labels_ask_for() {
    let node = Node::of(xfs()).await;
    node.image().await;
    let before = node.files().len();
    let plain = node.prepare("plain", "image").await;
    holds(&node, &plain, "plain", 300 * MIB);
    let begun = Instant::now();
    let large = node.sized("large", "image", label(OURS, "20Gi")).await;
    let first = begun.elapsed();
    holds(&node, &large, "large", 20 * GIB);
    let begun = Instant::now();
    let again = node.sized("again", "image", label(OURS, "20Gi")).await;
    let second = begun.elapsed();
    holds(&node, &again, "again", 20 * GIB);
    let nothing = node.sized("nothing", "", label(OURS, "1Gi")).await;
    let mounted = Mounted::new(&nothing, &node.point("nothing"));
    assert!(fits(df(&mounted.point).0, GIB));
    drop(mounted);
    // One delta for each container, and one for the size.
    assert_eq!(node.files().len(), before + 4 + 1);
    let cost = node.ploop.usage("plain").await.unwrap().bytes;
    println!(
        "the first of its size took {first:?}, the second {second:?}; a mount costs {cost} bytes"
    );
    for (parent, value, kind, words) in [
        (
            "image",
            "256Mi",
            ErrorKind::FailedPrecondition,
            "XFS cannot shrink: it has 300 MiB",
        ),
        (
            "",
            "256Mi",
            ErrorKind::InvalidArgument,
            "the smallest is 300 MiB",
        ),
        (
            "image",
            "1Ti",
            ErrorKind::FailedPrecondition,
            "grows up to 150 GiB",
        ),
    ] {
        let made = node.ploop.prepare("bad", parent, label(OURS, value)).await;
        let error = made.unwrap_err();
        assert!(chain(&error).contains(words), "{}", chain(&error));
        assert_eq!(error.kind(), kind, "{}", chain(&error));
    }
    // What was made larger becomes an image, and does not become smaller again.
    node.commit("larger", "large").await;
    let above = node.sized("above", "larger", label(OURS, "20Gi")).await;
    holds(&node, &above, "above", 20 * GIB);
    let asked = label(OURS, "10Gi");
    let error = node.ploop.prepare("bad", "larger", asked).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    assert!(
        chain(&error).contains("XFS cannot shrink: it has 20.0 GiB"),
        "{}",
        chain(&error)
    );
    // Who asks for nothing gets the image's, whatever the name has.
    let default = node.prepare("default", "larger").await;
    holds(&node, &default, "default", 20 * GIB);
    checked(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_not_mounted_grows_and_does_not_shrink() {
    let node = Node::of(xfs()).await;
    node.image().await;
    node.prepare("a", "image").await;
    for size in [GIB, GIB + 16 * MIB, 10 * GIB] {
        let done = node.ploop.resize("a", size).await;
        done.unwrap_or_else(|error| panic!("{}", chain(&error)));
        let mounts = node.ploop.mounts("a").await.unwrap();
        holds(&node, &mounts, "a", size);
    }
    // The disk would be larger for nothing.
    let before = node.servers.list().await.unwrap();
    let error = node.ploop.resize("a", 2 << 40).await.unwrap_err();
    assert!(chain(&error).contains("grows up to"), "{}", chain(&error));
    assert_eq!(node.servers.list().await.unwrap(), before);
    let error = node.ploop.resize("a", GIB).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    assert!(
        chain(&error).contains("XFS cannot shrink"),
        "{}",
        chain(&error)
    );
    let node = node.restarted().await;
    let mounts = node.ploop.mounts("a").await.unwrap();
    holds(&node, &mounts, "a", 10 * GIB);
    checked(node).await;
}

/// The kernel grows it for who has CAP_SYS_ADMIN.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_container_grows_and_goes_on() {
    use std::io::Write as _;
    let node = Node::of(xfs()).await;
    node.image().await;
    let mounts = node.prepare("a", "image").await;
    let mounted = Mounted::new(&mounts, &node.point("a"));
    let mut file = fs::File::create(mounted.path("fill")).unwrap();
    let full = loop {
        if let Err(error) = file.write_all(&[1; 1 << 20]) {
            break error;
        }
    };
    assert_eq!(full.raw_os_error(), Some(28), "{full}");
    let written = file.metadata().unwrap().len();
    for size in [512 * MIB, 3 * GIB, 10 * GIB] {
        let begun = Instant::now();
        let done = node.ploop.resize("a", size).await;
        done.unwrap_or_else(|error| panic!("{}", chain(&error)));
        println!("to {} MiB while mounted: {:?}", size / MIB, begun.elapsed());
        assert!(fits(df(&mounted.point).0, size), "{:?}", df(&mounted.point));
        file.write_all(&[2; 1 << 20]).unwrap();
    }
    let error = node.ploop.resize("a", GIB).await.unwrap_err();
    assert!(
        chain(&error).contains("stop its container first"),
        "{}",
        chain(&error)
    );
    file.sync_all().unwrap();
    assert_eq!(file.metadata().unwrap().len(), written + (3 << 20));
    drop((file, mounted));
    holds(&node, &mounts, "a", 10 * GIB);
    node.commit("A", "a").await;
    node.ploop.view("v", "A", Labels::new()).await.unwrap();
    checked(node).await;
}

/// What was unpacked stays what it is; the configuration is for what is made from now on.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_keeps_its_kind_when_the_configuration_changes() {
    let large = NameOptions {
        size: 300 << 20,
        ..usual()
    };
    let node = Node::of(large.clone()).await;
    node.image().await;
    let node = node.restarted_as(xfs()).await;
    for (key, parent, size, kind) in [
        ("old", "image", "300Mi", "ext4"),
        ("old and small", "image", "128Mi", "ext4"),
        ("new", "", "300Mi", "xfs"),
    ] {
        let mounts = node.sized(key, parent, label(OURS, size)).await;
        assert_eq!(mounts[0].kind, kind, "{key}");
        whole(&mounts[0]);
        drop(Mounted::new(&mounts, &node.point(key)));
    }
    let view = node.view("view", "image").await;
    assert_eq!(
        (view[0].kind.as_str(), view[0].options[1].as_str()),
        ("ext4", "noload")
    );
    node.commit("new image", "new").await;
    let node = node
        .restarted_as(NameOptions {
            size: large.size,
            ..counting()
        })
        .await;
    let mounts = node.sized("above", "new image", label(OURS, "2Gi")).await;
    assert_eq!(
        (mounts[0].kind.as_str(), mounts[0].options.as_slice()),
        ("xfs", &WRITABLE.map(str::to_owned)[..])
    );
    assert_eq!(node.ploop.mounts("above").await.unwrap(), mounts);
    whole(&mounts[0]);
    let view = node.view("new view", "new image").await;
    assert_eq!(
        (view[0].kind.as_str(), view[0].options[1].as_str()),
        ("xfs", "nouuid")
    );
    checked(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_names_on_one_root_have_two_kinds() {
    let mut node = Node::new().await;
    let other = NameOptions {
        name: "other".to_owned(),
        ..xfs()
    };
    node.folder.others.push(other);
    let node = node.restarted().await;
    let other = node.all.named("other").unwrap();
    let mut held = Vec::new();
    for (snapshotter, kind) in [(&node.ploop, "ext4"), (&other, "xfs")] {
        let key = format!("making {kind}");
        let mounts = snapshotter.prepare(&key, "", Labels::new()).await.unwrap();
        assert_eq!(mounts[0].kind, kind);
        let mounted = Mounted::new(&mounts, &node.point(kind));
        fs::write(mounted.path("one"), kind).unwrap();
        drop(mounted);
        snapshotter
            .commit("image", &key, Labels::new())
            .await
            .unwrap();
        for key in ["a", "b"] {
            let mounts = snapshotter
                .prepare(key, "image", Labels::new())
                .await
                .unwrap();
            let mounted = Mounted::new(&mounts, &node.point(&format!("{kind} {key}")));
            assert_eq!(fs::read(mounted.path("one")).unwrap(), kind.as_bytes());
            assert_eq!(type_of(&mounted.point), kind);
            held.push(mounted);
        }
        let empty = snapshotter.view("empty", "", Labels::new()).await.unwrap();
        let mounted = Mounted::new(&empty, &node.point(&format!("{kind} empty")));
        assert_eq!(names(&mounted.point), [""; 0]);
    }
    drop((held, other));
    checked(node).await;
}

fn type_of(point: &Path) -> String {
    let done = Command::new("stat")
        .args(["-f", "-c", "%T"])
        .arg(point)
        .output()
        .unwrap();
    let said = String::from_utf8(done.stdout).unwrap();
    said.trim().replace("ext2/ext3", "ext4")
}
