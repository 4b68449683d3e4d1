//! The tool from outside: every verb's output and exit code, and that it leaves alone what it only
//! reads.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use ploop_snapshotter::units::ClusterSize;
use rustix::fs::{FlockOperation, flock};
use serde_json::Value;

use crate::support::{images, qemu};

const CLUSTER: ClusterSize = ClusterSize::DEFAULT;

/// Runs `ploop` in a folder: exit code, what it answered, what it complained.
fn ploop(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ploop"));
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .current_dir(folder)
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn damage(path: &Path, at: usize, word: u32) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
    fs::write(path, bytes).unwrap();
}

/// Whatever this machine offers, the answer has a row for it, its exit code says whether disks can be
/// served here, and nothing is left behind.
#[test]
fn preflight_says_what_is_there_and_what_is_lost_without() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("not/yet/there");
    let config = folder.path().join("c.toml");
    let text = format!("root = {root:?}\nrun_dir = '/dev/shm/not-there'\n");
    fs::write(&config, &text).unwrap();
    let before = fs::read_dir(folder.path()).unwrap().count();
    let (code, answer, _) = ploop(
        folder.path(),
        &["preflight", "--config", "c.toml", "--json"],
    );
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let rows = answer["rows"].as_array().unwrap();
    let row = |what: &str| {
        let found = rows.iter().find(|row| row["what"] == what);
        found.unwrap_or_else(|| panic!("{what}: {rows:#?}"))
    };
    for what in [
        "kernel",
        "io_uring",
        "CAP_SYS_ADMIN",
        "ublk driver",
        "FUSE",
        "loop devices",
        "CAP_SYS_RESOURCE",
        "locked memory",
        "open files",
        "e2fsprogs",
    ] {
        let found = row(what);
        if found["state"] != "ok" {
            assert_ne!(found["without"], "", "{what}");
            assert_ne!(found["advice"], "", "{what}");
        }
    }
    assert_eq!(row("run_dir on tmpfs")["state"], "ok");
    assert_eq!(row("root: holes")["state"], "ok");
    // Of what nobody asked for nothing is said.
    assert!(rows.iter().all(|row| row["what"] != "quota for users"));
    // What is there is seen from here too.
    let driver = Path::new("/dev/ublk-control").exists();
    assert_eq!(row("ublk driver")["state"] == "ok", driver);
    assert_eq!(answer["transport"], if driver { "ublk" } else { "fuse" });
    assert_eq!(code, 0);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), before);

    let asked = format!("{text}[names.mail]\nuser_quota = true\n");
    fs::write(&config, asked).unwrap();
    let (code, text, _) = ploop(folder.path(), &["preflight", "--config", "c.toml"]);
    assert_eq!(code, 0);
    assert!(text.contains("quota for users"), "{text}");
    assert_eq!(text.contains("outlive ploopd"), driver, "{text}");
    let (code, _, complaint) = ploop(folder.path(), &["preflight", "--config", "none.toml"]);
    assert_eq!(code, 1);
    assert!(complaint.contains("none.toml"), "{complaint}");
}

#[test]
fn every_verb_explains_itself() {
    let folder = tempfile::tempdir().unwrap();
    let version = format!("ploop {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(
        ploop(folder.path(), &["--version"]),
        (0, version, String::new())
    );
    let (code, help, _) = ploop(folder.path(), &["--help"]);
    assert_eq!(code, 0);
    assert!(help.contains("Exit codes:"), "{help}");
    for verb in ["init", "info", "check", "export"] {
        assert!(help.contains(verb), "{help}");
        let (code, help, _) = ploop(folder.path(), &[verb, "--help"]);
        assert_eq!(code, 0);
        assert!(help.contains("Usage: ploop"), "{help}");
        // Without its arguments a verb does nothing, and says what it wants.
        let (code, _, complaint) = ploop(folder.path(), &[verb]);
        assert_eq!(code, 1);
        assert!(complaint.contains("FILE"), "{complaint}");
    }
    assert_eq!(ploop(folder.path(), &["mend"]).0, 1);
}

