//! A disk behind a loop device over a FUSE file: the way that works on every kernel.
//!
//! ```text
//! attach   file in the FUSE folder  ->  loop device over it
//! detach   loop device let go       ->  file closed by the kernel  ->  file gone
//! ```

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::error::{Error, kernel};
use super::fuse::Fuse;
use super::loopback::{Loop, abandon};
use super::shape::{Device, Shape};
use crate::disk::DiskHandle;

/// How long a detach waits for those who have the device open for a moment (udev, an unmount that is
/// just ending).
const PATIENCE: Duration = Duration::from_secs(2);

/// Every loop device of this process.
pub(super) struct Looped {
    fuse: Fuse,
    /// Held for a look-up or a change, never across a call to the kernel.
    bound: Mutex<HashMap<String, Loop>>,
}

impl Looped {
    /// Mounts the FUSE folder.
    pub(super) fn open(folder: &Path, threads: usize) -> Result<Self, Error> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(kernel("make", folder))?;
        Ok(Self {
            fuse: Fuse::mount(folder, threads)?,
            bound: Mutex::default(),
        })
    }

    /// Makes a disk a block device. `name` is a file name.
    pub(super) fn attach(
        &self,
        name: &str,
        disk: DiskHandle,
        shape: Shape,
    ) -> Result<Device, Error> {
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
            major: bound.node.major,
            minor: bound.node.minor,
            number: None,
        };
        self.lock().insert(name.to_owned(), bound);
        Ok(device)
    }

    /// The disk has become larger: so does the device.
    pub(super) fn grow(&self, name: &str) -> Result<(), Error> {
        let bound = self.lock().get(name).cloned();
        bound.map_or(Ok(()), |bound| bound.look_again())
    }

    /// Takes the device away.
    pub(super) fn detach(&self, name: &str) -> Result<(), Error> {
        let Some(bound) = self.lock().get(name).cloned() else {
            return Ok(());
        };
        bound.unbind(PATIENCE)?;
        self.fuse.remove(name);
        self.lock().remove(name);
        Ok(())
    }

    /// Is the device still there? What cannot be looked at counts as standing: a container may have it mounted.
    pub(super) fn stands(&self, name: &str) -> bool {
        let Some(bound) = self.lock().get(name).cloned() else {
            return false;
        };
        bound.is_ours().unwrap_or_else(|error| {
            let cause = std::error::Error::source(&error);
            tracing::warn!(disk = %name, %error, cause, "nobody can say whether its device stands");
            true
        })
    }

    /// Lets go of every device and unmounts the FUSE folder. Devices that somebody has open die, and
    /// go when they are closed.
    pub(super) fn close(&self) -> Result<(), Error> {
        let (names, left): (Vec<_>, Vec<_>) = self.lock().drain().unzip();
        for ((name, bound), outcome) in names.iter().zip(&left).zip(abandon(&left)) {
            match outcome {
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
