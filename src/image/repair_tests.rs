//! Repair loses nothing, and a chain is more than its deltas.

use super::tests::{SECTORS, SIZE, image, put, with};
use super::{Level, chain, repair};
use crate::image::{Defect, Severity};
use crate::io::{Memory, now};
use crate::units::ClusterSize;

/// Each kind of corruption is left alone to the last byte; the rest is mended and then clean.
#[test]
fn repair_loses_nothing() {
    let sound = image(&[(0, 1), (5, 2)], 3);
    let leak = [sound.clone(), vec![7; SIZE + 512]].concat();
    let mut crashed = leak.clone();
    put(&mut crashed, 44, 0x746F_6E59);
    for bytes in [leak, crashed] {
        let file = Memory::new(bytes);
        let found = now(repair(&file)).unwrap();
        assert!(!found.defects.is_empty());
        assert_eq!(file.to_vec(), sound);
        // Repeating it finds nothing and does nothing.
        assert_eq!(now(repair(&file)).unwrap().defects, []);
    }
    let mut empty = image(&[], 3);
    put(&mut empty, 44, 0x746F_6E59);
    put(&mut empty, 52, 0);
    let file = Memory::new(empty);
    now(repair(&file)).unwrap();
    assert_eq!(file.to_vec(), image(&[], 1));

    let mut both = with(64 + 4 * 9, 1);
    put(&mut both, 44, 0x746F_6E59);
    both.resize(5 * SIZE, 7);
    let mut extension = image(&[(0, 1), (5, 2)], 5);
    put(&mut extension, 44, 0x312E_3276);
    put(&mut extension, 56, 3 * SECTORS);
    for (bytes, mended) in [
        (both, false),
        (with(44, 1), false),
        (with(52, 2), false),
        (extension, true),
    ] {
        let file = Memory::new(bytes.clone());
        assert_eq!(now(repair(&file)).is_ok(), mended);
        assert_eq!(file.to_vec(), bytes);
    }
}

#[test]
fn what_is_merely_odd_is_not_mended() {
    for bytes in [with(52, 1), with(56, 256), image(&[(0, 1), (5, 3)], 4)] {
        let file = Memory::new(bytes.clone());
        let report = now(repair(&file)).unwrap();
        assert_eq!(report.worst(), Some(Severity::Note));
        assert_eq!(file.to_vec(), bytes);
    }
}

#[test]
fn a_chain_has_one_cluster_size() {
    let level = |cluster: u64, in_use| Level {
        cluster: (cluster > 0).then(|| ClusterSize::new(cluster).unwrap()),
        in_use,
    };
    let good = [level(0, false), level(65_536, false), level(65_536, true)];
    assert_eq!(chain(&good), []);
    assert_eq!(chain(&[]), []);
    let bad = [
        level(65_536, true),
        level(65_536, false),
        level(1 << 20, false),
    ];
    assert_eq!(
        chain(&bad),
        [
            (0, Defect::LowerInUse),
            (
                2,
                Defect::OtherCluster {
                    found: ClusterSize::new(1 << 20).unwrap(),
                    chain: ClusterSize::DEFAULT,
                }
            ),
        ]
    );
}
