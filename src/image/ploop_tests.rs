//! Making, opening, writing and sealing an image, over memory and over a real sparse file.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::collection::vec;
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

use super::{PAGE, create, hollow, open_top, page_of, seal, write_index_page};
use crate::format::ploop::{HEADER_LEN, Header, InUse};
use crate::image::{Error, Format, Image, Kind, Seal};
use crate::io::{Direct, File, Memory, Piece, now};
use crate::units::{ByteRange, Cluster, ClusterSize, Place};

fn open(file: &impl File, expected: Option<&Seal>) -> Result<Image, Error> {
    now(Image::open_sealed(
        file,
        Some(Format::Ploop),
        expected,
        ClusterSize::DEFAULT,
    ))
}

/// A new image of `size` bytes, with these clusters placed one behind the other and written as a disk
/// would do it, sealed.
fn sealed(size: u64, clusters: &[u32]) -> (Memory, Seal) {
    let file = Memory::default();
    now(create(&file, size, ClusterSize::DEFAULT)).unwrap();
    let top = now(open_top(&file)).unwrap();
    let mut end = top.end;
    let mut map = BTreeMap::new();
    for cluster in clusters {
        let at = ClusterSize::DEFAULT.start_of_place(end);
        now(file.write_at(at, Piece::from_bytes(&[1; 65_536]))).unwrap();
        map.insert(*cluster, end.0);
        end = Place(end.0 + 1);
    }
    let pages: BTreeSet<_> = clusters
        .iter()
        .map(|cluster| page_of(Cluster(*cluster)))
        .collect();
    for page in pages {
        let place = |cluster: Cluster| map.get(&cluster.0).copied().unwrap_or(0);
        now(write_index_page(
            &file,
            &top.header,
            page,
            Piece::zeroed(PAGE),
            place,
        ))
        .unwrap();
    }
    let seal = now(seal(&file, &top.header, end)).unwrap();
    (file, seal)
}

#[test]
fn a_new_image_is_a_header_and_a_hole() {
    let file = Direct::new(tempfile::tempfile().unwrap()).unwrap();
    now(create(&file, 10 << 30, ClusterSize::DEFAULT)).unwrap();
    assert_eq!(file.len().unwrap(), 11 << 16);
    assert_eq!(file.next_data(0).unwrap(), Some(ByteRange::new(0, 4096)));
    assert_eq!(file.next_data(4096).unwrap(), None);
    let image = open(&file, None).unwrap();
    assert_eq!((image.size(), image.entries().len()), (10 << 30, 0));
    assert!(matches!(
        now(create(&file, 1 << 30, ClusterSize::DEFAULT)),
        Err(Error::NotNew(_))
    ));
    let none = now(create(&Memory::default(), 0, ClusterSize::DEFAULT));
    assert!(matches!(none, Err(Error::Size(_))));
}

#[test]
fn opening_for_writing_is_visible_before_anything_else() {
    let file = Memory::default();
    now(create(&file, 1 << 30, ClusterSize::DEFAULT)).unwrap();
    let first = now(open_top(&file)).unwrap();
    assert!(!first.was_in_use);
    assert_eq!(first.header.in_use(), InUse::Yes);
    assert_eq!(first.header.flags(), 0);
    assert_eq!(first.end, Place(2));
    assert_eq!(file.to_vec()[..HEADER_LEN], first.header.to_bytes());
    let refused = open(&file, None).unwrap_err();
    assert_eq!(refused.kind(), Kind::InUse);
    assert!(refused.to_string().contains("--repair"), "{refused}");
    // As after a crash.
    let again = now(open_top(&file)).unwrap();
    assert!(again.was_in_use);
    assert_eq!(again.header, first.header);
}

#[test]
fn what_was_sealed_is_read_back() {
    // Clusters 1007 and 1008 are the last of index page 0 and the first of page 1.
    let clusters = [1008, 0, 1007, 16_383];
    let (file, seal) = sealed(1 << 30, &clusters);
    let expected: Vec<_> = [(0, 3), (1007, 4), (1008, 2), (16_383, 5)]
        .map(|(cluster, place)| (Cluster(cluster), Place(place)))
        .into();
    let image = open(&file, Some(&seal)).unwrap();
    assert_eq!(image.entries(), expected);
    assert_eq!(image.format(), Format::Ploop);
    assert_eq!(seal.length, 6 << 16);
    // On top of it again: the same entries, and the next place is a fresh one.
    let top = now(open_top(&file)).unwrap();
    assert_eq!((top.entries, top.end), (expected, Place(6)));
}

