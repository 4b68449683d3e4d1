//! No request allocates, once its disk is warm: counted, on a real ring over real files.
//!
//! What may allocate, and when: a page of the top's map (4 KiB for each 64 MiB of the disk) when its
//! first cluster gets a place; anything whose size is a high-water mark (the ring's slots, a pool's
//! buffers, who waits at a gate), when a new mark is reached; a request that fails, or waits for space.
#![expect(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::future::poll_fn;
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::executor::Executor;
use super::flush::Rounds;
use super::gate::Gate;
use super::pending::{Identity, Pending};
use super::place::Writable;
use super::request::Op;
use super::serve::Disk;
use super::shared::Shared;
use crate::chain::{Base, Top};
use crate::image::{Format, Image, ploop};
use crate::io::{Direct, Piece, Pool, Ring, Setup, Uring, now};
use crate::units::{ByteRange, ClusterSize};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that is ending counts no more.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller promised.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as the caller promised.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SIZE: ClusterSize = ClusterSize::DEFAULT;
const K: u64 = 64 << 10;
/// Clusters of the disk, of which the parent has the first quarter.
const CLUSTERS: u64 = 4 * QUARTER;
const QUARTER: u64 = 4096;

/// A disk on a ring: the sealed levels through the page cache, the top past it. The data lies in the
/// lowest of `depth` levels.
fn disk(folder: &Path, depth: usize) -> Disk<Uring> {
    let path = folder.join("parent");
    let parent = std::fs::File::create(&path).unwrap();
    // Every cluster has data, in a file that takes next to no room.
    parent.set_len(CLUSTERS * K).unwrap();
    for cluster in 0..QUARTER {
        std::os::unix::fs::FileExt::write_all_at(&parent, &[7; 512], cluster * K).unwrap();
    }
    let asked = Direct::open_read(&path).unwrap();
    let image = now(Image::open_sealed(&asked, Some(Format::Raw), None, SIZE));
    let parent = Uring::new(asked.into_inner()).unwrap();
    let mut base = Base::empty(SIZE)
        .with(&image.unwrap(), Arc::new(parent), &path)
        .unwrap();
    for level in 1..depth {
        let path = folder.join(format!("level-{level}"));
        std::fs::File::create(&path).unwrap();
        let file = Direct::open_write(&path).unwrap();
        now(ploop::create(&file, CLUSTERS * K, SIZE)).unwrap();
        let opened = now(ploop::open_top(&file)).unwrap();
        now(ploop::seal(&file, &opened.header, opened.end)).unwrap();
        let image = now(Image::open_sealed(&file, Some(Format::Ploop), None, SIZE)).unwrap();
        let file = Arc::new(Uring::new(file.into_inner()).unwrap());
        base = base.with(&image, file, &path).unwrap();
    }

    let path = folder.join("top");
    std::fs::File::create(&path).unwrap();
    let file = Direct::open_write(&path).unwrap();
    now(ploop::create(&file, CLUSTERS * K, SIZE)).unwrap();
    let opened = now(ploop::open_top(&file)).unwrap();
    let host = rustix::fs::open(
        &path,
        rustix::fs::OFlags::RDWR | rustix::fs::OFlags::DIRECT,
        rustix::fs::Mode::empty(),
    )
    .unwrap();
    let host = std::fs::File::from(host);
    let identity = Identity::new(&host, [1; 16], u32::try_from(CLUSTERS).unwrap(), SIZE).unwrap();
    let (pending, _) = Pending::open(&folder.join("pending"), &identity).unwrap();
    let writable = Writable {
        file: Uring::new(host).unwrap(),
        header: opened.header.into(),
        top: Top::new(&opened.entries, opened.end).into(),
        pending: Some(pending).into(),
        length: SIZE.start_of_place(opened.end).into(),
        growing: false.into(),
        copying: 0.into(),
        dirty: false.into(),
        unkept: 0.into(),
        changed: Gate::default(),
        rounds: Rounds::default(),
    };
    Disk {
        base: Arc::new(base),
        writable: Some(writable),
        shared: Arc::new(Shared::new("test".into(), CLUSTERS * K, SIZE, 2, false)),
        pool: Rc::new(Pool::new(65536)),
        patience: Duration::ZERO,
    }
}

