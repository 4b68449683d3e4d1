//! The sectors that simulated files are made of, each content once.
//!
//! A crash test makes thousands of files that differ in a few sectors. A sector is a number here, so a
//! file is a short list of numbers, and two sectors are equal if their numbers are.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::units::SECTOR;

/// Bytes in a sector.
pub(crate) const BYTES: usize = 512;
const _: () = assert!(BYTES as u64 == SECTOR);

/// The content of a sector. 0 is zeros.
pub(crate) type Id = u32;

struct Known {
    numbers: HashMap<[u8; BYTES], Id>,
    contents: Vec<[u8; BYTES]>,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            numbers: HashMap::from([([0; BYTES], 0)]),
            contents: vec![[0; BYTES]],
        }
    }
}

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::default();
}

/// The number of this content; `guess` is a number that it probably has.
pub(crate) fn id(bytes: &[u8], guess: Id) -> Id {
    KNOWN.with_borrow_mut(|known| {
        let bytes: &[u8; BYTES] = bytes.try_into().expect("a sector has 512 bytes");
        for guess in [guess, 0] {
            if known.contents.get(guess as usize) == Some(bytes) {
                return guess;
            }
        }
        if let Some(id) = known.numbers.get(bytes) {
            return *id;
        }
        let id = Id::try_from(known.contents.len()).expect("a test has few sectors");
        known.contents.push(*bytes);
        known.numbers.insert(*bytes, id);
        id
    })
}

/// Writes the contents of these sectors into `into`, which is as long.
pub(crate) fn fill(ids: impl Iterator<Item = Id>, into: &mut [u8]) {
    KNOWN.with_borrow(|known| {
        for (sector, id) in into.chunks_exact_mut(BYTES).zip(ids) {
            sector.copy_from_slice(&known.contents[id as usize]);
        }
    });
}

/// Is this the content with that number?
pub(crate) fn is(bytes: &[u8], id: Id) -> bool {
    KNOWN.with_borrow(|known| known.contents[id as usize] == *bytes)
}

/// Forgets all contents: their numbers mean nothing any more on this thread.
pub(crate) fn forget() {
    KNOWN.with_borrow_mut(|known| *known = Known::default());
}

/// The number of this content, if it has one.
pub(crate) fn known(bytes: &[u8]) -> Option<Id> {
    KNOWN.with_borrow(|known| known.numbers.get(bytes).copied())
}
