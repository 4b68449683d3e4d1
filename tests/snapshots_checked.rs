//! A root that real daemons worked in, looked at from outside; and how long they take to be back after
//! a crash.

use std::fs;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ploop_snapshotter::io::Piece;
use ploop_snapshotter::link::Servers;
use ploop_snapshotter::snapshot::ErrorKind;
use serde_json::Value;

use super::{Mounted, Node, chain, usual};

/// `ploop check ROOT`: exit code, and the answer or the complaint.
pub(super) fn check(root: &Path, more: &[&str]) -> (i32, Value, String) {
    let mut tries = 0;
    loop {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ploop"));
        let done = command
            .arg("check")
            .arg(root)
            .arg("--json")
            .args(more)
            .output()
            .unwrap();
        let said = String::from_utf8(done.stderr).unwrap();
        // Programs that other tests start may have the lock's descriptor for a moment.
        if said.contains("is in use") && tries < 5 {
            tries += 1;
            std::thread::sleep(Duration::from_millis(50));
            continue;
        }
        let answer = serde_json::from_slice(&done.stdout).unwrap_or(Value::Null);
        return (done.status.code().unwrap(), answer, said);
    }
}

pub(super) fn whats(answer: &Value) -> Vec<String> {
    let findings = answer["findings"].as_array().unwrap();
    let mut whats: Vec<_> = findings
        .iter()
        .map(|it| {
            format!(
                "{}: {}",
                it["severity"].as_str().unwrap(),
                it["what"].as_str().unwrap()
            )
        })
        .collect();
    whats.sort();
    whats
}

