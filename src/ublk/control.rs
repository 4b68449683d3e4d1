//! Control commands: each on a ring of its own, each with a time limit.
//!
//! The kernel runs a control command on a worker thread of the ring that asked, so several go on at
//! once, and one that never comes back (it happens, see the room's door) costs its ring and the memory
//! it may still write, and nobody's patience. From then on `add` fails at once instead of piling up
//! more of them, until the lost one does come back (`lost.rs`).
#![expect(unsafe_code, reason = "submission entries carry raw pointers")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use io_uring::squeue::Entry128;
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode};
use rustix::io::Errno;

use super::error::Error;
use super::features::Features;
use super::lost::{ADD, Command, Lost};
use super::params::{Params, Raw};
use super::uapi;

/// Where the driver is spoken to.
const NODE: &str = "/dev/ublk-control";
/// How long a command may take. The slowest that is well waits for a grace period of the kernel.
const LIMIT: Duration = Duration::from_secs(30);
/// How long a delete is waited for where the kernel has none that does not wait. Without an opener it takes milliseconds.
const DELETE: Duration = Duration::from_millis(300);
/// Rings kept for the next command.
const SPARE: usize = 16;

/// A ring for one command.
pub struct Reserved(CommandRing);

pub(super) type CommandRing = IoUring<Entry128, cqueue::Entry>;

/// The driver's control node.
#[derive(Debug)]
pub struct Control {
    node: File,
    rings: Mutex<Spare>,
    lost: Lost,
}

/// Rings that wait for a command.
#[derive(Default)]
struct Spare(Vec<CommandRing>);

impl std::fmt::Debug for Spare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Spare").field(&self.0.len()).finish()
    }
}

/// What a command reads or writes in our memory.
pub(super) enum Payload {
    None,
    Info(Box<uapi::ublksrv_ctrl_dev_info>),
    Params(Box<Raw>),
    Features(Box<u64>),
}

impl Payload {
    fn place(&mut self) -> (u64, u16) {
        let (address, len) = match self {
            Self::None => (0, 0),
            Self::Info(info) => (&raw mut **info as u64, size_of_val(&**info)),
            Self::Params(raw) => (&raw mut **raw as u64, size_of_val(&**raw)),
            Self::Features(bits) => (&raw mut **bits as u64, size_of_val(&**bits)),
        };
        (address, u16::try_from(len).unwrap_or(u16::MAX))
    }
}

/// What a new device should be.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// Requests under way at once.
    pub depth: u16,
    /// Longest request in bytes.
    pub longest: u32,
    /// A word of ours that the kernel keeps with the device.
    pub tag: u64,
    /// Should requests' pages become registered buffers of the server's ring?
    pub zero_copy: bool,
    /// What the driver can do.
    pub features: Features,
}

/// What the kernel made of a wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Added {
    /// The device's number.
    pub id: u32,
    /// What the kernel granted.
    pub granted: Features,
}

/// Where a device stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not started, or stopped.
    Dead,
    /// Served.
    Live,
    /// Its server is gone; requests wait for the next.
    Quiesced,
    /// Its server is gone; requests fail.
    Failing,
    /// A state that is younger than this program.
    Unknown(u16),
}

/// What the kernel says of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// The device's number.
    pub id: u32,
    /// Where it stands.
    pub state: State,
    /// Its server's process.
    pub pid: i32,
    /// Requests under way at once.
    pub depth: u16,
    /// Longest request in bytes.
    pub longest: u32,
    /// What the kernel granted.
    pub granted: Features,
    /// The word that was given at [`Control::add`].
    pub tag: u64,
}

impl Control {
    /// Opens the control node.
    ///
    /// # Errors
    /// If there is no driver, or it is not for us.
    pub fn open() -> Result<Self, Error> {
        let node = OpenOptions::new()
            .read(true)
            .write(true)
            .open(NODE)
            .map_err(|error| Error::no_control(NODE, error))?;
        Ok(Self {
            node,
            rings: Mutex::default(),
            lost: Lost::default(),
        })
    }

