//! `/dev/loopN` over a file, with direct I/O.
//!
//! The rule: never touch a loop device whose backing file is not the one we gave it. Numbers are
//! reused at once by anybody on the machine, so each act looks first (sysfs names the backing file
//! and asks nobody, not even a dead FUSE server).
//!
//! Letting go: `LOOP_CLR_FD` on a device that others hold open only marks it, and the kernel takes it
//! apart when the last one closes it. We want either a free device or a working one, so the mark is
//! taken back if they do not close soon.
#![expect(unsafe_code, reason = "the loop driver's ioctls")]

use std::ffi::c_void;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;
use rustix::ioctl::{Getter, Ioctl, IoctlOutput, NoArg, Opcode, Setter, ioctl};

use super::error::{Error, kernel};
use super::shape::Shape;
use crate::node::{self, Number};

const SET_STATUS64: Opcode = 0x4C04;
const GET_STATUS64: Opcode = 0x4C05;
const CLR_FD: Opcode = 0x4C01;
const SET_CAPACITY: Opcode = 0x4C07;
const CONFIGURE: Opcode = 0x4C0A;
const CTL_GET_FREE: Opcode = 0x4C82;

const READ_ONLY: u32 = 1;
const AUTOCLEAR: u32 = 4;
const DIRECT_IO: u32 = 16;

/// How often a free device may be snatched away before we give up.
const TRIES: u32 = 200;
/// How often a device that is let go is looked at.
const PAUSE: Duration = Duration::from_millis(5);
/// How long devices of a dead server are watched until they count as held.
const FAREWELL: Duration = Duration::from_millis(300);

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}
const _: () = assert!(size_of::<Info>() == 232);

/// `struct loop_config`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}
const _: () = assert!(size_of::<Config>() == 304);

const NOTHING: Info = Info {
    device: 0,
    inode: 0,
    rdevice: 0,
    offset: 0,
    size_limit: 0,
    number: 0,
    encrypt_type: 0,
    encrypt_key_size: 0,
    flags: 0,
    file_name: [0; 64],
    crypt_name: [0; 64],
    encrypt_key: [0; 32],
    init: [0; 2],
};

/// `LOOP_CTL_GET_FREE`: the answer is the ioctl's own result.
struct GetFree;

// SAFETY: the call takes no argument and writes no memory; its result is a device number.
unsafe impl Ioctl for GetFree {
    type Output = u32;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        CTL_GET_FREE
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::null_mut()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> rustix::io::Result<u32> {
        u32::try_from(out).map_err(|_| Errno::INVAL)
    }
}

/// A loop device that is bound to one of our files.
#[derive(Clone, Debug)]
pub(super) struct Loop {
    /// `/dev/loopN`.
    pub(super) path: PathBuf,
    /// The node's number.
    pub(super) node: Number,
    number: u32,
    backing: PathBuf,
}

impl Loop {
    /// Binds a free loop device to `backing`, an absolute path.
    pub(super) fn bind(backing: &Path, shape: Shape) -> Result<Self, Error> {
        let file = OpenOptions::new()
            .read(true)
            .write(!shape.read_only)
            .custom_flags(OFlags::DIRECT.bits().cast_signed())
            .open(backing)
            .map_err(kernel("open", backing))?;
        let control = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/loop-control")
            .map_err(|source| Error::NoLoop { source })?;
        for attempt in 0..TRIES {
            // SAFETY: see `GetFree`.
            let number = unsafe { ioctl(&control, GetFree) }.map_err(kernel(
                "ask for a free device of",
                Path::new("/dev/loop-control"),
            ))?;
            let found = Self::numbered(number, backing)?;
            let device = match found.open(true, 0) {
                Ok(device) => device,
                // Removed again between the two calls.
                Err(Errno::NXIO | Errno::NODEV) => continue,
                Err(error) => return Err(kernel("open", &found.path)(error)),
            };
            match configure(&device, &file, backing, shape) {
                Ok(()) => {
                    found.finish(&device);
                    return Ok(found);
                }
                // Somebody else was faster; there are others.
                Err(Errno::BUSY) => sleep(Duration::from_millis(u64::from(attempt / 10))),
                Err(error) => return Err(kernel("configure", &found.path)(error)),
            }
        }
        Err(Error::NoneFree { tries: TRIES })
    }

    fn numbered(number: u32, backing: &Path) -> Result<Self, Error> {
        let sysfs = PathBuf::from(format!("/sys/block/loop{number}/dev"));
        let node = Number::read(&sysfs).map_err(kernel("read", &sysfs))?;
        Ok(Self {
            path: PathBuf::from(format!("/dev/loop{number}")),
            node,
            number,
            backing: backing.to_owned(),
        })
    }

    /// Opens the node; makes it where no devtmpfs does.
    fn open(&self, write: bool, more: u32) -> Result<File, Errno> {
        let open = || {
            OpenOptions::new()
                .read(true)
                .write(write)
                .custom_flags(more.cast_signed())
                .open(&self.path)
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
        };
        match open() {
            Err(Errno::NOENT) => {
                node::make(&self.path, FileType::BlockDevice, self.node)
                    .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
                open()
            }
            answer => answer,
        }
    }

