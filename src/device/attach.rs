//! Attach and detach: a disk becomes a device, and a device goes away in the right order.
//!
//! Which way a disk takes to the kernel is decided once, when the server starts. Every call here may
//! block, on the kernel and through it on our own threads: call it where blocking is allowed, never on
//! a disk's thread or a runtime's.

use std::fs;
use std::path::PathBuf;

use super::error::{Error, kernel};
use super::leftovers::{self, Leftovers};
use super::looped::Looped;
use super::shape::{Device, Shape};
use super::ublk::{self, Ublk};
use super::wish::Wish;
use crate::disk::DiskHandle;
use crate::ublk::Owner;

/// A logical block where the disk's size allows it: ext4 never asks for less, and O_DIRECT below
/// needs no more.
const BLOCK: u32 = 4096;

/// How disks reach the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// The kernel's user-space block driver.
    Ublk,
    /// A FUSE file with a loop device over it: works on every kernel.
    Fuse,
}

impl Transport {
    /// Its name for people and for the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ublk => "ublk",
            Self::Fuse => "fuse",
        }
    }

    /// Do devices outlive the process that serves them?
    #[must_use]
    pub fn survives_restart(self) -> bool {
        match self {
            Self::Ublk => true,
            Self::Fuse => false,
        }
    }
}

/// What this room needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// The server's run folder, its own and nobody else's; the FUSE folder is made below it.
    pub run: PathBuf,
    /// The run directory, and the server's name in it: by these its devices are its own.
    pub whose: (PathBuf, String),
    /// Which way is asked for.
    pub wish: Wish,
    /// Should ublk requests' pages be used where they are, where the kernel can do that?
    pub zero_copy: bool,
    /// Threads that take requests from FUSE.
    pub threads: usize,
}

/// Every device of this process.
pub struct Devices(Way);

enum Way {
    Ublk(Ublk),
    Looped(Looped),
}

/// Without ublk the devices of the server before could neither be taken over nor be given back: whoever uses one waits
/// for its server, and the same disk would get a second device beside it. What to do then is for a person to decide.
fn left_behind(waiting: Vec<PathBuf>, why: Option<&crate::ublk::Error>) -> Result<(), Error> {
    if waiting.is_empty() {
        return Ok(());
    }
    let devices: Vec<_> = waiting
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    Err(Error::LeftBehind {
        devices: devices.join(", "),
        why: why.map_or(String::new(), |why| format!(" ({why})")),
    })
}

impl Devices {
    /// Decides on the way, and cleans up what an earlier process left. The ublk devices numbered
    /// `known` stay: somebody will take them over, or release them.
    ///
    /// Only the holder of the run folder's lock may call this: leftovers of a living server are no
    /// leftovers.
    ///
    /// # Errors
    /// If what is asked for is not there, the FUSE folder cannot be made or mounted, or a device that is `known` waits
    /// and there is no ublk to take it over with.
    pub fn open(options: &Options, known: &[u32]) -> Result<(Self, Leftovers), Error> {
        let run = fs::canonicalize(&options.run).map_err(kernel("find", &options.run))?;
        let folder = run.join("fuse");
        let mut found = leftovers::clean(&folder)?;
        let (node, seat) = &options.whose;
        let owner = Owner::of(node, seat, &run).map_err(kernel("look at", node))?;
        let ublk = match options.wish {
            Wish::Fuse => {
                left_behind(ublk::waiting(&owner, known), None)?;
                None
            }
            Wish::Ublk => Some(Ublk::open(owner, options.zero_copy)?),
            Wish::Auto => match Ublk::open(owner, options.zero_copy) {
                Ok(ublk) => Some(ublk),
                // The next moment may have enough of it, and disks that went through FUSE would stay there.
                Err(reason) if reason.is_exhausted() => return Err(reason.into()),
                Err(reason) => {
                    left_behind(ublk::waiting(&owner, known), Some(&reason))?;
                    tracing::warn!(
                        %reason,
                        "no ublk here: disks go through FUSE and loop devices, slower, and they end with this \
                         process"
                    );
                    None
                }
            },
        };
        let way = match ublk {
            Some(ublk) => {
                found.freed.extend(ublk.sweep(known));
                Way::Ublk(ublk)
            }
            None => Way::Looped(Looped::open(&folder, options.threads)?),
        };
        Ok((Self(way), found))
    }

