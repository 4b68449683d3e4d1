//! Any 2 KiB as the beginning of an ext4: refused, or with numbers that fit each other and the bytes.
#![no_main]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ploop_fuzz::scratch::folder;
use ploop_snapshotter::ext4::{Error, Superblock};

/// In memory.
static FILE: LazyLock<File> = LazyLock::new(|| {
    let path = folder().join("superblock");
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path);
    file.expect("the folder is ours")
});

fuzz_target!(|bytes: &[u8]| {
    // What the fields that are read lie in: 1024 bytes after 1024 that nobody reads.
    let bytes = &bytes[..bytes.len().min(1024)];
    FILE.set_len(0)
        .and_then(|()| FILE.set_len(2048))
        .expect("a file in memory");
    FILE.write_all_at(bytes, 1024).expect("a file in memory");
    let mut whole = [0; 1024];
    whole[..bytes.len()].copy_from_slice(bytes);
    let number = |at: usize, len: usize| {
        whole[at..at + len]
            .iter()
            .rev()
            .fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
    };
    match Superblock::read_at(&FILE, 0, Path::new("x")) {
        Ok(found) => {
            assert_eq!(number(0x38, 2), 0xef53);
            assert!((1024..=65536).contains(&found.block) && found.block == 1024 << number(0x18, 4));
            let wide = |low, high| {
                number(low, 4)
                    | if number(0x60, 4) & 0x80 == 0 {
                        0
                    } else {
                        number(high, 4) << 32
                    }
            };
            assert_eq!(
                (found.blocks, found.free_blocks),
                (wide(0x04, 0x150), wide(0x0c, 0x158))
            );
            assert!(found.blocks > 0 && found.free_blocks <= found.blocks);
            assert!(found.free_inodes <= found.inodes);
            assert_eq!(found.clean, number(0x3a, 2) & 3 == 1);
            assert!(found.size() >= found.block, "a size never wraps around");
        }
        Err(Error::NotExt4 { .. }) => {}
        Err(error) => panic!("a file in memory can be read: {error}"),
    }
});