    /// Best effort: no scheduler (the host below has one), and a warning if direct I/O was refused.
    fn finish(&self, device: &File) {
        let scheduler = format!("/sys/block/loop{}/queue/scheduler", self.number);
        // Looked at first: the write freezes the queue and takes 25 ms even where nothing changes.
        let set = fs::read_to_string(&scheduler).is_ok_and(|text| text.contains("[none]"));
        if !set && let Err(error) = fs::write(&scheduler, "none") {
            tracing::debug!(%scheduler, %error, "the scheduler stays as it is");
        }
        if !status(device).is_ok_and(|info| info.flags & DIRECT_IO != 0) {
            tracing::warn!(device = %self.path.display(), "no direct I/O: slower, cached twice");
        }
    }

    /// Has the kernel ask for the file's size again: the device is as large from then on.
    pub(super) fn look_again(&self) -> Result<(), Error> {
        // The driver believes what the kernel knows of the file, and that is what it heard last.
        fs::metadata(&self.backing).map_err(kernel("look at", &self.backing))?;
        let device = self.open(true, 0).map_err(kernel("open", &self.path))?;
        // SAFETY: LOOP_SET_CAPACITY takes no argument.
        unsafe { ioctl(&device, NoArg::<SET_CAPACITY>::new()) }
            .map_err(kernel("resize", &self.path))
    }

    /// Is the device still bound to our file?
    ///
    /// # Errors
    /// If that cannot be looked up: then nobody knows, and what may be in use is to be left as it is.
    pub(super) fn is_ours(&self) -> Result<bool, Error> {
        let backing = backing_of(self.number).map_err(kernel("look behind", &self.path))?;
        Ok(backing.is_some_and(|backing| backing == self.backing))
    }

    /// The same of one that is being let go: it counts as ours until it is seen to be free.
    fn may_be_ours(&self) -> bool {
        self.is_ours().unwrap_or(true)
    }

    /// Lets go of the device, or leaves it as it was.
    ///
    /// # Errors
    /// [`Error::Busy`] if somebody still has it open after `patience`; it goes on working then.
    pub(super) fn unbind(&self, patience: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + patience;
        let busy = || Error::Busy {
            device: self.path.clone(),
        };
        // A mount, or device mapper, or swap, holds the device exclusively: do not even mark it.
        let device = loop {
            if !self.is_ours()? {
                return Ok(());
            }
            match self.open(false, OFlags::EXCL.bits()) {
                Ok(device) => break device,
                Err(Errno::BUSY) if Instant::now() < deadline => sleep(PAUSE),
                Err(Errno::BUSY) => return Err(busy()),
                Err(Errno::NXIO | Errno::NODEV) => return Ok(()),
                Err(error) => return Err(kernel("open", &self.path)(error)),
            }
        };
        if !self.is_ours()? {
            return Ok(());
        }
        clear(&device).map_err(kernel("detach", &self.path))?;
        drop(device);
        while self.may_be_ours() {
            if Instant::now() >= deadline {
                return if self.take_mark_back()? {
                    Err(busy())
                } else {
                    Ok(())
                };
            }
            sleep(PAUSE);
        }
        Ok(())
    }

    /// Tells the kernel that nobody serves it any more. Answers whether it was ours.
    fn forsake(&self) -> Result<bool, Error> {
        let node = match self.open(false, 0) {
            Ok(node) => node,
            Err(Errno::NXIO | Errno::NODEV) => return Ok(false),
            Err(error) => return Err(kernel("open", &self.path)(error)),
        };
        if !self.is_ours()? {
            return Ok(false);
        }
        clear(&node).map_err(kernel("detach", &self.path))?;
        Ok(true)
    }

    /// Undoes the mark of `LOOP_CLR_FD`. Answers whether the device is still ours.
    fn take_mark_back(&self) -> Result<bool, Error> {
        let failed = || kernel("keep", &self.path);
        let device = match self.open(false, 0) {
            Ok(device) => device,
            Err(Errno::NXIO | Errno::NODEV) => return Ok(false),
            Err(error) => return Err(failed()(error)),
        };
        if !self.is_ours()? {
            return Ok(false);
        }
        let mut info = match status(&device) {
            Ok(info) => info,
            Err(Errno::NXIO) => return Ok(false),
            Err(error) => return Err(failed()(error)),
        };
        info.flags &= !AUTOCLEAR;
        // SAFETY: LOOP_SET_STATUS64 reads one `loop_info64`, whose layout is asserted above.
        match unsafe { ioctl(&device, Setter::<SET_STATUS64, Info>::new(info)) } {
            Ok(()) => Ok(true),
            Err(Errno::NXIO) => Ok(false),
            Err(error) => Err(failed()(error)),
        }
    }
}

