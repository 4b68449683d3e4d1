//! Growing an image, over memory and over a file that QEMU looks at.

use super::grow;
use crate::image::check::check;
use crate::image::ploop::{create, open_top, page_of, seal, write_index_page};
use crate::image::{Error, Image};
use crate::io::{File, Memory, Piece, now};
use crate::units::{Cluster, ClusterSize, Place};

const SIZE: ClusterSize = ClusterSize::DEFAULT;
const GIB: u64 = 1 << 30;

/// An open image with `clusters` in places side by side, each full of its own number.
fn image(size: u64, clusters: &[u32]) -> (Memory, crate::image::Header, Place) {
    let file = Memory::default();
    now(create(&file, size, SIZE)).unwrap();
    let top = now(open_top(&file)).unwrap();
    let first = top.end;
    let place = |index: usize| Place(first.0 + u32::try_from(index).unwrap());
    for (index, cluster) in clusters.iter().enumerate() {
        let bytes = vec![u8::try_from(*cluster % 251 + 1).unwrap(); 65_536];
        let at = SIZE.start_of_place(place(index));
        now(file.write_at(at, Piece::from_bytes(&bytes))).unwrap();
    }
    let find = |cluster: Cluster| {
        let index = clusters.iter().position(|own| *own == cluster.0);
        index.map_or(0, |index| place(index).0)
    };
    for cluster in clusters {
        let page = page_of(Cluster(*cluster));
        now(write_index_page(
            &file,
            &top.header,
            page,
            Piece::zeroed(4096),
            find,
        ))
        .unwrap();
    }
    now(file.sync()).unwrap();
    (file, top.header, place(clusters.len()))
}

/// Every cluster of a sealed image, as the bytes it begins with.
fn contents(file: &Memory, image: &Image) -> Vec<(u32, u8)> {
    let first = |place: Place| {
        let piece = Piece::zeroed(65_536);
        now(file.read_at(SIZE.start_of_place(place), piece.clone())).unwrap();
        let bytes = piece.to_vec();
        assert!(bytes.iter().all(|byte| *byte == bytes[0]));
        bytes[0]
    };
    let entries = image.entries().iter();
    entries
        .map(|(cluster, place)| (cluster.0, first(*place)))
        .collect()
}

#[test]
fn a_larger_disk_holds_what_the_smaller_did() {
    // Each GiB needs one more cluster of index: more are in the way than there are, or fewer.
    for (clusters, larger, moves) in [
        (&[][..], 2 * GIB, 0),
        (&[0, 5, 16_000], GIB + 4096, 0),
        (&[0, 5, 16_000], 2 * GIB, 1),
        (&[7, 3, 9, 16_000], 3 * GIB, 2),
        (&[7, 3, 9], 16 * GIB, 3),
        (&[1, 2], GIB, 0),
    ] {
        let (file, header, mut end) = image(GIB, clusters);
        let before = end;
        let grown = now(grow(&file, &header, &mut end, larger)).unwrap();
        assert_eq!(grown.moved.len(), moves, "{clusters:?} to {larger}");
        assert_eq!(grown.header.size(), SIZE.round_up(larger));
        assert!(end >= before && end >= grown.header.first_data());
        let sealed = now(seal(&file, &grown.header, end)).unwrap();
        let report = now(check(&file)).unwrap();
        assert_eq!(report.defects, []);
        let image = now(Image::open_sealed(&file, None, Some(&sealed), SIZE)).unwrap();
        let mut expected: Vec<_> = clusters
            .iter()
            .map(|cluster| (*cluster, u8::try_from(*cluster % 251 + 1).unwrap()))
            .collect();
        expected.sort_unstable();
        assert_eq!(contents(&file, &image), expected);
        assert_eq!(image.size(), SIZE.round_up(larger));
    }
}

#[test]
fn growing_twice_is_growing_once() {
    let (file, header, mut end) = image(GIB, &[4, 5]);
    let once = now(grow(&file, &header, &mut end, 2 * GIB)).unwrap();
    let twice = now(grow(&file, &once.header, &mut end, 2 * GIB)).unwrap();
    assert_eq!((twice.header, twice.moved.len()), (once.header, 0));
}

#[test]
fn it_does_not_shrink_and_changes_nothing_then() {
    let (file, header, mut end) = image(2 * GIB, &[4]);
    let before = file.to_vec();
    let error = now(grow(&file, &header, &mut end, GIB)).unwrap_err();
    assert!(matches!(error.source, Error::Smaller { .. }) && !error.amid);
    let error = now(grow(&file, &header, &mut end, u64::MAX)).unwrap_err();
    assert!(matches!(error.source, Error::Size(_)) && !error.amid);
    assert_eq!(file.to_vec(), before);
}

/// Another program's image may have an index that covers more than its disk does: in it nothing becomes
/// shorter, whatever part of it the larger disk needs.
#[test]
fn an_index_that_covers_more_than_the_disk_stays_as_long() {
    for larger in [4096, 2 << 16, GIB / 2, GIB, 2 * GIB] {
        let (file, _, mut end) = image(GIB, &[0, 1, 9000, 16_000]);
        // Eight sectors, says the header.
        let mut header = now(open_top(&file)).unwrap().header.to_bytes();
        header[36..44].copy_from_slice(&8_u64.to_le_bytes());
        now(file.write_at(0, Piece::from_bytes(&header))).unwrap();
        let header = now(open_top(&file)).unwrap().header;
        assert_eq!(header.size(), 4096);

        let grown = now(grow(&file, &header, &mut end, larger)).unwrap();
        assert_eq!(grown.header.size(), SIZE.round_up(larger));
        assert!(grown.header.index_len() >= header.index_len());
        let sealed = now(seal(&file, &grown.header, end)).unwrap();
        let image = now(Image::open_sealed(&file, None, Some(&sealed), SIZE)).unwrap();
        let expected =
            [0_u32, 1, 9000, 16_000].map(|own| (own, u8::try_from(own % 251 + 1).unwrap()));
        assert_eq!(contents(&file, &image), expected);
    }
}
