//! A plain file as the lowest delta of a chain: what it holds is the disk, byte for byte.
//!
//! Cluster `i` lies at place `i`, place 0 included. The disk's size is the file's length, rounded
//! down to a sector; the last cluster may end behind the file, and reads as zeros there. Holes of the
//! file are clusters that it does not have.

use super::Error;
use super::Seal;
use crate::io::File;
use crate::units::{Cluster, ClusterSize, Place, SECTOR};

/// A plain file, opened.
#[derive(Debug)]
pub struct Opened {
    /// The disk's size in bytes.
    pub size: u64,
    /// The cluster size by which it is read: the chain's.
    pub cluster: ClusterSize,
    /// The clusters that hold data, each at its own place, ascending.
    pub entries: Vec<(Cluster, Place)>,
}

/// What a plain file is known by: its length, and no digest.
///
/// # Errors
/// What the host says.
pub fn seal<F: File>(file: &F) -> Result<Seal, Error> {
    let length = file.len().map_err(Error::io("read the file's length"))?;
    Ok(Seal { length, digest: 0 })
}

/// Opens a plain file for reading.
pub(super) fn open<F: File>(
    file: &F,
    expected: Option<&Seal>,
    cluster: ClusterSize,
) -> Result<Opened, Error> {
    let found = seal(file)?;
    if let Some(expected) = expected
        && found != *expected
    {
        return Err(Error::OtherSeal {
            found,
            expected: *expected,
        });
    }
    let size = found.length / SECTOR * SECTOR;
    if size == 0 || u32::try_from(cluster.count(size)).is_err() {
        return Err(Error::RawSize(found.length));
    }
    let mut entries = Vec::new();
    let mut at = 0;
    while let Some(run) = file
        .next_data(at)
        .map_err(Error::io("find the file's data"))?
    {
        // A run without bytes would be the host's mistake; take it for one byte, and go on.
        let end = run.end().max(run.start + 1).min(size);
        let mut start = run.start;
        while start < end {
            let index = cluster
                .cluster_of(start)
                .ok_or(Error::RawSize(found.length))?;
            entries.push((index, Place(index.0)));
            start = cluster.start_of(index) + cluster.bytes();
        }
        at = start.max(run.end());
        if at >= size {
            break;
        }
    }
    Ok(Opened {
        size,
        cluster,
        entries,
    })
}

#[cfg(test)]
mod tests {
    use super::{open, seal};
    use crate::image::{Error, Seal};
    use crate::io::Memory;
    use crate::units::{Cluster, ClusterSize, Place};

    const CLUSTER: usize = 64 << 10;

    fn file(len: usize, data: &[usize]) -> Memory {
        let mut bytes = vec![0; len];
        for at in data {
            bytes[*at] = 1;
        }
        Memory::new(bytes)
    }

    #[test]
    fn each_cluster_with_data_lies_at_its_own_place() {
        let raw = open(
            &file(
                4 * CLUSTER,
                &[0, CLUSTER + 5, CLUSTER + 9000, 4 * CLUSTER - 1],
            ),
            None,
            ClusterSize::DEFAULT,
        )
        .unwrap();
        assert_eq!(raw.size, 4 << 16);
        assert_eq!(
            raw.entries,
            [0, 1, 3].map(|index| (Cluster(index), Place(index)))
        );
    }

    #[test]
    fn the_disk_is_the_file_rounded_down_to_a_sector() {
        for (len, size, clusters) in [
            (512, 512, 1),
            (CLUSTER + 512, 66_048, 2),
            (CLUSTER + 511, 65_536, 1),
            (1023, 512, 1),
        ] {
            let raw = open(&file(len, &[0, len - 1]), None, ClusterSize::DEFAULT).unwrap();
            assert_eq!((raw.size, raw.entries.len()), (size, clusters), "{len}");
        }
        for len in [0, 511] {
            let refused = open(&file(len, &[]), None, ClusterSize::DEFAULT);
            assert!(matches!(refused, Err(Error::RawSize(_))), "{len}");
        }
    }

    #[test]
    fn a_file_of_another_length_is_not_the_one_that_was_meant() {
        let file = file(CLUSTER, &[]);
        let right = seal(&file).unwrap();
        assert_eq!(
            right,
            Seal {
                length: 65_536,
                digest: 0
            }
        );
        assert!(
            open(&file, Some(&right), ClusterSize::DEFAULT)
                .unwrap()
                .entries
                .is_empty()
        );
        let other = Seal {
            length: 65_537,
            ..right
        };
        assert!(matches!(
            open(&file, Some(&other), ClusterSize::DEFAULT),
            Err(Error::OtherSeal { .. })
        ));
    }
}
