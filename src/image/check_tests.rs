//! Every defect that an image or a chain can have: found, told apart, refused or mended.

use super::{Report, check};
use crate::format;
use crate::format::ploop::{HEADER_LEN, Header};
use crate::image::{Defect, Error, Format, Image, ploop};
use crate::io::{File, Memory, now};
use crate::units::{Cluster, ClusterSize, Place};

/// Clusters of 64 KiB, in bytes, sectors and words.
pub(super) const SIZE: usize = 64 << 10;
pub(super) const SECTORS: u32 = 128;

/// An image of 16 clusters with these entries, `places` clusters long, as bytes.
pub(super) fn image(entries: &[(usize, u32)], places: usize) -> Vec<u8> {
    let header = Header::new(16 << 16, ClusterSize::DEFAULT)
        .unwrap()
        .closed(entries.is_empty());
    let mut bytes = vec![0; places * SIZE];
    bytes[..HEADER_LEN].copy_from_slice(&header.to_bytes());
    for (cluster, place) in entries {
        put(&mut bytes, 64 + 4 * cluster, *place);
    }
    bytes
}

pub(super) fn put(bytes: &mut [u8], at: usize, word: u32) {
    bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
}

/// A sound image with one word replaced.
pub(super) fn with(at: usize, word: u32) -> Vec<u8> {
    let mut bytes = image(&[(0, 1), (5, 2)], 3);
    put(&mut bytes, at, word);
    bytes
}

/// The same as version 1.
fn version1(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[..16].copy_from_slice(format::ploop::SIGNATURE_V1);
    for entry in bytes[64..128].chunks_exact_mut(4) {
        let value = u32::from_le_bytes(entry.try_into().unwrap());
        entry.copy_from_slice(&(value * SECTORS).to_le_bytes());
    }
    bytes
}

fn look(bytes: &[u8]) -> Report {
    now(check(&Memory::new(bytes.to_vec()))).unwrap()
}

fn cluster(index: u32) -> Cluster {
    Cluster(index)
}

#[test]
fn sound_images_are_clean() {
    let one = version1(image(&[(0, 1), (5, 2)], 3));
    for bytes in [
        image(&[], 1),
        image(&[(0, 1), (5, 2)], 3),
        image(&[(15, 1), (0, 2)], 3),
        one,
    ] {
        let report = look(&bytes);
        assert_eq!(report.defects, []);
        assert_eq!(report.worst(), None);
        assert!(report.seal.is_some());
    }
}