#[test]
fn a_page_holds_the_entries_that_its_number_says() {
    for (cluster, page) in [(0, 0), (1007, 0), (1008, 1), (2031, 1), (2032, 2)] {
        assert_eq!(page_of(Cluster(cluster)), page);
    }
    assert_eq!(page_of(Cluster(u32::MAX)), 1 << 22);
    let header = Header::new(1 << 30, ClusterSize::DEFAULT).unwrap();
    // An index of 16384 entries takes two clusters: 32 pages.
    for (page, len) in [(32, PAGE), (0, PAGE / 2)] {
        let refused = now(write_index_page(
            &Memory::default(),
            &header,
            page,
            Piece::zeroed(len),
            |_| 0,
        ));
        assert!(matches!(
            refused,
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::InvalidInput
        ));
    }
}

#[test]
fn another_file_is_not_taken_for_the_sealed_one() {
    let (file, seal) = sealed(1 << 30, &[1, 2]);
    assert!(open(&file, Some(&seal)).is_ok());
    let (other, another) = sealed(1 << 30, &[1, 3]);
    assert_eq!(seal.length, another.length);
    for file in [
        &other,
        &Memory::new([file.to_vec(), vec![0; 65_536]].concat()),
    ] {
        let refused = open(file, Some(&seal)).unwrap_err();
        assert!(matches!(refused, Error::OtherSeal { .. }), "{refused}");
        assert_eq!(refused.kind(), Kind::Corrupt);
    }
}

#[test]
fn the_digest_is_what_it_is_documented_to_be() {
    let (file, seal) = sealed(1 << 30, &[7, 3]);
    let mut bytes = file.to_vec()[..HEADER_LEN].to_vec();
    for word in [3_u32, 3, 7, 2] {
        bytes.extend(word.to_le_bytes());
    }
    assert_eq!(seal.digest, crc32fast::hash(&bytes));
}

#[test]
fn sealing_cuts_the_tail_and_fills_up_the_last_cluster() {
    let file = Memory::default();
    now(create(&file, 1 << 20, ClusterSize::DEFAULT)).unwrap();
    let top = now(open_top(&file)).unwrap();
    // One cluster written in part, and one that was reserved and never used.
    now(file.write_at(65_536, Piece::from_bytes(&[1; 512]))).unwrap();
    let place = |cluster| if cluster == Cluster(3) { 1 } else { 0 };
    now(write_index_page(
        &file,
        &top.header,
        0,
        Piece::zeroed(PAGE),
        place,
    ))
    .unwrap();
    let sealed = now(seal(&file, &top.header, Place(3))).unwrap();
    assert_eq!(sealed.length, 2 << 16);
    assert_eq!(file.len().unwrap(), 2 << 16);
    assert_eq!(
        open(&file, Some(&sealed)).unwrap().entries(),
        [(Cluster(3), Place(1))]
    );
    // Sealing an image in which its owner placed nothing says that the two do not agree.
    let top = now(open_top(&file)).unwrap();
    assert!(matches!(
        now(seal(&file, &top.header, Place(1))),
        Err(Error::Unplaced { last: 1, end: 1 })
    ));
    assert!(now(open_top(&file)).unwrap().was_in_use);
}

#[test]
fn an_empty_image_is_sealed_as_it_was_made() {
    let file = Memory::default();
    now(create(&file, 1 << 20, ClusterSize::DEFAULT)).unwrap();
    let new = file.to_vec();
    let top = now(open_top(&file)).unwrap();
    assert_ne!(file.to_vec(), new);
    now(seal(&file, &top.header, top.end)).unwrap();
    assert_eq!(file.to_vec(), new);
}

#[test]
fn a_chain_has_one_cluster_size() {
    let file = Memory::default();
    now(create(&file, 1 << 30, ClusterSize::new(1 << 20).unwrap())).unwrap();
    let refused = open(&file, None).unwrap_err();
    assert_eq!(refused.kind(), Kind::Invalid);
    assert!(refused.to_string().contains("64.0 KiB"), "{refused}");
}

#[test]
fn formats_are_guessed_only_where_the_bytes_say_so() {
    let chain = ClusterSize::DEFAULT;
    let (file, _) = sealed(1 << 20, &[]);
    assert_eq!(
        now(Image::open_sealed(&file, None, None, chain))
            .unwrap()
            .format(),
        Format::Ploop
    );
    // A ploop image that is said to be a plain disk is one: its bytes are the guest's.
    let raw = now(Image::open_sealed(&file, Some(Format::Raw), None, chain)).unwrap();
    assert_eq!((raw.format(), raw.size()), (Format::Raw, 1 << 16));
    let qcow2 = Memory::new(b"QFI\xfb\0\0\0\x03".to_vec());
    assert!(matches!(
        now(Image::open_sealed(&qcow2, None, None, chain)),
        Err(Error::Foreign(_))
    ));
    let zeros = Memory::new(vec![0; 65_536]);
    let refused = now(Image::open_sealed(&zeros, None, None, chain));
    assert!(matches!(refused, Err(Error::UnknownFormat)));
}

/// A file that counts its reads, and refuses those that O_DIRECT would.
struct Counting {
    file: Direct,
    reads: AtomicU64,
}

