//! The disk of the crash tests, and what lies below it.
//!
//! Its index has a border between two sectors in the middle of what is written, and another between two
//! pages: entries of one request can be torn apart there. Requests stay inside three regions; everything
//! between them is the neighbour whom nothing may touch.

use crate::io::crash::{Contents, CrashFile};
use crate::io::sectors::{self, BYTES, Id};
use crate::units::{ByteRange, ClusterSize};

/// Bytes in a cluster: the smallest there is.
pub(super) const CLUSTER: u64 = 32 << 10;
/// Sectors in a cluster.
pub(super) const SECTORS: usize = 64;
/// Clusters in a region.
pub(super) const WIDTH: usize = 3;
/// The first cluster of each region: 112 is the first of the index's second sector, 1008 of its second
/// page. The disk ends with the last region.
const FIRST: [u64; 3] = [0, 111, 1007];
/// Clusters of the disk.
pub(super) const CLUSTERS: u64 = FIRST[2] + WIDTH as u64;
/// Its size.
pub(super) const SIZE: u64 = CLUSTERS * CLUSTER;
/// Sectors in all regions.
pub(super) const ALL: usize = FIRST.len() * WIDTH * SECTORS;
/// Sectors in one region.
pub(super) const REGION: usize = WIDTH * SECTORS;

/// The cluster size.
pub(super) fn cluster() -> ClusterSize {
    ClusterSize::new(CLUSTER).expect("a size that ploop has")
}

/// Where on the disk these sectors are, which lie in one region.
pub(super) fn range(first: usize, count: usize) -> ByteRange {
    let start = FIRST[first / REGION] * CLUSTER + (first % REGION * BYTES) as u64;
    ByteRange::new(start, (count * BYTES) as u64)
}

/// Every region, and its first sector.
pub(super) fn regions() -> impl Iterator<Item = (usize, ByteRange)> {
    (0..FIRST.len()).map(|region| (region * REGION, range(region * REGION, REGION)))
}

/// What lies between the regions.
pub(super) fn between() -> impl Iterator<Item = ByteRange> {
    FIRST.windows(2).map(|pair| {
        let start = (pair[0] + WIDTH as u64) * CLUSTER;
        ByteRange::new(start, pair[1] * CLUSTER - start)
    })
}

/// Bytes that no other sector and no other request has.
pub(super) fn pattern(request: u64, sector: usize) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    for (index, word) in (1_u64..).zip(bytes.chunks_exact_mut(8)) {
        let value = (request + 1) << 32 | sector as u64;
        word.copy_from_slice(&value.wrapping_mul(index * 2 + 1).to_le_bytes());
    }
    bytes
}

/// Whose pattern it is: the request, and the sector.
pub(super) fn origin(bytes: &[u8]) -> Option<(u64, usize)> {
    let value = u64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?);
    // The second word is five times the number: five's inverse brings it back.
    let value = value.wrapping_mul(0xCCCC_CCCC_CCCC_CCCD);
    let sector = usize::try_from(value & u64::from(u32::MAX)).ok()?;
    let request = (value >> 32).checked_sub(1)?;
    (bytes == pattern(request, sector)).then_some((request, sector))
}

/// What the base holds: the outer clusters of the first region, half of one and all of another in the
/// middle of the others.
pub(super) fn in_base(sector: usize) -> bool {
    let (region, cluster) = (sector / REGION, sector % REGION / SECTORS);
    match (region, cluster) {
        (0, 0 | 2) | (2, 1) => true,
        (1, 1) => sector % SECTORS >= SECTORS / 2,
        _ => false,
    }
}

/// A plain file as the lowest level, and what the regions hold of it.
pub(super) fn base() -> (CrashFile, Vec<Id>) {
    let ids: Vec<Id> = (0..ALL)
        .map(|sector| match in_base(sector) {
            true => sectors::id(&pattern(1 << 20, sector), 0),
            false => 0,
        })
        .collect();
    let data = ids.iter().enumerate().map(|(sector, id)| {
        let at = range(sector, 1).start / BYTES as u64;
        (usize::try_from(at).expect("a small disk"), *id)
    });
    (CrashFile::new(Contents::new(SIZE, data)), ids)
}

/// A new image, as its maker leaves it.
pub(super) fn new_top() -> CrashFile {
    let file = CrashFile::new(Contents::default());
    crate::io::now(crate::image::ploop::create(&file, SIZE, cluster())).expect("memory is there");
    file
}
