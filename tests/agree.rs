//! The oracle that is not ours: QEMU finds nothing to complain of in what we write, and reads the same.

use proptest::prelude::*;

use crate::model::{CLUSTER, SIZE, act, config, pattern, play};
use crate::support::engine::{Engine, ploop, raw};
use crate::support::qemu;
use ploop_snapshotter::chain::Delta;
use ploop_snapshotter::units::ClusterSize;

fn judge(engine: &Engine, deltas: &[Delta], base_is_raw: bool) {
    for delta in &deltas[usize::from(base_is_raw)..] {
        qemu::check(&delta.path);
    }
    let paths: Vec<_> = deltas.iter().map(|delta| delta.path.clone()).collect();
    let ours = engine.open_view(deltas).read_all();
    assert!(
        qemu::read_chain(&paths, base_is_raw) == ours,
        "QEMU reads something else"
    );
}

proptest! {
    #![proptest_config(config(12))]

    #[test]
    fn qemu_agrees_whatever_happened(acts in prop::collection::vec(act(), 20..60)) {
        let engine = Engine::new();
        let size = usize::try_from(SIZE).unwrap();
        let deltas = play(&engine, Vec::new(), vec![0; size], &acts);
        judge(&engine, &deltas, false);
    }
}

/// A chain of `depth` ploop deltas; each writes whole clusters, parts, zeroes over its parent's data.
fn chain(engine: &Engine, base: Vec<Delta>, mut model: Vec<u8>, depth: u64) -> Vec<Delta> {
    let cluster = ClusterSize::new(CLUSTER).unwrap();
    let mut deltas = base;
    for level in 0..depth {
        deltas.push(engine.create(&format!("{level}.hds"), SIZE, cluster));
        let disk = engine.open(&deltas);
        let mut put = |at: u64, len: u64| {
            let data = pattern(at, len, u8::try_from(level + 1).unwrap());
            disk.try_write(at, &data, false).unwrap();
            let start = usize::try_from(at).unwrap();
            model[start..start + data.len()].copy_from_slice(&data);
        };
        put(level * 7 % 36 * CLUSTER, 3 * CLUSTER);
        put(level * 11 % 39 * CLUSTER + 512, 1024);
        put(level * 13 % 38 * CLUSTER + CLUSTER - 512, CLUSTER);
        let zeroed = level * 5 % 39 * CLUSTER + 4096;
        disk.write_zeroes(zeroed, CLUSTER);
        let start = usize::try_from(zeroed).unwrap();
        model[start..start + usize::try_from(CLUSTER).unwrap()].fill(0);
        let seal = disk.seal();
        let top = deltas.last_mut().unwrap();
        *top = ploop(&top.path, Some(seal));
    }
    assert!(
        engine.open_view(&deltas).read_all() == model,
        "we read something else"
    );
    deltas
}

#[test]
fn qemu_reads_chains_of_1_3_and_40_levels_as_we_do() {
    for depth in [1, 3, 40] {
        let engine = Engine::new();
        let size = usize::try_from(SIZE).unwrap();
        let deltas = chain(&engine, Vec::new(), vec![0; size], depth);
        judge(&engine, &deltas, false);
    }
}

#[test]
fn qemu_reads_chains_over_a_raw_base_as_we_do() {
    for depth in [1, 3, 40] {
        let engine = Engine::new();
        let path = engine.path("base.raw");
        let model = pattern(0, SIZE, 0x77);
        std::fs::write(&path, &model).unwrap();
        let deltas = chain(&engine, vec![raw(&path)], model, depth);
        judge(&engine, &deltas, true);
    }
}
