//! Each disagreement is found and nothing else; mending leaves what was right; a look changes no byte.

use std::fs;
use std::path::Path;

use redb::Database;

use super::super::fixture::Fixture;
use super::super::tables::{META, Writable};
use super::super::{Error, Flaw, Id, Kind};
use super::Ledger;

/// A populated store that is closed, and where it is.
fn closed() -> (tempfile::TempDir, std::path::PathBuf) {
    let Fixture { dir, store } = Fixture::populated();
    drop(store);
    let path = dir.path().join("store.redb");
    (dir, path)
}

fn change(path: &Path, act: impl FnOnce(&mut Writable<'_>)) {
    let database = loop {
        // A child that another test just started may have the file's lock for a moment.
        match Database::open(path) {
            Err(redb::DatabaseError::DatabaseAlreadyOpen) => std::thread::yield_now(),
            done => break done.unwrap(),
        }
    };
    let txn = database.begin_write().unwrap();
    act(&mut Writable::write(&txn).unwrap());
    txn.commit().unwrap();
}

fn flaws(path: &Path) -> Vec<Flaw> {
    let before = fs::read(path).unwrap();
    let found = Ledger::read(path).unwrap();
    assert!(found.unreadable.is_empty());
    assert!(before == fs::read(path).unwrap(), "a look changes nothing");
    found.flaws
}

#[test]
fn a_healthy_store_has_no_flaw_at_any_stage() {
    let fixture = Fixture::populated();
    fixture.reserve(Kind::Active, "new", "committed-1").unwrap();
    fixture
        .store
        .committing("ploop", "active-1", "committed-3")
        .unwrap();
    fixture.remove("view-2").unwrap();
    fixture.store.flush();
    let records = fixture.store.all().unwrap();
    // As a killed process leaves it: not closed in order.
    let copy = fixture.dir.path().join("copy");
    fs::copy(fixture.path(), &copy).unwrap();
    assert_eq!(flaws(&copy), []);
    assert_eq!(Ledger::read(&copy).unwrap().records, records);
    let Fixture { dir: _dir, store } = fixture;
    drop(store);
    assert_eq!(flaws(&copy), []);
}

#[test]
fn each_disagreement_is_found_and_mended() {
    let (_dir, path) = closed();
    let space = || "ploop".to_owned();
    let records = Ledger::read(&path).unwrap().records;
    let id = |key: &str| records.iter().find(|it| it.key == key).unwrap().id;
    let (base, active, view) = (id("committed-1"), id("active-2"), id("view-1"));
    type Damage<'a> = Box<dyn FnOnce(&mut Writable<'_>) + 'a>;
    let cases: Vec<(Damage<'_>, Flaw)> = vec![
        (
            Box::new(|tables| tables.name("ploop", "ghost", Id(77)).unwrap()),
            Flaw::KeyOfNobody {
                space: space(),
                key: "ghost".into(),
                id: Id(77),
            },
        ),
        (
            Box::new(|tables| tables.name("ploop", "old name", active).unwrap()),
            Flaw::KeyOfAnother {
                space: space(),
                key: "old name".into(),
                id: active,
                answers: "active-2".into(),
            },
        ),
        (
            Box::new(|tables| tables.unname("ploop", "active-2").unwrap()),
            Flaw::NoKey {
                space: space(),
                key: "active-2".into(),
                id: active,
            },
        ),
        (
            Box::new(|tables| drop(tables.children.remove((base.0, active.0)).unwrap())),
            Flaw::NoChild {
                parent: base,
                id: active,
            },
        ),
        (
            Box::new(|tables| drop(tables.children.insert((base.0, view.0), ()).unwrap())),
            Flaw::StrayChild {
                parent: base,
                id: view,
            },
        ),
    ];
    for (damage, flaw) in cases {
        change(&path, damage);
        assert_eq!(flaws(&path), std::slice::from_ref(&flaw));
        assert!(flaw.mendable());
        Ledger::mend(&path).unwrap();
        let after = Ledger::read(&path).unwrap();
        assert_eq!(after.flaws, [], "{flaw}");
        assert_eq!(after.records, records, "{flaw}");
    }
}

#[test]
fn a_number_is_not_given_twice() {
    let (_dir, path) = closed();
    let database = Database::open(&path).unwrap();
    let txn = database.begin_write().unwrap();
    txn.open_table(META).unwrap().insert("ids", 3).unwrap();
    txn.commit().unwrap();
    drop(database);
    let highest = Ledger::read(&path).unwrap().records.last().unwrap().id;
    assert_eq!(flaws(&path), [Flaw::Numbers { next: 3, highest }]);
    Ledger::mend(&path).unwrap();
    assert_eq!(flaws(&path), []);
}

/// The record that a key leads to keeps it; which of two is the right one is for a person to say.
#[test]
fn of_two_records_with_one_key_neither_is_touched() {
    let (_dir, path) = closed();
    let mut twin = Ledger::read(&path).unwrap().records.last().unwrap().clone();
    let taken = twin.id;
    twin.id = Id(taken.0 + 1);
    change(&path, |tables| {
        tables.put(&twin).unwrap();
        tables
            .children
            .insert((super::parent_number(&twin), twin.id.0), ())
            .unwrap();
    });
    let flaw = Flaw::KeyTaken {
        space: "ploop".into(),
        key: twin.key.clone(),
        id: twin.id,
        taken,
    };
    assert_eq!(flaws(&path), std::slice::from_ref(&flaw));
    assert!(!flaw.mendable());
    Ledger::mend(&path).unwrap();
    assert_eq!(flaws(&path), [flaw]);
}

#[test]
fn what_belongs_to_a_record_that_cannot_be_read_stays() {
    let (_dir, path) = closed();
    let base = Ledger::read(&path).unwrap().records[0].clone();
    change(&path, |tables| {
        tables.records.insert(base.id.0, &b"\x01{"[..]).unwrap();
    });
    let found = Ledger::read(&path).unwrap();
    assert!(matches!(found.unreadable[..], [(id, Error::BadRecord { .. })] if id == base.id));
    assert_eq!(found.flaws, []);
    Ledger::mend(&path).unwrap();
    change(&path, |tables| tables.put(&base).unwrap());
    assert_eq!(flaws(&path), []);
}

/// Whatever is flipped in the file, it is read, or refused in words; never a panic.
#[test]
fn a_damaged_file_is_refused_in_words() {
    let (dir, path) = closed();
    let whole = fs::read(&path).unwrap();
    let copy = dir.path().join("copy");
    let mut refused = 0;
    for at in (0..whole.len()).step_by(whole.len() / 256) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        fs::write(&copy, &bytes).unwrap();
        match Ledger::read(&copy) {
            Ok(ledger) => assert!(ledger.unreadable.is_empty(), "byte {at}"),
            Err(error) => {
                refused += 1;
                assert!(!error.to_string().is_empty());
            }
        }
    }
    fs::write(&copy, &whole[..whole.len() / 2]).unwrap();
    assert!(Ledger::read(&copy).is_err());
    assert!(refused > 0);
}
