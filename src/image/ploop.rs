//! A ploop file: make it, open it, write its index, seal it.
//!
//! The rules of crash safety that live here: the in-use mark (and the loss of the "empty" flag) is
//! durable before anything else of a top is written; the index is only ever written as whole pages;
//! a seal is answered when it is durable. The order of data and index is the disk's affair.

use std::io;

use super::Defect;
use super::Error;
use super::Seal;
use super::scan::{self, PAGE, sound};
use crate::format::ploop::{HEADER_LEN, HEADER_SLOTS, Header, InUse, Version};
use crate::io::{Bug, File, Piece, sabotaged};
use crate::units::{ByteRange, Cluster, ClusterSize, Place};

/// Index slots in a page.
const PAGE_SLOTS: u32 = 1024;

/// What an opened ploop file says.
#[derive(Debug)]
pub struct Opened {
    /// Its header, as it now is in the file.
    pub header: Header,
    /// Where each cluster is that the file holds, ascending by cluster.
    pub entries: Vec<(Cluster, Place)>,
    /// The first place after the last that is used; never inside the index.
    pub end: Place,
    /// Was it not closed in order? Then bytes from `end` on may be anything: cut them off.
    pub was_in_use: bool,
}

/// Makes a new image in an empty file: a header, and an index that is a hole. Durable when done.
///
/// The size is rounded up to whole clusters. The file's *name* is its maker's to make durable.
///
/// # Errors
/// [`Error::NotNew`] if the file has bytes, [`Error::Size`] if no image can have that size, and what
/// the host says.
pub async fn create<F: File>(file: &F, size: u64, cluster: ClusterSize) -> Result<(), Error> {
    let header = Header::new(size, cluster).map_err(Error::Size)?;
    let len = file.len().map_err(Error::io("read the file's length"))?;
    if len != 0 {
        return Err(Error::NotNew(len));
    }
    let page = Piece::zeroed(PAGE);
    page.copy_from(0, &header.to_bytes());
    file.write_at(0, page)
        .await
        .map_err(Error::io("write the header"))?;
    file.set_len(header.index_len())
        .await
        .map_err(Error::io("set the file's length"))?;
    file.sync()
        .await
        .map_err(Error::io("make the new image durable"))
}

/// Opens the top of a chain for writing: checks everything, then marks it as in use, durably.
///
/// Bytes after [`Opened::end`] are not cut off.
///
/// # Errors
/// [`Error::Defect`] for anything that cannot be true (being in use is fine),
/// [`Error::Version1`] and [`Error::Extension`] for what is only read here, and what the host says.
/// The file is then as it was.
pub async fn open_top<F: File>(file: &F) -> Result<Opened, Error> {
    let len = file.len().map_err(Error::io("read the file's length"))?;
    let header = scan::header(file, len).await?;
    if header.version() == Version::V1 {
        return Err(Error::Version1);
    }
    if header.in_use() == InUse::Extension && header.extension() != 0 {
        return Err(Error::Extension);
    }
    if let Some(defect) = scan::state(&header)
        .into_iter()
        .find(|it| *it != Defect::InUse)
    {
        return Err(Error::Defect(defect));
    }
    let scan = sound(scan::index(file, &header, len).await?)?;
    let opened = header.opened();
    if !sabotaged(Bug::NotMarked) {
        write_header(file, &opened).await?;
    }
    let trusted = sabotaged(Bug::CleanAtOpen) && header.in_use() == InUse::Yes;
    if !sabotaged(Bug::MarkNotSynced) && !trusted {
        file.sync().await.map_err(Error::Unsynced)?;
    }
    Ok(Opened {
        header: opened,
        end: scan.end(&header),
        entries: scan.entries,
        was_in_use: header.in_use() == InUse::Yes,
    })
}

/// Opens a sealed image for reading.
pub(super) async fn open_sealed<F: File>(
    file: &F,
    expected: Option<&Seal>,
) -> Result<Opened, Error> {
    let len = file.len().map_err(Error::io("read the file's length"))?;
    let header = scan::header(file, len).await?;
    if let Some(defect) = scan::state(&header).into_iter().next() {
        return Err(Error::Defect(defect));
    }
    let scan = sound(scan::index(file, &header, len).await?)?;
    if let Some(expected) = expected {
        let found = Seal::of(&header, &scan.entries, len);
        if found != *expected {
            return Err(Error::OtherSeal {
                found,
                expected: *expected,
            });
        }
    }
    let end = scan.end(&header);
    Ok(Opened {
        header,
        entries: scan.entries,
        end,
        was_in_use: false,
    })
}

