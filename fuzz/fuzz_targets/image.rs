//! A ploop image of any content: read, checked, mended, opened for writing, made larger.
//!
//! ```text
//! input   64 bytes header | u16 length in sectors | u8 and so many bytes | (u16 slot, u32 word) ...
//! ```
//!
//! The input says little, so that a mutation finds the index and not the data. What the reader should find in it is
//! worked out here a second time, in the plainest way.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ploop_fuzz::limit::{Counting, within};
use ploop_snapshotter::format::ploop::{HEADER_LEN, Header, InUse, Version};
use ploop_snapshotter::image::{Defect, Error, Format, Image, Seal, check::check, check::repair, grow, ploop};
use ploop_snapshotter::io::{Memory, now};
use ploop_snapshotter::units::{ClusterSize, Place};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SECTOR: usize = 512;
/// Longest file: clusters of 32 KiB, sixteen of them.
const LONGEST: usize = 1024 * SECTOR;
/// What a reader may hold for each byte of the file, and beside that: one step through the index.
const FAIR: (usize, usize) = (16, 3 << 20);

fn file_of(input: &[u8]) -> Option<Vec<u8>> {
    let (header, rest) = input.split_first_chunk::<HEADER_LEN>()?;
    let (length, words) = rest.split_first_chunk::<3>()?;
    let sectors = usize::from(u16::from_le_bytes([length[0], length[1]]));
    let length = (sectors * SECTOR + usize::from(length[2])).min(LONGEST);
    let mut file = vec![0; length];
    // Each cluster of data is told from any other.
    for (index, sector) in file.chunks_mut(SECTOR).enumerate().skip(64) {
        let mark = u32::try_from(index).unwrap_or(u32::MAX) | 1 << 31;
        sector
            .iter_mut()
            .zip(mark.to_le_bytes())
            .for_each(|(to, from)| *to = from);
    }
    if let Ok(header) = Header::parse(header) {
        let end = usize::try_from(header.index_len()).map_or(length, |end| end.min(length));
        file[..end].fill(0);
    }
    let kept = length.min(HEADER_LEN);
    file[..kept].copy_from_slice(&header[..kept]);
    for word in words.chunks_exact(6) {
        let at = 4 * usize::from(u16::from_le_bytes([word[0], word[1]]));
        if let Some(slot) = file.get_mut(at.max(HEADER_LEN)..).and_then(|rest| rest.get_mut(..4)) {
            slot.copy_from_slice(&word[2..]);
        }
    }
    Some(file)
}

/// The entries of a file that any reader must be able to read; `None` if there is anything to refuse.
fn plain(header: &Header, file: &[u8]) -> Option<Vec<(u32, u32)>> {
    let cluster = header.cluster().bytes();
    let index = usize::try_from(header.index_len()).ok()?;
    let words = file.get(HEADER_LEN..index)?.chunks_exact(4).enumerate();
    let mut found: Vec<(u32, u32)> = Vec::new();
    for (number, word) in words {
        let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        if word == 0 {
            continue;
        }
        let number = u32::try_from(number).ok()?;
        let start = match header.version() {
            Version::V1 => u64::from(word) * 512,
            Version::V2 => u64::from(word) * cluster,
        };
        let place = u32::try_from(start / cluster).ok()?;
        let wrong = number >= header.entries()
            || start % cluster != 0
            || start < header.index_len()
            || start + cluster > file.len() as u64
            || found.iter().any(|(_, other)| *other == place);
        if wrong {
            return None;
        }
        found.push((number, place));
    }
    Some(found)
}

fn numbers(entries: &[(ploop_snapshotter::units::Cluster, Place)]) -> Vec<(u32, u32)> {
    entries.iter().map(|(cluster, place)| (cluster.0, place.0)).collect()
}

/// What the disk holds: the bytes of every cluster that the file has.
fn contents(header: &Header, entries: &[(u32, u32)], file: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let size = usize::try_from(header.cluster().bytes()).expect("a cluster fits memory");
    let cut = |place: u32| file[place as usize * size..][..size].to_vec();
    entries.iter().map(|(cluster, place)| (*cluster, cut(*place))).collect()
}

fn open(memory: &Memory, seal: Option<&Seal>, cluster: ClusterSize) -> Result<Image, Error> {
    now(Image::open_sealed(memory, Some(Format::Ploop), seal, cluster))
}

/// Header to bytes and back, in every state.
fn round_trip(bytes: [u8; HEADER_LEN], size: u64) -> Option<Header> {
    let header = Header::parse(&bytes).ok()?;
    assert_eq!(header.to_bytes(), bytes, "a header is written as it was read");
    let states = [header.opened(), header.closed(true), header.closed(false)];
    let grown = header.grown(size).ok();
    for header in states.into_iter().chain(grown) {
        assert_eq!(
            Header::parse(&header.to_bytes()),
            Ok(header),
            "what is written can be read"
        );
    }
    if let Some(grown) = grown {
        assert!(grown.size() >= size, "a disk is never smaller than asked for");
    }
    Some(header)
}

