//! Reads header and index of a ploop file, skipping holes, and holds each entry against the file.
//!
//! The index of a new 10 GiB delta is a hole: reading it costs one question to the host. All reads
//! are whole pages at page offsets, so that a file opened with O_DIRECT is read like any other. What
//! is kept in memory is bounded by the bytes that the file really holds, never by what its header
//! says.

use super::{Defect, Error};
use crate::format::ploop::{
    FLAG_CONVERTING, FLAG_EMPTY, HEADER_LEN, HEADER_SLOTS, Header, InUse, entries,
};
use crate::io::{File, Piece};
use crate::units::{Cluster, Place};

/// The unit in which headers and indexes are read and written.
pub(super) const PAGE: usize = 4096;
/// Most bytes of an index that are read at once.
const STEP: u64 = 1 << 20;
/// Most defects that are told one by one.
const MOST: usize = 1000;

/// What an index holds.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Sound entries, ascending by cluster.
    pub(super) entries: Vec<(Cluster, Place)>,
    /// What is wrong with the others.
    pub(super) defects: Vec<Defect>,
    /// How many more are wrong.
    more: u64,
}

impl Scan {
    fn add(&mut self, defect: Defect) {
        if self.defects.len() < MOST {
            self.defects.push(defect);
        } else {
            self.more += 1;
        }
    }

    /// The first place after the last that an entry names.
    pub(super) fn end(&self, header: &Header) -> Place {
        let last = self.entries.iter().map(|(_, place)| place.0).max();
        last.map_or(header.first_data(), |last| Place(last + 1))
    }
}

/// Reads and checks the header.
pub(super) async fn header<F: File>(file: &F, len: u64) -> Result<Header, Error> {
    if len < HEADER_LEN as u64 {
        return Err(Error::Defect(Defect::NoHeader { len }));
    }
    let page = Piece::zeroed(PAGE);
    file.read_at(0, page.clone())
        .await
        .map_err(Error::io("read the header"))?;
    let mut bytes = [0; HEADER_LEN];
    page.copy_to(&mut bytes);
    Header::parse(&bytes).map_err(|error| Error::Defect(error.into()))
}

/// What the header says about the image's state that a reader must refuse.
pub(super) fn state(header: &Header) -> Vec<Defect> {
    let mut defects = Vec::new();
    let unknown = header.flags() & !(FLAG_EMPTY | FLAG_CONVERTING);
    if unknown != 0 {
        defects.push(Defect::UnknownFlags(header.flags()));
    } else if header.flags() & FLAG_CONVERTING != 0 {
        defects.push(Defect::Converting);
    }
    match header.in_use() {
        InUse::Yes => defects.push(Defect::InUse),
        InUse::Unknown(value) => defects.push(Defect::UnknownInUse(value)),
        InUse::No | InUse::Extension => {}
    }
    defects
}

/// Reads the index of a file of `len` bytes.
pub(super) async fn index<F: File>(file: &F, header: &Header, len: u64) -> Result<Scan, Error> {
    let mut scan = Scan::default();
    let end = header.index_len();
    if len < end {
        scan.add(Defect::Truncated { len, needs: end });
    }
    let buffer = Piece::zeroed(usize::try_from(STEP.min(end)).expect("a step fits any memory"));
    let mut at = 0;
    while let Some(run) = file
        .next_data(at)
        .map_err(Error::io("find the index's data"))?
    {
        let start = (run.start & !(PAGE as u64 - 1)).max(at);
        if start >= end {
            break;
        }
        let stop = run
            .end()
            .max(start + 1)
            .next_multiple_of(PAGE as u64)
            .min(end);
        let step = (stop - start).min(STEP);
        let piece = buffer.slice(0, usize::try_from(step).expect("a step fits any memory"));
        file.read_at(start, piece.clone())
            .await
            .map_err(Error::io("read the index"))?;
        let slot = u32::try_from(start / 4).expect("an index ends below slot 2^32");
        piece.with_bytes(|bytes| look(&mut scan, header, len, slot, bytes));
        at = start + step;
        if at >= end {
            break;
        }
    }
    duplicates(&mut scan);
    if scan.more > 0 {
        scan.defects.push(Defect::More(scan.more));
    }
    Ok(scan)
}

/// Refuses an index with the first thing that is wrong with it.
pub(super) fn sound(mut scan: Scan) -> Result<Scan, Error> {
    if scan.defects.is_empty() {
        Ok(scan)
    } else {
        Err(Error::Defect(scan.defects.swap_remove(0)))
    }
}

/// Takes in a run of the index that begins at `slot`.
fn look(scan: &mut Scan, header: &Header, len: u64, slot: u32, bytes: &[u8]) {
    for (slot, value) in entries(slot, bytes) {
        let Some(cluster) = slot.checked_sub(HEADER_SLOTS).map(Cluster) else {
            continue; // the header
        };
        if cluster.0 >= header.entries() {
            scan.add(Defect::PastLast { slot, value });
            continue;
        }
        let Some(place) = header.place(value) else {
            scan.add(Defect::Misaligned {
                cluster,
                sector: value,
            });
            continue;
        };
        let start = header.cluster().start_of_place(place);
        if place < header.first_data() {
            scan.add(Defect::InsideIndex {
                cluster,
                entry: value,
            });
        } else if start >= len || place.0 == u32::MAX {
            // Behind the last number there is no place where fresh space could begin.
            scan.add(Defect::BeyondEnd { cluster, place });
        } else if start + header.cluster().bytes() > len {
            scan.add(Defect::CutOff { cluster, place });
        } else {
            scan.entries.push((cluster, place));
        }
    }
}

/// Finds places that several entries name.
fn duplicates(scan: &mut Scan) {
    // Clusters that were placed in order, the usual case, need no sorting.
    if scan.entries.is_sorted_by(|(_, one), (_, next)| one < next) {
        return;
    }
    let mut by_place: Vec<_> = scan
        .entries
        .iter()
        .map(|(cluster, place)| (*place, *cluster))
        .collect();
    by_place.sort_unstable();
    for same in by_place.chunk_by(|one, next| one.0 == next.0) {
        if let [(place, _), _, ..] = same {
            let clusters = same.iter().map(|(_, cluster)| *cluster).collect();
            scan.add(Defect::Duplicate {
                place: *place,
                clusters,
            });
        }
    }
}