    /// What the driver can do.
    ///
    /// # Errors
    /// [`Error::TooOld`] if it cannot even be asked.
    pub fn features(&self) -> Result<Features, Error> {
        let payload = Payload::Features(Box::new(0));
        match self.run("GET_FEATURES", uapi::UBLK_U_CMD_GET_FEATURES, 0, 0, payload) {
            Ok(Payload::Features(bits)) => Ok(Features::from_bits(*bits)),
            Ok(_) => Ok(Features::from_bits(0)),
            Err(error) if error.is(Errno::OPNOTSUPP) || error.is(Errno::INVAL) => {
                Err(Error::TooOld {
                    missing: "the command GET_FEATURES",
                })
            }
            Err(error) => Err(error),
        }
    }

    /// Makes a device; the kernel chooses its number.
    ///
    /// # Errors
    /// What the kernel says; [`Error::Stuck`] at once while an earlier command is lost.
    pub fn add(&self, wish: &Wish) -> Result<Added, Error> {
        self.healthy()?;
        let features = wish.features;
        let mut flags = uapi::UBLK_F_CMD_IOCTL_ENCODE
            | uapi::UBLK_F_USER_COPY
            | uapi::UBLK_F_USER_RECOVERY
            | uapi::UBLK_F_USER_RECOVERY_REISSUE;
        for (there, bits) in [
            (
                wish.zero_copy && features.zero_copy(),
                uapi::UBLK_F_SUPPORT_ZERO_COPY | uapi::UBLK_F_AUTO_BUF_REG,
            ),
            (features.update_size(), uapi::UBLK_F_UPDATE_SIZE),
            (features.no_partition_scan(), uapi::UBLK_F_NO_AUTO_PART_SCAN),
            (features.safe_stop(), uapi::UBLK_F_SAFE_STOP_DEV),
        ] {
            if there {
                flags |= bits;
            }
        }
        let any = u32::MAX;
        let info = uapi::ublksrv_ctrl_dev_info {
            nr_hw_queues: 1,
            queue_depth: wish.depth,
            max_io_buf_bytes: wish.longest,
            dev_id: any,
            ublksrv_pid: pid(),
            flags: u64::from(flags),
            ublksrv_flags: wish.tag,
            ..uapi::ublksrv_ctrl_dev_info::default()
        };
        let payload = Payload::Info(Box::new(info));
        match self.run(ADD, uapi::UBLK_U_CMD_ADD_DEV, any, 0, payload) {
            Ok(Payload::Info(info)) => Ok(Added {
                id: info.dev_id,
                granted: Features::from_bits(info.flags),
            }),
            Ok(_) => Err(Error::TooOld {
                missing: "an answer to ADD_DEV",
            }),
            Err(error) if error.is(Errno::ACCESS) || error.is(Errno::NOSPC) => Err(Error::NoneFree),
            Err(error) => Err(error),
        }
    }

