//! Places that no entry names, with used ones behind them.
//!
//! A place is given out once. One that was given out in vain stays a gap; what it holds is nobody's, and
//! the host's space below it comes back when the gap is a hole.

use std::io;
use std::ops::Range;

use super::Error;
use crate::format::ploop::Header;
use crate::io::File;
use crate::units::{ByteRange, ClusterSize, Place};

/// The gaps between the first place that can hold data and the last that is used. The places ascend.
pub(super) fn gaps(header: &Header, used: &[Place]) -> impl Iterator<Item = Range<Place>> {
    let befores = std::iter::once(header.first_data()).chain(used.iter().map(|it| Place(it.0 + 1)));
    befores
        .zip(used)
        .filter(|(from, to)| from < to)
        .map(|(from, to)| from..*to)
}

/// How many places in gaps are holes, and how many take space of the host.
///
/// # Errors
/// What the host says.
pub(super) fn count<F: File>(
    file: &F,
    header: &Header,
    used: &[Place],
) -> Result<(u64, u64), Error> {
    let cluster = header.cluster();
    let mut data = Data::new(file);
    let (mut holes, mut solid) = (0, 0);
    for gap in gaps(header, used) {
        let range = bytes(cluster, &gap);
        let mut at = range.start;
        let mut full = 0;
        while let Some(first) = data.first(ByteRange::new(at, range.end() - at))? {
            // On from the first place that this run of data does not touch.
            let next = cluster.round_up(first.end());
            full += (next - (first.start - cluster.offset_in(first.start))) / cluster.bytes();
            at = next;
        }
        holes += u64::from(gap.end.0 - gap.start.0) - full;
        solid += full;
    }
    Ok((holes, solid))
}

/// Makes holes of all gaps. Says how many bytes they took at most.
///
/// Whoever calls it knows every place that is used, in the index or not, and that the index is durable: an
/// older one could name a place that is a gap now. Not durable itself, which is as well: a gap that holds
/// something after all is a gap.
///
/// # Errors
/// What the host says.
pub async fn free<F: File>(file: &F, header: &Header, mut used: Vec<Place>) -> Result<u64, Error> {
    used.sort_unstable();
    let mut data = Data::new(file);
    let mut freed = 0;
    for gap in gaps(header, &used) {
        let range = bytes(header.cluster(), &gap);
        if let Some(first) = data.first(range)? {
            let rest = ByteRange::new(first.start, range.end() - first.start);
            file.zero(rest)
                .await
                .map_err(Error::io("punch a hole into unused clusters"))?;
            freed += rest.len;
        }
    }
    Ok(freed)
}

fn bytes(cluster: ClusterSize, gap: &Range<Place>) -> ByteRange {
    let start = cluster.start_of_place(gap.start);
    ByteRange::new(start, cluster.start_of_place(gap.end) - start)
}

/// What of a file is data, asked for from its beginning to its end: each run is asked for once.
struct Data<'a, F> {
    file: &'a F,
    run: Option<ByteRange>,
    over: bool,
}

impl<'a, F: File> Data<'a, F> {
    fn new(file: &'a F) -> Self {
        Self {
            file,
            run: None,
            over: false,
        }
    }