/// The page of the file that holds a cluster's index entry.
#[must_use]
pub fn page_of(cluster: Cluster) -> u32 {
    // The sixteen slots of the header come first; they never carry over 2^32, as an index has fewer.
    cluster.0 / PAGE_SLOTS + (cluster.0 % PAGE_SLOTS + HEADER_SLOTS) / PAGE_SLOTS
}

/// Writes page `page` of the index, 4096 bytes, from what `place_of` says; 0 is "not here".
///
/// Page 0 begins with the header, which is written as given. Not durable before the next sync.
///
/// # Errors
/// What the host says; [`io::ErrorKind::InvalidInput`] if `buffer` is not a page, or the page lies behind
/// the index.
pub async fn write_index_page<F: File>(
    file: &F,
    header: &Header,
    page: u32,
    buffer: Piece,
    mut place_of: impl FnMut(Cluster) -> u32,
) -> Result<(), Error> {
    let at = u64::from(page) * PAGE as u64;
    if buffer.len() != PAGE || at >= header.index_len() {
        return Err(Error::io("write the index")(
            io::ErrorKind::InvalidInput.into(),
        ));
    }
    buffer.with_bytes_mut(|bytes| {
        bytes.fill(0);
        for (slot, word) in (page * PAGE_SLOTS..).zip(bytes.chunks_exact_mut(4)) {
            match slot.checked_sub(HEADER_SLOTS) {
                Some(cluster) if cluster < header.entries() => {
                    word.copy_from_slice(&place_of(Cluster(cluster)).to_le_bytes());
                }
                _ => {} // the header, or behind the last entry
            }
        }
        if page == 0 {
            bytes[..HEADER_LEN].copy_from_slice(&header.to_bytes());
        }
    });
    file.write_at(at, buffer)
        .await
        .map_err(Error::io("write the index"))
}

/// Seals a top whose index is durable: cuts its tail, clears the in-use mark, and makes that durable.
///
/// One sync is enough for both: a power cut between them leaves either a top that is in use, or a
/// sealed one with a tail, whose seal nobody has been told yet.
///
/// # Errors
/// [`Error::Defect`] or [`Error::Unplaced`] if the index in the file is not what its owner believes;
/// the image then stays in use. And what the host says.
pub async fn seal<F: File>(file: &F, header: &Header, end: Place) -> Result<Seal, Error> {
    // The file may end before its last cluster does, if that was written in part.
    let len = file.len().map_err(Error::io("read the file's length"))?;
    let len = len.max(header.cluster().start_of_place(end));
    let scan = sound(scan::index(file, header, len).await?)?;
    let last = scan.end(header);
    if last > end {
        return Err(Error::Unplaced {
            last: last.0 - 1,
            end: end.0,
        });
    }
    let len = header.cluster().start_of_place(last);
    file.set_len(len).await.map_err(Error::io("cut the tail"))?;
    let closed = header.closed(scan.entries.is_empty());
    write_header(file, &closed).await?;
    if !sabotaged(Bug::SealNotSynced) {
        file.sync()
            .await
            .map_err(Error::io("make the seal durable"))?;
    }
    Ok(Seal::of(&closed, &scan.entries, len))
}

/// Gives the host's space of parts of the disk back, as far as a sealed image holds it: they read as zeros.
///
/// Header and index, and so the seal, stay as they are. Answers the bytes of the parts that it holds. Not
/// durable, which is as well: until it is, the parts read as before.
///
/// # Errors
/// As for opening it, and what the host says.
pub async fn hollow<F: File>(file: &F, seal: &Seal, parts: &[ByteRange]) -> Result<u64, Error> {
    let opened = open_sealed(file, Some(seal)).await?;
    let cluster = opened.header.cluster();
    let mut held = 0;
    for (own, place) in &opened.entries {
        let start = cluster.start_of(*own);
        for part in parts {
            let from = part.start.max(start);
            let to = part.end().min(start + cluster.bytes());
            if from < to {
                let at = cluster.start_of_place(*place) + (from - start);
                file.zero(ByteRange::new(at, to - from))
                    .await
                    .map_err(Error::io("punch a hole"))?;
                held += to - from;
            }
        }
    }
    Ok(held)
}

/// Replaces the header; the entries in its page stay.
pub(super) async fn write_header<F: File>(file: &F, header: &Header) -> Result<(), Error> {
    let page = Piece::zeroed(PAGE);
    file.read_at(0, page.clone())
        .await
        .map_err(Error::io("read the header"))?;
    page.copy_from(0, &header.to_bytes());
    file.write_at(0, page)
        .await
        .map_err(Error::io("write the header"))
}

#[cfg(test)]
#[path = "ploop_tests.rs"]
mod tests;
