//! Ends the containers whose disks are here: what a machine that goes down needs before its disk servers end.
//!
//! A container has a mount namespace of its own, so its file system stays mounted there when the host has unmounted it, and
//! what it has written and not yet synced is in the page cache above a disk whose server is the next to be stopped. Nobody
//! else ends it in time: containerd leaves its containers running, and systemd kills what is in no unit last of all. The
//! host's own mounts of the disks are in our way too: systemd unmounts them behind local-fs.target, and so after whoever
//! started behind that, the disk servers.
//!
//! A container is known by its root: a process whose root directory lies on one of the disks.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::fs::{Dev, makedev};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};

use super::output;
use super::verdict::Verdict;
use crate::config::Config;
use crate::mountinfo::unescape;
use crate::seat::Seat;

/// How often is looked.
const AGAIN: Duration = Duration::from_millis(100);

/// Tells every container to end, kills after `grace` those that have not, unmounts what the host has mounted of the disks,
/// and waits until none is mounted anywhere, `limit` at most from the beginning.
pub(super) fn end_containers(config: &Config, grace: Duration, limit: Duration) -> Result<Verdict> {
    let disks = disks(&config.run_dir)?;
    let begun = Instant::now();
    let mut told = BTreeSet::new();
    let mut killed = BTreeSet::new();
    let mut look = Look::at(&disks)?;
    while !look.is_free() && begun.elapsed() < limit {
        // Those that came since are told as well.
        for pid in &look.inside {
            if begun.elapsed() >= grace {
                killed.insert(*pid);
                send(*pid, Signal::KILL);
            } else if told.insert(*pid) {
                send(*pid, Signal::TERM);
            }
        }
        if look.inside.is_empty() {
            unmount_ours(&disks);
        }
        sleep(AGAIN);
        look = Look::at(&disks)?;
    }
    let took = begun.elapsed().as_secs_f64();
    output::line(&format!(
        "{} disks; {} processes told to end, {} killed; {} after {took:.1} s",
        disks.len(),
        told.union(&killed).count(),
        killed.len(),
        if look.is_free() {
            "none is mounted"
        } else {
            "not free"
        }
    ));
    for pid in &look.inside {
        output::line(&format!("process {pid} does not end"));
    }
    for mount in &look.mounted {
        output::line(&format!("mounted: {mount}"));
    }
    Ok(if look.is_free() {
        Verdict::Clean
    } else {
        Verdict::Failed
    })
}

/// The devices of every disk server's disks, living or dead.
fn disks(run: &Path) -> Result<BTreeSet<Dev>> {
    let cannot = |path: &Path| format!("cannot read {}", path.display());
    let mut disks = BTreeSet::new();
    for seat in Seat::all(run).with_context(|| cannot(run))? {
        let folder = seat.aliases();
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries.with_context(|| cannot(&folder))?,
        };
        for entry in entries {
            // One that leads nowhere is of a device that is gone.
            let path = entry.with_context(|| cannot(&folder))?.path();
            disks.extend(fs::metadata(&path).map(|device| device.rdev()));
        }
    }
    Ok(disks)
}

/// Who uses disks at one moment.
#[derive(Debug, Default)]
struct Look {
    /// Processes whose root is on one.
    inside: Vec<i32>,
    /// Where disks are mounted: of each mount namespace, a process that sees it, and the place.
    mounted: Vec<String>,
}

impl Look {
    fn at(disks: &BTreeSet<Dev>) -> Result<Self> {
        let mut look = Self::default();
        let mut namespaces = BTreeSet::new();
        for entry in fs::read_dir("/proc").context("cannot read /proc")? {
            let name = entry.context("cannot read /proc")?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            // Whoever ends while we look has ended. The kernel's own threads have the host's root.
            let process = Path::new("/proc").join(name);
            if fs::metadata(process.join("root")).is_ok_and(|root| disks.contains(&root.dev())) {
                look.inside.push(pid);
            }
            let fresh = fs::read_link(process.join("ns/mnt")).is_ok_and(|ns| namespaces.insert(ns));
            if fresh && let Ok(mounts) = fs::read_to_string(process.join("mountinfo")) {
                let places = mounts.lines().filter_map(|line| mounted(line, disks));
                look.mounted
                    .extend(places.map(|place| format!("{place} (as process {pid} sees it)")));
            }
        }
        Ok(look)
    }

    fn is_free(&self) -> bool {
        self.inside.is_empty() && self.mounted.is_empty()
    }
}

/// Unmounts the disks that are mounted where we are, the last mount first. One that is busy is tried again.
fn unmount_ours(disks: &BTreeSet<Dev>) {
    let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo") else {
        return;
    };
    for place in mounts.lines().rev().filter_map(|line| mounted(line, disks)) {
        // Who is in the way is said at the end.
        let _ = unmount(unescape(place.as_bytes()), UnmountFlags::NOFOLLOW);
    }
}

/// Where the mount of this line of mountinfo is, if it is of one of the disks (proc(5): `ID PARENT MAJOR:MINOR ROOT PLACE ...`).
fn mounted<'a>(line: &'a str, disks: &BTreeSet<Dev>) -> Option<&'a str> {
    let mut fields = line.split(' ');
    let (high, low) = fields.nth(2)?.split_once(':')?;
    let device = makedev(high.parse().ok()?, low.parse().ok()?);
    let place = fields.nth(1)?;
    disks.contains(&device).then_some(place)
}

/// One that has ended meanwhile needs no signal.
fn send(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Look, makedev, mounted};

    #[test]
    fn a_line_of_mountinfo_says_device_and_place() {
        let line = "36 35 259:3 /mnt1 /run/con\\040tainer/rootfs rw,noatime master:1 - ext4 /dev/ublkb3 rw";
        let disks = BTreeSet::from([makedev(259, 3)]);
        assert_eq!(mounted(line, &disks), Some("/run/con\\040tainer/rootfs"));
        assert_eq!(mounted(line, &BTreeSet::from([makedev(259, 4)])), None);
        for odd in ["", "1 2", "1 2 x:y / /", "1 2 259:3 /"] {
            assert_eq!(mounted(odd, &disks), None);
        }
    }

    #[test]
    fn without_disks_nobody_is_in_the_way() {
        assert!(Look::at(&BTreeSet::new()).unwrap().is_free());
    }
}
