//! The order of things, and what happens when the host fails: over files that write down what is
//! asked of them, and fail on demand.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::Disk;
use crate::chain::Base;
use crate::disk::pending::{Identity, Pending};
use crate::disk::place::Writable;
use crate::disk::request::{Errno, Op};
use crate::disk::watched::{Asked, disk, flush, read, write};
use crate::io::{File, Piece, Uring, now};
use crate::units::{ByteRange, Cluster, ClusterSize, Place};

const SIZE: ClusterSize = ClusterSize::DEFAULT;
const K: u64 = 64 << 10;

const INDEX: Asked = Asked::Write(0, 4096);

#[test]
fn the_index_is_written_only_at_a_flush_and_only_between_two_syncs() {
    let (disk, file) = disk();
    write(&disk, 8 * K + 512, 512).unwrap();
    assert_eq!(
        file.taken(),
        [Asked::Write(K + 512, 512)],
        "absent below: the part alone"
    );
    write(&disk, 512, 512).unwrap();
    assert_eq!(
        file.taken(),
        [Asked::Write(2 * K, K)],
        "present below: copied up, written whole"
    );
    write(&disk, 3 * K, 2 * 65536).unwrap();
    assert_eq!(
        file.taken(),
        [Asked::Write(3 * K, 2 * K)],
        "whole clusters, side by side"
    );
    flush(&disk).unwrap();
    assert_eq!(file.taken(), [Asked::Sync, INDEX, Asked::Sync]);
    flush(&disk).unwrap();
    assert_eq!(file.taken(), [], "nothing changed");
    write(&disk, 0, 512).unwrap();
    flush(&disk).unwrap();
    assert_eq!(
        file.taken(),
        [Asked::Write(2 * K, 512), Asked::Sync],
        "no entry: one sync"
    );
}

#[test]
fn zeroes_over_a_parents_cluster_place_a_hole_and_write_nothing() {
    let (disk, file) = disk();
    let zeroes =
        |at, len| now(disk.serve(Op::WriteZeroes, ByteRange::new(at, len), &Piece::empty()));
    zeroes(K, 2 * K).unwrap();
    zeroes(9 * K, K).unwrap();
    assert_eq!(file.taken(), []);
    assert_eq!(
        (
            read(&disk, 0),
            read(&disk, K),
            read(&disk, 2 * K),
            read(&disk, 3 * K)
        ),
        (9, 0, 0, 9)
    );
    zeroes(K + 4096, 8192).unwrap();
    assert_eq!(file.taken(), [Asked::Zero(K + 4096, 8192)]);
    let discard = |at, len| now(disk.serve(Op::Discard, ByteRange::new(at, len), &Piece::empty()));
    discard(3 * K, K).unwrap();
    assert_eq!(
        (file.taken(), read(&disk, 3 * K)),
        (vec![], 9),
        "the parent's data stays"
    );
    zeroes(3 * K, K - 4096).unwrap();
    assert_eq!(
        file.taken(),
        [Asked::Write(4 * K - 4096, 4096)],
        "copied up but for the zeros at its ends"
    );
    assert_eq!((read(&disk, 3 * K), read(&disk, 4 * K - 4096)), (0, 9));
}

#[test]
fn what_is_published_while_a_round_runs_is_not_in_its_index() {
    let (disk, file) = disk();
    write(&disk, 8 * K, 65536).unwrap();
    *file.slow.lock().unwrap() = true;
    let empty = Piece::empty();
    let mut first = pin!(disk.serve(Op::Flush, ByteRange::new(0, 0), &empty));
    let mut context = Context::from_waker(Waker::noop());
    assert!(first.as_mut().poll(&mut context).is_pending());
    // This write is answered after the round took its entries and began to sync.
    write(&disk, 9 * K, 65536).unwrap();
    let mut second = pin!(disk.serve(Op::Flush, ByteRange::new(0, 0), &empty));
    assert!(second.as_mut().poll(&mut context).is_pending());
    *file.slow.lock().unwrap() = false;
    assert_eq!(first.as_mut().poll(&mut context), Poll::Ready(Ok(())));
    let on_disk = |cluster: u32| {
        let entry = Piece::zeroed(4);
        now(file
            .memory
            .read_at(64 + 4 * u64::from(cluster), entry.clone()))
        .unwrap();
        entry.to_vec()
    };
    assert_eq!(
        (on_disk(8), on_disk(9)),
        (vec![1, 0, 0, 0], vec![0, 0, 0, 0])
    );
    assert_eq!(second.as_mut().poll(&mut context), Poll::Ready(Ok(())));
    assert_eq!(on_disk(9), [2, 0, 0, 0]);
}