#[test]
fn init_makes_an_image_and_never_over_another_file() {
    let folder = tempfile::tempdir().unwrap();
    let (code, said, _) = ploop(folder.path(), &["init", "10Gi", "a.hds"]);
    assert_eq!(
        (code, said.as_str()),
        (0, "a.hds: empty disk of 10.0 GiB, clusters of 64.0 KiB\n")
    );
    qemu::check(&folder.path().join("a.hds"));
    let before = fs::read(folder.path().join("a.hds")).unwrap();
    for arguments in [
        &["init", "1Gi", "a.hds"][..],
        &["init", "0", "b.hds"],
        &["init", "16Ei", "b.hds"],
        &["init", "1Gi", "b.hds", "--cluster", "96Ki"],
        &["init", "8Ei", "b.hds"],
        &["init", "1Gi", "no/such/folder.hds"],
    ] {
        let (code, said, complaint) = ploop(folder.path(), arguments);
        assert_eq!((code, said.as_str()), (1, ""), "{arguments:?}");
        assert!(!complaint.is_empty());
        assert!(
            !folder.path().join("b.hds").exists(),
            "{arguments:?} left a file"
        );
    }
    assert_eq!(fs::read(folder.path().join("a.hds")).unwrap(), before);
}

#[test]
fn info_tells_people_and_programs_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let seal = images::sealed(
        &folder.path().join("a.hds"),
        1 << 30,
        CLUSTER,
        &[(1, 1), (9, 2)],
    );
    let (code, said, _) = ploop(folder.path(), &["info", "a.hds"]);
    assert_eq!(code, 0);
    for words in [
        "version 2",
        "1.00 GiB (16384 clusters of 64.0 KiB)",
        "(2 clusters)",
        "closed",
    ] {
        assert!(said.contains(words), "{said}");
    }
    let digest = format!("{:08x}", seal.digest);
    assert!(said.contains(&digest), "{said}");
    let (code, said, _) = ploop(folder.path(), &["info", "--json", "a.hds"]);
    assert_eq!(code, 0);
    let told: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(told[0]["disk_bytes"], 1 << 30);
    assert_eq!(told[0]["used_clusters"], 2);
    assert_eq!(told[0]["seal"]["digest"], digest);
    fs::write(
        folder.path().join("text"),
        "no image at all, but longer than a header of sixty-four",
    )
    .unwrap();
    let (code, _, complaint) = ploop(folder.path(), &["info", "text"]);
    assert_eq!(code, 1);
    assert!(complaint.contains("text"), "{complaint}");
}

#[test]
fn check_tells_what_where_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.hds");
    images::sealed(&path, 1 << 20, CLUSTER, &[(0, 1), (5, 2)]);
    assert_eq!(
        ploop(folder.path(), &["check", "a.hds"]),
        (0, "a.hds: clean\n".into(), String::new())
    );
    damage(&path, 64 + 4 * 9, 1);
    let damaged = fs::read(&path).unwrap();
    let (code, said, _) = ploop(folder.path(), &["check", "a.hds"]);
    assert_eq!(code, 2);
    assert!(
        said.contains("corrupt: place 1 holds more than one cluster: 0, 9 (byte 64)"),
        "{said}"
    );
    assert!(said.contains("restore"), "{said}");
    let (code, said, _) = ploop(folder.path(), &["check", "--json", "a.hds"]);
    assert_eq!(code, 2);
    let told: Value = serde_json::from_str(&said).unwrap();
    let finding = &told["files"][0]["findings"][0];
    assert_eq!(
        (&finding["severity"], &finding["offset"]),
        (&"corrupt".into(), &64.into())
    );
    assert_eq!(finding["mendable"], false);
    // Repair refuses, and neither verb has touched a byte.
    let (code, said, complaint) = ploop(folder.path(), &["check", "--repair", "a.hds"]);
    assert_eq!(code, 2);
    assert!(
        said.contains("place 1") && complaint.contains("left as it is"),
        "{said}{complaint}"
    );
    assert_eq!(fs::read(&path).unwrap(), damaged);
    assert_eq!(ploop(folder.path(), &["check", "nothing.hds"]).0, 1);
}

#[test]
fn repair_mends_what_a_crash_leaves() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.hds");
    images::sealed(&path, 1 << 20, CLUSTER, &[(0, 1), (5, 2)]);
    let sound = fs::read(&path).unwrap();
    fs::write(&path, [sound.clone(), vec![0; 70_000]].concat()).unwrap();
    assert_eq!(ploop(folder.path(), &["check", "a.hds"]).0, 3);
    damage(&path, 44, 0x746F_6E59);
    assert_eq!(ploop(folder.path(), &["check", "a.hds"]).0, 2);
    let (code, said, _) = ploop(folder.path(), &["check", "--repair", "a.hds"]);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("mended: ") && said.ends_with("a.hds: clean\n"),
        "{said}"
    );
    assert_eq!(fs::read(&path).unwrap(), sound);
    qemu::check(&path);
}

