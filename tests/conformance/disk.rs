//! What every disk does, whatever it stands on: an empty chain, a raw base, a deep chain; clusters of
//! every size.

use std::sync::mpsc;

use crate::support::engine::{Engine, TestDisk, ploop, raw};
use ploop_snapshotter::chain::Delta;
use ploop_snapshotter::disk::{Errno, Latency, Request};
use ploop_snapshotter::io::Piece;
use ploop_snapshotter::units::ClusterSize;

const SECTOR: u64 = 512;

/// What a disk may stand on.
#[derive(Clone, Copy, Debug)]
enum Ground {
    Nothing,
    Raw,
    Deep,
}

/// A disk of `clusters` clusters and its content.
fn disk_on<'a>(
    engine: &'a Engine,
    ground: Ground,
    cluster: ClusterSize,
    clusters: u64,
) -> (TestDisk<'a>, Vec<u8>) {
    let size = cluster.bytes() * clusters;
    let mut model = vec![0; usize::try_from(size).unwrap()];
    let mut deltas: Vec<Delta> = Vec::new();
    match ground {
        Ground::Nothing => {}
        Ground::Raw => {
            for (index, byte) in model.iter_mut().enumerate() {
                *byte = u8::try_from(index / 512 % 251).unwrap() + 1;
            }
            let path = engine.path("base.raw");
            std::fs::write(&path, &model).unwrap();
            deltas.push(raw(&path));
        }
        Ground::Deep => {
            for level in 0..5_u64 {
                deltas.push(engine.create(&format!("{level}.hds"), size, cluster));
                let disk = engine.open(&deltas);
                let data = vec![u8::try_from(level).unwrap() + 1; 3 * 512];
                for place in (level..clusters).step_by(2) {
                    let at = place * cluster.bytes() + level * 512;
                    disk.try_write(at, &data, false).unwrap();
                    let start = usize::try_from(at).unwrap();
                    model[start..start + data.len()].copy_from_slice(&data);
                }
                let seal = disk.seal();
                let top = deltas.last_mut().unwrap();
                *top = ploop(&top.path, Some(seal));
            }
        }
    }
    deltas.push(engine.create("top.hds", size, cluster));
    (engine.open(&deltas), model)
}

fn everywhere(test: impl Fn(Ground, ClusterSize)) {
    for ground in [Ground::Nothing, Ground::Raw, Ground::Deep] {
        for cluster in [32 << 10, 64 << 10, 1 << 20] {
            test(ground, ClusterSize::new(cluster).unwrap());
        }
    }
}

/// Offsets and lengths that lie across, on, just before and just after every border there is.
fn awkward(cluster: u64, size: u64) -> Vec<(u64, u64)> {
    let borders = [
        0,
        SECTOR,
        4096,
        cluster - SECTOR,
        cluster,
        cluster + SECTOR,
        2 * cluster,
    ];
    let lengths = [
        SECTOR,
        4096,
        cluster - SECTOR,
        cluster,
        cluster + SECTOR,
        3 * cluster,
    ];
    let mut all = Vec::new();
    for start in borders {
        for len in lengths {
            all.push((start, len));
            all.push((size - start - len, len));
        }
    }
    all.retain(|(start, len)| start + len <= size);
    all
}

#[test]
fn awkward_requests_change_their_own_bytes_and_no_others() {
    everywhere(|ground, cluster| {
        let engine = Engine::new();
        let (disk, mut model) = disk_on(&engine, ground, cluster, 8);
        let size = disk.handle.size();
        for (number, (at, len)) in awkward(cluster.bytes(), size).into_iter().enumerate() {
            let range = usize::try_from(at).unwrap()..usize::try_from(at + len).unwrap();
            if number % 5 == 4 {
                disk.write_zeroes(at, len);
                model[range].fill(0);
            } else {
                let data = vec![u8::try_from(number % 250).unwrap() + 1; range.len()];
                disk.try_write(at, &data, number % 7 == 0).unwrap();
                model[range].copy_from_slice(&data);
            }
            assert!(
                disk.read_all() == model,
                "{ground:?} {cluster}: {len} bytes at {at}"
            );
        }
    });
}

#[test]
fn what_is_no_whole_sector_or_past_the_end_is_refused_and_changes_nothing() {
    everywhere(|ground, cluster| {
        let engine = Engine::new();
        let (disk, model) = disk_on(&engine, ground, cluster, 4);
        let size = disk.handle.size();
        assert_eq!(disk.try_read(size, 512), Err(Errno::INVAL));
        assert_eq!(disk.try_read(1, 512), Err(Errno::INVAL));
        assert_eq!(disk.try_read(size - 512, 1024), Err(Errno::INVAL));
        assert_eq!(disk.try_write(size, &[1; 512], false), Err(Errno::NOSPC));
        assert_eq!(
            disk.try_write(size - 512, &[1; 1024], false),
            Err(Errno::NOSPC)
        );
        assert_eq!(disk.try_write(0, &[1; 511], false), Err(Errno::INVAL));
        assert_eq!(disk.try_write(0, &[], false), Ok(()));
        assert!(disk.read_all() == model);
    });
}