    /// Says what a device is like; before it is started.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_params(&self, id: u32, params: Params) -> Result<(), Error> {
        let payload = Payload::Params(Box::new(params.raw()));
        self.run("SET_PARAMS", uapi::UBLK_U_CMD_SET_PARAMS, id, 0, payload)
            .map(drop)
    }

    /// Shows the block device; every tag must have been fetched.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn start(&self, id: u32) -> Result<(), Error> {
        self.plain("START_DEV", uapi::UBLK_U_CMD_START_DEV, id, own_pid())
    }

    /// Takes the block device away. Requests under way are answered first, so it must still be served.
    ///
    /// What is dirty in the block device's page cache may be thrown away: sync it before.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn stop(&self, id: u32) -> Result<(), Error> {
        self.plain("STOP_DEV", uapi::UBLK_U_CMD_STOP_DEV, id, 0)
    }

    /// Takes the block device away unless somebody has it open, mounted or not.
    ///
    /// # Errors
    /// `EBUSY` if somebody has it open; it goes on working then.
    pub fn stop_unless_open(&self, id: u32) -> Result<(), Error> {
        self.plain("TRY_STOP_DEV", uapi::UBLK_U_CMD_TRY_STOP_DEV, id, 0)
    }

    /// Forgets a stopped device as soon as nobody has it open any more, and does not wait for that.
    ///
    /// Before Linux 6.9 the kernel has only a command that does wait. It marks the device first, and what it waits for
    /// then is that the last opener closes it: so one that does not come back has done what is asked for here.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn delete_later(&self, id: u32) -> Result<(), Error> {
        match self.plain("DEL_DEV_ASYNC", uapi::UBLK_U_CMD_DEL_DEV_ASYNC, id, 0) {
            Err(error) if error.is_unknown_command() => {}
            answer => return answer,
        }
        let op = uapi::UBLK_U_CMD_DEL_DEV;
        let ring = self.ring("DEL_DEV", id)?;
        match self.run_on(ring, (DELETE, true), ("DEL_DEV", op), id, 0, Payload::None) {
            Err(Error::Stuck { .. }) => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// What the kernel says of a device; `None` if there is none.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn info(&self, id: u32) -> Result<Option<Info>, Error> {
        let payload = Payload::Info(Box::default());
        let answer = self.run(
            "GET_DEV_INFO",
            uapi::UBLK_U_CMD_GET_DEV_INFO,
            id,
            0,
            payload,
        );
        let info = match answer {
            Ok(Payload::Info(info)) => info,
            Ok(_) => return Ok(None),
            Err(error) if error.is(Errno::NODEV) || error.is(Errno::INVAL) => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Some(Info {
            id: info.dev_id,
            state: match info.state {
                0 => State::Dead,
                1 => State::Live,
                2 => State::Quiesced,
                3 => State::Failing,
                other => State::Unknown(other),
            },
            pid: info.ublksrv_pid,
            depth: info.queue_depth,
            longest: info.max_io_buf_bytes,
            granted: Features::from_bits(info.flags),
            tag: info.ublksrv_flags,
        }))
    }

    /// Takes over a device whose server is gone; `EBUSY` while the kernel is not yet done with that.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn begin_recovery(&self, id: u32) -> Result<(), Error> {
        let op = uapi::UBLK_U_CMD_START_USER_RECOVERY;
        self.plain("START_USER_RECOVERY", op, id, 0)
    }

    /// What [`Self::end_recovery`] needs and may not lack: when a tag is fetched there is no way back.
    ///
    /// # Errors
    /// If there is no descriptor or no memory for it.
    pub fn reserve(&self, id: u32) -> Result<Reserved, Error> {
        self.ring("END_USER_RECOVERY", id).map(Reserved)
    }

    /// Ends the take-over: every tag was fetched, requests that waited come now.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn end_recovery(&self, id: u32, ring: Reserved) -> Result<(), Error> {
        let command = ("END_USER_RECOVERY", uapi::UBLK_U_CMD_END_USER_RECOVERY);
        let (pid, limit) = (own_pid(), (LIMIT, false));
        self.run_on(ring.0, limit, command, id, pid, Payload::None)
            .map(drop)
    }

    /// Changes a running device's size, in bytes.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn resize(&self, id: u32, size: u64) -> Result<(), Error> {
        self.plain("UPDATE_SIZE", uapi::UBLK_U_CMD_UPDATE_SIZE, id, size >> 9)
    }

    /// Is every command back?
    ///
    /// # Errors
    /// [`Error::Stuck`] with the oldest that is not.
    pub fn healthy(&self) -> Result<(), Error> {
        for back in self.lost.back() {
            if !back.patient {
                tracing::warn!(
                    command = back.name, device = back.id, after = ?back.after,
                    "a lost control command has come back"
                );
            } else if back.result < 0 {
                let error = io::Error::from_raw_os_error(-back.result);
                tracing::warn!(device = back.id, %error, "a device is not deleted");
            }
            // Who asked for it was told that there is none.
            if let Some(id) = back.made
                && let Err(error) = self.delete_later(id)
            {
                tracing::warn!(device = id, %error, "a device that came too late is left behind");
            }
        }
        self.lost.first().map_or(Ok(()), Err)
    }

    fn plain(&self, command: &'static str, op: u32, id: u32, data: u64) -> Result<(), Error> {
        self.run(command, op, id, data, Payload::None).map(drop)
    }

    /// Runs one command to its end, or to the time limit.
    fn run(
        &self,
        command: &'static str,
        op: u32,
        id: u32,
        data: u64,
        payload: Payload,
    ) -> Result<Payload, Error> {
        let ring = self.ring(command, id)?;
        self.run_on(ring, (LIMIT, false), (command, op), id, data, payload)
    }

    fn ring(&self, command: &'static str, id: u32) -> Result<CommandRing, Error> {
        let spare = lock(&self.rings).0.pop();
        spare.map_or_else(
            || {
                let made = IoUring::builder().build(4);
                made.map_err(|error| Error::no_ring(command, id, error))
            },
            Ok,
        )
    }

    /// With a ring and a limit of its own. One that is `patient` may take longer than that, with nothing wrong.
    fn run_on(
        &self,
        mut ring: CommandRing,
        (limit, patient): (Duration, bool),
        (command, op): (&'static str, u32),
        id: u32,
        data: u64,
        mut payload: Payload,
    ) -> Result<Payload, Error> {
        let (addr, len) = payload.place();
        let words = uapi::ublksrv_ctrl_cmd {
            dev_id: id,
            queue_id: u16::MAX,
            len,
            addr,
            data: [data],
            ..uapi::ublksrv_ctrl_cmd::default()
        };
        let mut bytes = [0; 80];
        // SAFETY: the structure is plain integers without padding (its size is asserted), and fits.
        bytes[..size_of_val(&words)].copy_from_slice(unsafe {
            std::slice::from_raw_parts((&raw const words).cast::<u8>(), size_of_val(&words))
        });
        let entry = opcode::UringCmd80::new(Fd(self.node.as_raw_fd()), op)
            .cmd(bytes)
            .build();
        let refused = |source| Error::Command {
            command,
            id,
            source,
        };
        // SAFETY: what the entry points at lives in `payload`, which stays until the answer is there;
        // if none comes, ring and payload are kept together.
        unsafe { ring.submission().push(&entry) }
            .map_err(|_| refused(io::Error::other("a ring of one command is full")))?;
        let deadline = Instant::now() + limit;
        let answer = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let time = Timespec::from(left);
            let waited = ring
                .submitter()
                .submit_with_args(1, &SubmitArgs::new().timespec(&time));
            if let Some(entry) = ring.completion().next() {
                break Some(entry.result());
            }
            match waited {
                Err(error) if error.raw_os_error() == Some(Errno::INTR.raw_os_error()) => {}
                Err(error) if error.raw_os_error() != Some(Errno::TIME.raw_os_error()) => {
                    // Was it submitted? Nobody can say: its memory is given up rather than reused.
                    std::mem::forget(payload);
                    return Err(refused(error));
                }
                Ok(_) | Err(_) if left.is_zero() => break None,
                Ok(_) | Err(_) => {}
            }
        };
        let Some(answer) = answer else {
            if !patient {
                tracing::error!(command, device = id, "a control command does not come back");
            }
            self.lost.add(Command {
                ring,
                name: command,
                id,
                since: deadline - limit,
                payload,
                patient,
            });
            return Err(Error::Stuck {
                command,
                id,
                after: limit,
            });
        };
        let mut rings = lock(&self.rings);
        if rings.0.len() < SPARE {
            rings.0.push(ring);
        }
        drop(rings);
        if answer < 0 {
            return Err(refused(io::Error::from_raw_os_error(-answer)));
        }
        Ok(payload)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

fn own_pid() -> u64 {
    u64::from(std::process::id())
}