/// Each defect alone, exactly as it is told, and what opening says to the same bytes.
#[test]
fn every_defect_is_found_and_nothing_else() {
    let sound = || image(&[(0, 1), (5, 2)], 3);
    let cut = |len: usize| sound()[..len].to_vec();
    let longer = |more: usize| [sound(), vec![7; more]].concat();
    let extension = |sector: u32, places: usize| {
        let mut bytes = image(&[(0, 1), (5, 2)], places);
        put(&mut bytes, 44, 0x312E_3276);
        put(&mut bytes, 56, sector);
        bytes
    };
    let misaligned = {
        let mut bytes = version1(sound());
        put(&mut bytes, 64, SECTORS + 1);
        bytes
    };
    let v1_inside = {
        let mut bytes = version1(sound());
        put(&mut bytes, 64, 1);
        bytes
    };
    let unused = {
        let mut bytes = image(&[(0, 1), (5, 3)], 4);
        put(&mut bytes, 2 * SIZE + 40_000, 1);
        bytes
    };
    let taken = Defect::Unused {
        count: 1,
        bytes: 65_536,
    };
    let data = |found| {
        Defect::Header(format::Error::FirstData {
            found,
            expected: u64::from(SECTORS),
        })
    };
    let (one, two) = (
        Defect::Holes {
            count: 1,
            bytes: 65_536,
        },
        |count: u64| Defect::TailLeak {
            count,
            bytes: count << 16,
        },
    );
    let cases: Vec<(&str, Vec<u8>, Vec<Defect>)> = vec![
        ("empty file", vec![], vec![Defect::NoHeader { len: 0 }]),
        (
            "truncated header",
            cut(63),
            vec![Defect::NoHeader { len: 63 }],
        ),
        (
            "no signature",
            with(0, 0),
            vec![Defect::Header(format::Error::Signature)],
        ),
        (
            "type",
            with(16, 3),
            vec![Defect::Header(format::Error::Kind(3))],
        ),
        ("data offset 0", with(48, 0), vec![data(0)]),
        ("data offset too large", with(48, 256), vec![data(256)]),
        (
            "data offset not a cluster's",
            with(48, 130),
            vec![data(130)],
        ),
        (
            "disk larger than the index",
            with(36, 16 * SECTORS + 1),
            vec![Defect::Header(format::Error::Size {
                sectors: u64::from(16 * SECTORS + 1),
                covered: u64::from(16 * SECTORS),
            })],
        ),
        (
            "disk smaller than the index",
            with(36, 16 * SECTORS - 3),
            vec![Defect::SmallDisk {
                sectors: u64::from(16 * SECTORS - 3),
                covered: u64::from(16 * SECTORS),
            }],
        ),
        ("in use", with(44, 0x746F_6E59), vec![Defect::InUse]),
        (
            "in use, other value",
            with(44, 1),
            vec![Defect::UnknownInUse(1)],
        ),
        ("converting", with(52, 2), vec![Defect::Converting]),
        (
            "unknown flags",
            with(52, 0x14),
            vec![Defect::UnknownFlags(0x14)],
        ),
        (
            "invalid flags",
            with(52, u32::MAX),
            vec![Defect::UnknownFlags(u32::MAX)],
        ),
        ("empty with data", with(52, 1), vec![Defect::NotEmpty(2)]),
        (
            "stale extension",
            with(56, 256),
            vec![Defect::StaleExtension(256)],
        ),
        (
            "extension",
            extension(3 * SECTORS, 5),
            vec![Defect::Extension(3 * 128)],
        ),
        (
            "extension beyond the end",
            extension(3 * SECTORS, 3),
            vec![Defect::LostExtension(3 * 128)],
        ),
        (
            "extension in data",
            extension(SECTORS, 3),
            vec![Defect::LostExtension(128)],
        ),
        (
            "extension misaligned",
            extension(385, 5),
            vec![Defect::LostExtension(385), two(2)],
        ),
        (
            "truncated index",
            cut(SIZE - 4096),
            vec![
                Defect::Truncated {
                    len: 61_440,
                    needs: 65_536,
                },
                Defect::BeyondEnd {
                    cluster: cluster(0),
                    place: Place(1),
                },
                Defect::BeyondEnd {
                    cluster: cluster(5),
                    place: Place(2),
                },
            ],
        ),
        (
            "entry in the index",
            {
                // With two clusters of index, place 1 is inside it.
                let header = Header::new(20_000 << 16, ClusterSize::DEFAULT).unwrap();
                let mut bytes = vec![0; 2 * SIZE];
                bytes[..HEADER_LEN].copy_from_slice(&header.to_bytes());
                put(&mut bytes, 64 + 4 * 7, 1);
                bytes
            },
            vec![Defect::InsideIndex {
                cluster: cluster(7),
                entry: 1,
            }],
        ),
        (
            "v1 entry in the index",
            v1_inside,
            vec![
                Defect::Misaligned {
                    cluster: cluster(0),
                    sector: 1,
                },
                one.clone(),
            ],
        ),
        (
            "v1 entry misaligned",
            misaligned,
            vec![
                Defect::Misaligned {
                    cluster: cluster(0),
                    sector: SECTORS + 1,
                },
                one.clone(),
            ],
        ),
        (
            "entry beyond the end",
            with(64 + 4 * 9, 3),
            vec![Defect::BeyondEnd {
                cluster: cluster(9),
                place: Place(3),
            }],
        ),
        (
            "entry far beyond the end",
            with(64 + 4 * 9, u32::MAX),
            vec![Defect::BeyondEnd {
                cluster: cluster(9),
                place: Place(u32::MAX),
            }],
        ),
        (
            "entry partly beyond the end",
            cut(3 * SIZE - 512),
            vec![Defect::CutOff {
                cluster: cluster(5),
                place: Place(2),
            }],
        ),
        (
            "duplicate",
            with(64 + 4 * 9, 1),
            vec![Defect::Duplicate {
                place: Place(1),
                clusters: vec![cluster(0), cluster(9)],
            }],
        ),
        (
            "word behind the last entry",
            with(64 + 4 * 16, 2),
            vec![Defect::PastLast { slot: 32, value: 2 }],
        ),
        (
            "last word of the index cluster",
            with(SIZE - 4, 9),
            vec![Defect::PastLast {
                slot: 16_383,
                value: 9,
            }],
        ),
        ("tail leak", longer(2 * SIZE), vec![two(2)]),
        (
            "half tail",
            longer(512),
            vec![Defect::HalfTail { bytes: 512 }],
        ),
        (
            "leak and half tail",
            longer(SIZE + 1),
            vec![two(1), Defect::HalfTail { bytes: 1 }],
        ),
        ("hole", image(&[(0, 1), (5, 3)], 4), vec![one]),
        ("unused", unused, vec![taken]),
        ("index but no data", image(&[], 2), vec![two(1)]),
    ];
    for (name, bytes, defects) in cases {
        let report = look(&bytes);
        assert_eq!(report.defects, defects, "{name}");
        let refused = defects.iter().any(Defect::refuses);
        assert_eq!(report.seal.is_none(), refused, "{name}");
        let file = Memory::new(bytes.clone());
        let opened = now(Image::open_sealed(
            &file,
            Some(Format::Ploop),
            None,
            ClusterSize::DEFAULT,
        ));
        match opened {
            Ok(_) => assert!(!refused, "{name} was opened"),
            Err(Error::Defect(defect)) => assert_eq!(defect, defects[0], "{name}"),
            Err(error) => panic!("{name}: {error}"),
        }
        // For writing, the same is refused, but for what a crash leaves; refusing changes nothing.
        let hopeless = defects
            .iter()
            .any(|it| it.refuses() && *it != Defect::InUse);
        let version1 = bytes.starts_with(format::ploop::SIGNATURE_V1);
        let extended = bytes.get(44..48) == Some(b"v2.1");
        let opened = now(ploop::open_top(&file)).is_ok();
        assert_eq!(opened, !(hopeless || version1 || extended), "{name}");
        if !opened {
            assert_eq!(file.to_vec(), bytes, "{name} was changed");
        }
    }
}

