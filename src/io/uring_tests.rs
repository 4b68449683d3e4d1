//! Registered memory: every byte in its place, through the ring and through the device file.
//!
//! Where no block device is at hand, memory of our own stands in a ring's slot, and `/proc/self/mem`
//! is the device file: its bytes at a buffer's address are the buffer's bytes.

use std::fs;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::Uring;
use crate::io::buffer::Address;
use crate::io::{Direct, File, Memory, Piece, Registered, Ring, Setup, now};

const LEN: usize = 64 << 10;

fn on_ring<T>(ring: &Rc<Ring>, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(answer) = future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            return answer;
        }
        ring.wait().unwrap();
    }
}

fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..=250_u8).cycle().skip(seed).take(len).collect()
}

/// A ring with two slots: the memory in each, and the piece that names it.
fn slots() -> (Rc<Ring>, [(Piece, Piece); 2]) {
    let ring = Ring::install(Setup { slots: 64 }).unwrap();
    assert_eq!(ring.buffers(), 64, "this kernel refuses a table of buffers");
    let device = Arc::new(
        fs::File::options()
            .read(true)
            .write(true)
            .open("/proc/self/mem")
            .unwrap(),
    );
    let both = [0_u16, 1].map(|index| {
        let memory = Piece::zeroed(LEN);
        let Address::Memory(start) = memory.address() else {
            panic!("a piece of our own has an address");
        };
        let slot = Registered {
            index,
            device: Arc::clone(&device),
            position: start.addr() as u64,
        };
        let piece = Piece::in_slot(slot, start.addr(), LEN);
        (memory, piece)
    });
    ring.register(&both.clone().map(|(memory, _)| memory))
        .unwrap();
    (ring, both)
}

fn file(content: &[u8]) -> (Uring, fs::File) {
    let file = tempfile::tempfile_in("/var/tmp").unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, content, 0).unwrap();
    (Uring::new(file.try_clone().unwrap()).unwrap(), file)
}

#[test]
fn a_cut_of_a_slot_is_filled_and_nothing_beside_it() {
    let (ring, [(first, _), (second, slot)]) = slots();
    let content = pattern(3, LEN);
    let (file, _) = file(&content);
    second.copy_from(0, &[0xEE; LEN]);
    on_ring(&ring, file.read_at(8192, slot.slice(512, 12_288))).unwrap();
    let mut expected = vec![0xEE; LEN];
    expected[512..512 + 12_288].copy_from_slice(&content[8192..8192 + 12_288]);
    assert_eq!(second.to_vec(), expected);
    assert_eq!(first.to_vec(), vec![0; LEN], "the neighbour's slot");
}

#[test]
fn past_the_end_of_the_file_a_slot_reads_as_zeros() {
    let (ring, [(memory, slot), _]) = slots();
    let content = pattern(5, 10_000);
    let (file, _) = file(&content);
    memory.copy_from(0, &[0xEE; LEN]);
    on_ring(&ring, file.read_at(4096, slot.slice(1024, 16_384))).unwrap();
    let mut expected = vec![0xEE; LEN];
    expected[1024..1024 + 16_384].fill(0);
    expected[1024..1024 + 5904].copy_from_slice(&content[4096..]);
    assert_eq!(memory.to_vec(), expected);
}

#[test]
fn a_cut_of_a_slot_is_written_where_it_belongs() {
    let (ring, [(memory, slot), _]) = slots();
    memory.copy_from(0, &pattern(11, LEN));
    let (file, host) = file(&[0xEE; 32_768]);
    on_ring(&ring, file.write_at(4096, slot.slice(2048, 8192))).unwrap();
    let mut found = vec![0; 32_768];
    std::os::unix::fs::FileExt::read_exact_at(&host, &mut found, 0).unwrap();
    let mut expected = vec![0xEE; 32_768];
    expected[4096..4096 + 8192].copy_from_slice(&pattern(11, LEN)[2048..2048 + 8192]);
    assert_eq!(found, expected);
}

#[test]
fn what_only_a_processor_can_do_goes_through_the_device_file() {
    let (_ring, [(memory, slot), (_, other)]) = slots();
    memory.copy_from(0, &pattern(1, LEN));
    let mut expected = pattern(1, LEN);

    let out = Piece::zeroed(1024);
    out.copy_from_piece(512, &slot.slice(100, 512)).unwrap();
    assert_eq!(out.to_vec()[512..], expected[100..612]);
    assert_eq!(out.to_vec()[..512], [0; 512]);

    let cut = slot.slice(4096, 8192);
    cut.copy_from_piece(512, &Piece::from_bytes(&[7; 300]))
        .unwrap();
    expected[4608..4908].fill(7);
    slot.slice(16_384, 12_288).fill_zero().unwrap();
    expected[16_384..28_672].fill(0);
    assert_eq!(memory.to_vec(), expected);

    assert!(slot.copy_from_piece(0, &other).is_err());
    // The whole slot, longer than the zeros at hand would be in one piece of an odd place.
    slot.slice(1, LEN - 1).fill_zero().unwrap();
    assert_eq!(memory.to_vec()[1..], vec![0; LEN - 1]);
}

#[test]
fn a_file_without_a_ring_refuses_a_slot() {
    let (_ring, [(_, slot), _]) = slots();
    let direct = Direct::new(tempfile::tempfile().unwrap()).unwrap();
    let memory = Memory::default();
    let answers = [
        now(direct.read_at(0, slot.clone())),
        now(direct.write_at(0, slot.clone())),
        now(memory.read_at(0, slot.clone())),
        now(memory.write_at(0, slot)),
    ];
    for answer in answers {
        assert_eq!(answer.unwrap_err().kind(), io::ErrorKind::Unsupported);
    }
}

#[test]
fn an_empty_slot_is_an_error_and_not_a_crash() {
    let (ring, _slots) = slots();
    let nothing = Registered {
        index: 63,
        device: Arc::new(fs::File::open("/dev/null").unwrap()),
        position: 0,
    };
    let piece = Piece::registered(nothing, 4096);
    let (file, _) = file(&[1; 4096]);
    assert!(on_ring(&ring, file.read_at(0, piece)).is_err());
}
