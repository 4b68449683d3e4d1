//! A disk behind `/dev/ublkbN`.
//!
//! ```text
//! attach   ADD_DEV -> told to the caller -> SET_PARAMS -> the shard fetches every tag -> START_DEV
//! detach   STOP_DEV, still served -> every tag ends, the node is closed -> DEL_DEV
//! adopt    START_USER_RECOVERY -> the shard fetches every tag -> END_USER_RECOVERY
//! ```
//!
//! The rule: this process never opens its own block device. An open may read, a close may write, and a
//! server that is killed inside a call to its own device never ends, so nobody could take the device
//! over. Whoever uses the device syncs and unmounts it before it is detached: `STOP_DEV` throws away what
//! is dirty in the device's page cache.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::error::{Error, kernel};
use super::lanes::{Begin, LONGEST};
use super::mounts::is_mounted;
use super::nodes::{announced, block_path, character_path, device, sysfs};
use super::shape::{Device, Shape};
use crate::disk::DiskHandle;
use crate::failpoint::pass;
use crate::ublk::{self, Control, Features, Limit, Owner, Params, Reserved, State, Wish};

/// Requests that a device may have under way. With 32, a client that keeps 32 under way was a fifth
/// slower than with 64: no answer could meet a new request. It costs some 50 KB of the kernel's memory.
const DEPTH: u16 = 64;
/// The longest request where bytes are copied: a longer copy would keep the neighbours waiting.
const LONGEST_COPIED: u32 = 256 << 10;
/// How long a shard may take to begin or end a line.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a dead server's device may take to become free: the kernel needs about 16 ms for each.
const RELEASE: Duration = Duration::from_secs(60);
/// How long a detach waits for those who have the device open for a moment.
const OPENERS: Duration = Duration::from_secs(2);
/// How often the kernel is asked again.
const PAUSE: Duration = Duration::from_millis(4);

/// What a device that will grow is announced as where the kernel cannot change that later (before 6.16): its file system, not
/// its device, then is what limits a container, and what grows.
const ROOM: u64 = 16 << 40;

/// A device of this process.
struct Bound {
    number: u32,
    device: Device,
    /// Hears that the shard has let go of queue and node.
    ended: Receiver<()>,
}

impl Bound {
    /// Has its line ended, though nobody here ended it? Then somebody else stopped the device, or its tags were refused.
    fn is_over(&self) -> bool {
        self.ended.try_recv() == Err(TryRecvError::Disconnected)
    }
}

/// Every ublk device of this process.
pub(super) struct Ublk {
    control: Control,
    features: Features,
    owner: Owner,
    zero_copy: bool,
    /// Held for a look-up or a change, never across a call to the kernel.
    bound: Mutex<HashMap<String, Bound>>,
}

impl Ublk {
    /// Asks the kernel for its driver.
    pub(super) fn open(owner: Owner, zero_copy: bool) -> Result<Self, ublk::Error> {
        let control = Control::open()?;
        let features = control.features()?;
        features.suffice()?;
        say(ublk::raise_limit());
        Ok(Self {
            control,
            features,
            owner,
            zero_copy,
            bound: Mutex::default(),
        })
    }

    /// Takes away devices of this server that nobody will ask for again.
    pub(super) fn sweep(&self, known: &[u32]) -> Vec<PathBuf> {
        let (mut swept, mut strangers) = (Vec::new(), 0);
        for number in ublk::list() {
            let Ok(Some(info)) = self.control.info(number) else {
                continue;
            };
            if info.tag != self.owner.tag() || known.contains(&number) {
                let waits = Owner::is_ploopd(info.tag) && info.state != State::Live;
                strangers += usize::from(waits && !known.contains(&number));
                continue;
            }
            let path = block_path(number);
            match self
                .control
                .stop(number)
                .and_then(|()| self.control.delete_later(number))
            {
                Ok(()) => swept.push(path),
                Err(error) => {
                    tracing::warn!(device = %path.display(), %error, "a device is left behind");
                }
            }
        }
        if strangers > 0 {
            tracing::info!(
                devices = strangers,
                "ublk devices of other seats or run directories wait for their ploopd; where none will come, `ploop \
                 release-devices` says how they are given up"
            );
        }
        swept
    }

