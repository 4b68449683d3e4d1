//! The ploop image format: its header and its index.
//!
//! ```text
//! byte 0           64                   64+4*N            first data
//! | header, 64 B   | index: N x u32     | zeros           | data clusters ...
//! <-- a whole number of clusters ------------------------>
//! ```
//!
//! Seen another way, the file begins with an array of little-endian u32, of which the header takes
//! the first sixteen ([`HEADER_SLOTS`]). Index entry 0 means "not here"; it can never name data,
//! because place 0 holds the header. A version 2 entry is the place of the cluster's data in the
//! file, counted in clusters; a version 1 entry is the same in sectors.
//!
//! ```text
//! off size
//!   0   16  signature    WithoutFreeSpace (version 1) or WithouFreSpacExt (version 2)
//!  16    4  kind         2 in both versions: "expandable"
//!  20    4  heads        cosmetic
//!  24    4  cylinders    cosmetic
//!  28    4  cluster      in sectors
//!  32    4  N            entries of the index
//!  36    8  sectors      the disk's size (version 1: 4 bytes, and 4 that are ignored)
//!  44    4  in use       0, "Ynot" or "v2.1"
//!  48    4  first data   first sector after the index
//!  52    4  flags        1 empty, 2 version conversion under way
//!  56    8  extension    sector of the format extension; means something only with "v2.1"
//! ```
//!
//! The order is the format's own, as is the u64 at an odd place: version 2 took over the unused word
//! behind the size, so that version 1's readers find everything else where it was.

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::units::{BadClusterSize, ClusterSize, Place, SECTOR};

/// Bytes of the header.
pub const HEADER_LEN: usize = 64;
/// Index slots that the header takes: entry `i` is the u32 at byte `4 * (HEADER_SLOTS + i)`.
pub const HEADER_SLOTS: u32 = 16;
/// First bytes of version 1.
pub const SIGNATURE_V1: &[u8; 16] = b"WithoutFreeSpace";
/// First bytes of version 2.
pub const SIGNATURE_V2: &[u8; 16] = b"WithouFreSpacExt";
/// Flag: no data was ever written.
pub const FLAG_EMPTY: u32 = 1;
/// Flag: the index is being rewritten from one version to the other.
pub const FLAG_CONVERTING: u32 = 2;

const KIND_EXPANDABLE: u32 = 2;
/// "Ynot".
const IN_USE_YES: u32 = 0x746F_6E59;
/// "v2.1".
const IN_USE_EXTENSION: u32 = 0x312E_3276;

/// The header as it lies in the file; nothing of it is checked.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
struct Raw {
    signature: [u8; 16],
    kind: U32,
    heads: U32,
    cylinders: U32,
    cluster_sectors: U32,
    entries: U32,
    sectors: U64,
    in_use: U32,
    first_data: U32,
    flags: U32,
    extension: U64,
}

const _: () = {
    assert!(size_of::<Raw>() == HEADER_LEN);
    assert!(offset_of!(Raw, kind) == 16);
    assert!(offset_of!(Raw, cluster_sectors) == 28);
    assert!(offset_of!(Raw, sectors) == 36);
    assert!(offset_of!(Raw, in_use) == 44);
    assert!(offset_of!(Raw, first_data) == 48);
    assert!(offset_of!(Raw, flags) == 52);
    assert!(offset_of!(Raw, extension) == 56);
};

/// Which of the two versions of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Entries are sectors, the disk is below 2 TiB.
    V1,
    /// Entries are clusters.
    V2,
}

/// What the header says about its last writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InUse {
    /// Closed in order.
    No,
    /// Closed in order, and the format extension is valid.
    Extension,
    /// Open for writing, or left so by a crash.
    Yes,
    /// No value that the format knows.
    Unknown(u32),
}

/// Why 64 bytes are no header of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The first 16 bytes are no signature of ploop.
    #[error("not a ploop image: no ploop signature in its first 16 bytes")]
    Signature,
    /// The type field has a value that no version uses.
    #[error("image type {0} is not 2, the only one that ploop knows")]
    Kind(u32),
    /// The cluster size is outside the format's limits.
    #[error("header: {0}")]
    ClusterSize(BadClusterSize),
    /// The index has no entries, or so many that their data could not be numbered.
    #[error("an index of {0} entries is not between 1 and what 32 bits can number")]
    Entries(u64),
    /// The disk's size is zero or larger than what the index covers.
    #[error("disk of {sectors} sectors does not fit an index that covers {covered}")]
    Size {
        /// What the header says.
        sectors: u64,
        /// What the entries cover.
        covered: u64,
    },
    /// The data do not begin where the index ends.
    #[error("data begin at sector {found}, but the index ends at sector {expected}")]
    FirstData {
        /// What the header says.
        found: u32,
        /// The one right value.
        expected: u64,
    },
}

