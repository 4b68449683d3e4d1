//! A pending file of any content: another image's is not believed, what is believed is what it says, and the file
//! works on.
//!
//! ```text
//! input   u16 clusters | u8 kind | u16 length / 64 | (u32 offset, u32 word) ...   over a sound header, or
//!         ... kind bit 0: over zeros
//! ```
#![no_main]

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ploop_fuzz::limit::{Counting, within};
use ploop_fuzz::scratch::folder;
use ploop_snapshotter::disk::fuzzing::Pending;
use ploop_snapshotter::units::{Cluster, ClusterSize, Place};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Pages of tmpfs, as in life.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = folder();
    File::create(folder.join("image")).expect("the folder is ours");
    folder
});
const BOOT: [u8; 16] = [7; 16];
const HEADER: usize = 4096;

fuzz_target!(|input: &[u8]| {
    let Some((head, edits)) = input.split_first_chunk::<5>() else {
        return;
    };
    let clusters = u32::from(u16::from_le_bytes([head[0], head[1]])).max(1);
    let image = File::open(FOLDER.join("image")).expect("it was made");
    let path = FOLDER.join("pending");
    let open = |clusters| Pending::open(&path, &image, BOOT, clusters, ClusterSize::DEFAULT).expect("tmpfs has room");

    let _ = fs::remove_file(&path);
    let (sound, left) = open(clusters);
    assert_eq!(left, []);
    drop(sound);
    let sound = fs::read(&path).expect("it was made");
    let mut bytes = sound.clone();
    if head[2] & 1 == 1 {
        bytes.fill(0);
    }
    bytes.resize(
        usize::from(u16::from_le_bytes([head[3], head[4]])) * 64 + usize::from(head[2] >> 1),
        0,
    );
    for edit in edits.chunks_exact(8) {
        let at = u32::from_le_bytes([edit[0], edit[1], edit[2], edit[3]]) as usize;
        if let Some(word) = bytes.get_mut(at..).and_then(|rest| rest.get_mut(..4)) {
            word.copy_from_slice(&edit[4..]);
        }
    }
    fs::write(&path, &bytes).expect("tmpfs has room");

    // How many clusters it was made for is no part of whose it is.
    let ours = bytes.get(..16) == sound.get(..16) && bytes.get(24..64) == sound.get(24..64);
    let words = bytes
        .get(HEADER..)
        .unwrap_or_default()
        .chunks_exact(4)
        .take(clusters as usize);
    let expected: Vec<_> = (0..)
        .zip(words)
        .map(|(cluster, word)| {
            (
                Cluster(cluster),
                Place(u32::from_le_bytes([word[0], word[1], word[2], word[3]])),
            )
        })
        .filter(|(_, place)| ours && place.0 != 0)
        .collect();
    let fair = 8 * bytes.len() + (1 << 20);
    let (mut pending, left) = within(fair, "opening", || open(clusters));
    assert_eq!(left, expected);

    // It goes on as one that was never spoilt.
    assert!(pending.keep(Cluster(clusters - 1), Place(9)), "there is room");
    assert!(!pending.keep(Cluster(clusters), Place(9)), "past the end");
    pending.settle(Cluster(0));
    drop(pending);
    let mut wanted = expected;
    wanted.retain(|(cluster, _)| cluster.0 != 0 && cluster.0 != clusters - 1);
    if clusters > 1 {
        wanted.push((Cluster(clusters - 1), Place(9)));
    }
    let (pending, left) = open(clusters);
    assert_eq!(left, wanted);
    drop(pending);
});