/// What is read and what is checked agree with each other, and with the plainest reader there can be.
fn reading(header: &Header, bytes: &[u8]) {
    let memory = Memory::new(bytes.to_vec());
    let fair = FAIR.0 * bytes.len() + FAIR.1;
    let report = within(fair, "checking", || now(check(&memory))).expect("memory never fails");
    let opened = within(fair, "opening", || open(&memory, None, header.cluster()));
    assert_eq!(memory.to_vec(), bytes, "looking changes nothing");

    let state = header.flags() & !1 == 0 && matches!(header.in_use(), InUse::No | InUse::Extension);
    let expected = plain(header, bytes).filter(|_| state);
    match (&opened, &expected) {
        (Ok(image), Some(expected)) => assert_eq!(numbers(image.entries()), *expected),
        (Err(Error::Defect(defect)), None) => {
            assert!(defect.refuses(), "what is refused is a fault: {defect}");
            assert!(report.defects.contains(defect), "what is refused is told: {defect}");
        }
        _ => panic!("read as {opened:?}, but it holds {expected:?}"),
    }
    let refuses = report.defects.iter().any(|it| it.refuses() && !tail(it));
    assert_eq!(opened.is_err(), refuses, "{:?}", report.defects);
    assert_eq!(opened.is_ok(), report.seal.is_some());
    let Some(seal) = report.seal else { return };
    open(&memory, Some(&seal), header.cluster()).expect("it is what it was sealed as");
    let other = Seal {
        digest: !seal.digest,
        ..seal
    };
    let error = open(&memory, Some(&other), header.cluster()).expect_err("another seal");
    assert!(matches!(error, Error::OtherSeal { .. }));
}

/// A tail that no entry names may be cut off, and is no reason not to read.
fn tail(defect: &Defect) -> bool {
    matches!(defect, Defect::TailLeak { .. } | Defect::HalfTail { .. })
}

/// What is mended is clean, holds what it held, and stays as it is; what cannot be mended is left alone.
fn mending(bytes: &[u8]) {
    let memory = Memory::new(bytes.to_vec());
    let before = now(check(&memory)).expect("memory never fails");
    let Ok(report) = now(repair(&memory)) else {
        assert_eq!(memory.to_vec(), bytes, "what is refused is left alone");
        assert_eq!(before.mended(), None, "nothing was to come of it");
        return;
    };
    assert_eq!(report.defects, before.defects);
    let mended = memory.to_vec();
    if !before.defects.iter().any(Defect::mendable) {
        assert_eq!(mended, bytes, "what is sound is left alone");
    }
    let after = now(check(&memory)).expect("memory never fails");
    let left = after.defects.iter().find(|it| it.refuses() || it.mendable());
    assert_eq!(left, None, "what is mended is clean");
    assert_eq!(after.entries, before.entries);
    if let Some(promised) = before.mended() {
        assert_eq!(after.seal, Some(promised), "mending leaves the seal that it promised");
    }
    let same = |range: std::ops::Range<usize>| mended[range.clone()] == bytes[range];
    assert!(
        mended.len() <= bytes.len() && same(HEADER_LEN..mended.len()),
        "only a header changes"
    );
    let (header, was) = (after.header.expect("sound"), before.header.expect("sound"));
    let entries = numbers(&after.entries);
    assert_eq!(header.size(), was.size());
    assert_eq!(contents(&header, &entries, &mended), contents(&was, &entries, bytes));
    now(repair(&memory)).expect("clean");
    assert_eq!(memory.to_vec(), mended, "mending twice is mending once");
}

/// A top is marked, grows, and is sealed; its disk holds what it held.
fn writing(bytes: &[u8], size: u64) {
    let memory = Memory::new(bytes.to_vec());
    let Ok(opened) = now(ploop::open_top(&memory)) else {
        assert_eq!(memory.to_vec(), bytes, "what is refused is left alone");
        return;
    };
    let held = contents(&opened.header, &numbers(&opened.entries), bytes);
    let report = now(check(&memory)).expect("memory never fails");
    let worse = |it: &&Defect| it.refuses() && **it != Defect::InUse && !tail(it);
    assert_eq!(report.defects.iter().find(worse), None, "what opens is sound");
    assert!(report.defects.contains(&Defect::InUse), "and marked");

    let mut header = opened.header;
    let mut end = opened.end;
    if opened.was_in_use {
        // As the recovery does: bytes behind the end may be anything.
        let length = header.cluster().start_of_place(end);
        now(ploop_snapshotter::io::File::set_len(&memory, length)).expect("memory never fails");
    }
    // An index of a larger disk is a longer file: kept to what a run can look through.
    let room = header.cluster().bytes() * 4096;
    match now(grow(&memory, &header, &mut end, size % room)) {
        Ok(grown) => header = grown.header,
        Err(error) => assert!(!error.amid, "memory never fails: {error}"),
    }
    let seal = now(ploop::seal(&memory, &header, end)).expect("its owner knows its index");
    let image = open(&memory, Some(&seal), header.cluster()).expect("what is sealed can be read");
    assert_eq!(image.size(), header.size());
    assert_eq!(contents(&header, &numbers(image.entries()), &memory.to_vec()), held);
    let report = now(check(&memory)).expect("memory never fails");
    let bad = report.defects.iter().find(|it| it.refuses() || it.mendable());
    assert_eq!(bad, None, "what is sealed is clean");
}

fuzz_target!(|input: &[u8]| {
    let Some(bytes) = file_of(input) else { return };
    let size = input
        .iter()
        .rev()
        .take(4)
        .fold(0, |size, byte| size << 8 | u64::from(*byte))
        << 9;
    let header = bytes.first_chunk().and_then(|header| round_trip(*header, size));
    match header {
        Some(header) => reading(&header, &bytes),
        None => {
            let report = now(check(&Memory::new(bytes.clone()))).expect("memory never fails");
            assert!(report.defects.iter().any(Defect::refuses) && report.seal.is_none());
        }
    }
    mending(&bytes);
    writing(&bytes, size);
});