/// A header whose numbers were checked against each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    raw: Raw,
    version: Version,
    cluster: ClusterSize,
    first_data: Place,
}

impl Header {
    /// The header of a new, empty version 2 image.
    ///
    /// A size that is no multiple of the cluster size is rounded up, as ploop's own tool does.
    ///
    /// # Errors
    /// [`Error::Entries`] if the size is zero, or too large for the cluster size.
    pub fn new(size: u64, cluster: ClusterSize) -> Result<Self, Error> {
        let count = cluster.count(size);
        let (entries, first_data) = index_of(count, cluster)?;
        let sectors = count * cluster.sectors();
        let (heads, cylinders) = geometry(sectors);
        let narrow = |value: u64| {
            u32::try_from(value).expect("an index below 2^32 entries ends below sector 2^32")
        };
        let raw = Raw {
            signature: *SIGNATURE_V2,
            kind: U32::new(KIND_EXPANDABLE),
            heads: U32::new(heads),
            cylinders: U32::new(cylinders),
            cluster_sectors: U32::new(narrow(cluster.sectors())),
            entries: U32::new(entries),
            sectors: U64::new(sectors),
            in_use: U32::new(0),
            first_data: U32::new(narrow(u64::from(first_data.0) * cluster.sectors())),
            flags: U32::new(FLAG_EMPTY),
            extension: U64::new(0),
        };
        Ok(Self {
            raw,
            version: Version::V2,
            cluster,
            first_data,
        })
    }

    /// Reads a header and checks each number against the others.
    ///
    /// What the header says about the image's *state* ([`Self::in_use`], [`Self::flags`],
    /// [`Self::extension`]) is kept as it is: whether it is acceptable depends on what one is up to.
    ///
    /// # Errors
    /// The first thing that cannot be.
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Result<Self, Error> {
        let raw: Raw = zerocopy::transmute!(*bytes);
        let version = match &raw.signature {
            signature if signature == SIGNATURE_V2 => Version::V2,
            signature if signature == SIGNATURE_V1 => Version::V1,
            _ => return Err(Error::Signature),
        };
        if raw.kind.get() != KIND_EXPANDABLE {
            return Err(Error::Kind(raw.kind.get()));
        }
        let cluster = ClusterSize::new(u64::from(raw.cluster_sectors.get()) * SECTOR)
            .map_err(Error::ClusterSize)?;
        let (_, first_data) = index_of(u64::from(raw.entries.get()), cluster)?;
        let header = Self {
            raw,
            version,
            cluster,
            first_data,
        };
        let (sectors, covered) = (header.sectors(), header.covered_sectors());
        if sectors == 0 || sectors > covered {
            return Err(Error::Size { sectors, covered });
        }
        let found = raw.first_data.get();
        let expected = u64::from(first_data.0) * cluster.sectors();
        // Version 1's oldest writers left the field empty: the data follow the index.
        let left_out = version == Version::V1 && found == 0;
        if u64::from(found) != expected && !left_out {
            return Err(Error::FirstData { found, expected });
        }
        Ok(header)
    }