#[test]
fn a_view_refuses_every_change() {
    let engine = Engine::new();
    let cluster = ClusterSize::DEFAULT;
    let top = engine.create("0.hds", 4 * cluster.bytes(), cluster);
    let disk = engine.open(std::slice::from_ref(&top));
    disk.try_write(0, &[7; 512], false).unwrap();
    let seal = disk.seal();
    let view = engine.open_view(&[ploop(&top.path, Some(seal))]);
    assert_eq!(view.try_write(0, &[1; 512], false), Err(Errno::ROFS));
    assert_eq!(view.read(0, 512), [7; 512]);
    view.flush();
    view.close();
}

/// Many writers meet in the same clusters while they are copied up: none of their sectors is lost.
#[test]
fn writes_that_meet_in_a_cluster_are_all_kept() {
    everywhere(|ground, cluster| {
        let engine = Engine::new();
        let (disk, mut model) = disk_on(&engine, ground, cluster, 4);
        let sectors = disk.handle.size() / SECTOR;
        let step = 7;
        let (answers, answered) = mpsc::channel();
        let mut asked = 0;
        // All are under way at once; the order in which they end is the kernel's.
        for sector in (0..sectors).step_by(step) {
            let fill = u8::try_from(sector % 255).unwrap() + 1;
            let answers = answers.clone();
            let done = Box::new(move |result: Result<Piece, Errno>| {
                let _ = answers.send(result.map(drop));
            });
            let data = Piece::from_bytes(&[fill; 512]);
            disk.handle
                .submit(Request::write(sector * SECTOR, data, sector % 5 == 0, done));
            let start = usize::try_from(sector * SECTOR).unwrap();
            model[start..start + 512].fill(fill);
            asked += 1;
        }
        for _ in 0..asked {
            answered
                .recv_timeout(std::time::Duration::from_secs(60))
                .unwrap()
                .unwrap();
        }
        assert!(disk.read_all() == model, "{ground:?} {cluster}");
        disk.close();
    });
}

/// What people disliked in ploop: an image that only grows.
#[test]
fn zeroed_and_discarded_clusters_give_their_space_back_at_once() {
    use std::os::unix::fs::MetadataExt;
    let engine = Engine::new();
    let cluster = ClusterSize::DEFAULT;
    let size = 256 * cluster.bytes();
    let top = engine.create("0.hds", size, cluster);
    let disk = engine.open(std::slice::from_ref(&top));
    let held = || std::fs::metadata(&top.path).unwrap().blocks() * 512;
    let data = vec![3; usize::try_from(size).unwrap()];
    disk.try_write(0, &data, false).unwrap();
    disk.flush();
    assert!(held() >= size);
    disk.discard(0, size / 2);
    assert!(held() <= size / 2 + 2 * cluster.bytes(), "{}", held());
    disk.write_zeroes(size / 2, size / 2);
    assert!(held() <= 2 * cluster.bytes(), "{}", held());
    assert!(disk.read_all().iter().all(|byte| *byte == 0));
    // The same clusters again: their places are used again, the file does not grow.
    let length = std::fs::metadata(&top.path).unwrap().len();
    disk.try_write(0, &data, false).unwrap();
    assert_eq!(std::fs::metadata(&top.path).unwrap().len(), length);
    disk.close();
}

/// Exact counts, so that depth and sharing stay free.
#[test]
fn flushes_cost_nothing_when_nothing_changed() {
    let engine = Engine::new();
    let cluster = ClusterSize::DEFAULT;
    let top = engine.create("0.hds", 64 * cluster.bytes(), cluster);
    let disk = engine.open(std::slice::from_ref(&top));
    disk.try_write(0, &[1; 4096], false).unwrap();
    assert_eq!(disk.handle.stats().pending_clusters, 1);
    disk.flush();
    assert_eq!(disk.handle.stats().pending_clusters, 0);
    let before = std::fs::read(&top.path).unwrap();
    disk.flush();
    disk.flush();
    assert!(std::fs::read(&top.path).unwrap() == before);
    let stats = disk.handle.stats();
    assert_eq!((stats.placed_clusters, stats.copied_up_clusters), (1, 0));
    let took = disk.handle.latencies();
    let counts = |latency: Latency| latency.counts.iter().sum::<u64>();
    assert_eq!(
        (counts(took.write), counts(took.flush), counts(took.read)),
        (1, 3, 0)
    );
    assert!(took.write.nanoseconds > 0);
    disk.close();
}
