//! Why the kernel would not take or give back a disk.

use std::io;
use std::path::{Path, PathBuf};

use crate::ublk;

/// Why an act on a device failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody has the device open, perhaps mounted.
    #[error(
        "{} is in use: unmount it and close whatever has it open, then detach again",
        device.display()
    )]
    Busy {
        /// The device.
        device: PathBuf,
    },
    /// The name is served already.
    #[error("a file named {name} is served already")]
    Exists {
        /// The disk's name.
        name: String,
    },
    /// The kernel's ublk driver.
    #[error(transparent)]
    Ublk(#[from] ublk::Error),
    /// There is no such device any more.
    #[error("there is no {} any more that a server of this run folder could take over", device.display())]
    Gone {
        /// Its node.
        device: PathBuf,
    },
    /// The kernel cannot make it larger while it is there.
    #[error(
        "{} keeps its size as long as it is attached: this kernel's ublk cannot change one (Linux 6.16 can); \
         detach the disk and attach it again",
        device.display()
    )]
    Fixed {
        /// Its node.
        device: PathBuf,
    },
    /// Devices of an earlier server wait, and the way to them is closed.
    #[error(
        "the server before left {devices}, and without ublk nobody can take them over{why}: containers wait for them. \
         Start this one with ublk (transport = \"auto\" or \"ublk\"), or give the devices up with `ploop release-devices`"
    )]
    LeftBehind {
        /// Their nodes.
        devices: String,
        /// Why there is no ublk, in brackets; empty if it is not wanted.
        why: String,
    },
    /// Its number could not be written down, so nobody could take it over.
    #[error("the device's number cannot be written into the registry of the run folder")]
    NotNoted,
    /// No loop devices here.
    #[error("cannot open /dev/loop-control: loop devices are needed (modprobe loop), and root")]
    NoLoop {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others take every loop device first, or the kernel gives none.
    #[error("no free loop device after {tries} attempts")]
    NoneFree {
        /// How often it was tried.
        tries: u32,
    },
    /// The FUSE file system cannot be mounted.
    #[error("cannot mount a FUSE file system at {}: FUSE is needed (modprobe fuse), and root", folder.display())]
    Mount {
        /// Where.
        folder: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A disk whose size no block device can have.
    #[error("a disk of {size} bytes has no whole number of sectors")]
    Size {
        /// Its size.
        size: u64,
    },
    /// The kernel refused.
    #[error("cannot {act} {}", path.display())]
    Kernel {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Is it that descriptors or devices ran out?
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        match self {
            Self::NoneFree { .. } => true,
            Self::Ublk(error) => error.is_exhausted(),
            Self::Kernel { source, .. } | Self::Mount { source, .. } | Self::NoLoop { source } => {
                matches!(
                    rustix::io::Errno::from_io_error(source),
                    Some(
                        rustix::io::Errno::MFILE
                            | rustix::io::Errno::NFILE
                            | rustix::io::Errno::NOMEM
                            | rustix::io::Errno::NOSPC
                    )
                )
            }
            _ => false,
        }
    }
}

/// For `map_err`: what was tried on which path.
pub(super) fn kernel<E: Into<io::Error>>(
    act: &'static str,
    path: &Path,
) -> impl FnOnce(E) -> Error {
    move |source| Error::Kernel {
        act,
        path: path.to_owned(),
        source: source.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::{Error, ublk};

    #[test]
    fn what_the_driver_lacks_descriptors_for_is_no_other_failure() {
        for (errno, exhausted) in [(24, true), (12, true), (16, false)] {
            let node = ublk::Error::Node {
                act: "open",
                path: "/dev/ublkc1".into(),
                source: io::Error::from_raw_os_error(errno),
            };
            assert_eq!(Error::Ublk(node).is_exhausted(), exhausted, "{errno}");
        }
    }
}
