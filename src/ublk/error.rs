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

    /// Is it that devices, descriptors or memory ran out?
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        let short = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOSPC];
        matches!(self, Self::NoneFree) || short.into_iter().any(|errno| self.is(errno))
    }

    /// No ring could be had for a command. Only where the kernel refuses every ring there is something to allow.
    pub(super) fn no_ring(command: &'static str, id: u32, source: io::Error) -> Self {
        match Errno::from_io_error(&source) {
            Some(Errno::PERM | Errno::ACCESS | Errno::NOSYS) => Self::NoRing(source),
            _ => Self::Command {
                command,
                id,
                source,
            },
        }
    }

    /// The control node could not be opened.
    pub(super) fn no_control(node: &str, source: io::Error) -> Self {
        match Errno::from_io_error(&source) {
            Some(Errno::NOENT | Errno::NODEV | Errno::NXIO) => Self::NoDriver,
            Some(Errno::PERM | Errno::ACCESS) => Self::NotAllowed(source),
            _ => Self::Node {
                act: "open",
                path: node.into(),
                source,
            },
        }
    }

    /// Does the driver not know this command? It says so in two ways; the second has no name outside the kernel.
    pub(super) fn is_unknown_command(&self) -> bool {
        const ENOTSUPP: i32 = 524;
        self.is(Errno::OPNOTSUPP) || self.is(Errno::from_raw_os_error(ENOTSUPP))
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::Error;

    fn no_ring(errno: i32) -> Error {
        Error::no_ring("ADD_DEV", 7, io::Error::from_raw_os_error(errno))
    }

    fn refused(errno: i32) -> Error {
        Error::Command {
            command: "DEL_DEV_ASYNC",
            id: 7,
            source: io::Error::from_raw_os_error(errno),
        }
    }

    /// With its descriptors used up a ploopd told people to set a sysctl that was set.
    #[test]
    fn who_has_no_descriptor_is_not_told_to_allow_rings() {
        for (errno, forbidden) in [(1, true), (13, true), (38, true), (24, false), (12, false)] {
            let error = no_ring(errno);
            assert_eq!(matches!(error, Error::NoRing(_)), forbidden, "{error:?}");
            assert_eq!(error.is_exhausted(), !forbidden, "{error:?}");
        }
        let node = Error::Node {
            act: "open",
            path: "/dev/ublkc7".into(),
            source: io::Error::from_raw_os_error(23),
        };
        assert!(node.is_exhausted() && Error::NoneFree.is_exhausted());
        assert!(!refused(16).is_exhausted() && !Error::NoDriver.is_exhausted());
    }

    /// A ploopd that found no descriptor for the driver said "run as root", and served its disks through FUSE.
    #[test]
    fn who_has_no_descriptor_is_not_told_that_there_is_no_driver() {
        let error =
            |errno| Error::no_control("/dev/ublk-control", io::Error::from_raw_os_error(errno));
        assert!(matches!(error(2), Error::NoDriver));
        assert!(matches!(error(19), Error::NoDriver));
        assert!(matches!(error(13), Error::NotAllowed(_)));
        for errno in [24, 23, 12] {
            assert!(error(errno).is_exhausted(), "{errno}");
        }
    }

    /// Linux 6.8 answers -95 to a command of 6.9.
    #[test]
    fn a_command_that_the_driver_does_not_know_is_told_from_one_that_fails() {
        for (errno, unknown) in [
            (95, true),
            (524, true),
            (22, false),
            (19, false),
            (16, false),
        ] {
            assert_eq!(refused(errno).is_unknown_command(), unknown, "{errno}");
        }
    }
}
