//! What a machine that goes down does: containers are ended, then nothing of them is left in the page cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::ploopd::{Mounted, Ploopd, run, wait_until};

const MIB: u64 = 1 << 20;

/// A process whose root is a disk, in a mount namespace of its own: what a container is to the host. It counts in a file and never
/// syncs.
struct Contained {
    child: Child,
    log: PathBuf,
}

impl Contained {
    fn new(device: &Path, root: &Path, trap: &str) -> Self {
        fs::create_dir_all(root).unwrap();
        // The namespace begins with a copy of every mount, and so would keep what other tests unmount. Then the disk is
        // the whole world.
        let script = "mount --make-rprivate / && \
                      cut -d ' ' -f 5 /proc/self/mountinfo | grep -F \"$4/\" | sort -r | \
                      while read -r at; do umount -l \"$(printf \"$at\")\"; done; \
                      mount \"$1\" \"$2\" && cd \"$2\" && mkdir -p old && \
                      cp /bin/busybox . && pivot_root . old && exec ./busybox sh -c \"$3\"";
        let count = format!(
            "./busybox umount -l /old; {trap} i=0; \
             while :; do i=$((i+1)); echo $i >>/log; ./busybox sleep 0.05; done"
        );
        let child = Command::new("unshare")
            .args([
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                script,
                "sh",
            ])
            .arg(device)
            .arg(root)
            .arg(count)
            .arg(std::env::temp_dir())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let log = PathBuf::from(format!("/proc/{}/root/log", child.id()));
        let contained = Self { child, log };
        wait_until("it counts", || contained.count() > 1);
        contained
    }

    fn count(&self) -> usize {
        fs::read_to_string(&self.log).map_or(0, |text| text.lines().count())
    }

    fn ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn end_containers(server: &Ploopd, grace: &str, limit: &str) -> (Option<i32>, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_ploop"))
        .args([
            "end-containers",
            "--grace",
            grace,
            "--limit",
            limit,
            "--config",
        ])
        .arg(server.config())
        .output()
        .unwrap();
    let words = String::from_utf8([done.stdout, done.stderr].concat()).unwrap();
    (done.status.code(), words)
}

#[test]
fn containers_end_and_what_they_never_synced_is_on_their_disks() {
    let server = Ploopd::start();
    let places = tempfile::tempdir().unwrap();
    let (code, words) = end_containers(&server, "0", "1");
    assert_eq!(code, Some(0), "{words}");
    assert!(words.contains("0 disks"), "{words}");

    let disks = ["polite", "deaf"].map(|name| {
        let disk = server
            .attach(name, &[server.delta(name, 64 * MIB)])
            .unwrap();
        run("mkfs.ext4", &["-q", disk.device.to_str().unwrap()]);
        disk
    });
    let [mut polite, mut deaf] = [(&disks[0], ""), (&disks[1], "trap \"\" TERM;")]
        .map(|(disk, trap)| Contained::new(&disk.device, &places.path().join(&disk.id), trap));
    let before = [polite.count(), deaf.count()];

    let (code, words) = end_containers(&server, "1", "20");
    assert_eq!(code, Some(0), "{words}");
    assert!(words.contains("2 disks"), "{words}");
    assert!(words.contains("none is mounted"), "{words}");
    assert!(!words.contains(" 0 killed"), "the deaf one was: {words}");
    wait_until("both are gone", || polite.ended() && deaf.ended());
    for (disk, before) in disks.iter().zip(before) {
        let mounted = Mounted::new(&disk.device);
        let lines = fs::read_to_string(mounted.path("log")).unwrap();
        assert!(lines.lines().count() >= before, "{}", disk.id);
    }
}

/// What the host has mounted is unmounted, unless somebody is in it: he is waited for, and the place is named.
#[test]
fn what_the_host_has_mounted_is_unmounted_or_said() {
    let server = Ploopd::start();
    let disk = server.attach("a", &[server.delta("a", 64 * MIB)]).unwrap();
    run("mkfs.ext4", &["-q", disk.device.to_str().unwrap()]);
    let mounted = Mounted::new(&disk.device);
    let inside = fs::File::create(mounted.path("open")).unwrap();
    let (code, words) = end_containers(&server, "0", "1");
    assert_eq!(code, Some(1), "{words}");
    let at = mounted.path("");
    let at = at.to_str().unwrap().trim_end_matches('/');
    assert!(words.contains(&format!("mounted: {at}")), "{words}");
    drop(inside);
    let (code, words) = end_containers(&server, "0", "20");
    assert_eq!(code, Some(0), "{words}");
    assert!(!mounted.path("open").exists());
    assert!(server.detach("a").unwrap(), "nobody has it");
}
