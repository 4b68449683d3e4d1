//! Children are started while nothing is open that they may not have.
//!
//! From the fork until it runs its program a child has all that this process has open, whatever is marked to be closed
//! then. A device that was opened alone (O_EXCL) stays somebody's for as long, although we closed it: whoever was told
//! that it is free and mounts it at once is answered `EBUSY`.

use std::sync::{PoisonError, RwLock, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

/// So long a program waits for who asks for a device: that is a matter of microseconds, or hangs with the device. Then a
/// child that keeps a claim for a moment is the lesser evil.
const PATIENCE: Duration = Duration::from_millis(200);

/// Alone by who starts a program; shared by those who open what no program may have.
static GATE: RwLock<()> = RwLock::new(());

/// Starts a program, 200 ms later at most.
pub fn starting<T>(start: impl FnOnce() -> T) -> T {
    let deadline = Instant::now() + PATIENCE;
    let _alone = loop {
        match GATE.try_write() {
            Ok(alone) => break Some(alone),
            Err(TryLockError::Poisoned(alone)) => break Some(alone.into_inner()),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(1));
            }
            Err(TryLockError::WouldBlock) => break None,
        }
    };
    start()
}

/// Opens something and closes it again, without a child that could keep it open. What takes time or may hang has no
/// place here: programs start only after 200 ms meanwhile.
pub fn while_none_starts<T>(moment: impl FnOnce() -> T) -> T {
    let _shared = GATE.read().unwrap_or_else(PoisonError::into_inner);
    moment()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::{Duration, Instant};

    use super::{PATIENCE, starting, while_none_starts};

    /// The claim of a device whose server is to be started hangs: the start does not.
    #[test]
    fn a_start_waits_for_a_moment_and_not_for_one_that_hangs() {
        let (begun, wait) = mpsc::channel();
        let (end, hang) = mpsc::channel::<()>();
        let moment = thread::spawn(move || {
            while_none_starts(|| {
                begun.send(()).unwrap();
                let _ = hang.recv();
            });
        });
        wait.recv().unwrap();
        let start = Instant::now();
        let waited = starting(|| start.elapsed());
        assert!(waited >= PATIENCE, "{waited:?}");
        assert!(waited < PATIENCE + Duration::from_secs(5), "{waited:?}");
        // Nor does another moment.
        assert_eq!(while_none_starts(|| 1), 1);
        drop(end);
        moment.join().unwrap();
        // Others of this process may ask for a device just now.
        assert_eq!(starting(|| 1), 1);
    }
}
