//! What a server that died left in the kernel: loop devices without a server, a FUSE mount without one.
//!
//! A container that still has such a device mounted has lost its disk: every access is an I/O error,
//! and the kernel frees the device when the container is gone. Nothing can bring it back here; what
//! was written is in the delta and its pending file.

use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use super::error::{Error, kernel};
use super::loopback::{abandon, bound_below};
use super::mounts::mounts_at;

/// What was found, and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Devices that are free again.
    pub freed: Vec<PathBuf>,
    /// Devices that somebody still holds; they answer errors and go when they are closed.
    pub held: Vec<PathBuf>,
    /// FUSE mounts that were taken away.
    pub mounts: usize,
}

impl Leftovers {
    /// Was there nothing?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Takes away whatever hangs on `folder`.
pub(super) fn clean(folder: &Path) -> Result<Leftovers, Error> {
    let mut found = Leftovers::default();
    // Looked up first: once the mount is gone, sysfs no longer says where a backing file was.
    let devices = bound_below(folder);
    // MNT_FORCE ends the connection: whoever waits for the dead server gets an error instead, and a
    // thread of that server that hangs on its own mount can end. It then refuses to unmount what is
    // open, which is why the lazy unmount follows.
    let mounts = mounts_at(folder)?;
    if mounts > 0 {
        let _ = unmount(folder, UnmountFlags::FORCE);
    }
    let outcomes = abandon(&devices);
    for (device, held) in devices.into_iter().zip(outcomes) {
        let list = if held? {
            &mut found.held
        } else {
            &mut found.freed
        };
        list.push(device.path);
    }
    while mounts_at(folder)? > 0 {
        match unmount(folder, UnmountFlags::DETACH) {
            // Or gone meanwhile.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(error) => return Err(kernel("unmount", folder)(error)),
        }
    }
    found.mounts = mounts;
    Ok(found)
}