fn configure(device: &File, file: &File, backing: &Path, shape: Shape) -> Result<(), Errno> {
    let mut info = NOTHING;
    info.flags = DIRECT_IO | if shape.read_only { READ_ONLY } else { 0 };
    // Only for people who look (`losetup -l`): the end of a long path says more than its start.
    let name = backing.as_os_str().as_encoded_bytes();
    let shown = &name[name.len().saturating_sub(info.file_name.len() - 1)..];
    info.file_name[..shown.len()].copy_from_slice(shown);
    let config = Config {
        fd: u32::try_from(file.as_raw_fd()).map_err(|_| Errno::BADF)?,
        block_size: shape.block,
        info,
        reserved: [0; 8],
    };
    // SAFETY: LOOP_CONFIGURE reads one `loop_config`, whose layout is asserted above; the descriptor
    // in it is open during the call, and the kernel takes its own reference.
    unsafe { ioctl(device, Setter::<CONFIGURE, Config>::new(config)) }
}

fn clear(device: &File) -> Result<(), Errno> {
    // SAFETY: LOOP_CLR_FD takes no argument.
    match unsafe { ioctl(device, NoArg::<CLR_FD>::new()) } {
        // Not bound any more: somebody else did it.
        Err(Errno::NXIO) => Ok(()),
        answer => answer,
    }
}

fn status(device: &File) -> Result<Info, Errno> {
    // SAFETY: LOOP_GET_STATUS64 fills one `loop_info64`, whose layout is asserted above; any bytes
    // are a valid one.
    unsafe { ioctl(device, Getter::<GET_STATUS64, Info>::new()) }
}

/// The file behind a loop device; `None` if it is free. What cannot be read is no free device: a process without a
/// descriptor to spare took one from a running container, because it could not open this file.
fn backing_of(number: u32) -> io::Result<Option<PathBuf>> {
    let text = match fs::read_to_string(format!("/sys/block/loop{number}/loop/backing_file")) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        // Opened, and freed before it was read.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NODEV) => return Ok(None),
        Err(error) => return Err(error),
    };
    let path = text.trim_end_matches('\n');
    // A name that the server no longer knows is shown as deleted.
    Ok(Some(path.strip_suffix(" (deleted)").unwrap_or(path).into()))
}

/// Loop devices whose backing file lies below `folder`.
pub(super) fn bound_below(folder: &Path) -> Vec<Loop> {
    let Ok(entries) = fs::read_dir("/sys/block") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name();
            let number: u32 = name.to_str()?.strip_prefix("loop")?.parse().ok()?;
            // A stranger's may have a name that is too long to be shown.
            let backing = backing_of(number).ok()??;
            if !backing.starts_with(folder) {
                return None;
            }
            Loop::numbered(number, &backing).ok()
        })
        .collect()
}

/// Lets go of devices whose server is dead. Answers for each whether somebody still holds it: then the kernel frees it
/// when they close it, and until then every access is an I/O error.
///
/// All are told before one is waited for: a node may have hundreds that are still mounted, and whoever waits for this
/// server to start does not wait for each of them.
pub(super) fn abandon(devices: &[Loop]) -> Vec<Result<bool, Error>> {
    let told: Vec<_> = devices.iter().map(Loop::forsake).collect();
    let deadline = Instant::now() + FAREWELL;
    let outcomes = devices.iter().zip(told).map(|(device, told)| {
        if !told? {
            return Ok(false);
        }
        while device.may_be_ours() {
            if Instant::now() >= deadline {
                return Ok(true);
            }
            sleep(PAUSE);
        }
        Ok(false)
    });
    outcomes.collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, Instant};

    use super::{Loop, abandon};
    use crate::device::shape::Shape;

    /// Seventy of them, each waited for alone, were more than a start may take. Needs root and loop devices.
    #[test]
    fn devices_that_are_held_are_waited_for_together() {
        let folder = tempfile::tempdir().unwrap();
        let shape = Shape {
            read_only: true,
            will_grow: false,
            block: 512,
        };
        let devices: Vec<_> = (0..8)
            .map(|number| {
                let file = folder.path().join(number.to_string());
                fs::write(&file, vec![0; 1 << 16]).unwrap();
                Loop::bind(&file, shape).unwrap()
            })
            .collect();
        let held: Vec<_> = devices[1..]
            .iter()
            .map(|device| fs::File::open(&device.path).unwrap())
            .collect();
        let begun = Instant::now();
        let outcomes: Vec<_> = abandon(&devices).into_iter().map(Result::unwrap).collect();
        let took = begun.elapsed();
        assert_eq!(outcomes, [&[false][..], &[true; 7]].concat());
        assert!(took < Duration::from_millis(1500), "{took:?}");
        drop(held);
        let deadline = Instant::now() + Duration::from_secs(20);
        while devices.iter().any(|device| device.is_ours().unwrap()) {
            assert!(
                Instant::now() < deadline,
                "they are free when they are closed"
            );
        }
    }
}