impl File for Counting {
    async fn read_at(&self, at: u64, into: Piece) -> io::Result<()> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        assert!(
            at.is_multiple_of(4096) && into.len().is_multiple_of(4096),
            "{at}"
        );
        self.file.read_at(at, into).await
    }
    async fn write_at(&self, at: u64, from: Piece) -> io::Result<()> {
        assert!(
            at.is_multiple_of(4096) && from.len().is_multiple_of(4096),
            "{at}"
        );
        self.file.write_at(at, from).await
    }
    async fn sync(&self) -> io::Result<()> {
        self.file.sync().await
    }
    async fn zero(&self, range: ByteRange) -> io::Result<()> {
        self.file.zero(range).await
    }
    async fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len).await
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn next_data(&self, from: u64) -> io::Result<Option<ByteRange>> {
        self.file.next_data(from)
    }
}

/// The 64 MiB index of a terabyte's disk with two entries far apart costs three reads: the header, and
/// a page for each.
#[test]
fn an_index_is_read_around_its_holes() {
    let file = Direct::new(tempfile::tempfile().unwrap()).unwrap();
    let file = Counting {
        file,
        reads: AtomicU64::new(0),
    };
    now(create(&file, 1 << 40, ClusterSize::DEFAULT)).unwrap();
    let top = now(open_top(&file)).unwrap();
    for (cluster, place) in
        [(5, top.end.0), ((1 << 24) - 1, top.end.0 + 1)].map(|(c, p)| (Cluster(c), p))
    {
        let entry = |asked| if asked == cluster { place } else { 0 };
        let page = page_of(cluster);
        now(write_index_page(
            &file,
            &top.header,
            page,
            Piece::zeroed(PAGE),
            entry,
        ))
        .unwrap();
    }
    let sealed = now(seal(&file, &top.header, Place(top.end.0 + 2))).unwrap();
    file.reads.store(0, Ordering::Relaxed);
    assert_eq!(open(&file, Some(&sealed)).unwrap().entries().len(), 2);
    assert_eq!(file.reads.load(Ordering::Relaxed), 3);
}

proptest! {
    /// Whatever bytes a file has: an answer, no panic, and no more memory than the file has bytes.
    #[test]
    fn any_file_is_refused_or_read(
        tail in vec(any::<u32>(), 0..64),
        small in vec(0_u32..6, 0..64),
        at in 0_usize..64,
        word: u32,
        clusters in 0_usize..5,
        odd in 0_usize..2,
    ) {
        let header = Header::new(48 << 16, ClusterSize::DEFAULT).unwrap();
        let mut bytes = header.to_bytes().to_vec();
        for word in small.iter().chain(&tail) {
            bytes.extend(word.to_le_bytes());
        }
        bytes.resize(clusters * 65_536 + odd * 512, 0);
        if let Some(place) = bytes.get_mut(at..at + 4) && word % 2 == 0 {
            place.copy_from_slice(&word.to_le_bytes());
        }
        let file = Memory::new(bytes.clone());
        let report = now(crate::image::check::check(&file)).unwrap();
        let opened = open(&file, None);
        // The checker and the reader agree.
        let sound = !report.defects.iter().any(crate::image::Defect::refuses);
        let other = report.header.is_some_and(|header| header.cluster() != ClusterSize::DEFAULT);
        prop_assert_eq!(opened.is_ok(), sound && !other);
        if let Ok(image) = opened {
            prop_assert!(image.entries().is_sorted_by(|one, next| one.0 < next.0));
            prop_assert!(image.entries().iter().all(|(_, place)| (u64::from(place.0) + 1) << 16 <= bytes.len() as u64));
        }
        if now(open_top(&file)).is_err() {
            prop_assert_eq!(file.to_vec(), bytes);
        }
    }
}

/// Holes in the data leave header, index and seal as they are.
#[test]
fn a_sealed_image_is_hollowed_and_stays_what_was_sealed() {
    let cluster = ClusterSize::DEFAULT;
    let k = cluster.bytes();
    let (file, seal) = sealed(16 * k, &[5, 1]);
    // From the middle of cluster 1 over clusters that it does not hold to the first block of cluster 5.
    let part = ByteRange::new(k + 32768, 4 * k - 32768 + 4096);
    let wrong = Seal { digest: 0, ..seal };
    let before = file.to_vec();
    assert!(now(hollow(&file, &wrong, &[part])).is_err());
    assert!(file.to_vec() == before);
    let held = now(hollow(&file, &seal, &[part])).unwrap();
    assert_eq!(held, 32768 + 4096);
    let bytes = file.to_vec();
    let all = |from: u64, to: u64, byte: u8| {
        let range = usize::try_from(from).unwrap()..usize::try_from(to).unwrap();
        bytes[range].iter().all(|it| *it == byte)
    };
    assert!(all(k, k + 4096, 0) && all(k + 4096, 2 * k, 1));
    assert!(all(2 * k, 2 * k + 32768, 1) && all(2 * k + 32768, 3 * k, 0));
    open(&file, Some(&seal)).unwrap();
}
