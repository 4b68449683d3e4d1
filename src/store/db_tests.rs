//! containerd's own suite for a metadata store (`core/snapshots/storage`), case by case.

use std::time::SystemTime;

use super::super::fixture::{Fixture, SEAL, USAGE, at};
use super::{Error, Kind, Labels, Stage};

#[test]
fn get_info() {
    let fixture = Fixture::populated();
    for (key, kind, parent) in [
        ("committed-1", Kind::Committed, ""),
        ("committed-2", Kind::Committed, "committed-1"),
        ("active-1", Kind::Active, ""),
        ("active-2", Kind::Active, "committed-1"),
        ("active-3", Kind::Active, "committed-2"),
        ("view-1", Kind::View, ""),
        ("view-2", Kind::View, "committed-2"),
    ] {
        let record = fixture.find(key).unwrap();
        assert_eq!(record.kind, kind, "{key}");
        let found = record.parent.map(|parent| parent.name);
        assert_eq!(found.unwrap_or_default(), parent, "{key}");
        assert_eq!(record.golden.is_some(), parent.is_empty(), "{key}");
    }
}

#[test]
fn get_info_not_exist_and_empty_store() {
    for fixture in [Fixture::populated(), Fixture::new()] {
        for key in ["active-not-exist", "", "in the works"] {
            assert!(matches!(fixture.find(key), Err(Error::NotFound { .. })));
        }
    }
}

#[test]
fn walk() {
    let all = [
        "active-1",
        "active-2",
        "active-3",
        "committed-1",
        "committed-2",
        "view-1",
        "view-2",
    ];
    let fixture = Fixture::populated();
    assert_eq!(fixture.keys(), all);
    assert!(fixture.store.list("other").unwrap().is_empty());
    assert!(Fixture::new().keys().is_empty());
}

#[test]
fn create_active_and_view() {
    let fixture = Fixture::new();
    let made = fixture.make(Kind::Active, "active-1", "").unwrap();
    assert_eq!(
        (made.stage.clone(), made.parent.clone()),
        (Stage::Ready, None)
    );
    assert_eq!((made.size, made.cluster), (1 << 30, 65536));
    assert_eq!(made.created, made.updated);
    assert_eq!(SystemTime::from(made.created), at(0));
    fixture.make(Kind::View, "view-1", "").unwrap();
    assert_eq!(fixture.find("active-1").unwrap(), made);
}

#[test]
fn create_not_exist_exist_and_not_from_committed() {
    let fixture = Fixture::populated();
    let count = fixture.store.all().unwrap().len();
    for kind in [Kind::Active, Kind::View] {
        let parent = fixture.make(kind, "new", "does-not-exist");
        assert!(matches!(parent, Err(Error::ParentNotFound { .. })));
        for taken in ["active-1", "view-1", "committed-1"] {
            let exists = fixture.make(kind, taken, "committed-1");
            assert!(matches!(exists, Err(Error::Exists { .. })), "{taken}");
        }
        for parent in ["active-1", "view-1"] {
            let wrong = fixture.make(kind, "new", parent);
            assert!(
                matches!(wrong, Err(Error::ParentNotCommitted { .. })),
                "{parent}"
            );
        }
    }
    assert_eq!(
        fixture.store.all().unwrap().len(),
        count,
        "a refusal leaves nothing"
    );
}

#[test]
fn commit() {
    let fixture = Fixture::populated();
    fixture.commit("committed-3", "active-3").unwrap();
    assert!(matches!(
        fixture.find("active-3"),
        Err(Error::NotFound { .. })
    ));
    let record = fixture.find("committed-3").unwrap();
    assert_eq!(record.kind, Kind::Committed);
    assert_eq!(record.parent.unwrap().name, "committed-2");
    assert_eq!((record.seal, record.usage), (Some(SEAL), Some(USAGE)));
    assert_eq!(record.labels, Labels::new());
    assert_eq!(SystemTime::from(record.created), at(1));
    assert_eq!(record.created, record.updated);
    fixture.make(Kind::Active, "on top", "committed-3").unwrap();
}

#[test]
fn commit_not_exist_exist_committed_and_view_fail() {
    let fixture = Fixture::populated();
    assert!(matches!(
        fixture.commit("new", "nobody"),
        Err(Error::NotFound { .. })
    ));
    for taken in ["committed-1", "active-2", "view-1", "active-1"] {
        let exists = fixture.commit(taken, "active-1");
        assert!(matches!(exists, Err(Error::Exists { .. })), "{taken}");
    }
    for wrong in ["committed-1", "view-1"] {
        assert!(matches!(
            fixture.commit("new", wrong),
            Err(Error::NotActive { .. })
        ));
    }
    assert_eq!(fixture.find("active-1").unwrap().stage, Stage::Ready);
}

#[test]
fn remove() {
    let fixture = Fixture::populated();
    for key in [
        "active-1",
        "active-2",
        "active-3",
        "view-1",
        "view-2",
        "committed-2",
        "committed-1",
    ] {
        let record = fixture.remove(key).unwrap();
        assert!(matches!(fixture.find(key), Err(Error::NotFound { .. })));
        fixture.store.forget(record.id).unwrap();
    }
    assert!(fixture.store.all().unwrap().is_empty());
}

#[test]
fn remove_not_exist_and_with_children() {
    let fixture = Fixture::populated();
    assert!(matches!(
        fixture.remove("nobody"),
        Err(Error::NotFound { .. })
    ));
    for parent in ["committed-1", "committed-2"] {
        let error = fixture.remove(parent).unwrap_err();
        assert!(matches!(error, Error::HasChildren { .. }));
        assert!(
            error
                .to_string()
                .contains("cannot remove snapshot with child")
        );
    }
}

#[test]
fn parent_ids() {
    let fixture = Fixture::populated();
    let ids = |key: &str| {
        let id = fixture.find(key).unwrap().id;
        let chain = fixture.store.chain(id).unwrap();
        chain.into_iter().map(|r| r.key).collect::<Vec<_>>()
    };
    assert_eq!(ids("active-3"), ["committed-1", "committed-2", "active-3"]);
    assert_eq!(ids("view-2"), ["committed-1", "committed-2", "view-2"]);
    assert_eq!(ids("active-1"), ["active-1"]);
}
