//! A device from the control side: is it free, is everything in it on its way down, and was that all?
//!
//! The disk server never opens its own devices, or it would wait for itself; we may. Each of these can
//! hang with the device, so each runs on a thread of its own that the caller stops waiting for.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Advice, FallocateFlags, OFlags, fadvise, fallocate, makedev};
use rustix::io::Errno;

use super::Error;
use super::mounts::mounted;
use crate::filesystem::{self, Kind, Superblock, Trouble};
use crate::link::Disk;
use crate::spawn::while_none_starts;

/// How often a busy device is tried again.
const AGAIN: Duration = Duration::from_millis(20);

/// Who keeps a device, if anybody.
#[derive(Debug)]
pub(super) enum Use {
    /// Nobody; and what was written to it is in its disk.
    Free,
    /// Somebody, in these words.
    Busy(String),
    /// Nobody, but its file system was never unmounted in order, in these words.
    Torn(&'static str),
}

/// Does somebody have the device, in any mount namespace?
///
/// A server sees the mounts of its own namespace alone, and on ublk it takes away what it believes to
/// be free; a container's private mount may outlive ours by seconds.
pub(super) async fn held(disk: &Disk, limit: Duration) -> Result<bool, Error> {
    let device = disk.path().to_owned();
    let opened = within("opening a device", disk, limit, move || open_alone(&device)).await?;
    match opened {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(true),
        Err(error) if is_gone(&error) => Ok(false),
        // Without a descriptor left, say, nothing is known.
        Err(error) => Err(Error::file("open", &disk.device)(error)),
    }
}

/// Is there no such device any more, so that nobody can have it?
fn is_gone(error: &io::Error) -> bool {
    let gone = [Errno::NOENT, Errno::NXIO, Errno::NODEV];
    Errno::from_io_error(error).is_some_and(|error| gone.contains(&error))
}

/// The kind of file system that a disk has. Whatever else somebody keeps on it is told of as an ext4, and whoever mounts
/// it hears what is wrong.
pub(super) async fn file_system(disk: &Disk, limit: Duration) -> Result<Kind, Error> {
    let device = disk.path().to_owned();
    let work = move || match Kind::read(&device) {
        Err(filesystem::Error::Unknown { .. }) => Ok(Kind::Ext4),
        read => read.map_err(io::Error::other),
    };
    let done = within("reading a device", disk, limit, work).await?;
    done.map_err(Error::file("read the beginning of", &disk.device))
}

/// What the superblock of its file system says; `None` if somebody keeps something else on the disk.
///
/// That of a mounted XFS may be older than what its log knows.
pub(super) async fn superblock(disk: &Disk, limit: Duration) -> Result<Option<Superblock>, Error> {
    let device = disk.path().to_owned();
    let work = move || {
        let file = open(&device, OFlags::empty())?;
        // A mounted XFS writes past the page cache, in which the last one who looked may have left what was.
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
        match Superblock::read_at(&file, 0, &device) {
            Err(error) if error.trouble() == Trouble::Damaged => Ok(None),
            read => read.map(Some).map_err(io::Error::other),
        }
    };
    let done = within("reading a device", disk, limit, work).await?;
    done.map_err(Error::file("read the superblock of", &disk.device))
}

/// Makes an XFS larger: where it is mounted, or where nobody has it.
pub(super) async fn grow_xfs(
    disk: &Disk,
    at: Option<PathBuf>,
    size: u64,
    limit: Duration,
) -> Result<Result<(), filesystem::Error>, Error> {
    let device = disk.path().to_owned();
    let number = makedev(disk.major, disk.minor);
    let work = move || {
        let at = at.as_deref().map(|at| (at, number));
        Ok(filesystem::grow_xfs(&device, at, size))
    };
    let done = within("growing a file system", disk, limit, work).await?;
    done.map_err(Error::file("grow the file system on", &disk.device))
}

/// Zeros what lies behind the end of a disk's ext4 that nobody has, up to `size`: it is about to grow, and below may be
/// the rest of a larger one, from before somebody shrank it.
///
/// Where the end is, the file system says. What a record says may be older: a resize that was cut short has
/// not told it, and what it called free may be somebody's data since.
///
/// No time limit: given up it would go on, and zero what the next resize has put there.
pub(super) async fn forget_behind(disk: &Disk, size: u64) -> Result<(), Error> {
    let device = disk.path().to_owned();
    let work = move || {
        let end = Superblock::read(&device).map_err(io::Error::other)?.size;
        if end >= size {
            return Ok(());
        }
        let file = File::options().write(true).open(&device)?;
        let zero = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(&file, zero, end, size - end)?)
    };
    let what = "zeroing the end of a device";
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Error::Interrupted { what })?
        .map_err(Error::file("zero the end of", &disk.device))
}