    /// The first run of data in a range that lies behind all that was asked for before, cut to it.
    fn first(&mut self, range: ByteRange) -> Result<Option<ByteRange>, Error> {
        let known = |run: &ByteRange| run.end() > range.start;
        if !self.over && !self.run.as_ref().is_some_and(known) {
            let asked: io::Result<_> = self.file.next_data(range.start);
            self.run = asked.map_err(Error::io("find the file's data"))?;
            self.over = self.run.is_none();
        }
        let Some(run) = self.run else {
            return Ok(None);
        };
        let start = run.start.max(range.start);
        let end = run.end().min(range.end());
        Ok((start < end).then(|| ByteRange::new(start, end - start)))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::{count, free};
    use crate::image::{Header, ploop};
    use crate::io::{Direct, File, Memory, now};
    use crate::units::{ByteRange, ClusterSize, Place};

    const SIZE: u64 = 32 << 10;

    /// An image of six places, of which these take space, in part or wholly.
    fn image(full: &[(u32, u64)]) -> (Memory, Header) {
        let cluster = ClusterSize::new(SIZE).unwrap();
        let header = Header::new(64 * SIZE, cluster).unwrap();
        let file = Memory::default();
        now(ploop::create(&file, 64 * SIZE, cluster)).unwrap();
        let mut bytes = file.to_vec();
        bytes.resize(usize::try_from(7 * SIZE).unwrap(), 0);
        for (place, at) in full {
            bytes[usize::try_from(u64::from(*place) * SIZE + at).unwrap()] = 1;
        }
        (Memory::new(bytes), header)
    }

    fn places(places: &[u32]) -> Vec<Place> {
        places.iter().copied().map(Place).collect()
    }

    #[test]
    fn gaps_are_counted_by_what_they_take() {
        let all: Vec<_> = (1..7).map(|place| (place, 5)).collect();
        for (full, used, expected) in [
            (&all[..], &[1, 2, 3, 4, 5, 6][..], (0, 0)),
            (&all, &[2, 5], (0, 3)),
            (&all, &[1], (0, 0)),
            (&[], &[6], (5, 0)),
            // The last byte of one and the first of the next; one that two runs of data touch.
            (&[(1, SIZE - 1), (2, 0), (4, 0), (4, 20_000)], &[6], (2, 3)),
            (&[(2, 0), (3, 0)], &[2], (1, 0)),
        ] {
            let (file, header) = image(full);
            assert_eq!(
                count(&file, &header, &places(used)).unwrap(),
                expected,
                "{full:?} {used:?}"
            );
        }
    }

    #[test]
    fn they_are_freed_and_nothing_else_is() {
        let all: Vec<_> = (1..7).map(|place| (place, 20_000)).collect();
        let (file, header) = image(&all);
        let index = file.to_vec()[..usize::try_from(SIZE).unwrap()].to_vec();
        // In the order of clusters, not of places.
        assert_eq!(
            now(free(&file, &header, places(&[5, 2]))).unwrap(),
            2 * SIZE
        );
        let (expected, _) = image(&[(2, 20_000), (5, 20_000), (6, 20_000)]);
        assert_eq!(file.to_vec(), expected.to_vec());
        assert_eq!(file.to_vec()[..index.len()], index);
        assert_eq!(now(free(&file, &header, places(&[2, 5]))).unwrap(), 0);
        assert_eq!(
            file.next_data(6 * SIZE).unwrap(),
            Some(ByteRange::new(6 * SIZE + 16_384, 4096))
        );
    }

    /// On the host's own file system, in what a large container may have lost: every second of 4000 clusters.
    #[test]
    fn the_host_gets_their_space_back() {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = folder.path().join("top");
        let file = fs::File::create_new(&path).unwrap();
        let header = Header::new(4000 * SIZE, ClusterSize::new(SIZE).unwrap()).unwrap();
        let used: Vec<_> = (1..4001).step_by(2).map(Place).collect();
        for place in 1..4001 {
            file.write_all_at(&[7; 4096], place * SIZE + 4096).unwrap();
        }
        file.sync_all().unwrap();
        let before = fs::metadata(&path).unwrap();
        let direct = Direct::new(file).unwrap();
        assert_eq!(count(&direct, &header, &used).unwrap(), (0, 1999));
        now(free(&direct, &header, used.clone())).unwrap();
        assert_eq!(count(&direct, &header, &used).unwrap(), (1999, 0));
        let after = fs::metadata(&path).unwrap();
        assert_eq!(
            (before.blocks() - after.blocks(), before.len()),
            (1999 * 8, after.len())
        );
    }
}
