//! What each act answers and leaves behind, over real files and a disk server without devices.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::SystemTime;

use super::super::double::{Double, fast_dir};
use super::super::fixture::{House, kind, labels, open, options};
use super::super::steps::Steps;
use super::super::{ErrorKind, Kind, Labels, Mount};

#[tokio::test]
async fn a_snapshot_lives_from_prepare_to_remove() {
    let house = House::new().await;
    let ploop = &house.ploop;
    let before = SystemTime::now();
    let mounts = ploop
        .prepare("k 1/x", "", labels(&[("l", "1"), ("empty", "")]))
        .await
        .unwrap();
    let device = house.dir.path().join("devices/s1");
    let expected = Mount {
        kind: "ext4".into(),
        source: device.to_str().unwrap().into(),
        options: ["rw", "noatime", "noinit_itable", "discard"]
            .map(str::to_owned)
            .to_vec(),
    };
    assert_eq!(mounts, [expected]);
    assert_eq!(ploop.mounts("k 1/x").await.unwrap(), mounts);
    let info = ploop.stat("k 1/x").await.unwrap();
    assert_eq!((info.kind, info.parent.as_str()), (Kind::Active, ""));
    assert_eq!(info.created, info.updated);
    assert!(info.created >= before && info.created <= SystemTime::now());
    assert_eq!(info.labels, labels(&[("l", "1")]), "an empty label is none");
    assert_eq!(ploop.usage("k 1/x").await.unwrap().inodes, 1);

    ploop
        .commit("name", "k 1/x", labels(&[("m", "2")]))
        .await
        .unwrap();
    assert_eq!(kind(ploop.stat("k 1/x").await), ErrorKind::NotFound);
    let committed = ploop.stat("name").await.unwrap();
    assert_eq!(committed.kind, Kind::Committed);
    assert_eq!(
        committed.labels,
        labels(&[("m", "2")]),
        "replaced, not inherited"
    );
    assert!(committed.created > info.created);
    assert_eq!(committed.created, committed.updated);
    assert_eq!(
        house.disks.served(),
        [""; 0],
        "nobody serves a sealed delta by itself"
    );
    assert_eq!(house.delta(1).metadata().unwrap().mode() & 0o777, 0o444);

    ploop.remove("name").await.unwrap();
    assert_eq!(kind(ploop.stat("name").await), ErrorKind::NotFound);
    ploop.cleanup().await.unwrap();
    assert_eq!(house.deltas(), [""; 0]);
}

#[tokio::test]
async fn errors_are_those_of_containerds_own_store() {
    let house = House::new().await;
    let ploop = &house.ploop;
    house.two_layers().await;
    house.prepare("c", "B").await;
    ploop.view("v", "B", Labels::new()).await.unwrap();
    let none = Labels::new;

    for missing in ["nobody", "a", "b"] {
        assert_eq!(kind(ploop.stat(missing).await), ErrorKind::NotFound);
        assert_eq!(kind(ploop.mounts(missing).await), ErrorKind::NotFound);
        assert_eq!(kind(ploop.usage(missing).await), ErrorKind::NotFound);
        assert_eq!(kind(ploop.remove(missing).await), ErrorKind::NotFound);
        assert_eq!(
            kind(ploop.update(missing, none(), None).await),
            ErrorKind::NotFound
        );
        assert_eq!(
            kind(ploop.commit("new", missing, none()).await),
            ErrorKind::NotFound
        );
        assert_eq!(
            kind(ploop.prepare("new", missing, none()).await),
            ErrorKind::NotFound
        );
        assert_eq!(
            kind(ploop.view("new", missing, none()).await),
            ErrorKind::NotFound
        );
    }
    for not_committed in ["c", "v"] {
        let made = ploop.prepare("new", not_committed, none()).await;
        assert_eq!(kind(made), ErrorKind::InvalidArgument);
    }
    for taken in ["A", "c", "v"] {
        assert_eq!(
            kind(ploop.prepare(taken, "B", none()).await),
            ErrorKind::AlreadyExists
        );
        assert_eq!(
            kind(ploop.view(taken, "", none()).await),
            ErrorKind::AlreadyExists
        );
        assert_eq!(
            kind(ploop.commit(taken, "c", none()).await),
            ErrorKind::AlreadyExists
        );
    }
    for not_active in ["A", "v"] {
        let done = ploop.commit("new", not_active, none()).await;
        assert_eq!(kind(done), ErrorKind::FailedPrecondition);
    }
    assert_eq!(kind(ploop.mounts("A").await), ErrorKind::FailedPrecondition);
    for parent in ["A", "B"] {
        let error = ploop.remove(parent).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
        assert!(
            error
                .to_string()
                .contains("cannot remove snapshot with child"),
            "{error}"
        );
    }
    assert_eq!(kind(ploop.stat("").await), ErrorKind::InvalidArgument);
    let long = "k".repeat(4097);
    assert_eq!(
        kind(ploop.prepare(&long, "", none()).await),
        ErrorKind::InvalidArgument
    );
    let label = labels(&[("k", &long)]);
    assert_eq!(
        kind(ploop.prepare("new", "", label.clone()).await),
        ErrorKind::InvalidArgument
    );
    assert_eq!(
        kind(ploop.commit("new", "c", label.clone()).await),
        ErrorKind::InvalidArgument
    );
    assert_eq!(
        kind(ploop.update("c", label, None).await),
        ErrorKind::InvalidArgument
    );
    // None of this left anything.
    assert_eq!(house.deltas(), ["1.hds", "2.hds", "3.hds"]);
    assert_eq!(ploop.list().await.unwrap().len(), 4);
}

