//! A request to ploopd of any bytes: refused as invalid, or a chain that may be opened under a name that may be a file's.
//!
//! ```text
//! input   u8 which | a message in protobuf, or (bit 7 of which) text: the id, a NUL, then paths with a NUL after each
//! ```
#![no_main]

use std::path::{Component, Path};

use libfuzzer_sys::fuzz_target;
use ploop_fuzz::limit::{Counting, within};
use ploop_snapshotter::server::fuzzing::{self, Chain};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a message may hold for each byte of it, and beside that: a delta of two bytes is a hundred in memory, and there
/// are three of it while they are looked through.
const FAIR: (usize, usize) = (512, 64 << 10);

fn sound(chain: &Chain) {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    assert!(
        (1..=64).contains(&chain.id.len()) && chain.id.bytes().all(word),
        "{:?} is a name",
        chain.id
    );
    // So it stays where ploopd puts it.
    let place = Path::new("/run/x").join(&chain.id);
    assert_eq!(place.parent(), Some(Path::new("/run/x")));
    assert!(!chain.deltas.is_empty());
    for (number, delta) in chain.deltas.iter().enumerate() {
        assert!(delta.path.is_absolute(), "{:?}", delta.path);
        assert!(
            delta.path.components().all(|part| part != Component::ParentDir),
            "{:?}",
            delta.path
        );
        assert!(!delta.path.as_os_str().as_encoded_bytes().contains(&0));
        let written = number + 1 == chain.deltas.len() && !chain.read_only;
        assert!(
            !written || !delta.raw && !delta.sealed,
            "what is written is a ploop image that nobody sealed"
        );
        assert!(!delta.raw || number == 0, "only the lowest is a plain file");
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((which, bytes)) = input.split_first() else {
        return;
    };
    let fair = FAIR.0 * bytes.len() + FAIR.1;
    if which & 0x80 == 0 {
        match within(fair, "parsing", || fuzzing::attach(bytes)) {
            Some(Ok(chain)) => sound(&chain),
            Some(Err(why)) => assert!(why.contains("InvalidArgument"), "{why}"),
            // No message.
            None => {}
        }
        return;
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut words = text.split('\0').map(str::to_owned);
    let id = words.next().unwrap_or_default();
    let paths = words.collect();
    match within(fair, "parsing", || fuzzing::attach_paths(id, paths, which & 1 == 1)) {
        Ok(chain) => sound(&chain),
        Err(why) => assert!(why.contains("InvalidArgument"), "{why}"),
    }
});