    /// The header's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        zerocopy::transmute!(self.raw)
    }

    /// The same header, saying that the image is open for writing.
    ///
    /// The flags go with it: "empty" must be gone for good before the first entry is. So does the
    /// extension, which means nothing while the image is in use.
    #[must_use]
    pub fn opened(mut self) -> Self {
        self.raw.in_use = U32::new(IN_USE_YES);
        self.raw.flags = U32::new(0);
        self.raw.extension = U64::new(0);
        self
    }

    /// The same header, saying that the image was closed in order.
    #[must_use]
    pub fn closed(mut self, empty: bool) -> Self {
        self.raw.in_use = U32::new(0);
        self.raw.flags = U32::new(if empty { FLAG_EMPTY } else { 0 });
        self.raw.extension = U64::new(0);
        self
    }

    /// The same header for a disk of another size, rounded up to whole clusters. What it says about the
    /// image's state stays.
    ///
    /// The index never becomes shorter: that of another program's image may cover more than its disk, and
    /// every entry of it may be in use.
    ///
    /// # Errors
    /// [`Error::Entries`] if the size is zero, or too large for the cluster size.
    pub fn grown(self, size: u64) -> Result<Self, Error> {
        let mut new = Self::new(size, self.cluster)?;
        if new.entries() < self.entries() {
            let disk = new.raw;
            new = Self::new(self.covered_sectors() * SECTOR, self.cluster)?;
            new.raw.sectors = disk.sectors;
            new.raw.heads = disk.heads;
            new.raw.cylinders = disk.cylinders;
        }
        new.raw.in_use = self.raw.in_use;
        new.raw.flags = self.raw.flags;
        new.raw.extension = self.raw.extension;
        Ok(new)
    }

    /// Which version of the format.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The cluster size.
    #[must_use]
    pub fn cluster(&self) -> ClusterSize {
        self.cluster
    }

    /// Entries of the index: clusters of the disk.
    #[must_use]
    pub fn entries(&self) -> u32 {
        self.raw.entries.get()
    }

    /// The disk's size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.sectors() * SECTOR
    }

    /// The disk's size in sectors.
    #[must_use]
    pub fn sectors(&self) -> u64 {
        match self.version {
            Version::V1 => self.raw.sectors.get() & u64::from(u32::MAX),
            Version::V2 => self.raw.sectors.get(),
        }
    }

    /// Sectors that the index covers; the disk may end inside its last cluster.
    #[must_use]
    pub fn covered_sectors(&self) -> u64 {
        u64::from(self.entries()) * self.cluster.sectors()
    }

    /// What the last writer said about itself.
    #[must_use]
    pub fn in_use(&self) -> InUse {
        match self.raw.in_use.get() {
            0 => InUse::No,
            IN_USE_YES => InUse::Yes,
            IN_USE_EXTENSION => InUse::Extension,
            other => InUse::Unknown(other),
        }
    }

    /// The flags ([`FLAG_EMPTY`], [`FLAG_CONVERTING`], and what nobody defined).
    #[must_use]
    pub fn flags(&self) -> u32 {
        self.raw.flags.get()
    }

    /// First sector of the format extension; 0 is none.
    #[must_use]
    pub fn extension(&self) -> u64 {
        self.raw.extension.get()
    }

    /// The first place that can hold data: clusters of header and index.
    #[must_use]
    pub fn first_data(&self) -> Place {
        self.first_data
    }

    /// Bytes of header and index, in whole clusters.
    #[must_use]
    pub fn index_len(&self) -> u64 {
        self.cluster.start_of_place(self.first_data)
    }

    /// Where the data of a non-zero index entry are; `None` for a version 1 entry between clusters.
    #[must_use]
    pub fn place(&self, entry: u32) -> Option<Place> {
        match self.version {
            Version::V2 => Some(Place(entry)),
            Version::V1 => {
                let sectors = self.raw.cluster_sectors.get();
                entry
                    .is_multiple_of(sectors)
                    .then(|| Place(entry / sectors))
            }
        }
    }
}

/// The non-zero words of a piece of the index whose first word is slot `first`, with their slots.
///
/// Slots count from the file's first byte. Bytes after the last whole word are ignored.
pub fn entries(first: u32, bytes: &[u8]) -> impl Iterator<Item = (u32, u32)> {
    let (words, _) = <[U32]>::ref_from_prefix_with_elems(bytes, bytes.len() / size_of::<U32>())
        .expect("little-endian words need no alignment, and so many fit");
    (first..)
        .zip(words)
        .map(|(slot, word)| (slot, word.get()))
        .filter(|(_, value)| *value != 0)
}

/// Checks a number of entries; answers it and the first place after the index.
fn index_of(count: u64, cluster: ClusterSize) -> Result<(u32, Place), Error> {
    let too_many = |_| Error::Entries(count);
    let entries = u32::try_from(count).map_err(too_many)?;
    if entries == 0 {
        return Err(Error::Entries(0));
    }
    let index = cluster.count(4 * (u64::from(HEADER_SLOTS) + count));
    // Every cluster of the disk must be able to have a place, or writes would fail one day.
    u32::try_from(index + count).map_err(too_many)?;
    Ok((entries, Place(u32::try_from(index).map_err(too_many)?)))
}

/// Heads and cylinders, which nobody reads, as ploop's own tool writes them.
fn geometry(sectors: u64) -> (u32, u32) {
    let cylinders = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    if sectors > 1_032_192 && sectors < 16_777_216 {
        return (16, cylinders(sectors / (63 * 16)));
    }
    let track = [63, 32, 16, 8]
        .into_iter()
        .find(|track| sectors.is_multiple_of(*track));
    let tracks = sectors / track.unwrap_or(1);
    let heads = [16_u32, 8, 4, 2]
        .into_iter()
        .find(|heads| tracks.is_multiple_of(u64::from(*heads)));
    let heads = heads.unwrap_or(1);
    (heads, cylinders(tracks / u64::from(heads)))
}

#[cfg(test)]
#[path = "ploop_tests.rs"]
mod tests;
