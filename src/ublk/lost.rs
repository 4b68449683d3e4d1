//! Commands that did not come back in time, and what the kernel may still write for them.
//!
//! Each keeps its ring and its memory until it does come back. Most of them mean that the kernel's control plane hangs;
//! a delete that waits for whoever has a dead node open means nothing of the kind, and nobody waits for it.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::control::{CommandRing, Payload};
use super::error::Error;

/// A command that did not come back.
pub(super) struct Command {
    pub(super) ring: CommandRing,
    pub(super) name: &'static str,
    pub(super) id: u32,
    pub(super) since: Instant,
    pub(super) payload: Payload,
    /// May it take for ever, with nothing wrong?
    pub(super) patient: bool,
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} since {:?}", self.name, self.id, self.since)
    }
}

/// One that did after all.
#[derive(Debug)]
pub(super) struct Back {
    pub(super) name: &'static str,
    pub(super) id: u32,
    pub(super) after: Duration,
    pub(super) result: i32,
    pub(super) patient: bool,
    /// The device that it made, which nobody knows of.
    pub(super) made: Option<u32>,
}

/// Every one of a process.
#[derive(Debug, Default)]
pub(super) struct Lost(Mutex<Vec<Command>>);

impl Lost {
    pub(super) fn add(&self, command: Command) {
        self.lock().push(command);
    }

    /// Takes out those that have come back.
    pub(super) fn back(&self) -> Vec<Back> {
        let mut lost = self.lock();
        let mut found = Vec::new();
        lost.retain_mut(|command| {
            let Some(entry) = command.ring.completion().next() else {
                return true;
            };
            let result = entry.result();
            let made = match &command.payload {
                Payload::Info(info) if command.name == ADD && result >= 0 => Some(info.dev_id),
                _ => None,
            };
            found.push(Back {
                name: command.name,
                id: command.id,
                after: command.since.elapsed(),
                result,
                patient: command.patient,
                made,
            });
            false
        });
        found
    }

    /// The oldest that should have come back.
    pub(super) fn first(&self) -> Option<Error> {
        let lost = self.lock();
        let first = lost.iter().find(|command| !command.patient)?;
        Some(Error::Stuck {
            command: first.name,
            id: first.id,
            after: first.since.elapsed(),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Command>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The command that makes a device.
pub(super) const ADD: &str = "ADD_DEV";

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use io_uring::squeue::Entry128;
    use io_uring::{IoUring, opcode};

    use super::{ADD, Command, Lost};
    use crate::ublk::control::{CommandRing, Payload};
    use crate::ublk::error::Error;
    use crate::ublk::uapi::ublksrv_ctrl_dev_info;

    /// A ring on which nothing happens, or on which the answer 0 is there already.
    fn ring(answered: bool) -> CommandRing {
        let mut ring: CommandRing = IoUring::builder().build(4).unwrap();
        if answered {
            let entry = Entry128::from(opcode::Nop::new().build());
            // SAFETY: it does nothing, and points at nothing.
            #[expect(unsafe_code, reason = "any entry may point at memory")]
            unsafe { ring.submission().push(&entry) }.unwrap();
            ring.submit_and_wait(1).unwrap();
        }
        ring
    }

    fn command(name: &'static str, id: u32, answered: bool, patient: bool) -> Command {
        let info = ublksrv_ctrl_dev_info {
            dev_id: id,
            ..ublksrv_ctrl_dev_info::default()
        };
        Command {
            ring: ring(answered),
            name,
            id,
            since: Instant::now(),
            payload: Payload::Info(Box::new(info)),
            patient,
        }
    }

    #[test]
    fn a_delete_that_waits_for_an_opener_is_no_sign_of_a_stuck_kernel() {
        let lost = Lost::default();
        lost.add(command("DEL_DEV", 1, false, true));
        assert!(lost.back().is_empty() && lost.first().is_none());
        lost.add(command("START_DEV", 2, false, false));
        let stuck = lost.first().unwrap();
        assert!(matches!(stuck, Error::Stuck { id: 2, .. }), "{stuck}");
    }

    /// Nobody knows of a device whose ADD_DEV was given up: who finds it late has to take it away.
    #[test]
    fn a_device_that_was_made_too_late_is_named() {
        let lost = Lost::default();
        for (name, id) in [(ADD, 5), ("START_DEV", 6)] {
            lost.add(command(name, id, true, false));
        }
        let back = lost.back();
        let made: Vec<_> = back.iter().map(|back| (back.id, back.made)).collect();
        assert_eq!(made, [(5, Some(5)), (6, None)]);
        assert!(lost.back().is_empty() && lost.first().is_none());
    }
}
