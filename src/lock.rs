//! A lock file: one process has it, its number stands inside, and the kernel gives it up with the process.
//!
//! A process that was killed is not gone at once: the kernel takes a disk server's devices from it one
//! after the other, and its lock with the last of them. So whoever finds a lock taken looks where its
//! holder stands: one that is ending is waited for, a living one is not.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// How long a process that is ending may take: the kernel needs about 16 ms for each device of it.
const RELEASE: Duration = Duration::from_secs(60);
/// How long one may take that is not even to be seen: it ends at this moment, or lives in another pid
/// namespace.
const UNSEEN: Duration = Duration::from_millis(500);
/// How often it is looked at.
const PAUSE: Duration = Duration::from_millis(3);

/// A lock, until this is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Whose a lock is.
#[derive(Debug)]
pub enum Answer {
    /// Ours now.
    Ours(Lock),
    /// Somebody else's.
    Theirs(Holder),
}

/// What hindered us, in the words "cannot {act} the file".
#[derive(Debug)]
pub struct Failed {
    /// What was tried.
    pub act: &'static str,
    /// Why not.
    pub source: io::Error,
}

/// Who has a lock, by what stands in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder(Option<u32>);

/// Where a process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Lives,
    /// Nothing is left of it but what the kernel still cleans up.
    Ends,
    Unseen,
}

impl fmt::Display for Holder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(pid) => write!(out, "process {pid}"),
            None => out.write_str("unknown"),
        }
    }
}

impl Holder {
    fn read(file: &mut File) -> Self {
        let mut text = String::new();
        let read = file.seek(SeekFrom::Start(0)).is_ok() && file.read_to_string(&mut text).is_ok();
        Self(text.trim().parse().ok().filter(|_| read))
    }

    /// How long it is worth waiting for.
    fn patience(self) -> Duration {
        match self.0.map(stage) {
            None | Some(Stage::Lives) => Duration::ZERO,
            Some(Stage::Unseen) => UNSEEN,
            Some(Stage::Ends) => RELEASE,
        }
    }
}

/// Takes the lock of a file, which is made where it is not there, and writes our number into it.
///
/// # Errors
/// If the host refuses; a lock that somebody has is none.
pub fn take(path: &Path) -> Result<Answer, Failed> {
    let failed = |act| move |source| Failed { act, source };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(failed("open"))?;
    if let Some(holder) = lock(&mut file)? {
        return Ok(Answer::Theirs(holder));
    }
    file.set_len(0)
        .and_then(|()| file.seek(SeekFrom::Start(0)))
        .and_then(|_| writeln!(file, "{}", std::process::id()))
        .map_err(failed("write"))?;
    Ok(Answer::Ours(Lock { _file: file }))
}

/// Keeps others out for a while: takes the lock of a file that is there, and leaves in it what stands there.
///
/// # Errors
/// If the host refuses, or there is no such file.
pub fn keep_out(path: &Path) -> Result<Answer, Failed> {
    let mut file = File::open(path).map_err(|source| Failed {
        act: "open",
        source,
    })?;
    Ok(match lock(&mut file)? {
        Some(holder) => Answer::Theirs(holder),
        None => Answer::Ours(Lock { _file: file }),
    })
}

/// Asks again while whoever has the lock is ending. Blocks.
///
/// # Errors
/// Those of what is asked.
pub fn patiently(mut ask: impl FnMut() -> Result<Answer, Failed>) -> Result<Answer, Failed> {
    let begun = Instant::now();
    loop {
        match ask()? {
            Answer::Theirs(holder) if begun.elapsed() < holder.patience() => sleep(PAUSE),
            answer => return Ok(answer),
        }
    }
}

/// Locks the file, or says who has.
fn lock(file: &mut File) -> Result<Option<Holder>, Failed> {
    match flock(&*file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(None),
        Err(Errno::WOULDBLOCK) => Ok(Some(Holder::read(file))),
        Err(error) => Err(Failed {
            act: "lock",
            source: error.into(),
        }),
    }
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
    use std::fs;
    use std::process::{Child, Command};
    use std::time::{Duration, Instant};

    use super::{Answer, Stage, keep_out, patiently, stage, take};

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
}