/// Requests that are under way together, as a shard's lanes have them, without a shard.
struct Bench {
    ring: Rc<Ring>,
    disk: Disk<Uring>,
    pieces: Vec<Piece>,
}

/// What to do, where, how many bytes.
type Asked = (Op, u64, u64);

/// What it is called, how many at a time, what the nth one asks.
type Case<'a> = (&'a str, usize, &'a dyn Fn(u64) -> Asked);

/// What a stretch of requests cost.
#[derive(Debug, PartialEq, Eq)]
struct Cost {
    allocations: u64,
    operations: u64,
    calls: u64,
}

impl Bench {
    fn new(folder: &Path, depth: usize) -> Self {
        Self {
            ring: Ring::install(Setup::default()).unwrap(),
            disk: disk(folder, depth),
            pieces: (0..32).map(|_| Piece::zeroed(1 << 20)).collect(),
        }
    }

    /// Serves the requests `what` says for these numbers, `depth` of them under way at a time.
    fn run(&self, depth: usize, numbers: Range<u64>, what: impl Fn(u64) -> Asked) -> Cost {
        let next = Cell::new(numbers.start);
        let lane = async |piece: &Piece| {
            while next.get() < numbers.end {
                let (op, at, len) = what(next.replace(next.get() + 1));
                let data = match op {
                    Op::Read | Op::Write { .. } => usize::try_from(len).unwrap(),
                    Op::Flush | Op::Discard | Op::WriteZeroes => 0,
                };
                let range = ByteRange::new(at, len);
                let answer = self.disk.serve(op, range, &piece.slice(0, data)).await;
                assert_eq!(answer, Ok(()), "{op:?} {range:?}");
            }
        };
        let mut lanes: FuturesUnordered<_> = self.pieces[..depth].iter().map(lane).collect();
        let mut context = Context::from_waker(Waker::noop());
        let before = (
            ALLOCATIONS.get(),
            self.ring.submitted(),
            self.ring.entered(),
        );
        loop {
            match lanes.poll_next_unpin(&mut context) {
                Poll::Ready(Some(())) => {}
                Poll::Ready(None) => break,
                Poll::Pending => self.ring.wait().unwrap(),
            }
        }
        Cost {
            allocations: ALLOCATIONS.get() - before.0,
            operations: self.ring.submitted() - before.1,
            calls: self.ring.entered() - before.2,
        }
    }
}

const REQUESTS: u64 = 512;
/// Requests of each kind before those that are counted.
const WARM: u64 = 64;