#[tokio::test]
async fn names_have_records_of_their_own() {
    let house = House::new().await;
    let other = house.all.named("other").unwrap();
    house.prepare("k", "").await;
    assert_eq!(kind(other.stat("k").await), ErrorKind::NotFound);
    other.prepare("k", "", Labels::new()).await.unwrap();
    house.commit("n", "k").await;
    assert_eq!(
        kind(other.prepare("x", "n", Labels::new()).await),
        ErrorKind::NotFound
    );
    assert_eq!(other.list().await.unwrap().len(), 1);
    assert!(house.all.named("nobody").is_none());
}

#[tokio::test]
async fn many_prepare_one_key_and_one_of_them_has_it() {
    let house = House::new().await;
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let ploop = Arc::clone(&house.ploop);
            tokio::spawn(async move { ploop.prepare("k", "", Labels::new()).await })
        })
        .collect();
    let mut made = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => made += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyExists),
        }
    }
    assert_eq!(made, 1);
    assert_eq!(house.deltas(), ["1.hds"]);
}

#[tokio::test]
async fn two_commits_to_one_name_have_one_winner() {
    let house = House::new().await;
    let tasks: Vec<_> = ["x", "y", "z"]
        .map(|key| {
            let ploop = Arc::clone(&house.ploop);
            tokio::spawn(async move {
                ploop.prepare(key, "", Labels::new()).await.unwrap();
                ploop.commit("n", key, Labels::new()).await
            })
        })
        .into();
    let mut won = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(()) => won += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyExists),
        }
    }
    assert_eq!(won, 1);
    let infos = house.ploop.list().await.unwrap();
    let active = infos.iter().filter(|info| info.kind == Kind::Active);
    assert_eq!(active.count(), 2, "the losers are as they were");
}

#[tokio::test]
async fn views_of_one_chain_share_one_disk() {
    let house = House::new().await;
    let ploop = &house.ploop;
    house.two_layers().await;
    let first = ploop.view("v1", "B", Labels::new()).await.unwrap();
    let second = ploop.view("v2", "B", Labels::new()).await.unwrap();
    assert_eq!(first, second);
    assert_eq!(first[0].options, ["ro", "noload"]);
    let empty = ploop.view("v3", "", Labels::new()).await.unwrap();
    assert_eq!(empty.len(), 1);
    let golden = house.disks.served()[0].clone();
    assert!(golden.starts_with("g-67108864-"), "{golden}");
    assert_eq!(house.disks.served()[1..], ["v2"]);
    assert_eq!(ploop.usage("v1").await.unwrap().bytes, 0);

    ploop.remove("v1").await.unwrap();
    ploop.cleanup().await.unwrap();
    assert_eq!(
        house.disks.served(),
        [golden.as_str(), "v2"],
        "v2 still looks at it"
    );
    ploop.remove("v2").await.unwrap();
    ploop.cleanup().await.unwrap();
    assert_eq!(house.disks.served(), [golden.as_str()]);
    // An active snapshot over nothing is no view of nothing.
    house.prepare("k", "").await;
    ploop.remove("v3").await.unwrap();
    ploop.cleanup().await.unwrap();
    assert_eq!(house.disks.served(), ["s6"]);
}

