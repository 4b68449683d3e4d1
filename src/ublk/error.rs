//! What can go wrong with the kernel's ublk driver, and what to do about it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustix::io::Errno;

/// Why a device could not be controlled or served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The driver is not loaded, or the kernel has none.
    #[error(
        "there is no /dev/ublk-control: load the driver (`modprobe ublk_drv`); a kernel without it can \
         only use the fuse transport"
    )]
    NoDriver,
    /// The driver is there, but not for us.
    #[error("cannot open /dev/ublk-control: run as root, with CAP_SYS_ADMIN")]
    NotAllowed(#[source] io::Error),
    /// The kernel refuses io_uring.
    #[error(
        "the kernel refuses io_uring: set the sysctl kernel.io_uring_disabled to 0, or allow io_uring in \
         this container's seccomp profile"
    )]
    NoRing(#[source] io::Error),
    /// The driver is too old.
    #[error("this kernel's ublk driver lacks {missing}: Linux 6.8 or newer is needed")]
    TooOld {
        /// What it lacks.
        missing: &'static str,
    },
    /// The limit of devices is reached.
    #[error(
        "the kernel allows no more ublk devices: raise /sys/module/ublk_drv/parameters/ublks_max, or load \
         ublk_drv with a higher one (deploy/modprobe.conf)"
    )]
    NoneFree,
    /// The kernel refused a command.
    #[error("the kernel refused {command} for ublk device {id}")]
    Command {
        /// Which command.
        command: &'static str,
        /// Which device.
        id: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A command did not come back in time.
    #[error(
        "{command} for ublk device {id} has not come back after {} s: the kernel's control plane hangs; \
         running containers go on, new ones need a restart of the host",
        after.as_secs()
    )]
    Stuck {
        /// Which command.
        command: &'static str,
        /// Which device.
        id: u32,
        /// How long it was waited for.
        after: Duration,
    },
    /// The device's character node could not be used.
    #[error("cannot {act} {}", path.display())]
    Node {
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
    /// Did the kernel answer with this errno?
    #[must_use]
    pub fn is(&self, errno: Errno) -> bool {
        match self {
            Self::Command { source, .. } | Self::Node { source, .. } => {
                Errno::from_io_error(source) == Some(errno)
            }
            _ => false,
        }
    }
}