    /// How disks reach the kernel here.
    #[must_use]
    pub fn transport(&self) -> Transport {
        match &self.0 {
            Way::Ublk(_) => Transport::Ublk,
            Way::Looped(_) => Transport::Fuse,
        }
    }

    /// Makes a disk a block device. `name` is a file name. One that `will_grow` has room for it, if need be
    /// by being announced larger than the disk is.
    ///
    /// Of a device that outlives this process `tell` hears the number before anything can go through
    /// it; if `tell` answers no, there will be no device.
    ///
    /// # Errors
    /// If the kernel has no device for it; nothing is left behind then.
    pub fn attach(
        &self,
        name: &str,
        disk: DiskHandle,
        will_grow: bool,
        tell: impl FnOnce(u32) -> bool,
    ) -> Result<Device, Error> {
        let size = disk.size();
        if size == 0 || !size.is_multiple_of(512) {
            return Err(Error::Size { size });
        }
        let whole = size.is_multiple_of(u64::from(BLOCK));
        let shape = Shape {
            read_only: disk.read_only(),
            will_grow: will_grow && !disk.read_only(),
            block: if whole { BLOCK } else { 512 },
        };
        match &self.0 {
            Way::Ublk(ublk) => ublk.attach(name, &disk, shape, tell),
            Way::Looped(looped) => looped.attach(name, disk, shape),
        }
    }

    /// Takes over the device with this number from a server that has ended; requests that waited go
    /// on. `disk` is the one that was behind it. Where the device has to be given up, `forget` hears of it before its
    /// number is free.
    ///
    /// # Errors
    /// [`Error::Gone`] if there is no such device any more. After one that [`Error::is_exhausted`] nothing is given up.
    pub fn adopt(
        &self,
        name: &str,
        disk: &DiskHandle,
        number: u32,
        forget: impl FnOnce(),
    ) -> Result<Device, Error> {
        match &self.0 {
            Way::Ublk(ublk) => ublk.adopt(name, disk, number, forget),
            Way::Looped(_) => Err(Error::Gone {
                device: PathBuf::from(format!("/dev/ublkb{number}")),
            }),
        }
    }

    /// Fails whoever waits for the device with this number, which nobody can serve any more.
    pub fn release(&self, number: u32) {
        if let Way::Ublk(ublk) = &self.0 {
            ublk.release(number);
        }
    }

    /// The disk has become larger, and is `size` bytes now: the device too. May be repeated.
    ///
    /// # Errors
    /// If the kernel refuses; the device then has its old size.
    pub fn grow(&self, name: &str, size: u64) -> Result<(), Error> {
        match &self.0 {
            Way::Ublk(ublk) => ublk.grow(name, size),
            Way::Looped(looped) => looped.grow(name),
        }
    }

    /// Takes the device away. What is not attached is not attached: that is no error.
    ///
    /// Whoever used it has unmounted and synced it before: what is only in the device's page cache
    /// may be lost.
    ///
    /// # Errors
    /// [`Error::Busy`] if somebody has the device mounted; it goes on working then.
    pub fn detach(&self, name: &str) -> Result<(), Error> {
        match &self.0 {
            Way::Ublk(ublk) => ublk.detach(name),
            Way::Looped(looped) => looped.detach(name),
        }
    }

    /// Is the device still there? Somebody may have let go of it behind our back (`losetup -D`).
    #[must_use]
    pub fn stands(&self, name: &str) -> bool {
        match &self.0 {
            Way::Ublk(ublk) => ublk.stands(name),
            Way::Looped(looped) => looped.stands(name),
        }
    }

    /// The end of this process. Devices that outlive it wait for the next server; the others
    /// die, and go when those who have them open close them.
    ///
    /// # Errors
    /// If the kernel refuses to unmount.
    pub fn close(&self) -> Result<(), Error> {
        match &self.0 {
            // The end of this process hands them over. Quiescing each first (Linux 6.16) only takes
            // longer: 50 devices held their requests for 2.9 s with it, and for 1.1 s after a kill.
            Way::Ublk(_) => Ok(()),
            Way::Looped(looped) => looped.close(),
        }
    }
}
