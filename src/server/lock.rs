//! A seat belongs to whoever holds its lock; the kernel gives it up with the process.
//!
//! A server that was killed is not gone at once: the kernel takes its devices from it one after the
//! other, and its lock with the last of them. Who comes next waits for that, but not for a living one.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::error::{Error, host};
use crate::seat::Seat;

/// How long a process that is ending may take: the kernel needs about 16 ms for each of its devices.
const RELEASE: Duration = Duration::from_secs(60);
/// How long one may take that is not even to be seen: it ends at this moment, or lives in another pid
/// namespace.
const UNSEEN: Duration = Duration::from_millis(500);
/// How often it is looked at.
const PAUSE: Duration = Duration::from_millis(3);

/// Takes the lock of a seat whose folder exists, and writes our number into it. Blocks.
pub(super) fn take(seat: &Seat) -> Result<File, Error> {
    let path = seat.lock();
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(host("open", &path))?;
    let begun = Instant::now();
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(Errno::WOULDBLOCK) => {}
            Err(error) => return Err(host("lock", &path)(error)),
        }
        let mut text = String::new();
        let read = file.seek(SeekFrom::Start(0)).is_ok() && file.read_to_string(&mut text).is_ok();
        let holder = text.trim().parse::<u32>().ok().filter(|_| read);
        let patience = match holder.map(stage) {
            None | Some(Stage::Lives) => Duration::ZERO,
            Some(Stage::Unseen) => UNSEEN,
            Some(Stage::Ends) => RELEASE,
        };
        if begun.elapsed() >= patience {
            return Err(Error::SecondServer {
                folder: seat.folder(),
                who: holder.map_or_else(|| "unknown".to_owned(), |pid| format!("process {pid}")),
            });
        }
        sleep(PAUSE);
    }
    let written = file
        .set_len(0)
        .and_then(|()| file.seek(SeekFrom::Start(0)))
        .and_then(|_| writeln!(file, "{}", std::process::id()));
    written.map_err(host("write", &path))?;
    Ok(file)
}

/// Where a process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Lives,
    /// Nothing is left of it but what the kernel still cleans up.
    Ends,
    Unseen,
}

fn stage(pid: u32) -> Stage {
    let Ok(text) = fs::read_to_string(format!("/proc/{pid}/status")) else {
        return Stage::Unseen;
    };
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)
    };
    // Its memory goes before its files do.
    if matches!(field("State:"), Some("Z" | "X")) || field("VmRSS:").is_none() {
        Stage::Ends
    } else {
        Stage::Lives
    }
}

#[cfg(test)]
mod tests {
    use super::{Stage, stage};

    #[test]
    fn a_living_process_is_not_ending_and_a_zombie_is() {
        assert_eq!(stage(std::process::id()), Stage::Lives);
        assert_eq!(stage(u32::MAX), Stage::Unseen);
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while stage(child.id()) != Stage::Ends {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
        child.wait().unwrap();
    }
}
