//! What is ours beyond containerd's store: stages, reservations, numbers, durability, versions.

use super::super::fixture::{Fixture, SEAL, USAGE, at, reopen};
use super::super::{Error, Id, Kind, Labels, Stage, Store};

#[test]
fn keys_are_opaque_and_spaces_apart() {
    let fixture = Fixture::new();
    let keys = [
        "a b",
        "a/b",
        "/a",
        "\u{e4}\u{1f4a9}",
        "a\0b",
        &"k".repeat(4096),
        " ",
    ];
    for key in keys {
        fixture.make(Kind::Active, key, "").unwrap();
    }
    assert_eq!(fixture.keys().len(), keys.len());
    for key in keys {
        assert_eq!(fixture.find(key).unwrap().key, key);
        assert!(fixture.store.find("ploop2", key).is_err());
        assert!(fixture.store.remove("", key).is_err());
    }
}

/// Nobody may hear of a snapshot that is not whole, but its key and its parent are held.
#[test]
fn a_snapshot_that_is_being_prepared_is_nobody_yet() {
    let fixture = Fixture::new();
    fixture.make(Kind::Active, "a", "").unwrap();
    fixture.commit("A", "a").unwrap();
    let id = fixture.reserve(Kind::Active, "b", "A").unwrap().id;
    assert!(matches!(fixture.find("b"), Err(Error::NotFound { .. })));
    assert!(matches!(fixture.remove("b"), Err(Error::NotFound { .. })));
    assert!(matches!(
        fixture.commit("B", "b"),
        Err(Error::NotFound { .. })
    ));
    assert!(matches!(
        fixture.make(Kind::View, "x", "b"),
        Err(Error::ParentNotFound { .. })
    ));
    assert_eq!(fixture.keys(), ["A"]);
    assert!(matches!(
        fixture.make(Kind::View, "b", ""),
        Err(Error::Exists { .. })
    ));
    assert!(matches!(
        fixture.remove("A"),
        Err(Error::HasChildren { .. })
    ));
    fixture.store.abandon(id).unwrap();
    assert!(matches!(
        fixture.store.ready(id),
        Err(Error::WrongStage { .. })
    ));
    fixture.make(Kind::View, "b", "").unwrap();
    fixture.remove("A").unwrap();
}

#[test]
fn a_name_is_held_while_its_snapshot_is_sealed() {
    let fixture = Fixture::new();
    for key in ["x", "y"] {
        fixture.make(Kind::Active, key, "").unwrap();
    }
    let id = fixture.store.committing("ploop", "x", "N").unwrap().id;
    assert!(matches!(fixture.find("N"), Err(Error::NotFound { .. })));
    assert_eq!(fixture.find("x").unwrap().kind, Kind::Active);
    assert!(matches!(
        fixture.commit("N", "y"),
        Err(Error::Exists { .. })
    ));
    assert!(matches!(
        fixture.make(Kind::Active, "N", ""),
        Err(Error::Exists { .. })
    ));
    assert!(matches!(
        fixture.make(Kind::Active, "z", "N"),
        Err(Error::ParentNotFound { .. })
    ));
    for _ in 0..2 {
        assert_eq!(fixture.store.roll_back(id).unwrap().stage, Stage::Ready);
    }
    fixture.commit("N", "y").unwrap();
    // A commit whose way back failed is begun again under another name; the first one is free then.
    fixture.store.committing("ploop", "x", "first").unwrap();
    fixture.store.committing("ploop", "x", "second").unwrap();
    fixture.make(Kind::Active, "first", "").unwrap();
    assert!(matches!(
        fixture.make(Kind::Active, "second", ""),
        Err(Error::Exists { .. })
    ));
    // Or the snapshot is removed, and so is what it held.
    fixture.remove("x").unwrap();
    fixture.make(Kind::Active, "second", "").unwrap();
}

#[test]
fn a_step_out_of_turn_is_refused() {
    let fixture = Fixture::populated();
    let id = |key: &str| fixture.find(key).unwrap().id;
    let wrong = |done: Result<(), Error>| matches!(done, Err(Error::WrongStage { .. }));
    assert!(wrong(fixture.store.ready(id("active-1")).map(drop)));
    assert!(wrong(fixture.store.abandon(id("active-1")).map(drop)));
    assert!(wrong(fixture.store.forget(id("active-1"))));
    assert!(wrong(fixture.store.roll_back(id("committed-1")).map(drop)));
    let now = at(2);
    let committed =
        fixture
            .store
            .committed(id("active-1"), SEAL, 1 << 30, USAGE, Labels::new(), now);
    // That it was being committed is not known any more.
    assert!(matches!(committed, Err(Error::Lost { .. })));
    assert!(matches!(
        fixture.store.ready(Id(999)),
        Err(Error::Lost { .. })
    ));
    fixture.store.forget(Id(999)).unwrap();
}

/// The host was full: one Prepare failed, and then somebody's durable step, so that the store was opened again. What was
/// reserved for the first was back, nobody's: its parent could not be removed, and it could not either.
#[test]
fn what_was_given_up_does_not_come_back() {
    let fixture = Fixture::populated();
    let id = fixture
        .reserve(Kind::Active, "d", "committed-2")
        .unwrap()
        .id;
    fixture.store.flush();
    fixture.store.abandon(id).unwrap();
    fixture.store.forget_for_good(id).unwrap();
    let fixture = fixture.killed();
    assert_eq!(fixture.store.record(id).unwrap(), None);
    for key in ["active-3", "view-2", "committed-2"] {
        fixture.remove(key).unwrap();
    }
}

