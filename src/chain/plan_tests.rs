use super::{Run, Source, Step, View};
use crate::chain::map::{Level, Map, TopMap};
use crate::units::{ByteRange, Cluster, ClusterSize, Place};

const K: u64 = 64 << 10;

fn range(start: u64, len: u64) -> ByteRange {
    ByteRange::new(start, len)
}

/// Clusters 0 and 1 side by side in level 0, 2 in level 1, 3 and 4 in the top (not side by side), 5
/// and later nowhere.
fn maps() -> (Map, TopMap) {
    let base = Map::default()
        .with(
            Level(0),
            &[
                (Cluster(0), Place(4)),
                (Cluster(1), Place(5)),
                (Cluster(2), Place(6)),
            ],
        )
        .with(Level(1), &[(Cluster(2), Place(1))]);
    let top = TopMap::new(&[(Cluster(3), Place(9)), (Cluster(4), Place(8))]);
    (base, top)
}

#[test]
fn a_read_becomes_as_few_runs_as_its_bytes_lie_apart() {
    let (base, top) = maps();
    let view = View {
        size: ClusterSize::DEFAULT,
        top: Some(&top),
        base: &base,
    };
    let mut rest = range(512, 8 * K - 512);
    let mut runs = Vec::new();
    while rest.len > 0 {
        let run = view.run(rest);
        rest = range(run.range.end(), rest.end() - run.range.end());
        runs.push(run);
    }
    let expected = [
        (
            range(512, 2 * K - 512),
            Source::Below(Level(0), 4 * K + 512),
        ),
        (range(2 * K, K), Source::Below(Level(1), K)),
        (range(3 * K, K), Source::Top(9 * K)),
        (range(4 * K, K), Source::Top(8 * K)),
        (range(5 * K, 3 * K), Source::Nowhere),
    ];
    assert_eq!(runs, expected.map(|(range, source)| Run { range, source }));
}

#[test]
fn a_write_becomes_the_cheapest_steps_that_lose_nothing() {
    let (base, top) = maps();
    let view = View {
        size: ClusterSize::DEFAULT,
        top: Some(&top),
        base: &base,
    };
    let nobody = |_| false;
    for (write, step) in [
        (range(512, 512), Step::CopyUp(range(512, 512))),
        (range(0, 2 * K), Step::Fresh(range(0, 2 * K))),
        (range(0, K + 512), Step::Fresh(range(0, K))),
        (range(K, 4 * K), Step::Fresh(range(K, 2 * K))),
        (
            range(3 * K + 512, 2 * K),
            Step::InPlace(range(3 * K + 512, K - 512), 9 * K + 512),
        ),
        (
            range(5 * K + 512, 2 * K),
            Step::Fresh(range(5 * K + 512, 2 * K)),
        ),
    ] {
        assert_eq!(view.step(write, nobody), step, "{write:?}");
    }
}

#[test]
fn a_cluster_that_is_being_placed_is_waited_for() {
    let (base, top) = maps();
    let view = View {
        size: ClusterSize::DEFAULT,
        top: Some(&top),
        base: &base,
    };
    let busy = |cluster| cluster == Cluster(1) || cluster == Cluster(6);
    assert_eq!(view.step(range(K, K), busy), Step::Wait(Cluster(1)));
    assert_eq!(view.step(range(0, 2 * K), busy), Step::Fresh(range(0, K)));
    assert_eq!(
        view.step(range(5 * K, 3 * K), busy),
        Step::Fresh(range(5 * K, K))
    );
    // What the top owns already is never waited for.
    let owned = |cluster| cluster == Cluster(3);
    assert_eq!(
        view.step(range(3 * K, K), owned),
        Step::InPlace(range(3 * K, K), 9 * K)
    );
}