#[test]
fn a_failed_sync_is_final_however_often_the_next_one_would_succeed() {
    let (disk, file) = disk();
    write(&disk, 8 * K, 512).unwrap();
    *file.fail_syncs.lock().unwrap() = Some(Errno::IO);
    assert_eq!(flush(&disk), Err(Errno::IO));
    *file.fail_syncs.lock().unwrap() = None;
    assert_eq!(flush(&disk), Err(Errno::IO));
    assert_eq!(write(&disk, 8 * K, 512), Err(Errno::IO));
    assert!(
        disk.shared
            .failed()
            .unwrap()
            .contains("sync of data failed")
    );
    assert_eq!(
        (read(&disk, 0), read(&disk, 8 * K)),
        (9, 1),
        "what can be read is read"
    );
}

/// Copied up and answered, it was in the pending file; the sync that should have covered it dropped its data, and the
/// next process published it: 60 KiB that nobody had written hid the parent's.
#[test]
fn what_was_pending_when_a_sync_failed_is_void() {
    let (disk, file) = disk();
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let image = std::fs::File::create(folder.path().join("image")).unwrap();
    let identity = Identity::new(&image, [1; 16], 16, SIZE).unwrap();
    let path = folder.path().join("pending");
    let (pending, _) = Pending::open(&path, &identity).unwrap();
    *disk.writable.as_ref().unwrap().pending.borrow_mut() = Some(pending);
    write(&disk, 8 * K, 512).unwrap();
    flush(&disk).unwrap();

    write(&disk, K, 4096).unwrap();
    *file.slow_writes.lock().unwrap() = true;
    let piece = Piece::from_bytes(&[5; 512]);
    let place = |at| disk.serve(Op::Write { fua: false }, ByteRange::new(at, 512), &piece);
    let mut context = Context::from_waker(Waker::noop());
    let mut late = [8 * K, 9 * K, 2 * K].map(|at| Box::pin(place(at)));
    for late in &mut late {
        assert!(late.as_mut().poll(&mut context).is_pending());
    }
    *file.fail_syncs.lock().unwrap() = Some(Errno::IO);
    assert_eq!(flush(&disk), Err(Errno::IO));
    *file.fail_syncs.lock().unwrap() = None;
    *file.slow_writes.lock().unwrap() = false;
    for late in &mut late {
        let answer = late.as_mut().poll(&mut context);
        assert_eq!(answer, Poll::Ready(Err(Errno::IO)), "it may be lost");
    }
    drop(late);
    now(disk.finish(false)).unwrap_err();
    let (pending, left) = Pending::open(&path, &identity).unwrap();
    assert_eq!(left, []);
    assert!(pending.lost() > 0);
}

#[test]
fn an_index_that_finds_no_space_is_written_at_the_next_flush() {
    let (disk, file) = disk();
    write(&disk, 8 * K, 512).unwrap();
    *file.fail_writes.lock().unwrap() = Some(Errno::NOSPC);
    assert_eq!(flush(&disk), Err(Errno::NOSPC));
    assert_eq!(disk.shared.failed(), None);
    *file.fail_writes.lock().unwrap() = None;
    file.taken();
    flush(&disk).unwrap();
    assert_eq!(
        file.taken(),
        [INDEX, Asked::Sync],
        "the data were synced before"
    );
    let entry = Piece::zeroed(4);
    now(file.memory.read_at(64 + 4 * 8, entry.clone())).unwrap();
    assert_eq!(entry.to_vec(), [1, 0, 0, 0]);
}

#[test]
fn a_failed_write_reaches_its_own_request_and_changes_no_cluster() {
    let (disk, file) = disk();
    *file.fail_writes.lock().unwrap() = Some(Errno::IO);
    assert_eq!(write(&disk, 512, 512), Err(Errno::IO));
    *file.fail_writes.lock().unwrap() = Some(Errno::NOSPC);
    assert_eq!(
        write(&disk, 512, 512),
        Err(Errno::NOSPC),
        "no patience at all"
    );
    *file.fail_writes.lock().unwrap() = None;
    assert_eq!(read(&disk, 512), 9);
    write(&disk, 512, 512).unwrap();
    assert_eq!(
        (read(&disk, 0), read(&disk, 512), read(&disk, 1024)),
        (9, 1, 9)
    );
    let place = disk
        .writable
        .as_ref()
        .unwrap()
        .top
        .borrow()
        .map()
        .find(Cluster(0));
    assert_eq!(
        place,
        Some(Place(3)),
        "a place that may have been written is never given again"
    );
    assert_eq!(disk.shared.failed(), None);
}

