//! One snapshot as the store keeps it. Every stored record begins with a version byte.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::Error;

/// What the first byte of a stored record says. Raise it with every change of [`Record`]'s shape.
const VERSION: u8 = 1;
/// The same of a fitted one, which older versions do not know: they refuse the store by its number.
const FITTED: u8 = 2;

/// What people attach to a snapshot; stored word for word.
pub type Labels = BTreeMap<String, String>;

/// Our own number of a snapshot: never given twice, and the name of its file and its disk.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct Id(pub u64);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a snapshot is to containerd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// Read only, over a committed snapshot.
    View,
    /// Writable, over a committed snapshot or nothing.
    Active,
    /// Sealed; what others stand on.
    Committed,
    /// Ours alone: a committed snapshot at another size. It has its parent's name and no key of its own,
    /// those who want that size stand on it, and it goes with its parent.
    Fitted,
}

/// Where a record stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Its file and disk are being made; nobody was told of it.
    Preparing,
    /// Whole.
    Ready,
    /// An active snapshot that is being sealed, and the name that it will have.
    Committing {
        /// Reserved for it in the key space.
        name: String,
    },
    /// Has no key any more; its disk and file have still to go.
    Removing,
}

/// The committed snapshot that another one stands on.
///
/// Its name cannot change while somebody stands on it, so it is kept here too, and listing needs no
/// second look-up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// Its record.
    pub id: Id,
    /// Its name.
    pub name: String,
}

/// The identity of a sealed delta: what must be true of its file whenever it is opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// Bytes of the file.
    pub length: u64,
    /// CRC-32 of header and index.
    pub digest: u32,
    /// Bytes on the host when it was sealed.
    pub allocated: u64,
}

/// What a snapshot costs, without its parents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Bytes on the host.
    pub bytes: u64,
    /// Files on the host.
    pub inodes: u64,
}

/// A moment to the nanosecond, also before 1970: containerd compares them exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Timestamp {
    /// Whole seconds since 1970, rounded down.
    seconds: i64,
    /// And so many nanoseconds, less than a second.
    nanos: u32,
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let far = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
        match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => Self {
                seconds: far(after.as_secs()),
                nanos: after.subsec_nanos(),
            },
            Err(error) => {
                let before = error.duration();
                match before.subsec_nanos() {
                    0 => Self {
                        seconds: -far(before.as_secs()),
                        nanos: 0,
                    },
                    nanos => Self {
                        seconds: -far(before.as_secs()) - 1,
                        nanos: 1_000_000_000 - nanos,
                    },
                }
            }
        }
    }
}

impl From<Timestamp> for SystemTime {
    fn from(time: Timestamp) -> Self {
        let whole = Duration::from_secs(time.seconds.unsigned_abs());
        let nanos = Duration::from_nanos(u64::from(time.nanos));
        let moment = if time.seconds < 0 {
            Self::UNIX_EPOCH.checked_sub(whole)
        } else {
            Self::UNIX_EPOCH.checked_add(whole)
        };
        // Only a record from a clock that was billions of years off does not fit.
        moment
            .and_then(|moment| moment.checked_add(nanos))
            .unwrap_or(Self::UNIX_EPOCH)
    }
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Our number.
    pub id: Id,
    /// The snapshotter's name.
    pub space: String,
    /// containerd's word for it: the key, or the name once committed.
    pub key: String,
    /// What it is.
    pub kind: Kind,
    /// Where it stands.
    pub stage: Stage,
    /// What it stands on; none: on a golden file system.
    pub parent: Option<Parent>,
    /// The golden file that a chain without a parent stands on.
    pub golden: Option<String>,
    /// Bytes of its disk.
    pub size: u64,
    /// Bytes of a cluster of its chain.
    pub cluster: u64,
    /// Labels.
    pub labels: Labels,
    /// When it was made; for a committed snapshot, when it was committed.
    pub created: Timestamp,
    /// When its labels last changed.
    pub updated: Timestamp,
    /// Of a committed snapshot: what its file must be.
    pub seal: Option<Seal>,
    /// Of a committed snapshot: what it cost when it was sealed.
    pub usage: Option<Usage>,
}

impl Record {
    /// Does anybody but us know of it?
    ///
    /// A record that is being prepared or removed has no existence for containerd, and a fitted one never
    /// has any.
    #[must_use]
    pub fn visible(&self) -> bool {
        self.kind != Kind::Fitted && matches!(self.stage, Stage::Ready | Stage::Committing { .. })
    }

    /// As bytes for the store.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![match self.kind {
            Kind::Fitted => FITTED,
            _ => VERSION,
        }];
        serde_json::to_writer(&mut bytes, self)
            .expect("a record has string keys only, and memory takes every write");
        bytes
    }

    /// From the store's bytes.
    pub(super) fn decode(id: Id, bytes: &[u8]) -> Result<Self, Error> {
        match bytes.split_first() {
            Some((&(VERSION | FITTED), json)) => {
                serde_json::from_slice(json).map_err(|source| Error::BadRecord { id, source })
            }
            found => Err(Error::RecordVersion {
                id,
                found: found.map_or(0, |(&version, _)| version),
                known: FITTED,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::{Error, Id, Kind, Labels, Parent, Record, Seal, Stage, Timestamp, Usage};

    fn record() -> Record {
        Record {
            id: Id(7),
            space: "ploop".into(),
            key: "k8s.io/40/extract-1 sha256:\u{e4}\n\"".into(),
            kind: Kind::Active,
            stage: Stage::Committing {
                name: "k8s.io/41/sha256:x".into(),
            },
            parent: Some(Parent {
                id: Id(3),
                name: "p".into(),
            }),
            golden: None,
            size: 10 << 30,
            cluster: 65536,
            labels: Labels::from([("a/b.c".into(), "\0\t=".into())]),
            created: SystemTime::now().into(),
            updated: SystemTime::UNIX_EPOCH.into(),
            seal: Some(Seal {
                length: u64::MAX,
                digest: u32::MAX,
                allocated: 0,
            }),
            usage: Some(Usage {
                bytes: 4096,
                inodes: 1,
            }),
        }
    }

    #[test]
    fn a_record_is_read_back_as_it_was_written() {
        let record = record();
        assert_eq!(Record::decode(Id(7), &record.encode()).unwrap(), record);
    }

    #[test]
    fn a_record_of_another_version_is_refused_by_name() {
        let mut bytes = record().encode();
        bytes[0] = 9;
        let error = Record::decode(Id(7), &bytes).unwrap_err();
        assert!(matches!(
            error,
            Error::RecordVersion {
                id: Id(7),
                found: 9,
                known: 2
            }
        ));
        assert!(Record::decode(Id(7), b"").is_err());
        assert!(matches!(
            Record::decode(Id(7), b"\x01{}").unwrap_err(),
            Error::BadRecord { .. }
        ));
    }

    #[test]
    fn moments_keep_their_nanoseconds_on_both_sides_of_1970() {
        let epoch = SystemTime::UNIX_EPOCH;
        let year_one = Duration::from_secs(62_135_596_800);
        for moment in [
            epoch,
            epoch + Duration::new(1_790_000_000, 123_456_789),
            epoch - Duration::new(1, 1),
            epoch - Duration::from_nanos(1),
            epoch - Duration::from_secs(5),
            epoch - year_one,
            epoch - year_one + Duration::from_nanos(999_999_999),
        ] {
            assert_eq!(SystemTime::from(Timestamp::from(moment)), moment);
        }
        assert!(Timestamp::from(epoch - Duration::from_nanos(1)) < Timestamp::from(epoch));
    }
}
