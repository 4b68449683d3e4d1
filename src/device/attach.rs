//! Attach and detach: a disk becomes a device, and a device goes away in the right order.
//!
//! ```text
//! attach   file in the FUSE folder  ->  loop device over it
//! detach   loop device let go       ->  file closed by the kernel  ->  file gone
//! ```
//!
//! Every call here may block, on the kernel and through it on our own FUSE threads: call it where
//! blocking is allowed, never on a disk's thread or a runtime's.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::error::{Error, kernel};
use super::fuse::Fuse;
use super::leftovers::{self, Leftovers};
use super::loopback::{Loop, Shape, abandon};
use super::wish::Wish;
use crate::disk::DiskHandle;

/// A logical block where the disk's size allows it: ext4 never asks for less, and O_DIRECT below
/// needs no more.
const BLOCK: u32 = 4096;
/// How long a detach waits for those who have the device open for a moment (udev, an unmount that is
/// just ending).
const PATIENCE: Duration = Duration::from_secs(2);

/// How disks reach the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A FUSE file with a loop device over it: works on every kernel.
    Fuse,
}

impl Transport {
    /// Its name for people and for the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fuse => "fuse",
        }
    }

    /// Do devices outlive the process that serves them?
    #[must_use]
    pub fn survives_restart(self) -> bool {
        match self {
            Self::Fuse => false,
        }
    }
}

/// A disk as the kernel sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its node.
    pub path: PathBuf,
    /// The node's major number.
    pub major: u32,
    /// The node's minor number.
    pub minor: u32,
}

/// What this room needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// The server's run folder, its own and nobody else's; the FUSE folder is made below it.
    pub run: PathBuf,
    /// Which way is asked for.
    pub wish: Wish,
    /// Threads that take requests from the kernel.
    pub threads: usize,
}

/// Every device of this process.
pub struct Devices {
    fuse: Fuse,
    /// Held for a look-up or a change, never across a call to the kernel.
    bound: Mutex<HashMap<String, Loop>>,
}

impl Devices {
    /// Cleans up what an earlier process left, and mounts the FUSE folder.
    ///
    /// Only the holder of the run folder's lock may call this: leftovers of a living server are no
    /// leftovers.
    ///
    /// # Errors
    /// If the folder cannot be made or mounted, or if what is asked for is not there.
    pub fn open(options: &Options) -> Result<(Self, Leftovers), Error> {
        if options.wish == Wish::Ublk {
            return Err(Error::NoUblk);
        }
        let run = fs::canonicalize(&options.run).map_err(kernel("find", &options.run))?;
        let folder = run.join("fuse");
        let found = leftovers::clean(&folder)?;
        make_folder(&folder)?;
        let devices = Self {
            fuse: Fuse::mount(&folder, options.threads)?,
            bound: Mutex::new(HashMap::new()),
        };
        Ok((devices, found))
    }

    /// How disks reach the kernel here.
    #[must_use]
    pub fn transport(&self) -> Transport {
        Transport::Fuse
    }

    /// Makes a disk a block device. `name` is a file name.
    ///
    /// # Errors
    /// If the kernel has no device for it; nothing is left behind then.
    pub fn attach(&self, name: &str, disk: DiskHandle) -> Result<Device, Error> {
        let size = disk.size();
        if size == 0 || !size.is_multiple_of(512) {
            return Err(Error::Size { size });
        }
        let whole = size.is_multiple_of(u64::from(BLOCK));
        let shape = Shape {
            read_only: disk.read_only(),
            block: if whole { BLOCK } else { 512 },
        };
        let file = self.fuse.add(name, disk)?;
        let bound = match Loop::bind(&file, shape) {
            Ok(bound) => bound,
            Err(error) => {
                self.fuse.remove(name);
                return Err(error);
            }
        };
        let device = Device {
            path: bound.path.clone(),
            major: bound.major,
            minor: bound.minor,
        };
        self.lock().insert(name.to_owned(), bound);
        Ok(device)
    }

    /// Takes the device away. What is not attached is not attached: that is no error.
    ///
    /// Nothing that was written is lost: the last one who closes a block device writes its cache
    /// back, and nobody else has it open here.
    ///
    /// # Errors
    /// [`Error::Busy`] if somebody has the device open; it goes on working then.
    pub fn detach(&self, name: &str) -> Result<(), Error> {
        let Some(bound) = self.lock().get(name).cloned() else {
            return Ok(());
        };
        bound.unbind(PATIENCE)?;
        self.fuse.remove(name);
        self.lock().remove(name);
        Ok(())
    }

    /// Is the device still there? Somebody may have let go of it behind our back (`losetup -D`).
    #[must_use]
    pub fn stands(&self, name: &str) -> bool {
        let bound = self.lock().get(name).cloned();
        bound.is_some_and(|bound| bound.is_ours())
    }

    /// Lets go of every device and unmounts the FUSE folder. Devices that somebody has open die, and
    /// go when they are closed.
    ///
    /// # Errors
    /// If the kernel refuses to unmount.
    pub fn close(&self) -> Result<(), Error> {
        let left: Vec<_> = self.lock().drain().collect();
        for (name, bound) in left {
            match abandon(&bound) {
                Ok(false) => {}
                Ok(true) => tracing::warn!(
                    disk = %name, device = %bound.path.display(),
                    "somebody has the device open: from now on it answers errors"
                ),
                Err(error) => tracing::warn!(disk = %name, %error, "a device is left behind"),
            }
        }
        self.fuse.unmount()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Loop>> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make_folder(folder: &Path) -> Result<(), Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(kernel("make", folder))
}
