//! Deltas with known contents, made through the library as a disk makes them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ploop_snapshotter::image::{Format, Image, Seal, ploop};
use ploop_snapshotter::io::{Direct, File, Piece, now};
use ploop_snapshotter::units::{Cluster, ClusterSize, Place};

/// Bytes of an index page.
const PAGE: usize = 4096;

/// Makes a new image at `path` and leaves it empty.
pub(crate) fn create(path: &Path, size: u64, cluster: ClusterSize) {
    fs::File::create_new(path).unwrap();
    now(ploop::create(&open(path), size, cluster)).unwrap();
}

/// Opens a file for reading and writing.
pub(crate) fn open(path: &Path) -> Direct {
    Direct::open_write(path).unwrap()
}

/// Makes a sealed delta in which each of these clusters is filled with its byte, placed in this order.
pub(crate) fn sealed(path: &Path, size: u64, cluster: ClusterSize, data: &[(u32, u8)]) -> Seal {
    create(path, size, cluster);
    let file = open(path);
    let top = now(ploop::open_top(&file)).unwrap();
    let mut map = BTreeMap::new();
    let mut end = top.end;
    for (index, byte) in data {
        let bytes = vec![*byte; usize::try_from(cluster.bytes()).unwrap()];
        now(file.write_at(cluster.start_of_place(end), Piece::from_bytes(&bytes))).unwrap();
        map.insert(Cluster(*index), end.0);
        end = Place(end.0 + 1);
    }
    let mut pages: Vec<_> = map.keys().map(|cluster| ploop::page_of(*cluster)).collect();
    pages.dedup();
    for page in pages {
        let place = |cluster| map.get(&cluster).copied().unwrap_or(0);
        now(ploop::write_index_page(
            &file,
            &top.header,
            page,
            Piece::zeroed(PAGE),
            place,
        ))
        .unwrap();
    }
    now(ploop::seal(&file, &top.header, end)).unwrap()
}

/// The contents of one image's disk, read through the library; what it does not hold is zeros.
pub(crate) fn read(path: &Path, cluster: ClusterSize) -> Vec<u8> {
    let file = open(path);
    let image = now(Image::open_sealed(
        &file,
        Some(Format::Ploop),
        None,
        cluster,
    ))
    .unwrap();
    let step = usize::try_from(cluster.bytes()).unwrap();
    let mut disk = vec![0; usize::try_from(image.size()).unwrap()];
    for (index, place) in image.entries() {
        let start = usize::try_from(cluster.start_of(*index)).unwrap();
        let len = step.min(disk.len() - start);
        let piece = Piece::zeroed(len);
        now(file.read_at(cluster.start_of_place(*place), piece.clone())).unwrap();
        piece.copy_to(&mut disk[start..start + len]);
    }
    disk
}
