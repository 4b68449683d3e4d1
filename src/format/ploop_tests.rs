//! Headers byte by byte, and every number that a header may get wrong.

use proptest::prelude::{any, prop_assert_eq, proptest};

use super::{Error, HEADER_LEN, Header, InUse, Version, entries, geometry};
use crate::units::{BadClusterSize, ClusterSize, Place};

/// An empty 100 MiB image with clusters of 1 MiB, as OpenVZ's `ploop` 9 writes it.
const GOLDEN: [u8; HEADER_LEN] = [
    0x57, 0x69, 0x74, 0x68, 0x6f, 0x75, 0x46, 0x72, 0x65, 0x53, 0x70, 0x61, 0x63, 0x45, 0x78, 0x74,
    0x02, 0x00, 0x00, 0x00, 0x10, 0x00, 0x00, 0x00, 0x90, 0x01, 0x00, 0x00, 0x00, 0x08, 0x00, 0x00,
    0x64, 0x00, 0x00, 0x00, 0x00, 0x20, 0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x08, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
];

fn mebi(count: u64) -> ClusterSize {
    ClusterSize::new(count << 20).unwrap()
}

/// The golden header with one 32-bit word replaced.
fn with(offset: usize, word: u32) -> [u8; HEADER_LEN] {
    let mut bytes = GOLDEN;
    bytes[offset..offset + 4].copy_from_slice(&word.to_le_bytes());
    bytes
}

#[test]
fn a_new_header_is_what_ploop_writes() {
    let header = Header::new(100 << 20, mebi(1)).unwrap();
    assert_eq!(header.to_bytes(), GOLDEN);
    assert_eq!(Header::parse(&GOLDEN), Ok(header));
    assert_eq!(header.version(), Version::V2);
    assert_eq!(header.size(), 100 << 20);
    assert_eq!(header.entries(), 100);
    assert_eq!(header.first_data(), Place(1));
    assert_eq!(header.in_use(), InUse::No);
}

#[test]
fn version_one_differs_in_the_unit_of_entries() {
    let mut bytes = GOLDEN;
    bytes[..16].copy_from_slice(b"WithoutFreeSpace");
    let header = Header::parse(&bytes).unwrap();
    assert_eq!(header.version(), Version::V1);
    assert_eq!(header.place(2048 * 7), Some(Place(7)));
    assert_eq!(header.place(2048 * 7 + 1), None);
    assert_eq!(Header::parse(&GOLDEN).unwrap().place(7), Some(Place(7)));
    // Its size is 32 bits; the word behind it may hold anything.
    bytes[40] = 0xff;
    assert_eq!(Header::parse(&bytes).unwrap().size(), 100 << 20);
    // The oldest writers left out where the data begin.
    bytes[48..52].fill(0);
    assert_eq!(Header::parse(&bytes).unwrap().first_data(), Place(1));
}

#[test]
fn every_number_that_cannot_be_is_refused() {
    let size = |sectors| Error::Size {
        sectors,
        covered: 204_800,
    };
    let data = |found| Error::FirstData {
        found,
        expected: 2048,
    };
    for (bytes, error) in [
        (with(0, 0), Error::Signature),
        (with(12, 0x7478_4520), Error::Signature),
        (with(16, 1), Error::Kind(1)),
        (with(28, 0), Error::ClusterSize(BadClusterSize(0))),
        (
            with(28, 2047),
            Error::ClusterSize(BadClusterSize(2047 * 512)),
        ),
        (with(28, 32), Error::ClusterSize(BadClusterSize(16 << 10))),
        (
            with(28, 1 << 18),
            Error::ClusterSize(BadClusterSize(128 << 20)),
        ),
        (
            with(28, u32::MAX),
            Error::ClusterSize(BadClusterSize(u64::from(u32::MAX) * 512)),
        ),
        (with(32, 0), Error::Entries(0)),
        (with(32, u32::MAX), Error::Entries(u64::from(u32::MAX))),
        (
            with(32, 99),
            Error::Size {
                sectors: 204_800,
                covered: 99 * 2048,
            },
        ),
        (with(36, 0), size(0)),
        (with(36, 204_801), size(204_801)),
        (with(40, 1), size((1 << 32) + 204_800)),
        (with(48, 0), data(0)),
        (with(48, 8), data(8)),
        (with(48, 4096), data(4096)),
    ] {
        assert_eq!(Header::parse(&bytes), Err(error), "{bytes:x?}");
    }
}

#[test]
fn a_disk_may_end_inside_its_last_cluster() {
    let header = Header::parse(&with(36, 204_799)).unwrap();
    assert_eq!(header.size(), (100 << 20) - 512);
    assert_eq!(header.covered_sectors(), 204_800);
}

