//! From an error to a gRPC status: the only table.
//!
//! containerd looks at the code alone. What each code makes it do:
//!
//! | code | containerd |
//! |---|---|
//! | `NOT_FOUND` | takes the snapshot for gone; pulls or unpacks again |
//! | `ALREADY_EXISTS` from Prepare | takes the layer for fetched elsewhere, or fails |
//! | `FAILED_PRECONDITION` from Remove | its garbage collector skips it; any other code ends the round |
//! | everything else | fails the call |

use containerd_snapshots::tonic::{Code, Status};

use super::Error;
use crate::causes::in_full;
use crate::snapshot::ErrorKind;

pub(super) fn code(error: &Error) -> Code {
    match error {
        Error::Act(error) => match error.kind() {
            ErrorKind::NotFound => Code::NotFound,
            ErrorKind::AlreadyExists => Code::AlreadyExists,
            ErrorKind::InvalidArgument => Code::InvalidArgument,
            ErrorKind::FailedPrecondition => Code::FailedPrecondition,
            ErrorKind::Unavailable => Code::Unavailable,
            ErrorKind::DeadlineExceeded => Code::DeadlineExceeded,
            ErrorKind::ResourceExhausted => Code::ResourceExhausted,
            ErrorKind::DataLoss => Code::DataLoss,
            ErrorKind::Internal => Code::Internal,
        },
        Error::Filter(_) => Code::InvalidArgument,
        Error::NoName { .. } => Code::NotFound,
        Error::Late { .. } => Code::DeadlineExceeded,
        Error::Stopping { .. } => Code::Unavailable,
        Error::Broken { .. } | Error::Door { .. } => Code::Internal,
    }
}

/// A code as people write it, for numbers and logs.
pub(super) fn name_of(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Unavailable => "UNAVAILABLE",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::DataLoss => "DATA_LOSS",
        _ => "INTERNAL",
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        // A message travels in a header: containerd's client refuses one that is huge.
        let mut message = in_full(&error);
        if let Some((end, _)) = message.char_indices().nth(2000) {
            message.truncate(end);
            message.push('…');
        }
        Self::new(code(&error), message)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use containerd_snapshots::tonic::{Code, Status};

    use super::super::{Error, Method};
    use crate::snapshot;

    #[test]
    fn a_status_has_the_code_and_every_cause() {
        let file = |kind| snapshot::Error::File {
            act: "create",
            path: "/x".into(),
            source: io::Error::from(kind),
        };
        for (error, code, words) in [
            (
                Error::Act(file(io::ErrorKind::StorageFull)),
                Code::ResourceExhausted,
                "cannot create /x: no storage space",
            ),
            (
                Error::Act(snapshot::Error::EmptyKey),
                Code::InvalidArgument,
                "must not be empty",
            ),
            (
                Error::Late {
                    method: Method::Commit,
                    key: "k".to_owned(),
                    limit: std::time::Duration::from_secs(20),
                },
                Code::DeadlineExceeded,
                "Commit of \"k\" did not end within 20s",
            ),
            (
                Error::Stopping {
                    method: Method::View,
                },
                Code::Unavailable,
                "stopping",
            ),
        ] {
            let status = Status::from(error);
            assert_eq!(status.code(), code);
            assert!(status.message().contains(words), "{status}");
        }
    }

    #[test]
    fn a_huge_message_is_cut_at_a_character() {
        let status = Status::from(Error::Broken {
            method: Method::Stat,
            key: "牛".repeat(5000),
        });
        assert_eq!(status.message().chars().count(), 2001);
    }
}
