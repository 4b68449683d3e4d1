//! The words that every room shares: bytes, clusters, ranges, and how people write sizes.
//!
//! Three numbers must never mix: a byte count, the index of a cluster *of the disk* ([`Cluster`]),
//! and the index of a cluster *of a file* ([`Place`]). Each has a type.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// Bytes in a sector, the smallest thing that a disk reads or writes.
pub const SECTOR: u64 = 512;

/// Index of a cluster of the disk: guest offset / cluster size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cluster(pub u32);

/// Index of a cluster of a file: file offset / cluster size.
///
/// In a ploop image place 0 holds the header, so it never names data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(pub u32);

/// A cluster's size: a power of two from 32 KiB to 64 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterSize {
    shift: u8,
}

/// Why a number is no cluster size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cluster size {0} is not a power of two from 32 KiB to 64 MiB")]
pub struct BadClusterSize(pub u64);

impl ClusterSize {
    /// 64 KiB: what a container's first minute copies up stays small (see the README).
    pub const DEFAULT: Self = Self { shift: 16 };

    /// Accepts what ploop accepts.
    ///
    /// # Errors
    /// [`BadClusterSize`] for anything but a power of two from 32 KiB to 64 MiB.
    pub const fn new(bytes: u64) -> Result<Self, BadClusterSize> {
        if bytes.is_power_of_two() && bytes >= 32 << 10 && bytes <= 64 << 20 {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "a shift of a u64 is below 64"
            )]
            let shift = bytes.trailing_zeros() as u8;
            Ok(Self { shift })
        } else {
            Err(BadClusterSize(bytes))
        }
    }

    /// The size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        1 << self.shift
    }

    /// The size in sectors.
    #[must_use]
    pub const fn sectors(self) -> u64 {
        self.bytes() / SECTOR
    }

    /// The cluster that holds byte `at`, or `None` past what a map can name.
    #[must_use]
    pub fn cluster_of(self, at: u64) -> Option<Cluster> {
        u32::try_from(at >> self.shift).ok().map(Cluster)
    }

    /// How far byte `at` lies inside its cluster.
    #[must_use]
    pub const fn offset_in(self, at: u64) -> u64 {
        at & (self.bytes() - 1)
    }

    /// First byte of a cluster of the disk.
    #[must_use]
    pub const fn start_of(self, cluster: Cluster) -> u64 {
        (cluster.0 as u64) << self.shift
    }

    /// First byte of a cluster of a file.
    #[must_use]
    pub const fn start_of_place(self, place: Place) -> u64 {
        (place.0 as u64) << self.shift
    }

    /// Clusters that `bytes` fill, the last one perhaps in part.
    #[must_use]
    pub const fn count(self, bytes: u64) -> u64 {
        bytes.div_ceil(self.bytes())
    }

    /// `bytes` rounded up to whole clusters.
    #[must_use]
    pub const fn round_up(self, bytes: u64) -> u64 {
        self.count(bytes) << self.shift
    }

    /// The numbers of the clusters that a byte range touches; `None` past what a map can name.
    #[must_use]
    pub fn clusters(self, range: ByteRange) -> Option<Range<u32>> {
        let first = u32::try_from(range.start >> self.shift).ok()?;
        let end = u32::try_from(self.count(range.end())).ok()?;
        Some(first..end.max(first))
    }

    /// Cuts a byte range at cluster borders.
    pub fn split(self, range: ByteRange) -> impl Iterator<Item = ByteRange> {
        let size = self.bytes();
        let mut at = range.start;
        std::iter::from_fn(move || {
            if at >= range.end() {
                return None;
            }
            let len = (size - self.offset_in(at)).min(range.end() - at);
            let piece = ByteRange::new(at, len);
            at += len;
            Some(piece)
        })
    }
}

impl fmt::Display for ClusterSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Bytes(self.bytes()).fmt(f)
    }
}

/// A run of bytes: of a disk or of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ByteRange {
    /// First byte.
    pub start: u64,
    /// How many.
    pub len: u64,
}

impl ByteRange {
    /// `len` bytes from `start`.
    #[must_use]
    pub const fn new(start: u64, len: u64) -> Self {
        Self { start, len }
    }

    /// The byte after the last one.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.start + self.len
    }
}

/// A number of bytes, written and read as people do: `10Gi`, `512Mi`, `1500`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

/// Why a text is no size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a size: write a number with a unit, such as 10Gi, 512Mi or 1.5G")]
pub struct BadSize(pub String);