    /// Makes a disk a block device. `tell` hears its number before anything can go through it.
    pub(super) fn attach(
        &self,
        name: &str,
        disk: &DiskHandle,
        shape: Shape,
        tell: impl FnOnce(u32) -> bool,
    ) -> Result<Device, Error> {
        let zero_copy = self.zero_copy && self.features.zero_copy();
        let longest = if zero_copy { LONGEST } else { LONGEST_COPIED };
        let added = self.control.add(&Wish {
            depth: DEPTH,
            longest,
            tag: self.owner.tag(),
            zero_copy,
            features: self.features,
        })?;
        let number = added.id;
        let attempt = if tell(number) {
            self.bring_up(number, added.granted, disk, shape, longest)
        } else {
            Err(Error::NotNoted)
        };
        match attempt {
            Ok((device, ended)) => {
                let bound = Bound {
                    number,
                    device: device.clone(),
                    ended,
                };
                self.lock().insert(name.to_owned(), bound);
                Ok(device)
            }
            Err(error) => {
                self.give_up(number);
                Err(error)
            }
        }
    }

    fn bring_up(
        &self,
        number: u32,
        granted: Features,
        disk: &DiskHandle,
        shape: Shape,
        longest: u32,
    ) -> Result<(Device, Receiver<()>), Error> {
        let room = shape.will_grow && !granted.update_size();
        let params = Params {
            size: if room {
                disk.size().max(ROOM)
            } else {
                disk.size()
            },
            block: shape.block,
            optimal: u32::try_from(disk.cluster().bytes()).unwrap_or(shape.block),
            longest,
            read_only: shape.read_only,
            memory_alignment: granted.zero_copy().then_some(shape.block.max(512)),
        };
        self.control.set_params(number, params)?;
        let ended = self.begin(number, granted, DEPTH, disk)?;
        self.control.start(number)?;
        Ok((device(number)?, ended))
    }

    /// Has the disk's shard fetch every tag.
    fn begin(
        &self,
        number: u32,
        granted: Features,
        depth: u16,
        disk: &DiskHandle,
    ) -> Result<Receiver<()>, Error> {
        let node = open_when_free(number)?;
        let (begun, answer) = sync_channel(1);
        let (ended, end) = channel();
        let taken = Arc::new(AtomicBool::new(false));
        disk.stand_before(Box::new(Begin {
            device: Arc::new(node),
            depth,
            zero_copy: granted.zero_copy(),
            taken: Arc::clone(&taken),
            begun,
            ended,
        }));
        let path = character_path(number);
        let heard = answer.recv_timeout(PATIENCE).or_else(|late| {
            // Whoever is first: a shard that finds the letter later leaves it alone, one that has begun will answer.
            if taken.swap(true, Ordering::AcqRel) {
                answer.recv_timeout(PATIENCE)
            } else {
                Err(late)
            }
        });
        match heard {
            Ok(Ok(())) => Ok(end),
            Ok(Err(error)) => {
                // What was fetched holds the disk until the device ends: then there is no second attempt, whatever was
                // missing in the first.
                let nothing = end.try_recv() == Err(TryRecvError::Disconnected);
                let error = if nothing {
                    error
                } else {
                    io::Error::other(error)
                };
                Err(kernel("fetch requests of", &path)(error))
            }
            Err(_) => {
                let slow = io::Error::from(io::ErrorKind::TimedOut);
                Err(kernel("reach the shard of", &path)(slow))
            }
        }
    }

    /// Takes away a device that was not finished; best effort.
    fn give_up(&self, number: u32) {
        // Of a device that never started this ends the tags that were fetched.
        let stopped = self.control.stop(number);
        if let Err(error) = stopped.and_then(|()| self.control.delete_later(number)) {
            tracing::warn!(device = number, %error, "a device that was not finished is left behind");
        }
    }

