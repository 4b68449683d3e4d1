//! How single values are written: sizes, times, names, and whatever is read from a text.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ext4::{self, Choices, MkfsOptions};
use crate::units::{Bytes, ClusterSize};

/// A snapshotter's name, as containerd's configuration has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Name(String);

impl Name {
    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = String;

    /// containerd's rule for identifiers; it keeps the name fit for a socket's file name, too.
    fn try_from(name: String) -> Result<Self, String> {
        let parts_are_words = name
            .split(['.', '-', '_'])
            .all(|part| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric()));
        if parts_are_words && name.len() <= 64 {
            Ok(Self(name))
        } else {
            Err(format!(
                "\"{name}\" is no snapshotter name: write letters and digits, with single . - _ between \
                 them, 64 at most"
            ))
        }
    }
}

/// Values that are read from a text, and written back as one.
pub(super) mod text {
    use super::{Deserialize, Deserializer, Error, FromStr, Serializer, fmt};

    pub(in crate::config) fn deserialize<'de, D, T>(source: D) -> Result<T, D::Error>
    where
        D: Deserializer<'de>,
        T: FromStr,
        T::Err: fmt::Display,
    {
        String::deserialize(source)?.parse().map_err(Error::custom)
    }

    pub(in crate::config) fn serialize<S: Serializer, T: fmt::Display>(
        value: &T,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        out.collect_str(value)
    }
}

/// The same of values that may be left out.
pub(super) mod optional_text {
    use super::{Deserializer, FromStr, Serializer, fmt, text};

    pub(in crate::config) fn deserialize<'de, D, T>(source: D) -> Result<Option<T>, D::Error>
    where
        D: Deserializer<'de>,
        T: FromStr,
        T::Err: fmt::Display,
    {
        text::deserialize(source).map(Some)
    }

    pub(in crate::config) fn serialize<S: Serializer, T: fmt::Display>(
        value: &Option<T>,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => text::serialize(value, out),
            None => out.serialize_none(),
        }
    }
}

/// Absolute paths: a daemon's working directory is nobody's business.
pub(super) mod absolute {
    use super::{Deserialize, Deserializer, Error, PathBuf, Serialize, Serializer};

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        source: D,
    ) -> Result<PathBuf, D::Error> {
        let path = PathBuf::deserialize(source)?;
        if path.is_absolute() {
            Ok(path)
        } else {
            let path = path.display();
            Err(Error::custom(format!("\"{path}\" is no absolute path")))
        }
    }

    pub(in crate::config) fn serialize<S: Serializer>(
        path: &PathBuf,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        path.serialize(out)
    }
}

/// An absolute path that may be left out.
pub(super) fn optional_path<'de, D: Deserializer<'de>>(
    source: D,
) -> Result<Option<PathBuf>, D::Error> {
    absolute::deserialize(source).map(Some)
}

/// A size of bytes: `"10Gi"`, or a plain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    /// Exactly, unlike [`Bytes`]: with the largest unit that divides it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift) in [("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)] {
            if self.0 != 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        self.0.fmt(f)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"10Gi\", or a number of bytes")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Size, E> {
                let bytes: Bytes = text.parse().map_err(E::custom)?;
                Ok(Size(bytes.0))
            }

            fn visit_i64<E: Error>(self, bytes: i64) -> Result<Size, E> {
                u64::try_from(bytes)
                    .map(Size)
                    .map_err(|_| E::custom("a size is not negative"))
            }
        }
        source.deserialize_any(Reader)
    }
}

/// What a disk may be.
const SMALLEST_DISK: u64 = 64 << 20;
const LARGEST_DISK: u64 = 16 << 40;

/// The size of a disk.
pub(super) fn disk_size<'de, D: Deserializer<'de>>(source: D) -> Result<Size, D::Error> {
    let size = Size::deserialize(source)?;
    if (SMALLEST_DISK..=LARGEST_DISK).contains(&size.0) && size.0.is_multiple_of(4096) {
        Ok(size)
    } else {
        Err(Error::custom(format!(
            "a disk of {size} bytes cannot be: it must be a multiple of 4Ki, from {} to {}",
            Size(SMALLEST_DISK),
            Size(LARGEST_DISK)
        )))
    }
}

/// The size of a disk, if it is given.
pub(super) fn optional_disk_size<'de, D: Deserializer<'de>>(
    source: D,
) -> Result<Option<Size>, D::Error> {
    disk_size(source).map(Some)
}

/// How many bytes of a disk there are for each inode.
pub(super) fn inode_ratio<'de, D: Deserializer<'de>>(source: D) -> Result<Size, D::Error> {
    let ratio = Size::deserialize(source)?;
    let limits = Choices::BYTES_PER_INODE;
    if limits.contains(&ratio.0) {
        Ok(ratio)
    } else {
        Err(Error::custom(format!(
            "an inode for each {ratio} bytes cannot be: write from {} to {}",
            Size(*limits.start()),
            Size(*limits.end())
        )))
    }
}

/// The same, if it is given.
pub(super) fn optional_inode_ratio<'de, D: Deserializer<'de>>(
    source: D,
) -> Result<Option<Size>, D::Error> {
    inode_ratio(source).map(Some)
}

/// Words for mkfs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct MkfsWords(pub(super) MkfsOptions);

impl TryFrom<Vec<String>> for MkfsWords {
    type Error = ext4::Error;

    fn try_from(words: Vec<String>) -> Result<Self, ext4::Error> {
        MkfsOptions::new(words).map(Self)
    }
}

impl From<MkfsWords> for Vec<String> {
    fn from(words: MkfsWords) -> Self {
        words.0.words().to_vec()
    }
}

/// Cluster sizes.
pub(super) mod cluster {
    use super::{ClusterSize, Deserialize, Deserializer, Error, Serializer, Size};

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        source: D,
    ) -> Result<ClusterSize, D::Error> {
        ClusterSize::new(Size::deserialize(source)?.0).map_err(Error::custom)
    }

    pub(in crate::config) fn serialize<S: Serializer>(
        cluster: &ClusterSize,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        out.collect_str(&Size(cluster.bytes()))
    }
}

/// How many disk servers.
pub(super) fn servers<'de, D: Deserializer<'de>>(source: D) -> Result<u8, D::Error> {
    // More than this is more processes than any node has reason for, and a slip of the finger.
    const MOST: i64 = 16;
    let servers = i64::deserialize(source)?;
    match u8::try_from(servers) {
        Ok(servers) if (1..=MOST).contains(&i64::from(servers)) => Ok(servers),
        _ => Err(Error::custom(format!(
            "{servers} servers cannot be: write a number from 1 to {MOST}"
        ))),
    }
}

/// Times: `"20s"`, `"1m 30s"`, `"500ms"`.
pub(super) mod time {
    use super::{Deserialize, Deserializer, Duration, Error, Serializer};

    /// Longer than this is a mistake, and a wait for ever in disguise.
    const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        source: D,
    ) -> Result<Duration, D::Error> {
        let text = String::deserialize(source)?;
        let time = humantime::parse_duration(&text).map_err(|error| {
            Error::custom(format!(
                "\"{text}\" is no time ({error}): write a number with a unit, such as 500ms, 20s or 5m"
            ))
        })?;
        if time.is_zero() || time > LONGEST {
            return Err(Error::custom(format!(
                "\"{text}\" is out of range: a time is longer than nothing, and a day at most"
            )));
        }
        Ok(time)
    }

    pub(in crate::config) fn serialize<S: Serializer>(
        time: &Duration,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        out.collect_str(&humantime::format_duration(*time))
    }
}
