//! Random acts against a plain `Vec<u8>`: reads, writes, flushes, discards, zeroes, snapshots, reopening.
//!
//! After every act the touched bytes are compared, at the end the whole disk is. A failing list of
//! acts shrinks, and its seed is kept in `tests/model.proptest-regressions`.

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

use crate::support::engine::{Engine, ploop, raw};
use ploop_snapshotter::chain::Delta;
use ploop_snapshotter::units::ClusterSize;

const SECTOR: u64 = 512;
/// Small clusters and a small disk: requests cross borders and meet again often.
pub(crate) const CLUSTER: u64 = 32 << 10;
const CLUSTERS: u64 = 40;
pub(crate) const SIZE: u64 = CLUSTER * CLUSTERS;

#[derive(Clone, Debug)]
pub(crate) enum Act {
    Read {
        at: u64,
        len: u64,
    },
    Write {
        at: u64,
        len: u64,
        fill: u8,
        fua: bool,
    },
    Flush,
    Discard {
        at: u64,
        len: u64,
    },
    Zero {
        at: u64,
        len: u64,
    },
    /// Seal the top, put a new delta on it.
    Snapshot,
    /// Close cleanly and open again.
    Reopen,
    /// Become larger by so many clusters, zero them, and fill the last one.
    Grow {
        clusters: u64,
        fill: u8,
    },
    /// Seal the top, put a new delta on it that is as large as the disk was at first.
    Shrink,
}

/// A run of sectors: mostly short ones, sometimes whole clusters, sometimes many.
fn place() -> impl Strategy<Value = (u64, u64)> {
    prop_oneof![
        4 => (0..SIZE / SECTOR, 1..64_u64)
            .prop_map(|(at, len)| (at * SECTOR, len * SECTOR)),
        3 => (0..CLUSTERS, 1..4_u64).prop_map(|(at, len)| (at * CLUSTER, len * CLUSTER)),
        2 => (0..SIZE / SECTOR, 1..1024_u64)
            .prop_map(|(at, len)| (at * SECTOR, len * SECTOR)),
        1 => Just((0, SIZE)),
    ]
    .prop_map(|(at, len)| (at, len.min(SIZE - at)))
}

pub(crate) fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => place().prop_map(|(at, len)| Act::Read { at, len }),
        8 => (place(), 1..=255_u8, prop::bool::weighted(0.1))
            .prop_map(|((at, len), fill, fua)| Act::Write { at, len, fill, fua }),
        2 => Just(Act::Flush),
        2 => place().prop_map(|(at, len)| Act::Discard { at, len }),
        3 => place().prop_map(|(at, len)| Act::Zero { at, len }),
        2 => Just(Act::Snapshot),
        1 => Just(Act::Reopen),
        1 => (1..6_u64, 1..=255_u8).prop_map(|(clusters, fill)| Act::Grow { clusters, fill }),
        1 => Just(Act::Shrink),
    ]
}

/// Bytes that tell where they were written and by which act.
pub(crate) fn pattern(at: u64, len: u64, fill: u8) -> Vec<u8> {
    (0..len)
        .map(|index| {
            let sector = (at + index) / SECTOR;
            if index % SECTOR == 0 {
                sector.to_le_bytes()[0]
            } else {
                fill
            }
        })
        .collect()
}

fn bytes(model: &[u8], at: u64, len: u64) -> &[u8] {
    &model[usize::try_from(at).unwrap()..usize::try_from(at + len).unwrap()]
}

fn bytes_mut(model: &mut [u8], at: u64, len: u64) -> &mut [u8] {
    &mut model[usize::try_from(at).unwrap()..usize::try_from(at + len).unwrap()]
}