#[test]
fn whoever_meets_a_cluster_that_is_being_placed_waits_for_it() {
    // The first writer stands still in the middle; the second must not copy the cluster up again.
    let (disk, file) = disk();
    let writable = disk.writable.as_ref().unwrap();
    let reserved = writable
        .top
        .borrow_mut()
        .reserve([Cluster(0)].into_iter())
        .unwrap();
    let piece = Piece::from_bytes(&[5; 512]);
    let mut second = pin!(disk.serve(Op::Write { fua: false }, ByteRange::new(0, 512), &piece));
    let mut context = Context::from_waker(Waker::noop());
    assert!(second.as_mut().poll(&mut context).is_pending());
    assert_eq!(
        (file.taken(), read(&disk, 0)),
        (vec![], 9),
        "a reader sees what is below"
    );
    writable.top.borrow_mut().publish(Cluster(0), reserved);
    writable.changed.open();
    assert_eq!(second.as_mut().poll(&mut context), Poll::Ready(Ok(())));
    assert_eq!(
        file.taken(),
        [Asked::Write(K, 512)],
        "in place, where the first one put it"
    );
}

#[test]
fn a_write_in_place_waits_until_its_cluster_outlives_the_process() {
    // The pending file has no room for cluster 8: its entry is safe only in the index.
    let (disk, file) = disk();
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let image = std::fs::File::create(folder.path().join("image")).unwrap();
    let identity = Identity::new(&image, [1; 16], 8, SIZE).unwrap();
    let (pending, _) = Pending::open(&folder.path().join("pending"), &identity).unwrap();
    *disk.writable.as_ref().unwrap().pending.borrow_mut() = Some(pending);

    *file.slow.lock().unwrap() = true;
    let piece = Piece::from_bytes(&[5; 512]);
    let place = |at| disk.serve(Op::Write { fua: false }, ByteRange::new(at, 512), &piece);
    let mut context = Context::from_waker(Waker::noop());
    let mut first = pin!(place(8 * K));
    assert!(first.as_mut().poll(&mut context).is_pending());
    let mut second = pin!(place(8 * K));
    assert!(
        second.as_mut().poll(&mut context).is_pending(),
        "answered, it would be lost with the process"
    );
    let mut zeroes = pin!(disk.serve(Op::WriteZeroes, ByteRange::new(8 * K, K), &piece));
    assert!(zeroes.as_mut().poll(&mut context).is_pending());
    *file.slow.lock().unwrap() = false;
    assert_eq!(first.as_mut().poll(&mut context), Poll::Ready(Ok(())));
    assert_eq!(second.as_mut().poll(&mut context), Poll::Ready(Ok(())));
    assert_eq!(zeroes.as_mut().poll(&mut context), Poll::Ready(Ok(())));
    file.taken();
    write(&disk, 8 * K, 512).unwrap();
    assert_eq!(
        file.taken(),
        [Asked::Write(K, 512)],
        "in the index: nothing to wait for"
    );
}

#[test]
fn a_round_that_is_cut_short_fails_the_disk_and_keeps_nobody_waiting() {
    let (disk, file) = disk();
    write(&disk, 8 * K, 512).unwrap();
    *file.slow.lock().unwrap() = true;
    let empty = Piece::empty();
    let mut context = Context::from_waker(Waker::noop());
    let mut first = Box::pin(disk.serve(Op::Flush, ByteRange::new(0, 0), &empty));
    assert!(first.as_mut().poll(&mut context).is_pending());
    let mut second = pin!(disk.serve(Op::Flush, ByteRange::new(0, 0), &empty));
    assert!(second.as_mut().poll(&mut context).is_pending());
    // As a panic of the first request would do.
    drop(first);
    *file.slow.lock().unwrap() = false;
    assert_eq!(
        second.as_mut().poll(&mut context),
        Poll::Ready(Err(Errno::IO))
    );
    assert!(disk.shared.failed().is_some());
}

#[test]
fn a_request_under_way_is_small() {
    // Hundreds of them wait on a shard, each with room for its largest case.
    fn size<T>(_: &T) -> usize {
        size_of::<T>()
    }
    fn check(disk: &Disk<Uring>, piece: &Piece) {
        let range = ByteRange::new(0, 512);
        let serve = size(&disk.serve(Op::Read, range, piece));
        let parts = [
            ("read", size(&disk.read(range, piece))),
            ("flush", size(&disk.flush())),
        ];
        assert!(serve <= 2048, "{serve} bytes: {parts:?}");
    }
    let file = || Uring::new(tempfile::tempfile().unwrap()).unwrap();
    let (disk, _) = disk();
    let writable = disk.writable.unwrap();
    let disk = Disk {
        base: Arc::new(Base::empty(SIZE)),
        writable: Some(Writable {
            file: file(),
            header: writable.header,
            top: writable.top,
            pending: writable.pending,
            length: writable.length,
            growing: writable.growing,
            copying: writable.copying,
            dirty: writable.dirty,
            unkept: writable.unkept,
            changed: writable.changed,
            rounds: writable.rounds,
        }),
        shared: disk.shared,
        pool: disk.pool,
        patience: disk.patience,
    };
    check(&disk, &Piece::empty());
}
