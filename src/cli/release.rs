//! Let go of devices whose disk server will not come back.
//!
//! A ublk device outlives its server: the kernel holds every request for the next one. If none comes,
//! whoever waits for such a request waits for ever, in a state that no signal ends. Stopping the device
//! fails those requests. What was answered is not lost: it is in the deltas, and in the pending files
//! until the machine is switched off; the disk can be attached again.
//!
//! The rule: a device is touched only while we hold the lock of the server's seat, so no living server
//! has it and none can come meanwhile.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::output;
use super::verdict::Verdict;
use crate::config::Config;
use crate::lock::{self, Answer, Failed};
use crate::seat::Seat;
use crate::ublk::{self, Control, Info, Owner, State};

/// What became of one seat's devices.
#[derive(Clone, Copy, Debug, Default)]
struct Done {
    released: usize,
    failed: usize,
    refused: usize,
}

/// Fails the held requests of every dead server of the run directory, and takes its devices away; and those of `foreign`
/// devices, whose run directory is gone.
pub(super) fn release(config: &Config, foreign: &[PathBuf], dry: bool) -> Result<Verdict> {
    let run = &config.run_dir;
    let seats = Seat::all(run).with_context(|| format!("cannot read {}", run.display()))?;
    let devices = devices()?;
    let mut done = Done::default();
    let mut known = Vec::new();
    for seat in &seats {
        // Its path is what older servers made their word from.
        let folder = fs::canonicalize(seat.folder()).unwrap_or_else(|_| seat.folder());
        let owner = Owner::of(run, &seat.name().to_string(), &folder)
            .with_context(|| format!("cannot look at {}", run.display()))?;
        known.push(owner.tag());
        let its = |info: &&Info| owner.tag() == info.tag;
        let of_seat: Vec<&Info> = devices.iter().filter(its).collect();
        release_seat(seat, &of_seat, dry, &mut done)?;
    }
    let theirs: Vec<&Info> = devices
        .iter()
        .filter(|info| Owner::is_ploopd(info.tag))
        .filter(|info| !known.contains(&info.tag))
        .collect();
    for info in &theirs {
        if foreign.iter().any(|path| *path == node(info)) {
            release_foreign(info, dry, &mut done)?;
        } else {
            output::line(&format!(
                "{}: of a ploopd with another run directory, left alone; if that is gone for good: `ploop \
                 release-devices --device {}`",
                node(info).display(),
                node(info).display()
            ));
        }
    }
    for path in foreign {
        if !theirs.iter().any(|info| *path == node(info)) {
            output::line(&format!(
                "{}: no device of a ploopd with another run directory, left alone",
                path.display()
            ));
            done.failed += 1;
        }
    }
    let Done {
        released,
        failed,
        refused,
    } = done;
    let would = if dry { "would be " } else { "" };
    output::line(&format!(
        "{released} devices {would}released, {failed} not; {refused} servers live"
    ));
    Ok(if failed + refused > 0 {
        Verdict::Failed
    } else {
        Verdict::Clean
    })
}

/// Every ublk device; none where there is no driver.
fn devices() -> Result<Vec<Info>> {
    let numbers = ublk::list();
    if numbers.is_empty() {
        return Ok(Vec::new());
    }
    let control = Control::open()?;
    let mut devices = Vec::new();
    for number in numbers {
        devices.extend(control.info(number)?);
    }
    Ok(devices)
}

fn release_seat(seat: &Seat, devices: &[&Info], dry: bool, done: &mut Done) -> Result<()> {
    let name = seat.name();
    let lock_path = seat.lock();
    // A server that was killed keeps its lock until the kernel has taken its devices from it.
    let _lock = match lock::patiently(|| lock::keep_out(&lock_path)) {
        Ok(Answer::Ours(lock)) => lock,
        Ok(Answer::Theirs(holder)) => {
            output::line(&format!(
                "server {name}: ploopd lives ({holder}), its {} devices are left to it",
                devices.len()
            ));
            done.refused += 1;
            return Ok(());
        }
        // Nobody ever sat there: nothing can be its.
        Err(_) if devices.is_empty() => return Ok(()),
        Err(Failed { act, source }) => {
            return Err(source).with_context(|| format!("cannot {act} {}", lock_path.display()));
        }
    };
    if devices.is_empty() {
        output::line(&format!("server {name}: dead, and has no ublk device"));
        return if dry { Ok(()) } else { forget_all(seat) };
    }
    let control = Control::open()?;
    let before = done.failed;
    for info in devices {
        if !dry {
            // Its number may be a stranger's the next moment.
            forget(seat, &node(info))?;
        }
        release_one(&control, &format!("server {name}: "), info, dry, done);
    }
    if !dry && done.failed == before {
        forget_all(seat)?;
    }
    Ok(())
}

/// The next server of this seat would look for devices that are gone.
fn forget_all(seat: &Seat) -> Result<()> {
    match fs::remove_file(seat.registry()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", seat.registry().display()))
        }
        _ => Ok(()),
    }
}

/// One whose server nobody here can know: that it is not served is all that the kernel says.
fn release_foreign(info: &Info, dry: bool, done: &mut Done) -> Result<()> {
    if info.state == State::Live {
        output::line(&format!(
            "{}: a ploopd serves it, left alone: detach the disk there",
            node(info).display()
        ));
        done.refused += 1;
        return Ok(());
    }
    release_one(&Control::open()?, "", info, dry, done);
    Ok(())
}

/// Stops a device and takes it away. `whose` begins the line that says so.
fn release_one(control: &Control, whose: &str, info: &Info, dry: bool, done: &mut Done) {
    let device = node(info);
    let device = device.display();
    if dry {
        output::line(&format!(
            "{whose}{device} ({:?}) would be released",
            info.state
        ));
        done.released += 1;
        return;
    }
    let stopped = control.stop(info.id);
    // A delete that waits would wait for whoever still has the dead device mounted.
    match stopped.and_then(|()| control.delete_later(info.id)) {
        Ok(()) => {
            output::line(&format!(
                "{whose}{device} released: what waited for it fails, unmount what is mounted"
            ));
            done.released += 1;
        }
        Err(error) => {
            output::line(&format!("{whose}{device} not released: {error}"));
            done.failed += 1;
        }
    }
}

/// Takes away the paths of a seat's disks that lead to this device.
fn forget(seat: &Seat, device: &Path) -> Result<()> {
    let folder = seat.aliases();
    let cannot = || format!("cannot clear {}", folder.display());
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(cannot)?,
    };
    for entry in entries {
        let path = entry.with_context(cannot)?.path();
        if fs::read_link(&path).is_ok_and(|leads_to| leads_to == device) {
            fs::remove_file(&path).with_context(cannot)?;
        }
    }
    Ok(())
}

fn node(info: &Info) -> PathBuf {
    PathBuf::from(format!("/dev/ublkb{}", info.id))
}