/// Does the file system on a disk count what each user has?
pub(super) async fn user_quota(disk: &Disk, limit: Duration) -> Result<bool, Error> {
    let device = disk.path().to_owned();
    let work = move || Superblock::read(&device).map_err(io::Error::other);
    let done = within("reading a device", disk, limit, work).await?;
    let superblock = done.map_err(Error::file("read the superblock of", &disk.device))?;
    Ok(superblock.user_quota)
}

/// Waits until nobody has the device, at most `wait`, then flushes what the kernel holds of it.
///
/// A mount in our own namespace is nothing to wait for: the caller should have unmounted it. One in
/// another may be on its way out: runc's private copies of a mount go seconds after ours.
pub(super) async fn free_and_flush(
    disk: &Disk,
    wait: Duration,
    limit: Duration,
) -> Result<Use, Error> {
    let asked = disk.clone();
    let work = move || free_and_flush_now(&asked, wait);
    let done = within("flushing a device", disk, wait + limit, work).await?;
    done.map_err(Error::file("flush", &disk.device))
}

/// Runs what may hang with the device on a thread of its own, and waits so long for it.
async fn within<T: Send + 'static>(
    what: &'static str,
    disk: &Disk,
    limit: Duration,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<io::Result<T>, Error> {
    match tokio::time::timeout(limit, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(_)) => Err(Error::Interrupted { what }),
        Err(_) => Err(Error::Stuck {
            what: format!("{what} ({})", disk.device.display()),
            limit,
        }),
    }
}

fn free_and_flush_now(disk: &Disk, wait: Duration) -> io::Result<Use> {
    if let Some(mount) = mounted(disk)?.first() {
        return Ok(Use::Busy(format!("mounted at {}", mount.at.display())));
    }
    let deadline = Instant::now() + wait;
    loop {
        match flush_alone(disk.path()) {
            Ok(found) => return Ok(found),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                if Instant::now() >= deadline {
                    let how = "open, or mounted in another mount namespace".to_owned();
                    return Ok(Use::Busy(how));
                }
                thread::sleep(AGAIN);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Flushes a device that nobody has; `EBUSY` if somebody has it before or after.
fn flush_alone(device: &Path) -> io::Result<Use> {
    // Unmounting wrote the file system back, but only into the device's page cache if the device was written as a file.
    let opened = open_alone(device)?;
    opened.sync_all()?;
    let mut found = torn(device)?;
    // Still open: the claim is neither the first to open it nor the last to close it.
    claim(device)?;
    drop(opened);
    if found.is_some() {
        // What was read may have been a mount's that came and went.
        found = torn(device)?;
    }
    Ok(found.map_or(Use::Free, Use::Torn))
}

/// Did its file system's last unmount not come to its end?
///
/// containerd's writers sync nothing, and an unmount is silent about writes that failed. But the last
/// thing it writes is the superblock (of XFS the log), saying that all is well; a disk whose server died under it (or
/// that answered errors) never gets that far, however well it is served again.
fn torn(device: &Path) -> io::Result<Option<&'static str>> {
    match filesystem::torn(device) {
        // Whatever else somebody keeps on it is theirs to look after.
        Err(error) if error.trouble() == Trouble::Damaged => Ok(None),
        found => found.map_err(io::Error::other),
    }
}

/// Opens a block device unless a mount or another exclusive opener has it.
///
/// Whoever is answered that it is free may mount it at once, so nothing of ours keeps it from that: the claim that asks
/// is gone, and no child that is just being started has inherited it. It is neither the first to open the device nor
/// the last to close it, which is what can take time or hang.
fn open_alone(device: &Path) -> io::Result<File> {
    let opened = open(device, OFlags::NONBLOCK)?;
    claim(device)?;
    Ok(opened)
}

/// Is a device that is open free at this moment? `EBUSY` if it is not.
fn claim(device: &Path) -> io::Result<()> {
    while_none_starts(|| open(device, OFlags::NONBLOCK | OFlags::EXCL).map(drop))
}

fn open(device: &Path, flags: OFlags) -> io::Result<File> {
    File::options()
        .read(true)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
        .open(device)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::{Disk, held};

    fn disk(device: &Path) -> Disk {
        Disk {
            id: "s1".into(),
            device: device.to_owned(),
            alias: None,
            major: 4095,
            minor: 1,
            size: 1 << 30,
            cluster: 65536,
            read_only: false,
            deltas: Vec::new(),
            failed: None,
        }
    }

    /// Without a descriptor left every device was free, and was taken away from whoever had it.
    #[tokio::test]
    async fn a_device_that_cannot_be_looked_at_is_not_free() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let limit = Duration::from_secs(10);
        assert!(!held(&disk(&file), limit).await.unwrap());
        let gone = dir.path().join("gone");
        assert!(!held(&disk(&gone), limit).await.unwrap());
        let error = held(&disk(&file.join("x")), limit).await.unwrap_err();
        assert!(error.to_string().contains("cannot open"), "{error}");
    }
}
