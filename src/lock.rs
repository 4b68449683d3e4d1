//! A lock file: one process has it, its number stands inside, and the kernel gives it up with the process.
//!
//! A process that was killed is not gone at once: the kernel takes a disk server's devices from it one
//! after the other, and its lock with the last of them. So whoever finds a lock taken looks where its
//! holder stands: one that is ending is waited for, a living one is not.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
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
        // Behind the first line may be the rest of a longer number that stood there.
        let number = text.lines().next().unwrap_or_default();
        Self(number.trim().parse().ok().filter(|_| read))
    }

    /// How long it is worth waiting for.
    fn patience(self) -> Duration {
        match self.0.map(stage) {
            None | Some(Stage::Lives) => Duration::ZERO,
            Some(Stage::Unseen) => UNSEEN,
            Some(Stage::Ends) => RELEASE,
        }
    }

    /// Was it killed, and is not gone? Nothing of it will run again.
    fn was_killed(self, path: &Path) -> bool {
        let Some(pid) = self.0 else { return false };
        // In another pid namespace the number in the file may be somebody else's.
        if !has_lock(pid, path).unwrap_or(false) {
            return false;
        }
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
            return false;
        };
        let mut any = false;
        for thread in threads {
            let status = thread.and_then(|thread| fs::read_to_string(thread.path().join("status")));
            // One that ends meanwhile is as good as dead, but it is asked again anyway.
            let Ok(status) = status else { return false };
            if !is_killed(&status) {
                return false;
            }
            any = true;
        }
        any
    }
}

/// Does the kernel say that this process of our namespace has the file's lock? In lines such as
/// `1: FLOCK  ADVISORY  WRITE 705 fe:00:2097160 0 EOF`.
fn has_lock(pid: u32, path: &Path) -> io::Result<bool> {
    let file = fs::metadata(path)?;
    let (major, minor) = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
    let place = format!("{major:02x}:{minor:02x}:{}", file.ino());
    let locks = fs::read_to_string("/proc/locks")?;
    Ok(locks.lines().any(|line| {
        let mut words = line.split_whitespace().skip_while(|word| *word != "FLOCK");
        let pid_and_place = (words.nth(3), words.next());
        pid_and_place == (Some(pid.to_string().as_str()), Some(place.as_str()))
    }))
}

/// Has a thread ended, or will it before it does anything? Its kill stands among its signals until then.
fn is_killed(status: &str) -> bool {
    const KILL: u64 = 1 << (9 - 1);
    let signals = |name| {
        let bits = field(status, name).and_then(|bits| u64::from_str_radix(bits, 16).ok());
        bits.unwrap_or(0)
    };
    matches!(field(status, "State:"), Some("Z" | "X"))
        || (signals("SigPnd:") | signals("ShdPnd:")) & KILL != 0
}

/// Takes the lock of a file, which is made where it is not there, and writes our number into it.
///
/// # Errors
/// If the host refuses; a lock that somebody has is none.
pub fn take(path: &Path) -> Result<Answer, Failed> {
    loop {
        let mut file = open(path)?;
        if let Some(holder) = lock(&mut file)? {
            return Ok(Answer::Theirs(holder));
        }
        // Between the two somebody may have put another file there, see `take_from_killed`.
        if is_at(&file, path) {
            return write_down(file).map(Answer::Ours);
        }
    }
}

/// Takes the lock, also of a process that was killed and cannot end.
///
/// A thread that waits for a device whose server is dead does not even end when it is killed, and its process
/// keeps its locks as long: for ever, if it is our lock that keeps us from starting that server. But whoever was
/// killed does nothing more, whatever its thread waits for. So its file is replaced by one that is locked already.
///
/// Only for what a process guards by being there, not for what the kernel still takes from it while it ends.
///
/// # Errors
/// Those of [`take`].
pub fn take_from_killed(path: &Path) -> Result<Answer, Failed> {
    match take(path)? {
        Answer::Theirs(holder) if holder.was_killed(path) => {}
        answer => return Ok(answer),
    }
    // One at a time: who comes second finds the file of the first.
    let gate = beside(path, ".gate");
    let mut gate = open(&gate)?;
    if let Some(holder) = lock(&mut gate)? {
        return Ok(Answer::Theirs(holder));
    }
    match take(path)? {
        Answer::Theirs(holder) if holder.was_killed(path) => {}
        answer => return Ok(answer),
    }
    let failed = |act| move |source| Failed { act, source };
    let new = beside(path, ".new");
    let mut file = open(&new)?;
    if let Some(holder) = lock(&mut file)? {
        return Ok(Answer::Theirs(holder));
    }
    let ours = write_down(file)?;
    fs::rename(&new, path).map_err(failed("replace"))?;
    Ok(Answer::Ours(ours))
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn open(path: &Path) -> Result<File, Failed> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|source| Failed {
            act: "open",
            source,
        })
}

/// Is this the file that a path leads to?
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// Says in a locked file whose it is. It is written first and cut after: on a tmpfs that is full, a page that is given back
/// may be gone. Where there was none the lock is held without: the number is for people, and for who waits for our end.
fn write_down(file: File) -> Result<Lock, Failed> {
    let number = format!("{}\n", std::process::id());
    let written = file
        .write_all_at(number.as_bytes(), 0)
        .and_then(|()| file.set_len(number.len() as u64));
    match written {
        Err(source) if source.kind() != io::ErrorKind::StorageFull => {
            let act = "write";
            Err(Failed { act, source })
        }
        _ => Ok(Lock { _file: file }),
    }
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
    // Its memory goes before its files do.
    if matches!(field(&text, "State:"), Some("Z" | "X")) || field(&text, "VmRSS:").is_none() {
        Stage::Ends
    } else {
        Stage::Lives
    }
}

/// A word of what the kernel says of a process.
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let line = status.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsRawFd;
    use std::process::{Child, Command};
    use std::time::{Duration, Instant};

    use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

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
        fs::write(&path, "a longer number stood here\n").unwrap();
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

    /// The run directory is full when a disk server starts: the lock is there to be had all the same. Needs root.
    #[test]
    fn a_full_host_keeps_nobody_from_a_lock() {
        let folder = tempfile::tempdir().unwrap();
        let (kind, none) = ("tmpfs", MountFlags::empty());
        mount(kind, folder.path(), kind, none, c"size=4k").unwrap();
        // From here on it is there for us alone, and as long as we have it open.
        let there = fs::File::open(folder.path()).unwrap();
        unmount(folder.path(), UnmountFlags::DETACH).unwrap();
        let place = format!("/proc/self/fd/{}", there.as_raw_fd());
        fs::write(format!("{place}/filler"), "x").unwrap();
        let path = format!("{place}/lock");
        let Answer::Ours(_lock) = take(path.as_ref()).unwrap() else {
            panic!("nobody has it");
        };
        let Answer::Theirs(holder) = take(path.as_ref()).unwrap() else {
            panic!("it is taken");
        };
        assert_eq!(holder.to_string(), "unknown");
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
}
