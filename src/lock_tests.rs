//! Who has a lock, and who is waited for.

use std::fs;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use super::{Answer, Stage, is_killed, keep_out, patiently, stage, take, take_from_killed};

#[test]
fn a_living_process_is_not_ending_and_a_zombie_is() {
    assert_eq!(stage(std::process::id()), Stage::Lives);
    assert_eq!(stage(u32::MAX), Stage::Unseen);
    let mut child = zombie();
    child.wait().unwrap();
}

/// A process that has ended, and that nobody has waited for.
fn zombie() -> Child {
    let child = Command::new("true").spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while stage(child.id()) != Stage::Ends {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    child
}

#[test]
fn a_lock_has_one_holder_and_says_who() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lock");
    let missing = keep_out(&path).unwrap_err();
    assert_eq!(missing.source.kind(), std::io::ErrorKind::NotFound);
    let Answer::Ours(lock) = take(&path).unwrap() else {
        panic!("nobody has it");
    };
    let us = format!("process {}", std::process::id());
    let begun = Instant::now();
    for ask in [take, keep_out] {
        match patiently(|| ask(&path)).unwrap() {
            Answer::Ours(_) => panic!("it is taken"),
            Answer::Theirs(holder) => assert_eq!(holder.to_string(), us),
        }
    }
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "the living are not waited for"
    );
    drop(lock);
    assert!(matches!(keep_out(&path).unwrap(), Answer::Ours(_)));
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(
        text.trim(),
        std::process::id().to_string(),
        "left as it was"
    );
}

/// A tmpfs of one page, which somebody else has. Needs root.
struct Full(tempfile::TempDir);

impl Drop for Full {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// The run directory is full when a disk server starts: the lock is there to be had all the same.
#[test]
fn a_full_host_keeps_nobody_from_a_lock() {
    let full = Full(tempfile::tempdir().unwrap());
    let mut mount = Command::new("mount");
    let mount = mount.args(["-t", "tmpfs", "-o", "size=4k", "tmpfs"]);
    assert!(mount.arg(full.0.path()).status().unwrap().success());
    fs::write(full.0.path().join("filler"), "x").unwrap();
    fs::write(full.0.path().join("more"), "x").unwrap_err();
    let path = full.0.path().join("lock");
    let Answer::Ours(lock) = take(&path).unwrap() else {
        panic!("nobody has it");
    };
    match take(&path).unwrap() {
        Answer::Ours(_) => panic!("it is taken"),
        Answer::Theirs(holder) => assert_eq!(holder.to_string(), "unknown"),
    }
    drop(lock);
    assert!(matches!(take(&path).unwrap(), Answer::Ours(_)));
}

#[test]
fn a_longer_number_that_stood_there_is_no_part_of_ours() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lock");
    let us = std::process::id().to_string();
    fs::write(&path, "4294967295\n").unwrap();
    let Answer::Ours(_lock) = take(&path).unwrap() else {
        panic!("nobody has it");
    };
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{us}\n"));
    // Before it is cut.
    fs::write(&path, format!("{us}\n67295\n")).unwrap();
    let Answer::Theirs(holder) = take(&path).unwrap() else {
        panic!("it is taken");
    };
    assert_eq!(holder.to_string(), format!("process {us}"));
}

#[test]
fn one_that_is_ending_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lock");
    let Answer::Ours(lock) = take(&path).unwrap() else {
        panic!("nobody has it");
    };
    let mut child = zombie();
    fs::write(&path, child.id().to_string()).unwrap();
    let late = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(700));
        drop(lock);
    });
    assert!(matches!(
        patiently(|| take(&path)).unwrap(),
        Answer::Ours(_)
    ));
    late.join().unwrap();
    child.wait().unwrap();
}

#[test]
fn killed_is_who_has_no_way_back() {
    for (status, killed) in [
        (
            "State:\tD (disk sleep)\nSigPnd:\t0000000000000100\nShdPnd:\t0000000000000000\n",
            true,
        ),
        (
            "State:\tD (disk sleep)\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000100\n",
            true,
        ),
        ("State:\tZ (zombie)\nSigPnd:\t0000000000000000\n", true),
        // Told to end, it may yet do much.
        (
            "State:\tD (disk sleep)\nSigPnd:\t0000000000004000\nShdPnd:\t0000000000004000\n",
            false,
        ),
        (
            "State:\tS (sleeping)\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000000\n",
            false,
        ),
        ("", false),
    ] {
        assert_eq!(is_killed(status), killed, "{status}");
    }
}

/// A process that holds the lock of a file and writes to a frozen file system: nothing ends it until that
/// thaws. Needs root and loop devices.
struct Stuck {
    folder: tempfile::TempDir,
    child: Child,
}

impl Stuck {
    fn point(&self) -> String {
        self.folder.path().join("mnt").display().to_string()
    }

    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = "truncate -s 16M image && mkfs.ext4 -qF image && mkdir mnt && mount -o loop image mnt && \
                      exec flock --no-fork lock sh -c 'echo $$ >lock; fsfreeze -f mnt; exec touch mnt/file'";
        let mut shell = Command::new("sh");
        shell.args(["-ec", script]).current_dir(folder.path());
        let stuck = Self {
            child: shell.spawn().unwrap(),
            folder,
        };
        let status = format!("/proc/{}/status", stuck.child.id());
        stuck.until("it stands still", || {
            let text = fs::read_to_string(&status).unwrap();
            text.contains("Name:\ttouch") && text.contains("State:\tD")
        });
        stuck
    }

    fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !holds() {
            assert!(Instant::now() < deadline, "{what}: {}", self.point());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze")
            .args(["-u", &self.point()])
            .status();
        let _ = self.child.wait();
        let _ = Command::new("umount").arg(self.point()).status();
    }
}

#[test]
fn the_lock_of_one_that_was_killed_and_cannot_end_is_taken() {
    let mut stuck = Stuck::new();
    let path = stuck.folder.path().join("lock");
    let theirs = || matches!(take_from_killed(&path).unwrap(), Answer::Theirs(_));
    assert!(theirs(), "it lives: only its device is slow");
    stuck.child.kill().unwrap();
    assert!(matches!(take(&path).unwrap(), Answer::Theirs(_)));
    let begun = Instant::now();
    let ours = loop {
        match take_from_killed(&path).unwrap() {
            Answer::Ours(lock) => break lock,
            Answer::Theirs(_) => assert!(begun.elapsed() < Duration::from_secs(5)),
        }
    };
    // Now it is ours like any other, whoever asks.
    assert!(theirs());
    assert!(matches!(take(&path).unwrap(), Answer::Theirs(_)));
    assert_eq!(
        fs::read_to_string(&path).unwrap().trim(),
        std::process::id().to_string()
    );
    drop(ours);
    assert!(matches!(take(&path).unwrap(), Answer::Ours(_)));
}