#[test]
fn a_garbage_index_is_told_in_bounded_space() {
    let header = Header::new(16_000 << 16, ClusterSize::DEFAULT).unwrap();
    let mut bytes = vec![0xa5; SIZE];
    bytes[..HEADER_LEN].copy_from_slice(&header.to_bytes());
    let report = look(&bytes);
    assert_eq!(report.defects.len(), 1001);
    assert_eq!(report.defects[1000], Defect::More(16_384 - 16 - 1000));
}

#[test]
fn every_defect_says_where_it_is() {
    for (defect, cluster, offset) in [
        (Defect::InUse, None, Some(44)),
        (Defect::PastLast { slot: 32, value: 1 }, None, Some(128)),
        (
            Defect::BeyondEnd {
                cluster: Cluster(5),
                place: Place(9),
            },
            Some(Cluster(5)),
            Some(84),
        ),
        (
            Defect::Duplicate {
                place: Place(3),
                clusters: vec![Cluster(1), Cluster(2)],
            },
            Some(Cluster(1)),
            Some(68),
        ),
        (Defect::TailLeak { count: 1, bytes: 1 }, None, None),
    ] {
        assert_eq!(
            (defect.cluster(), defect.offset()),
            (cluster, offset),
            "{defect}"
        );
        assert!(!defect.advice().is_empty());
    }
}

/// A file that fails must be told from an image that is wrong.
#[test]
fn the_hosts_trouble_is_no_defect() {
    struct Broken;
    impl File for Broken {
        async fn read_at(&self, _: u64, _: crate::io::Piece) -> std::io::Result<()> {
            Err(std::io::ErrorKind::Other.into())
        }
        async fn write_at(&self, _: u64, _: crate::io::Piece) -> std::io::Result<()> {
            Err(std::io::ErrorKind::Other.into())
        }
        async fn sync(&self) -> std::io::Result<()> {
            Err(std::io::ErrorKind::Other.into())
        }
        async fn zero(&self, _: crate::units::ByteRange) -> std::io::Result<()> {
            Err(std::io::ErrorKind::Other.into())
        }
        async fn set_len(&self, _: u64) -> std::io::Result<()> {
            Err(std::io::ErrorKind::Other.into())
        }
        fn len(&self) -> std::io::Result<u64> {
            Ok(1 << 20)
        }
        fn next_data(&self, _: u64) -> std::io::Result<Option<crate::units::ByteRange>> {
            Ok(None)
        }
    }
    assert!(matches!(now(check(&Broken)), Err(Error::Io { .. })));
}
