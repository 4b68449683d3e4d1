//! What a sealed delta is known by, so that no other file is taken for it.

use std::fmt;

use crate::format::ploop::Header;
use crate::units::{Cluster, Place};

/// A sealed delta's length and digest.
///
/// The digest is the CRC-32 (IEEE) of the 64 bytes of the header followed by, for each entry of the
/// index that is not zero, in ascending order of clusters, the cluster and the entry's place in the
/// file, each as a little-endian u32. It says that header and index are the ones that were sealed; it
/// says nothing about the data. A plain file has no header: its digest is 0, and only its length
/// counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Seal {
    /// The file's length in bytes.
    pub length: u64,
    /// CRC-32 of header and index.
    pub digest: u32,
}

impl Seal {
    /// The seal of an image with this header and index.
    pub(super) fn of(header: &Header, entries: &[(Cluster, Place)], length: u64) -> Self {
        let mut digest = crc32fast::Hasher::new();
        digest.update(&header.to_bytes());
        for (cluster, place) in entries {
            digest.update(&cluster.0.to_le_bytes());
            digest.update(&place.0.to_le_bytes());
        }
        Self {
            length,
            digest: digest.finalize(),
        }
    }
}

impl fmt::Display for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "length {} and digest {:08x}", self.length, self.digest)
    }
}
