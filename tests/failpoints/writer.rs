//! Writers that remember what was answered, and compare.
//!
//! Every block holds its number and a generation. A writer owns every second block: it writes the next
//! generation past the page cache, reads it back, and now and then flushes. A write that was answered
//! must be found; one that was not may be found or not.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use ploop_snapshotter::io::Piece;

pub(super) const BLOCK: u64 = 4096;
const WRITERS: u64 = 2;
/// So many writes, then a flush.
const FLUSH: u64 = 8;

/// The block `number` in its generation `generation`.
fn block(number: u64, generation: u64) -> Piece {
    let mut bytes = Vec::with_capacity(4096);
    while bytes.len() < 4096 {
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(&generation.to_le_bytes());
    }
    Piece::from_bytes(&bytes)
}

/// Writes the first generation of everything.
pub(super) fn prepare(file: &File, len: u64) {
    const AT_ONCE: u64 = 256;
    for first in (0..len / BLOCK / AT_ONCE).map(|nth| nth * AT_ONCE) {
        let bytes: Vec<u8> = (first..first + AT_ONCE)
            .flat_map(|n| block(n, 0).to_vec())
            .collect();
        Piece::from_bytes(&bytes)
            .with_bytes(|bytes| file.write_all_at(bytes, first * BLOCK))
            .unwrap();
    }
    file.sync_all().unwrap();
}

fn write(file: &File, number: u64, generation: u64) -> io::Result<()> {
    block(number, generation).with_bytes(|bytes| file.write_all_at(bytes, number * BLOCK))
}

/// The generation of a block; a block that is none is a loss.
fn read(file: &File, number: u64) -> io::Result<u64> {
    let room = Piece::zeroed(4096);
    room.with_bytes_mut(|bytes| file.read_exact_at(bytes, number * BLOCK))?;
    let bytes = room.to_vec();
    let generation = u64::from_le_bytes(bytes[8..16].try_into().unwrap());
    let expected = block(number, generation).to_vec();
    assert!(bytes == expected, "block {number} is none of ours, or torn");
    Ok(generation)
}

/// What must be found.
pub(super) struct Written {
    /// The generation of each block that was answered.
    answered: Vec<u64>,
    /// The block of each writer whose next generation was not answered.
    open: Vec<u64>,
}

impl Written {
    pub(super) fn check(&self, file: &File, when: &str) {
        for (number, answered) in (0..).zip(&self.answered) {
            let found = read(file, number).unwrap();
            let next = found == answered + 1 && self.open.contains(&number);
            assert!(
                found == *answered || next,
                "{when}: block {number} was written {answered} times, and is as after {found}"
            );
        }
    }
}

struct Shared {
    stop: AtomicBool,
    acts: AtomicU64,
}

/// The generations that were answered, and how it ended: with an error, perhaps that of a write.
type Answer = (Vec<u64>, Result<(), (Option<u64>, io::Error)>);

/// Writers at work.
pub(super) struct Writers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Answer>>,
    blocks: u64,
}

impl Writers {
    pub(super) fn start(open: impl Fn() -> File, blocks: u64) -> Self {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            acts: AtomicU64::new(0),
        });
        let threads = (0..WRITERS)
            .map(|writer| {
                let (file, shared) = (open(), Arc::clone(&shared));
                std::thread::spawn(move || work(&file, writer, blocks, &shared))
            })
            .collect();
        Self {
            shared,
            threads,
            blocks,
        }
    }

    /// Answered writes so far.
    pub(super) fn acts(&self) -> u64 {
        self.shared.acts.load(Ordering::Relaxed)
    }

    /// Stops them; none may have heard an error.
    pub(super) fn end(self) -> io::Result<Written> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let (written, errors) = self.join();
        errors.into_iter().next().map_or(Ok(written), Err)
    }

    /// Each of them hears an error, soon.
    pub(super) fn broken(self) -> Written {
        let writers = self.threads.len();
        let (written, errors) = self.join();
        assert_eq!(errors.len(), writers);
        written
    }

    fn join(self) -> (Written, Vec<io::Error>) {
        let mut written = Written {
            answered: vec![0; usize::try_from(self.blocks).unwrap()],
            open: Vec::new(),
        };
        let mut errors = Vec::new();
        for thread in self.threads {
            let (mine, end) = thread.join().unwrap();
            for (all, mine) in written.answered.iter_mut().zip(mine) {
                *all += mine;
            }
            if let Err((number, error)) = end {
                written.open.extend(number);
                errors.push(error);
            }
        }
        (written, errors)
    }
}

fn work(file: &File, writer: u64, blocks: u64, shared: &Shared) -> Answer {
    let mut answered = vec![0; usize::try_from(blocks).unwrap()];
    let mut turn = 0_u64;
    while !shared.stop.load(Ordering::Relaxed) {
        // Odd and coprime to their number: every block once, far from the last.
        let number = (turn * 1_237 % (blocks / WRITERS)) * WRITERS + writer;
        let at = usize::try_from(number).unwrap();
        let next = answered[at] + 1;
        if let Err(error) = write(file, number, next) {
            return (answered, Err((Some(number), error)));
        }
        answered[at] = next;
        shared.acts.fetch_add(1, Ordering::Relaxed);
        let back = read(file, number).and_then(|found| {
            assert_eq!(found, next, "block {number}: an answered write is lost");
            if turn.is_multiple_of(FLUSH) {
                file.sync_data()
            } else {
                Ok(())
            }
        });
        if let Err(error) = back {
            return (answered, Err((None, error)));
        }
        turn += 1;
    }
    (answered, Ok(()))
}