    /// Takes a device over from a server that has ended. The disk is the one that was behind it.
    ///
    /// Where only descriptors or memory are missing ([`Error::is_exhausted`]) nothing is given up: whoever waits for the
    /// device goes on waiting, and this may be called again.
    pub(super) fn adopt(
        &self,
        name: &str,
        disk: &DiskHandle,
        number: u32,
        forget: impl FnOnce(),
    ) -> Result<Device, Error> {
        let path = block_path(number);
        let (granted, depth) = self.claim(number)?;
        pass("recovery-begun");
        // Before a tag is fetched: from then on there is no way back.
        let device = device(number)?;
        let ring = self.control.reserve(number)?;
        let taken = match self.begin(number, granted, depth, disk) {
            Err(error) if error.is_exhausted() => return Err(error),
            begun => begun.and_then(|ended| self.go_on(number, ring).map(|()| ended)),
        };
        // Tags that are fetched hold the disk until the device ends.
        let ended = taken.map_err(|error| {
            forget();
            self.give_up(number);
            if error.is_exhausted() {
                // It is over, whatever was missing.
                return kernel("take over", &path)(io::Error::other(error));
            }
            error
        })?;
        let bound = Bound {
            number,
            device: device.clone(),
            ended,
        };
        self.lock().insert(name.to_owned(), bound);
        tracing::debug!(device = %path.display(), "taken over");
        Ok(device)
    }

    /// Every tag is fetched: requests flow again.
    fn go_on(&self, number: u32, ring: Reserved) -> Result<(), Error> {
        pass("recovery-fetched");
        Ok(self.control.end_recovery(number, ring)?)
    }

