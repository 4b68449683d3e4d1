//! ploopd's table from errors to gRPC codes; the words of `disks.proto` stand behind it.

use std::io;

use tonic::{Code, Status};

use super::error::Error;
use crate::causes::in_full;
use crate::chain;
use crate::device;
use crate::disk;
use crate::image;

/// An error for the wire: its code, and everything it has to say.
pub(super) fn status(error: &Error) -> Status {
    Status::new(code(error), in_full(error))
}

/// Is it only that something ran out, which there may be again?
pub(super) fn is_passing(error: &Error) -> bool {
    code(error) == Code::ResourceExhausted
}

fn code(error: &Error) -> Code {
    match error {
        Error::Invalid(_) => Code::InvalidArgument,
        Error::NotFound { .. } => Code::NotFound,
        Error::Different { .. }
        | Error::Claimed { .. }
        | Error::NothingToSeal { .. }
        | Error::SecondServer { .. } => Code::FailedPrecondition,
        Error::Missing { source, .. } => of_file(source),
        Error::Waits { .. } => Code::ResourceExhausted,
        Error::LostWrites { .. } | Error::Account { .. } => Code::DataLoss,
        Error::Draining => Code::Unavailable,
        Error::Device(error) => of_device(error),
        Error::Disk(error) => of_disk(error),
        Error::Host { source, .. } => of_host(source),
        Error::Socket(_) | Error::Transport(_) | Error::Lost(_) => Code::Internal,
    }
}

fn of_device(error: &device::Error) -> Code {
    match error {
        device::Error::Busy { .. } | device::Error::Exists { .. } | device::Error::Fixed { .. } => {
            Code::FailedPrecondition
        }
        device::Error::Size { .. } => Code::InvalidArgument,
        error if error.is_exhausted() => Code::ResourceExhausted,
        _ => Code::Internal,
    }
}

fn of_disk(error: &disk::Error) -> Code {
    match error {
        disk::Error::Chain(error) => of_chain(error),
        disk::Error::Image { source, .. } => of_image(source),
        disk::Error::Contradiction { .. } => Code::DataLoss,
        disk::Error::Pending { source, .. } | disk::Error::Io { source, .. } => of_host(source),
        disk::Error::ReadOnly { .. } | disk::Error::NotGrown { .. } => Code::FailedPrecondition,
        disk::Error::Closed { .. } => Code::Unavailable,
        _ => Code::Internal,
    }
}

fn of_chain(error: &chain::Error) -> Code {
    match error {
        chain::Error::Open { source, .. } => of_file(source),
        chain::Error::Image { source, .. } => of_image(source),
        chain::Error::Locked { .. } => Code::FailedPrecondition,
        _ => Code::InvalidArgument,
    }
}

fn of_image(error: &image::Error) -> Code {
    match error.kind() {
        image::Kind::Corrupt => Code::DataLoss,
        image::Kind::InUse => Code::FailedPrecondition,
        image::Kind::Invalid => Code::InvalidArgument,
        image::Kind::Io => match error {
            image::Error::Io { source, .. } | image::Error::Unsynced(source) => of_host(source),
            _ => Code::Internal,
        },
    }
}

/// A delta that is gone is a loss of data, not an id that nobody knows.
fn of_file(error: &io::Error) -> Code {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Code::DataLoss,
        _ => of_host(error),
    }
}

fn of_host(error: &io::Error) -> Code {
    use rustix::io::Errno;
    match Errno::from_io_error(error) {
        Some(Errno::NOSPC | Errno::DQUOT | Errno::MFILE | Errno::NFILE | Errno::NOMEM) => {
            Code::ResourceExhausted
        }
        _ => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::is_passing;
    use crate::chain;
    use crate::device;
    use crate::disk;
    use crate::server::Error;

    /// Whatever this calls lasting takes the disk away from a container for good.
    #[test]
    fn what_ran_out_may_be_there_again() {
        let errno = io::Error::from_raw_os_error;
        let chain = |number| {
            let (path, source) = ("/a".into(), errno(number));
            Error::Disk(disk::Error::Chain(chain::Error::Open { path, source }))
        };
        let pending = |number| {
            let (path, source) = ("/a".into(), errno(number));
            Error::Disk(disk::Error::Pending { path, source })
        };
        let node = |number| {
            let (act, path, source) = ("open", "/dev/ublkc1".into(), errno(number));
            Error::Device(device::Error::Kernel { act, path, source })
        };
        let missing = |number| Error::Missing {
            path: "/a".into(),
            source: errno(number),
        };
        // EMFILE, ENFILE, ENOMEM, ENOSPC; then ENOENT, EIO.
        for (number, passing) in [
            (24, true),
            (23, true),
            (12, true),
            (28, true),
            (2, false),
            (5, false),
        ] {
            for error in [
                chain(number),
                pending(number),
                node(number),
                missing(number),
            ] {
                assert_eq!(is_passing(&error), passing, "{error:?}");
            }
        }
        let (path, gone) = (
            "/a".into(),
            device::Error::Gone {
                device: "/a".into(),
            },
        );
        assert!(!is_passing(&Error::Device(gone)));
        assert!(!is_passing(&Error::Disk(disk::Error::Chain(
            chain::Error::Locked { path }
        ))));
    }
}