/// Nobody commits who has not the key's turn, and who resizes has it.
#[test]
fn a_commit_that_could_not_be_undone_hinders_no_resize() {
    let fixture = Fixture::populated();
    let record = fixture.store.committing("ploop", "active-1", "N").unwrap();
    let resized = fixture.store.resized(record.id, 2 << 30).unwrap();
    assert_eq!((resized.stage, resized.size), (Stage::Ready, 2 << 30));
    fixture.make(Kind::Active, "N", "").unwrap();
}

#[test]
fn views_are_counted_by_what_they_look_at() {
    let fixture = Fixture::populated();
    let id = |key: &str| fixture.find(key).unwrap().id;
    let (one, two) = (id("committed-1"), id("committed-2"));
    assert!(!fixture.store.viewed(one).unwrap());
    assert!(fixture.store.viewed(two).unwrap());
    assert!(fixture.store.golden_viewed("g").unwrap());
    assert!(!fixture.store.golden_viewed("other").unwrap());
    fixture.remove("view-2").unwrap();
    fixture.remove("view-1").unwrap();
    assert!(!fixture.store.viewed(two).unwrap());
    assert!(!fixture.store.golden_viewed("g").unwrap());
    let id = fixture
        .reserve(Kind::View, "coming", "committed-1")
        .unwrap()
        .id;
    assert!(fixture.store.viewed(one).unwrap());
    fixture.store.abandon(id).unwrap();
    assert!(!fixture.store.viewed(one).unwrap());
}

#[test]
fn what_was_answered_for_survives_the_process_and_intents_need_not() {
    let fixture = Fixture::populated();
    let update = |fixture: &Fixture, value: &str| {
        let change = |labels: &mut Labels| drop(labels.insert("l".into(), value.into()));
        fixture
            .store
            .update("ploop", "active-1", at(9), change)
            .unwrap()
    };
    update(&fixture, "durable");
    fixture.commit("committed-3", "active-3").unwrap();
    let gone = fixture.remove("view-1").unwrap().id;
    let keys = fixture.keys();
    // Intents, with nothing durable after them.
    let lost = fixture
        .reserve(Kind::Active, "intent", "committed-2")
        .unwrap()
        .id;
    fixture.store.committing("ploop", "active-2", "N").unwrap();

    let fixture = fixture.killed();
    assert_eq!(fixture.keys(), keys);
    assert_eq!(fixture.find("active-1").unwrap().labels["l"], "durable");
    assert_eq!(fixture.find("active-2").unwrap().stage, Stage::Ready);
    assert_eq!(
        fixture.store.record(gone).unwrap().unwrap().stage,
        Stage::Removing
    );
    assert_eq!(fixture.store.record(lost).unwrap(), None);
    // Its number is not given again: a file or a disk may have it.
    let next = fixture
        .reserve(Kind::Active, "intent", "committed-2")
        .unwrap()
        .id;
    assert!(next > lost, "{next} after {lost}");

    // And an intent that a durable step took along is there to be undone.
    update(&fixture, "later");
    let fixture = fixture.killed();
    assert_eq!(
        fixture.store.record(next).unwrap().unwrap().stage,
        Stage::Preparing
    );
}

#[test]
fn numbers_grow_for_ever() {
    let mut fixture = Fixture::new();
    let mut last = Id(0);
    for round in 0..3 {
        for number in 0..1500 {
            let id = fixture
                .reserve(Kind::Active, &format!("{round}-{number}"), "")
                .unwrap()
                .id;
            assert!(id > last);
            last = id;
            fixture.store.forget(id).unwrap();
        }
        fixture = fixture.killed();
    }
}

#[test]
fn a_store_of_another_layout_is_refused_with_advice() {
    let fixture = Fixture::populated();
    let path = fixture.path();
    let database = fixture.store.database().unwrap();
    let txn = database.begin_write().unwrap();
    let meta: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("meta");
    txn.open_table(meta).unwrap().insert("layout", 9).unwrap();
    txn.commit().unwrap();
    drop((database, fixture.store));
    let error = reopen(&path).unwrap_err();
    let text = error.to_string();
    assert!(
        matches!(
            error,
            Error::StoreVersion {
                found: 9,
                known: 1,
                ..
            }
        ),
        "{text}"
    );
    assert!(
        text.contains("store.redb") && text.contains("layout 9"),
        "{text}"
    );
}

#[test]
fn what_is_no_store_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let garbage = vec![0x5a; 64 << 10];
    std::fs::write(&path, &garbage).unwrap();
    let error = Store::open(&path).unwrap_err();
    assert!(matches!(error, Error::Open { .. }), "{error}");
    assert!(error.to_string().contains("store.redb"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), garbage);
}

/// A file that is neither empty nor a store would be refused for ever.
#[test]
fn a_first_start_that_was_cut_short_is_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let unfinished = dir.path().join("store.redb.tmp");
    std::fs::write(&unfinished, vec![0; 64 << 10]).unwrap();
    for empty in [false, true] {
        if empty {
            std::fs::write(&path, "").unwrap();
        }
        let store = Store::open(&path).unwrap();
        assert!(!unfinished.exists() && path.metadata().unwrap().len() > 0);
        assert!(
            matches!(Store::open(&path), Err(Error::Open { .. })),
            "locked"
        );
        drop(store);
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn one_store_is_open_once() {
    let fixture = Fixture::new();
    assert!(matches!(
        Store::open(&fixture.path()),
        Err(Error::Open { .. })
    ));
}