/// Kills the disk server; returns when there is another one.
async fn another_server(servers: &Servers) {
    let pid = servers.seen()[0].hello.pid;
    let kill = Command::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(kill.unwrap().success());
    while servers.seen()[0].hello.pid == pid {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_is_checked_beside_its_disk_servers_and_mended() {
    let node = Node::new().await;
    node.layer("A", "", |root| {
        fs::write(root.join("one"), vec![1; 1 << 20]).unwrap()
    })
    .await;
    node.layer("B", "A", |root| fs::write(root.join("two"), "2").unwrap())
        .await;
    let mounts = node.prepare("c", "B").await;
    let running = Mounted::new(&mounts, &node.point("c"));
    fs::write(running.path("live"), vec![7; 1 << 20]).unwrap();
    node.view("v", "B").await;
    let root = node.folder.path().join("root");
    let (code, _, said) = check(&root, &[]);
    assert_eq!(code, 1);
    assert!(said.contains("stop that first"), "{said}");

    // The snapshotter ends, the disk server and its container go on.
    let Node {
        ploop,
        all,
        servers,
        folder,
        ..
    } = node;
    drop((ploop, all));
    let (code, answer, said) = check(&root, &[]);
    assert_eq!((code, whats(&answer)), (0, vec![]), "{said}");
    assert_eq!(answer["served"].as_array().unwrap().len(), 1);
    fs::write(running.path("still"), "x").unwrap();
    drop(running);
    for disk in servers.list().await.unwrap() {
        servers.detach(&disk.id, false).await.unwrap();
    }
    let (code, answer, _) = check(&root, &["--repair"]);
    assert_eq!(
        (code, whats(&answer), &answer["kept"]),
        (0, vec![], &Value::Null)
    );

    // Somebody opens a sealed layer for writing, and there is a delta of nobody.
    let layer = fs::File::options()
        .write(true)
        .open(root.join("deltas/1.hds"))
        .unwrap();
    layer
        .write_all_at(&0x746F_6E59_u32.to_le_bytes(), 44)
        .unwrap();
    drop(layer);
    fs::write(root.join("deltas/99.hds"), "").unwrap();
    let (code, answer, _) = check(&root, &[]);
    assert_eq!(code, 2);
    let found = whats(&answer);
    assert_eq!(found.len(), 2, "{found:?}");
    let (code, answer, _) = check(&root, &["--repair"]);
    assert_eq!((code, whats(&answer)), (0, vec![]));
    assert_eq!(answer["mended"].as_array().unwrap().len(), 2);
    assert_eq!(answer["kept"], root.join("kept/1").to_str().unwrap());
    assert_eq!(check(&root, &[]).0, 0);

    // And everything is there.
    let node = Node::open(folder, usual()).await;
    drop(servers);
    let again = Mounted::new(&node.ploop.mounts("c").await.unwrap(), &node.point("c"));
    for (name, len) in [
        ("one", 1 << 20),
        ("two", 1),
        ("live", 1 << 20),
        ("still", 1),
    ] {
        assert_eq!(fs::metadata(again.path(name)).unwrap().len(), len);
    }
    drop(again);
    node.end().await;
}

/// Snapshots, and so many of them are in use when everything is killed.
const ALL: usize = 200;
const IN_USE: usize = 100;
/// Where each container's disk is written to; nothing else is there.
const SPOT: u64 = 200 << 20;

/// Writes to a device, past the page cache: what is answered for is with the disk server.
fn write(device: &Path, byte: u8) {
    const DIRECT: i32 = 0o40000;
    let device = fs::File::options()
        .write(true)
        .custom_flags(DIRECT)
        .open(device)
        .unwrap();
    let bytes = Piece::from_bytes(&[byte; 65536]);
    bytes
        .with_bytes(|bytes| device.write_all_at(bytes, SPOT))
        .unwrap();
}

/// Everything is killed with half of the containers in use; each is back in milliseconds, with all that
/// was answered for.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_a_container_is_back_in_milliseconds() {
    let node = Node::new().await;
    node.layer("A", "", |root| {
        fs::write(root.join("one"), vec![1; 1 << 20]).unwrap()
    })
    .await;
    for index in 0..ALL {
        let mounts = node.prepare(&format!("c{index}"), "A").await;
        let device = Path::new(&mounts[0].source);
        write(device, u8::try_from(index).unwrap());
        if index >= IN_USE {
            // The layer is s1.
            node.servers
                .detach(&format!("s{}", index + 2), false)
                .await
                .unwrap();
        }
    }
    let root = node.folder.path().join("root");
    let Node {
        ploop,
        all,
        servers,
        folder,
        ..
    } = node;
    drop((ploop, all, servers));
    let begun = Instant::now();
    another_server(&folder.servers).await;
    let server = begun.elapsed();
    // With ublk the new server has taken its devices over; else the tops wait as they were.
    let begun = Instant::now();
    let (code, answer, said) = check(&root, &[]);
    let checked = begun.elapsed();
    let lost = IN_USE
        - answer["served"]
            .as_array()
            .unwrap_or_else(|| panic!("{said}"))
            .len();
    assert_eq!(code, if lost > 0 { 3 } else { 0 });
    let found = whats(&answer);
    assert!(
        found
            .iter()
            .all(|what| what.contains("will be recovered at the next start")),
        "{found:?}"
    );
    assert_eq!(found.len(), lost);

    let begun = Instant::now();
    let node = Node::open(folder, usual()).await;
    let opened = begun.elapsed();
    let mut each = Vec::new();
    for index in 0..IN_USE {
        let begun = Instant::now();
        let mounts = loop {
            match node.ploop.mounts(&format!("c{index}")).await {
                Ok(mounts) => break mounts,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", chain(&error)),
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        each.push(begun.elapsed());
        let device = fs::File::open(&mounts[0].source).unwrap();
        let mut bytes = vec![0; 65536];
        device.read_exact_at(&mut bytes, SPOT).unwrap();
        assert!(
            bytes.iter().all(|byte| usize::from(*byte) == index),
            "c{index}"
        );
    }
    each.sort();
    let (median, worst) = (each[IN_USE / 2], each[IN_USE - 1]);
    let all = server + opened + each.iter().sum::<Duration>();
    eprintln!(
        "after a crash with {ALL} containers, {IN_USE} in use ({lost} had lost their device): the disk server is \
         back in {server:?}, the snapshotter in {opened:?}, then a container in {median:?} (the slowest {worst:?}); \
         that is {:?} a container in use; `ploop check` of the root: {checked:?}",
        all / u32::try_from(IN_USE).unwrap()
    );
    // On a machine that others share; by itself it is a tenth of this.
    assert!(median < Duration::from_millis(250), "{median:?}");
    assert!(opened < Duration::from_secs(10), "{opened:?}");
    for index in 0..ALL {
        node.ploop.remove(&format!("c{index}")).await.unwrap();
    }
    node.end().await;
}
