//! What is shown for what.

use super::{age, container, draw, host, percent, shown};
use crate::proto::v1::{Container, Snapshot, SnapshotKind, SurveyReply};

fn seen(key: &str, parent: &str, kind: SnapshotKind) -> Snapshot {
    Snapshot {
        snapshotter: "ploop".to_owned(),
        key: key.to_owned(),
        parent: parent.to_owned(),
        kind: kind.into(),
        size: 1 << 30,
        own: 1 << 20,
        ..Snapshot::default()
    }
}

#[test]
fn digests_are_cut_and_nothing_moves_the_cursor() {
    let digest = "0123456789abcdef".repeat(4);
    let key = format!("k8s.io/7/sha256:{digest}");
    assert_eq!(shown(&key, false), "k8s.io/7/sha256:0123456789ab");
    assert_eq!(shown(&key, true), key);
    assert_eq!(shown("cafe\u{1b}[2J\nø", false), "cafe\\u{1b}[2J\\nø");
}

#[test]
fn a_container_is_called_as_its_owner_calls_it() {
    let mut one = seen("k8s.io/7/abc", "", SnapshotKind::Active);
    assert_eq!(container(&one, false), "abc");
    one.container = Some(Container {
        namespace: "prod".to_owned(),
        pod: "web-1".to_owned(),
        name: "nginx".to_owned(),
    });
    assert_eq!(container(&one, false), "prod/web-1/nginx");
    let odd = seen("by hand", "", SnapshotKind::Active);
    assert_eq!(container(&odd, false), "by hand");
    let layer = seen("k8s.io/7/abc", "", SnapshotKind::Committed);
    assert_eq!(container(&layer, false), "-");
}

#[test]
fn figures_are_rounded_as_df_does() {
    for (part, all, text) in [
        (0, 10, "0%"),
        (1, 1000, "1%"),
        (999, 1000, "100%"),
        (10, 10, "100%"),
        (1, 0, "-"),
        (u64::MAX, u64::MAX, "100%"),
    ] {
        assert_eq!(percent(part, all), text);
    }
    for (seconds, text) in [
        (-5, "0s"),
        (119, "119s"),
        (120, "2m"),
        (7200, "2h"),
        (172_800, "2d"),
    ] {
        assert_eq!(age(seconds), text);
    }
}

#[test]
fn a_tree_branches_only_where_there_is_a_choice() {
    use SnapshotKind::{Active, Committed, View};
    let all = [
        seen("base", "", Committed),
        seen("layer", "base", Committed),
        seen("a", "layer", Active),
        seen("b", "layer", View),
        seen("alone", "", Active),
    ];
    let expected = [
        "ploop",
        "├─ base: 1.00 MiB",
        "│  layer: 1.00 MiB",
        "│  ├─ a: container of 1.00 GiB, 1.00 MiB its own",
        "│  └─ b: view",
        "└─ alone: container of 1.00 GiB, 1.00 MiB its own",
    ];
    assert_eq!(draw(&all, false), expected);
    assert_eq!(draw(&[], false), [""; 0]);
    // A hundred thousand layers are no reason to overflow a stack, nor to write off the screen.
    let mut long = vec![seen("0", "", Committed)];
    long.extend(
        (1..100_000).map(|at: u32| seen(&at.to_string(), &(at - 1).to_string(), Committed)),
    );
    assert!(draw(&long, false).iter().all(|line| line.len() < 40));
}

#[test]
fn more_promised_than_there_is_is_said() {
    let mut survey = SurveyReply {
        root: "/r".to_owned(),
        host_size: 10 << 30,
        host_free: 5 << 30,
        reserve: 0,
        snapshots: Vec::new(),
    };
    let mut layer = seen("l", "", SnapshotKind::Committed);
    layer.own = 100 << 30;
    survey.snapshots.push(layer);
    let mut container = seen("a", "l", SnapshotKind::Active);
    // What it holds already it needs no second time; what a layer holds is no room for it.
    for (size, own, words) in [
        (4, 0, "and the host has it"),
        (6, 0, "more than the host has left"),
        (6, 2, "and the host has it"),
    ] {
        (container.size, container.own) = (size << 30, own << 30);
        assert!(host(&survey, &[&container]).join("\n").contains(words));
    }
    survey.reserve = 6 << 30;
    assert!(host(&survey, &[]).join("\n").contains("none is made now"));
}