#[test]
fn no_request_of_a_warm_disk_allocates() {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let bench = Bench::new(folder.path(), 1);
    let write = Op::Write { fua: false };
    let flush = |_| (Op::Flush, 0, 0);
    let half = 2 * QUARTER * K;
    // Warm: every page of the top's map is there; two rounds have had as many entries as any below;
    // of clusters 0 to 63 the top owns every other one.
    bench.run(1, 0..CLUSTERS / 1024, |n| {
        (write, ((n + 1) * 1024 - 1) * K, K)
    });
    for round in [QUARTER, 3 * QUARTER] {
        bench.run(32, 0..2 * REQUESTS, |n| (write, (round + n) * K, 4096));
        bench.run(1, 0..1, flush);
    }
    bench.run(1, 0..32, |n| (write, 2 * n * K, K));
    bench.run(1, 0..1, flush);

    // Clusters 0 to 63: the parent's and the top's by turns; to 4095: the parent's; from 8192 on:
    // nobody's.
    let cases: &[Case<'_>] = &[
        ("read, parent, cached", 1, &|n| {
            (Op::Read, (64 + n % 64) * K, 4096)
        }),
        ("read, top", 1, &|n| (Op::Read, n % 32 * 2 * K, 4096)),
        ("read, top", 32, &|n| (Op::Read, n % 32 * 2 * K, 4096)),
        ("read, hole", 1, &|n| (Op::Read, half + n % 64 * K, 4096)),
        ("read, 16 runs", 1, &|n| (Op::Read, n % 4 * 16 * K, 16 * K)),
        ("read, 16 runs", 32, &|n| (Op::Read, n % 4 * 16 * K, 16 * K)),
        ("overwrite", 1, &|n| (write, n % 32 * 2 * K + 4096, 4096)),
        ("overwrite", 32, &|n| (write, n % 32 * 2 * K + 4096, 4096)),
        ("flush, nothing new", 1, &flush),
        ("flush after an overwrite", 1, &|n| match n % 2 {
            0 => (write, 0, 4096),
            _ => (Op::Flush, 0, 0),
        }),
        ("copy up", 1, &|n| (write, (1024 + n) * K + 4096, 4096)),
        ("copy up", 32, &|n| (write, (2048 + n) * K + 4096, 4096)),
        ("fresh", 1, &|n| (write, half + (128 + n) * K, 4096)),
        ("fresh", 32, &|n| (write, half + (1024 + n) * K, 4096)),
        ("fresh, and a flush each 8", 8, &|n| match n % 8 {
            0 => (Op::Flush, 0, 0),
            _ => (write, half + (2048 + n) * K, 4096),
        }),
        ("zeroes in place, discard", 8, &|n| match n % 2 {
            0 => (Op::WriteZeroes, n % 32 * 2 * K, 4096),
            _ => (Op::Discard, n % 32 * 2 * K, 4096),
        }),
    ];
    let mut wrong = Vec::new();
    for (name, depth, what) in cases {
        bench.run(*depth, 0..WARM, what);
        let cost = bench.run(*depth, WARM..WARM + REQUESTS, what);
        bench.run(1, 0..1, flush);
        let each = |count| {
            format!(
                "{}.{:03}",
                count / REQUESTS,
                count % REQUESTS * 1000 / REQUESTS
            )
        };
        let line = format!(
            "{name} at depth {depth}: {} allocations, {} operations and {} calls a request",
            cost.allocations,
            each(cost.operations),
            each(cost.calls),
        );
        eprintln!("{line}");
        if cost.allocations > 0 {
            wrong.push(line);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_deep_chain_asks_the_kernel_for_no_more_than_a_flat_one() {
    // One look-up in each of two maps, at any depth: what differs is only how many files are open.
    let write = Op::Write { fua: false };
    let costs = [1, 32, 128].map(|depth| {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let bench = Bench::new(folder.path(), depth);
        assert_eq!(bench.disk.base.depth(), depth);
        bench.run(1, 0..1, |_| (write, 0, K));
        [
            bench.run(1, 0..64, |n| (Op::Read, (1 + n) * K, 4096)),
            bench.run(1, 0..64, |_| (Op::Read, 0, 4096)),
            bench.run(1, 0..64, |n| (Op::Read, (2 * QUARTER + n) * K, 4096)),
            bench.run(1, 0..64, |_| (write, 4096, 4096)),
            bench.run(1, 0..64, |n| (write, (64 + n) * K + 4096, 4096)),
        ]
    });
    assert_eq!(costs[0], costs[1]);
    assert_eq!(costs[0], costs[2]);
}

#[test]
fn to_wake_a_task_allocates_nothing() {
    let executor = Executor::default();
    for _ in 0..32 {
        let mut turns = 1000;
        executor.spawn(poll_fn(move |context| {
            turns -= 1;
            if turns == 0 {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        }));
    }
    let before = ALLOCATIONS.get();
    while executor.tick() {}
    assert_eq!(ALLOCATIONS.get() - before, 0);
}

#[test]
fn an_allocation_is_seen() {
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(ALLOCATIONS.get() - before, 1);
}
