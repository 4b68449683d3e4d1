//! Images made by other programs, read as they were written, and written to as our own.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use ploop_snapshotter::image::{check, ploop};
use ploop_snapshotter::io::{File, Piece, now};
use ploop_snapshotter::units::{Cluster, ClusterSize};

use crate::support::{images, qemu};

const CLUSTER: ClusterSize = ClusterSize::DEFAULT;

/// Bytes of a disk, and what fills them.
type Filled = (Range<usize>, u8);

/// What `tests/data/qemu/make.sh` wrote: name, size, and which bytes hold what.
const WRITTEN: [(&str, usize, &[Filled]); 4] = [
    ("empty", 1 << 20, &[]),
    (
        "written",
        1 << 20,
        &[
            (131_584..132_096, 1),
            (0..65_536, 2),
            (979_968..1_048_576, 3),
        ],
    ),
    ("odd", 999_424, &[(983_040..999_424, 4)]),
    (
        "border",
        128 << 20,
        &[(66_060_288..66_060_800, 5), (65_994_752..65_995_264, 6)],
    ),
];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/qemu")
        .join(format!("{name}.hds"))
}

fn disk(size: usize, written: &[Filled]) -> Vec<u8> {
    let mut disk = vec![0; size];
    for (range, byte) in written {
        disk[range.clone()].fill(*byte);
    }
    disk
}

#[test]
fn what_qemu_wrote_is_read() {
    for (name, size, written) in WRITTEN {
        assert!(
            images::read(&golden(name), CLUSTER) == disk(size, written),
            "{name}"
        );
    }
}

/// The same contents as a version 1 image: another signature, and entries in sectors. QEMU, which only
/// reads that version too, is the judge of whether this test made it right.
#[test]
fn version_one_is_read() {
    let directory = tempfile::tempdir().unwrap();
    for (name, size, written) in WRITTEN {
        let mut bytes = fs::read(golden(name)).unwrap();
        bytes[..16].copy_from_slice(b"WithoutFreeSpace");
        for word in bytes[64..65_536].chunks_exact_mut(4) {
            let place = u32::from_le_bytes(word.try_into().unwrap());
            word.copy_from_slice(&(place * 128).to_le_bytes());
        }
        let path = directory.path().join(format!("{name}.hds"));
        fs::write(&path, bytes).unwrap();
        let expected = disk(size, written);
        assert!(
            qemu::read_chain(std::slice::from_ref(&path), false) == expected,
            "{name}"
        );
        assert!(images::read(&path, CLUSTER) == expected, "{name}");
        assert!(
            now(ploop::open_top(&images::open(&path))).is_err(),
            "{name}"
        );
    }
}

/// A foreign image as the top of a chain: one more cluster, sealed, and QEMU reads all of it.
#[test]
fn what_qemu_made_is_written_to() {
    let directory = tempfile::tempdir().unwrap();
    for (name, size, written) in WRITTEN {
        let path = directory.path().join(format!("{name}.hds"));
        fs::copy(golden(name), &path).unwrap();
        let file = images::open(&path);
        let top = now(ploop::open_top(&file)).unwrap();
        let fresh = top.end;
        now(file.write_at(
            CLUSTER.start_of_place(fresh),
            Piece::from_bytes(&[9; 65_536]),
        ))
        .unwrap();
        let place = |cluster| match top.entries.iter().find(|(index, _)| *index == cluster) {
            Some((_, place)) => place.0,
            None if cluster == Cluster(7) => fresh.0,
            None => 0,
        };
        let page = Piece::zeroed(4096);
        now(ploop::write_index_page(&file, &top.header, 0, page, place)).unwrap();
        let end = ploop_snapshotter::units::Place(fresh.0 + 1);
        now(ploop::seal(&file, &top.header, end)).unwrap();
        qemu::check(&path);
        let mut expected = disk(size, written);
        expected[7 << 16..8 << 16].fill(9);
        assert!(
            qemu::read_chain(std::slice::from_ref(&path), false) == expected,
            "{name}"
        );
        assert!(images::read(&path, CLUSTER) == expected, "{name}");
        let found = now(check::check(&file)).unwrap().defects;
        assert!(
            !found.iter().any(ploop_snapshotter::image::Defect::refuses),
            "{name}: {found:?}"
        );
    }
}