/// Plays the acts on a chain that stands on `base`, whose content is `model`.
pub(crate) fn play(
    engine: &Engine,
    base: Vec<Delta>,
    mut model: Vec<u8>,
    acts: &[Act],
) -> Vec<Delta> {
    let cluster = ClusterSize::new(CLUSTER).unwrap();
    let mut deltas = base;
    deltas.push(engine.create("0.hds", SIZE, cluster));
    let mut disk = engine.open(&deltas);
    for (number, act) in acts.iter().enumerate() {
        match *act {
            Act::Read { at, len } => {
                let found = disk.read(at, usize::try_from(len).unwrap());
                assert!(found == bytes(&model, at, len), "act {number}: {act:?}");
            }
            Act::Write { at, len, fill, fua } => {
                let data = pattern(at, len, fill);
                disk.try_write(at, &data, fua).unwrap();
                bytes_mut(&mut model, at, len).copy_from_slice(&data);
            }
            Act::Flush => disk.flush(),
            Act::Discard { at, len } => {
                disk.discard(at, len);
                // Each sector is as before or zero, and stays what it now is.
                let found = disk.read(at, usize::try_from(len).unwrap());
                let before = bytes_mut(&mut model, at, len);
                for (now, before) in found.chunks(512).zip(before.chunks_mut(512)) {
                    assert!(
                        now == before || now.iter().all(|byte| *byte == 0),
                        "act {number}: {act:?}: a third thing"
                    );
                    before.copy_from_slice(now);
                }
            }
            Act::Zero { at, len } => {
                disk.write_zeroes(at, len);
                bytes_mut(&mut model, at, len).fill(0);
            }
            Act::Grow { clusters, fill } => {
                let size = model.len() as u64 + clusters * CLUSTER;
                disk.grow(size).unwrap();
                assert_eq!(disk.handle.size(), size);
                // Below may be the rest of a larger disk.
                disk.write_zeroes(model.len() as u64, clusters * CLUSTER);
                model.resize(usize::try_from(size).unwrap(), 0);
                let at = size - CLUSTER;
                let data = pattern(at, CLUSTER, fill);
                disk.try_write(at, &data, false).unwrap();
                bytes_mut(&mut model, at, CLUSTER).copy_from_slice(&data);
            }
            Act::Snapshot | Act::Shrink => {
                if matches!(act, Act::Shrink) {
                    model.truncate(usize::try_from(SIZE).unwrap());
                }
                let seal = disk.seal();
                let top = deltas.last_mut().unwrap();
                *top = ploop(&top.path, Some(seal));
                let size = model.len() as u64;
                deltas.push(engine.create(&format!("{}.hds", deltas.len()), size, cluster));
                disk = engine.open(&deltas);
            }
            Act::Reopen => {
                disk.close();
                disk = engine.open(&deltas);
            }
        }
        if let Act::Write { at, len, .. } | Act::Zero { at, len } = *act {
            let found = disk.read(at, usize::try_from(len).unwrap());
            assert!(
                found == bytes(&model, at, len),
                "after act {number}: {act:?}"
            );
        }
    }
    let found = disk.read_all();
    let first = found
        .iter()
        .zip(&model)
        .position(|(one, other)| one != other);
    assert!(
        found == model,
        "the whole disk, before it is closed: {} bytes for {}, another at {first:?}",
        found.len(),
        model.len()
    );
    let seal = disk.seal();
    let top = deltas.last_mut().unwrap();
    *top = ploop(&top.path, Some(seal));
    assert!(
        engine.open_view(&deltas).read_all() == model,
        "the whole disk, as a view"
    );
    deltas
}

pub(crate) fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "tests/model.proptest-regressions",
        ))),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(96))]

    #[test]
    fn a_disk_is_a_vec_of_bytes(acts in prop::collection::vec(act(), 1..60)) {
        let engine = Engine::new();
        let size = usize::try_from(SIZE).unwrap();
        play(&engine, Vec::new(), vec![0; size], &acts);
    }

    #[test]
    fn a_disk_over_a_raw_base_is_a_vec_of_bytes(acts in prop::collection::vec(act(), 1..40)) {
        let engine = Engine::new();
        let path = engine.path("base.raw");
        let mut model = pattern(0, SIZE, 0x11);
        // Holes in the base, one of them not at a cluster's border.
        bytes_mut(&mut model, 3 * CLUSTER, 5 * CLUSTER).fill(0);
        bytes_mut(&mut model, 20 * CLUSTER + 4096, 2 * CLUSTER).fill(0);
        std::fs::write(&path, &model).unwrap();
        play(&engine, vec![raw(&path)], model, &acts);
    }
}
