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

use anyhow::{Context, Result};

use super::output;
use super::verdict::Verdict;
use crate::config::Config;
use crate::lock::{self, Answer, Failed};
use crate::seat::Seat;
use crate::ublk::{self, Control, Info, Owner};

/// What became of one seat's devices.
#[derive(Clone, Copy, Debug, Default)]
struct Done {
    released: usize,
    failed: usize,
    refused: usize,
}

/// Fails the held requests of every dead server of the run directory, and takes its devices away.
pub(super) fn release(config: &Config, dry: bool) -> Result<Verdict> {
    let run = &config.run_dir;
    let seats = Seat::all(run).with_context(|| format!("cannot read {}", run.display()))?;
    let devices = devices()?;
    let mut done = Done::default();
    let mut known = Vec::new();
    for seat in &seats {
        // The server makes its mark from the same path.
        let folder = fs::canonicalize(seat.folder()).unwrap_or_else(|_| seat.folder());
        let tag = Owner::of(&folder).tag();
        known.push(tag);
        let of_seat: Vec<&Info> = devices.iter().filter(|info| info.tag == tag).collect();
        release_seat(seat, &of_seat, dry, &mut done)?;
    }
    for info in devices.iter().filter(|info| Owner::is_ploopd(info.tag)) {
        if !known.contains(&info.tag) {
            output::line(&format!(
                "{}: of a ploopd with another run directory, left alone",
                node(info)
            ));
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
        return Ok(());
    }
    let control = Control::open()?;
    let before = done.failed;
    for info in devices {
        let device = node(info);
        if dry {
            output::line(&format!(
                "server {name}: {device} ({:?}) would be released",
                info.state
            ));
            done.released += 1;
            continue;
        }
        let stopped = control.stop(info.id);
        // A delete that waits would wait for whoever still has the dead device mounted.
        match stopped.and_then(|()| control.delete_later(info.id)) {
            Ok(()) => {
                output::line(&format!(
                    "server {name}: {device} released: what waited for it fails, unmount what is mounted"
                ));
                done.released += 1;
            }
            Err(error) => {
                output::line(&format!("server {name}: {device} not released: {error}"));
                done.failed += 1;
            }
        }
    }
    if !dry && done.failed == before {
        // The next server of this seat would look for devices that are gone.
        match fs::remove_file(seat.registry()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error)
                    .with_context(|| format!("cannot remove {}", seat.registry().display()));
            }
            _ => {}
        }
    }
    Ok(())
}

fn node(info: &Info) -> String {
    format!("/dev/ublkb{}", info.id)
}
