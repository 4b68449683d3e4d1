//! A larger disk in the same image: a longer index, then the header that counts it.
//!
//! The index of a larger disk may need clusters at the front of the file that hold data now. Each step is
//! durable before the next:
//!
//! ```text
//! 1. data in the index's way are copied to fresh places
//! 2. their entries name the copies              old and new hold the same: either is right
//! 3. the places that the index takes are zeroed
//! 4. the header says the new size               before it the old disk, with gaps; after it the new one
//! ```

use super::Error;
use super::ploop::{page_of, write_header, write_index_page};
use super::scan::{self, PAGE};
use crate::format::ploop::Header;
use crate::io::{Bug, File, Piece, sabotaged};
use crate::units::{ByteRange, Cluster, Place};

/// What has become of an image.
#[derive(Debug)]
pub struct Grown {
    /// Its header.
    pub header: Header,
    /// Clusters that have other places now.
    pub moved: Vec<(Cluster, Place)>,
}

/// An image could not be made larger.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct NotGrown {
    /// Why.
    pub source: Error,
    /// May the file say something else than its owner believes? Then nothing may be written to it any more.
    pub amid: bool,
    /// Clusters that have other places now all the same: their old ones may be zeroed already.
    pub moved: Vec<(Cluster, Place)>,
}

/// How far it has come.
#[derive(Default)]
struct Progress {
    amid: bool,
    moved: Vec<(Cluster, Place)>,
}

/// Makes the disk of an open image larger. Nobody may write to it meanwhile, and everything that was
/// written must be in its index. Durable when done.
///
/// `end` is the first place that was never written; it moves on with every place that is used here, also
/// if nothing comes of it. The size is rounded up to whole clusters.
///
/// # Errors
/// [`Error::Size`] if no image can have that size, [`Error::Smaller`], [`Error::Defect`] if the index in the
/// file is not sound, and what the host says.
pub async fn grow<F: File>(
    file: &F,
    header: &Header,
    end: &mut Place,
    size: u64,
) -> Result<Grown, NotGrown> {
    let mut progress = Progress::default();
    let answer = step_by_step(file, header, end, size, &mut progress).await;
    let Progress { amid, moved } = progress;
    match answer {
        Ok(header) => Ok(Grown { header, moved }),
        Err(source) => Err(NotGrown {
            source,
            amid,
            moved,
        }),
    }
}

async fn step_by_step<F: File>(
    file: &F,
    header: &Header,
    end: &mut Place,
    size: u64,
    progress: &mut Progress,
) -> Result<Header, Error> {
    let grown = header.grown(size).map_err(Error::Size)?;
    if grown.size() < header.size() {
        return Err(Error::Smaller {
            size: header.size(),
            asked: grown.size(),
        });
    }
    let cluster = header.cluster();
    let length = file.len().map_err(Error::io("read the file's length"))?;
    let taken = grown.index_len() - header.index_len();
    let mut entries = Vec::new();
    if taken > 0 {
        let known = length.max(cluster.start_of_place(*end));
        entries = scan::sound(scan::index(file, header, known).await?)?.entries;
    }
    let in_the_way = |place: &Place| *place < grown.first_data();
    let count = entries
        .iter()
        .filter(|(_, place)| in_the_way(place))
        .count();
    let first = (*end).max(grown.first_data());
    *end = u32::try_from(count)
        .ok()
        .and_then(|count| first.0.checked_add(count))
        .map(Place)
        .ok_or(Error::NoPlace)?;
    let needed = cluster.start_of_place(*end);
    if length < needed {
        file.set_len(needed)
            .await
            .map_err(Error::io("set the file's length"))?;
    }
    let moved = copy(file, header, &mut entries, in_the_way, first).await?;
    if !moved.is_empty() {
        // A sync that fails is final, here as in a flush.
        progress.amid = true;
        if !sabotaged(Bug::MovedNotSynced) {
            file.sync()
                .await
                .map_err(Error::io("make moved clusters durable"))?;
        }
        rewrite(file, header, &entries, &moved).await?;
        if !sabotaged(Bug::LeftNotSynced) {
            file.sync()
                .await
                .map_err(Error::io("make the index durable"))?;
        }
        // The old disk, with gaps: whatever meets the rest, it can go on, but never with the old places.
        progress.moved = moved;
        progress.amid = false;
    }
    if sabotaged(Bug::GrownEarly) {
        write_header(file, &grown).await?;
    }
    if taken > 0 && !sabotaged(Bug::RoomNotZeroed) {
        file.zero(ByteRange::new(header.index_len(), taken))
            .await
            .map_err(Error::io("make room for the index"))?;
        progress.amid = true;
        file.sync()
            .await
            .map_err(Error::io("make the index's room durable"))?;
    }
    progress.amid = true;
    write_header(file, &grown).await?;
    file.sync()
        .await
        .map_err(Error::io("make the new size durable"))?;
    Ok(grown)
}

/// Copies the clusters that are in the way to places from `first` on.
async fn copy<F: File>(
    file: &F,
    header: &Header,
    entries: &mut [(Cluster, Place)],
    in_the_way: impl Fn(&Place) -> bool,
    first: Place,
) -> Result<Vec<(Cluster, Place)>, Error> {
    let cluster = header.cluster();
    let mut moved = Vec::new();
    let mut buffer = None;
    for ((own, place), fresh) in entries
        .iter_mut()
        .filter(|(_, place)| in_the_way(place))
        .zip((first.0..).map(Place))
    {
        let bytes = usize::try_from(cluster.bytes()).expect("a cluster fits any memory");
        let buffer = buffer.get_or_insert_with(|| Piece::zeroed(bytes));
        file.read_at(cluster.start_of_place(*place), buffer.clone())
            .await
            .map_err(Error::io("read a cluster"))?;
        // A fresh place reads as zeros as it is.
        if buffer.with_bytes(|bytes| bytes.iter().any(|byte| *byte != 0)) {
            file.write_at(cluster.start_of_place(fresh), buffer.clone())
                .await
                .map_err(Error::io("move a cluster"))?;
        }
        *place = fresh;
        moved.push((*own, fresh));
    }
    Ok(moved)
}

/// Writes the pages of the index that name what was moved.
async fn rewrite<F: File>(
    file: &F,
    header: &Header,
    entries: &[(Cluster, Place)],
    moved: &[(Cluster, Place)],
) -> Result<(), Error> {
    let buffer = Piece::zeroed(PAGE);
    let mut last = None;
    for (cluster, _) in moved {
        let page = page_of(*cluster);
        if last.replace(page) == Some(page) {
            continue;
        }
        write_index_page(file, header, page, buffer.clone(), |cluster| {
            let found = entries.binary_search_by_key(&cluster, |(own, _)| *own);
            found.map_or(0, |at| entries[at].1.0)
        })
        .await?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "grow_tests.rs"]
mod tests;