    /// Waits until a dead server's device is free, and claims it.
    fn claim(&self, number: u32) -> Result<(Features, u16), Error> {
        let gone = || Error::Gone {
            device: block_path(number),
        };
        let deadline = Instant::now() + RELEASE;
        let mut primed = false;
        loop {
            let info = self.control.info(number)?.ok_or_else(gone)?;
            if !self.owner.made(info.tag) || info.state == State::Dead {
                return Err(gone());
            }
            match self.control.begin_recovery(number) {
                Ok(()) => return Ok((info.granted, info.depth)),
                Err(error) if error.is(Errno::BUSY) && Instant::now() < deadline => sleep(PAUSE),
                // The server that began to take it over died before it had fetched anything.
                Err(error)
                    if error.is(Errno::INVAL) && info.state == State::Quiesced && !primed =>
                {
                    primed = true;
                    let node = open_when_free(number)?;
                    ublk::prime(node, info.depth)
                        .map_err(kernel("fetch requests of", &character_path(number)))?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Fails whoever waits for a device that nobody can serve any more, and takes it away.
    pub(super) fn release(&self, number: u32) {
        if let Ok(Some(info)) = self.control.info(number)
            // One with the former word that is served is another node's.
            && (info.tag == self.owner.tag()
                || self.owner.made(info.tag) && info.state != State::Live)
        {
            self.give_up(number);
        }
    }

    /// The disk becomes larger: so does the device, unless it is announced as large enough already.
    pub(super) fn grow(&self, name: &str, size: u64) -> Result<(), Error> {
        let bound = self
            .lock()
            .get(name)
            .map(|it| (it.number, it.device.path.clone()));
        let Some((number, device)) = bound else {
            return Ok(());
        };
        // Nobody but its own: drivers before 7.0 follow a null pointer to change the size of one that is stopped, and a
        // number that is free again may be a stranger's.
        let ours = |info: &ublk::Info| self.owner.made(info.tag) && info.state == State::Live;
        let Some(info) = self.control.info(number)?.filter(ours) else {
            return Err(Error::Gone { device });
        };
        if info.granted.update_size() {
            return Ok(self.control.resize(number, size)?);
        }
        if announced(number)? >= size {
            return Ok(());
        }
        Err(Error::Fixed { device })
    }

    /// Takes the device away.
    pub(super) fn detach(&self, name: &str) -> Result<(), Error> {
        let Some((number, device, over)) = self
            .lock()
            .get(name)
            .map(|bound| (bound.number, bound.device.clone(), bound.is_over()))
        else {
            return Ok(());
        };
        if over && !self.waits(number)? {
            // Somebody else stopped it, and may have deleted it: its number may be another's by now.
            self.lock().remove(name);
            return Ok(());
        }
        self.stop(number, &device)?;
        let Some(bound) = self.lock().remove(name) else {
            return Ok(());
        };
        if bound.ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            let slow = io::Error::from(io::ErrorKind::TimedOut);
            return Err(kernel("let go of", &character_path(number))(slow));
        }
        // Somebody may still have the dead block device open; its number is free when they close it.
        self.control.delete_later(number)?;
        Ok(())
    }

    /// Is a device of ours without a server, its users waiting? Then it is stopped like any other. One that is dead may
    /// be about to be another disk's.
    fn waits(&self, number: u32) -> Result<bool, Error> {
        let info = self.control.info(number)?;
        Ok(info.is_some_and(|info| {
            self.owner.made(info.tag) && matches!(info.state, State::Quiesced | State::Failing)
        }))
    }

    /// Stops a device, or says who is in the way.
    ///
    /// How often a block device is open, only the kernel knows, and before TRY_STOP_DEV (7.0) it tells
    /// nobody. What was looked at for older ones, and why it is no answer: an exclusive open (the
    /// caller's look) meets mounts, swap, device mapper and everybody else who is exclusive, not a plain
    /// opener; `holders` in sysfs names stacked devices alone; BLKRRPART counts open partitions; leases
    /// are for regular files; inotify hears of opens through one node, and a container has nodes of its
    /// own; a walk through /proc/*/fd costs every descriptor of the machine, sees one pid namespace, and
    /// misses who opens a moment later. So there a plain opener loses the device, and gets I/O errors:
    /// that is a reader of a disk that nobody mounts, and never a container.
    fn stop(&self, number: u32, device: &Device) -> Result<(), Error> {
        let busy = || Error::Busy {
            device: device.path.clone(),
        };
        if is_mounted(device.major, device.minor)? {
            return Err(busy());
        }
        if !self.features.safe_stop() {
            // Nobody can say here whether somebody has it open: the caller has looked.
            return Ok(self.control.stop(number)?);
        }
        let deadline = Instant::now() + OPENERS;
        loop {
            match self.control.stop_unless_open(number) {
                // Udev, or an unmount that is just ending.
                Err(error) if error.is(Errno::BUSY) && Instant::now() < deadline => sleep(PAUSE),
                Err(error) if error.is(Errno::BUSY) => return Err(busy()),
                answer => return Ok(answer?),
            }
        }
    }

    /// Is the device still there?
    pub(super) fn stands(&self, name: &str) -> bool {
        let bound = self.lock();
        let number = bound
            .get(name)
            .filter(|bound| !bound.is_over())
            .map(|bound| bound.number);
        // What cannot be looked at counts as standing: a container may have it mounted.
        number.is_some_and(|number| sysfs(number).try_exists().unwrap_or(true))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Bound>> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of the devices numbered `known` those that are there and this server's; where the kernel tells nobody whose they are,
/// those that are there.
pub(super) fn waiting(owner: &Owner, known: &[u32]) -> Vec<PathBuf> {
    if known.is_empty() {
        // As at every start over FUSE: no control ring is made for nothing.
        return Vec::new();
    }
    let control = Control::open().ok();
    let its = |number: &&u32| {
        let info = control.as_ref().map(|control| control.info(**number));
        match info {
            Some(Ok(info)) => {
                info.is_some_and(|info| owner.made(info.tag) && info.state != State::Dead)
            }
            Some(Err(_)) | None => ublk::list().contains(number),
        }
    };
    let left = known.iter().filter(its);
    left.map(|number| block_path(*number)).collect()
}

/// Says what became of the limit of devices.
fn say(limit: Limit) {
    match limit {
        Limit::Stands => {}
        Limit::Raised(from) => tracing::info!(from, to = ublk::ENOUGH, "raised ublks_max"),
        Limit::Low(devices, error) => tracing::warn!(
            devices, %error,
            "cannot raise ublks_max: on some kernels up to 6.14 there can be no more devices than that; load \
             ublk_drv with a higher one (deploy/modprobe.conf)"
        ),
    }
}

/// Opens a device's queue; a server that died while it took the device over may still have it open.
fn open_when_free(number: u32) -> Result<File, ublk::Error> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ublk::open(number) {
            Err(error) if error.is(Errno::BUSY) && Instant::now() < deadline => sleep(PAUSE),
            answer => return answer,
        }
    }
}