#[tokio::test]
async fn mounts_attaches_what_a_restart_of_the_server_dropped() {
    let house = House::new().await;
    let ploop = &house.ploop;
    house.two_layers().await;
    let mounts = house.prepare("c", "B").await;
    let view = ploop.view("v", "B", Labels::new()).await.unwrap();
    house.disks.restart();
    assert_eq!(house.disks.served(), [""; 0]);
    assert_eq!(ploop.mounts("c").await.unwrap(), mounts);
    assert_eq!(ploop.mounts("v").await.unwrap(), view);
    assert_eq!(house.disks.served(), ["s3", "v2"]);
    // And a commit needs no mounts before it.
    house.disks.restart();
    house.commit("C", "c").await;
    ploop.view("w", "C", Labels::new()).await.unwrap();
}

#[tokio::test]
async fn everything_is_there_again_after_a_restart() {
    let house = House::new().await;
    house.two_layers().await;
    house.prepare("c", "B").await;
    house.ploop.view("v", "A", Labels::new()).await.unwrap();
    let mut before = house.ploop.list().await.unwrap();
    let attaches = house.disks.attaches();
    let house = house.reopen().await.unwrap();
    let mut after = house.ploop.list().await.unwrap();
    before.sort_by(|a, b| a.name.cmp(&b.name));
    after.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(before, after);
    assert_eq!(house.disks.served(), ["s3", "v1"], "no container noticed");
    assert_eq!(house.disks.attaches(), attaches);
    house.prepare("d", "B").await;
    assert!(
        house.delta(1029).exists() || house.deltas().len() == 4,
        "{:?}",
        house.deltas()
    );
}

#[tokio::test]
async fn a_stop_can_leave_nothing_behind() {
    let house = House::new().await;
    house.two_layers().await;
    house.prepare("c", "B").await;
    house.ploop.view("v", "B", Labels::new()).await.unwrap();
    house.disks.set_busy("v2", true);
    let all = &house.all;
    assert_eq!(all.detach_idle().await.unwrap(), 1);
    assert_eq!(house.disks.served(), ["v2"]);
    house.disks.set_busy("v2", false);
    assert_eq!(all.detach_idle().await.unwrap(), 0);
    assert_eq!(house.ploop.mounts("c").await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_deep_chain_is_attached_in_order() {
    let house = House::new().await;
    let mut parent = String::new();
    for depth in 0..40 {
        let key = format!("k{depth}");
        house.prepare(&key, &parent).await;
        parent = format!("n{depth}");
        house.commit(&parent, &key).await;
    }
    // The double opens every delta with its seal, in this order.
    house.prepare("top", &parent).await;
    let seen = house.ploop.stat("top").await.unwrap();
    assert_eq!(seen.parent, "n39");
}

#[tokio::test]
async fn the_host_keeps_something_back() {
    let dir = fast_dir();
    let disks = Double::new(&dir.path().join("devices"));
    let mut wanted = options(dir.path().join("root"));
    wanted.reserve = u64::MAX;
    let all = open(wanted, &disks, Steps::default()).await.unwrap();
    let ploop = all.named("ploop").unwrap();
    let error = ploop.prepare("a", "", Labels::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted);
    assert!(
        error.to_string().contains("are kept back (reserve)"),
        "{error}"
    );
    assert_eq!(ploop.list().await.unwrap(), []);
    // Looking costs nothing.
    ploop.view("v", "", Labels::new()).await.unwrap();
}