const UNITS: [(&str, u64); 24] = [
    ("", 1),
    ("b", 1),
    ("k", 1000),
    ("kb", 1000),
    ("m", 1000_u64.pow(2)),
    ("mb", 1000_u64.pow(2)),
    ("g", 1000_u64.pow(3)),
    ("gb", 1000_u64.pow(3)),
    ("t", 1000_u64.pow(4)),
    ("tb", 1000_u64.pow(4)),
    ("p", 1000_u64.pow(5)),
    ("pb", 1000_u64.pow(5)),
    ("ki", 1 << 10),
    ("kib", 1 << 10),
    ("mi", 1 << 20),
    ("mib", 1 << 20),
    ("gi", 1 << 30),
    ("gib", 1 << 30),
    ("ti", 1 << 40),
    ("tib", 1 << 40),
    ("pi", 1 << 50),
    ("pib", 1 << 50),
    ("ei", 1 << 60),
    ("eib", 1 << 60),
];

impl FromStr for Bytes {
    type Err = BadSize;

    /// Kubernetes' way: `Ki Mi Gi Ti` are powers of 1024, `k M G T` powers of 1000.
    fn from_str(text: &str) -> Result<Self, BadSize> {
        let bad = || BadSize(text.to_owned());
        let trimmed = text.trim();
        let digits = trimmed
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(digits);
        let unit = unit.trim().to_ascii_lowercase();
        let (_, factor) = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(bad)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let whole: u64 = whole.parse().map_err(|_| bad())?;
        let mut bytes = whole.checked_mul(*factor).ok_or_else(bad)?;
        if number.contains('.') {
            let places = u32::try_from(fraction.len()).map_err(|_| bad())?;
            let scale = 10_u128.checked_pow(places).ok_or_else(bad)?;
            let part: u128 = fraction.parse().map_err(|_| bad())?;
            let extra = part.checked_mul(u128::from(*factor)).ok_or_else(bad)? / scale;
            let extra = u64::try_from(extra).map_err(|_| bad())?;
            bytes = bytes.checked_add(extra).ok_or_else(bad)?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Bytes {
    /// Three significant figures in powers of 1024: `10.0 GiB`; below 1 KiB exactly: `512 B`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return f.pad(&format!("{} B", self.0));
        }
        #[expect(clippy::cast_precision_loss, reason = "three figures are shown")]
        let mut value = self.0 as f64 / 1024.0;
        let mut name = 0;
        while value >= 999.95 && name + 1 < NAMES.len() {
            value /= 1024.0;
            name += 1;
        }
        let digits = if value < 9.995 {
            2
        } else if value < 99.95 {
            1
        } else {
            0
        };
        f.pad(&format!("{value:.digits$} {}", NAMES[name]))
    }
}

#[cfg(test)]
mod tests {
    use super::{ByteRange, Bytes, ClusterSize};

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("1500", 1500),
            ("10Gi", 10 << 30),
            ("10GiB", 10 << 30),
            (" 10 gib ", 10 << 30),
            ("1.5G", 1_500_000_000),
            ("0.5Ki", 512),
            ("64KiB", 65536),
            ("2T", 2_000_000_000_000),
            ("15Ei", 15 << 60),
        ] {
            assert_eq!(text.parse::<Bytes>(), Ok(Bytes(bytes)), "{text}");
        }
        for text in [
            "", "Gi", "-1", "10X", "1e9", "16Ei", "1.2.3", "0x10", "1.", "ten",
        ] {
            let error = text.parse::<Bytes>().unwrap_err();
            assert!(error.to_string().contains("10Gi"), "{text}: {error}");
        }
    }

    #[test]
    fn sizes_are_written_with_three_figures() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (10 << 30, "10.0 GiB"),
            (999 << 20, "999 MiB"),
            ((1 << 30) - 1, "1.00 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }

    #[test]
    fn a_cluster_size_is_a_power_of_two_within_ploops_limits() {
        for good in [32 << 10, 64 << 10, 1 << 20, 64 << 20] {
            assert_eq!(ClusterSize::new(good).unwrap().bytes(), good);
        }
        for bad in [0, 1, 512, 16 << 10, 65537, 96 << 10, 128 << 20, u64::MAX] {
            assert!(ClusterSize::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_range_is_cut_at_cluster_borders() {
        let size = ClusterSize::new(64 << 10).unwrap();
        let cut: Vec<_> = size
            .split(ByteRange::new(65536 - 512, 65536 + 1024))
            .collect();
        assert_eq!(
            cut,
            [
                ByteRange::new(65536 - 512, 512),
                ByteRange::new(65536, 65536),
                ByteRange::new(131_072, 512)
            ]
        );
        assert_eq!(size.split(ByteRange::new(7, 0)).count(), 0);
    }
}
