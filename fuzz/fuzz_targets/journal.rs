//! Any superblock: of what its journal left behind, only what can be a journal's is given back, however it lies.
#![no_main]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ploop_fuzz::limit::{Counting, within};
use ploop_fuzz::scratch::folder;
use ploop_snapshotter::ext4::{Error, Superblock, spent_journal};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Where the file system begins in the file.
const START: u64 = 4096;
/// What an answer may hold: four runs and their copies.
const FAIR: usize = 4096;

/// In memory.
static FILE: LazyLock<File> = LazyLock::new(|| {
    let path = folder().join("journal");
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path);
    file.expect("the folder is ours")
});

fuzz_target!(|bytes: &[u8]| {
    let bytes = &bytes[..bytes.len().min(1024)];
    FILE.set_len(0)
        .and_then(|()| FILE.set_len(START + 2048))
        .expect("a file in memory");
    FILE.write_all_at(bytes, START + 1024).expect("a file in memory");
    let path = Path::new("x");
    let spent = within(FAIR, "looking", || spent_journal(&FILE, START, path));
    let superblock = Superblock::read_at(&FILE, START, path);
    let (spent, superblock) = match (spent, superblock) {
        (Ok(spent), Ok(superblock)) => (spent, superblock),
        (Err(Error::NotExt4 { .. }), Err(_)) => return,
        (spent, superblock) => panic!("{spent:?}, but {superblock:?}"),
    };
    if spent.is_empty() {
        return;
    }
    assert!(
        superblock.clean && !superblock.needs_recovery,
        "what may be replayed stays"
    );
    let mut spent: Vec<_> = spent
        .into_iter()
        .map(|run| (run.start, run.start.checked_add(run.len)))
        .collect();
    spent.sort_unstable();
    let mut last = 2048;
    let mut blocks = 0;
    for (start, end) in spent {
        let end = end.expect("a byte has a number below 2^64");
        assert!(start >= last, "over the superblock, or over another run");
        assert!(
            start % superblock.block == 0 && end % superblock.block == 0,
            "whole blocks"
        );
        assert!(end <= superblock.size(), "past the end");
        blocks += (end - start) / superblock.block;
        last = end;
    }
    assert!(
        blocks < 4 * 32768,
        "a journal's map has four runs, and its first block stays"
    );
});