/// A repair under a running disk would cut off what the disk has just placed.
#[test]
fn what_a_disk_server_has_open_is_left_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.hds");
    images::sealed(&path, 1 << 20, CLUSTER, &[(0, 1)]);
    let file = images::open(&path);
    flock(file.as_file(), FlockOperation::NonBlockingLockExclusive).unwrap();
    for arguments in [
        &["check", "a.hds"][..],
        &["check", "--repair", "a.hds"],
        &["export", "a.hds", "o"],
    ] {
        let (code, _, complaint) = ploop(folder.path(), arguments);
        assert_eq!(code, 1);
        assert!(complaint.contains("detach"), "{complaint}");
    }
    assert!(
        ploop(folder.path(), &["info", "a.hds"])
            .1
            .contains("open for writing")
    );
    // A delta that is only read by a disk may be checked, and not mended.
    flock(file.as_file(), FlockOperation::NonBlockingLockShared).unwrap();
    assert_eq!(ploop(folder.path(), &["check", "a.hds"]).0, 0);
    assert_eq!(ploop(folder.path(), &["check", "--repair", "a.hds"]).0, 1);
}

#[test]
fn a_chain_is_checked_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name| folder.path().join(name);
    fs::write(at("base.img"), vec![1; 1 << 20]).unwrap();
    images::sealed(&at("1.hds"), 1 << 20, CLUSTER, &[(3, 3)]);
    images::sealed(&at("2.hds"), 2 << 20, CLUSTER, &[(3, 4), (31, 5)]);
    images::sealed(
        &at("big.hds"),
        2 << 20,
        ClusterSize::new(1 << 20).unwrap(),
        &[],
    );
    assert_eq!(
        ploop(folder.path(), &["check", "base.img", "1.hds", "2.hds"]).0,
        0
    );
    for (chain, words) in [
        (["1.hds", "2.hds", "big.hds"], "clusters of 1.00 MiB"),
        (["1.hds", "base.img", "2.hds"], "no ploop signature"),
    ] {
        let (code, said, _) = ploop(folder.path(), &[&["check"], &chain[..]].concat());
        assert_eq!(code, 2, "{said}");
        assert!(said.contains(words), "{said}");
    }
    damage(&at("1.hds"), 44, 0x746F_6E59);
    let (code, said, _) = ploop(folder.path(), &["check", "1.hds", "2.hds"]);
    assert_eq!(code, 2);
    assert!(said.contains("not the top of the chain"), "{said}");
    let (code, _, complaint) = ploop(folder.path(), &["check", "--repair", "1.hds", "2.hds"]);
    assert_eq!(code, 1);
    assert!(complaint.contains("one file"), "{complaint}");
}

#[test]
fn export_writes_what_qemu_reads() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name| folder.path().join(name);
    fs::write(at("base.raw"), vec![1; 1 << 20]).unwrap();
    images::sealed(&at("1.hds"), 1 << 20, CLUSTER, &[(3, 3), (4, 0)]);
    images::sealed(&at("2.hds"), 2 << 20, CLUSTER, &[(3, 4), (31, 5)]);
    let chain = ["base.raw", "1.hds", "2.hds"];
    let (code, said, complaint) =
        ploop(folder.path(), &[&["export"], &chain[..], &["out"]].concat());
    assert_eq!(
        (code, said.as_str()),
        (0, "out: disk of 2.00 MiB\n"),
        "{complaint}"
    );
    assert!(fs::read(at("out")).unwrap() == qemu::read_chain(&chain.map(at), true));
    let (code, _, complaint) = ploop(folder.path(), &["export", "1.hds", "out"]);
    assert_eq!(code, 1);
    assert!(complaint.contains("out"), "{complaint}");
    // A chain that cannot be read leaves no file behind.
    damage(&at("1.hds"), 52, 2);
    let (code, _, complaint) = ploop(folder.path(), &["export", "base.raw", "1.hds", "new"]);
    assert_eq!(code, 1);
    assert!(
        complaint.contains("1.hds") && complaint.contains("conversion"),
        "{complaint}"
    );
    assert!(!at("new").exists());
}