#[test]
fn the_state_is_told_not_judged() {
    for (offset, word, in_use, flags, extension) in [
        (44, 0x746F_6E59, InUse::Yes, 1, 0),
        (44, 0x312E_3276, InUse::Extension, 1, 0),
        (44, 1, InUse::Unknown(1), 1, 0),
        (52, u32::MAX, InUse::No, u32::MAX, 0),
        (56, 4096, InUse::No, 1, 4096),
    ] {
        let header = Header::parse(&with(offset, word)).unwrap();
        assert_eq!(header.in_use(), in_use);
        assert_eq!(header.flags(), flags);
        assert_eq!(header.extension(), extension);
    }
}

#[test]
fn opening_clears_what_does_not_outlive_it() {
    let mut bytes = with(44, 0x312E_3276);
    bytes[56] = 7;
    let open = Header::parse(&bytes).unwrap().opened();
    assert_eq!(
        (open.in_use(), open.flags(), open.extension()),
        (InUse::Yes, 0, 0)
    );
    assert_eq!(&open.to_bytes()[44..48], b"Ynot");
    assert_eq!(open.closed(true).to_bytes(), GOLDEN);
    assert_eq!(open.closed(false).flags(), 0);
}

#[test]
fn sizes_are_rounded_up_and_bounded() {
    for (size, cluster, entries, first_data) in [
        (1, 64 << 10, 1, 1),
        (10 << 30, 64 << 10, 163_840, 11),
        // The index and the header fill the first cluster to the last byte, or one entry more.
        (16_368 << 16, 64 << 10, 16_368, 1),
        (16_369 << 16, 64 << 10, 16_369, 2),
        (50 << 40, 1 << 20, 50 << 20, 201),
    ] {
        let header = Header::new(size, ClusterSize::new(cluster).unwrap()).unwrap();
        assert_eq!(header.entries(), entries);
        assert_eq!(header.first_data(), Place(first_data));
        assert_eq!(header.size(), size.div_ceil(cluster) * cluster);
        assert_eq!(Header::parse(&header.to_bytes()), Ok(header));
    }
    assert_eq!(Header::new(0, mebi(1)), Err(Error::Entries(0)));
    let most = 1_u64 << 32;
    assert_eq!(Header::new(most << 20, mebi(1)), Err(Error::Entries(most)));
    assert!(Header::new(u64::MAX, mebi(64)).is_err());
    // 2^32 places are shared by the data and the index: 2^32 - 1 entries would be too many.
    assert!(Header::new((most - 1) << 15, ClusterSize::new(32 << 10).unwrap()).is_err());
}

#[test]
fn geometry_follows_ploops_own_tool() {
    for (sectors, shape) in [
        (204_800, (16, 400)),
        (1_032_192, (16, 1024)),
        (1_032_256, (16, 1024)),
        (2_097_152, (16, 2080)),
        (16_777_216, (16, 32_768)),
        (8, (1, 1)),
        (24, (1, 3)),
        (1 << 60, (16, u32::MAX)),
    ] {
        assert_eq!(geometry(sectors), shape, "{sectors}");
    }
}

#[test]
fn entries_skip_zeros_and_count_slots_from_the_files_start() {
    let mut bytes = [0; 18];
    bytes[4] = 5;
    bytes[11] = 1;
    // The two bytes after the fourth word are no word.
    bytes[16] = 9;
    assert_eq!(
        entries(16, &bytes).collect::<Vec<_>>(),
        [(17, 5), (18, 1 << 24)]
    );
    assert_eq!(entries(0, &[]).count(), 0);
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_kept(bytes: [u8; HEADER_LEN], shaped: bool, n in any::<u32>()) {
        let mut bytes = bytes;
        if shaped {
            // Otherwise nearly every case would end at the signature.
            bytes[..36].copy_from_slice(&GOLDEN[..36]);
            bytes[32..36].copy_from_slice(&(n % 300).to_le_bytes());
            bytes[36..40].copy_from_slice(&(n % 700_000).to_le_bytes());
            bytes[40..44].fill(0);
            bytes[48..52].copy_from_slice(&GOLDEN[48..52]);
        }
        if let Ok(header) = Header::parse(&bytes) {
            prop_assert_eq!(header.to_bytes(), bytes);
            prop_assert_eq!(header.size().div_ceil(header.cluster().bytes()) <= u64::from(header.entries()), true);
            prop_assert_eq!(header.index_len() >= 64 + 4 * u64::from(header.entries()), true);
        }
    }
}
