//! What is safe is mended, all else is left to the last byte, and what was there before is kept.

use std::fs;
use std::os::unix::fs::FileExt;

use redb::{Database, TableDefinition};
use rustix::fs::{FlockOperation, flock};

use super::super::check::Report;
use super::super::fixture::House;
use super::super::rest::{Rest, told};
use super::super::{Error, Fault, Labels};
use super::{Mended, repair};
use crate::store::{Flaw, Id};

const KEYS: TableDefinition<'static, (&'static str, &'static str), u64> =
    TableDefinition::new("keys");

fn mend(rest: &Rest) -> Mended {
    loop {
        match repair(&rest.root) {
            // A child that another test just started has our descriptors until it runs.
            Err(Error::RootBusy { .. }) => std::thread::yield_now(),
            done => break done.unwrap(),
        }
    }
}

fn faults(report: &Report) -> Vec<Fault> {
    told(report).into_iter().map(|(_, fault)| fault).collect()
}

#[tokio::test]
async fn a_healthy_root_stays_as_it_is() {
    let rest = Rest::new().await;
    let before = rest.bytes();
    let done = mend(&rest);
    assert_eq!((done.mended, done.left, done.kept), (vec![], vec![], None));
    assert!(before == rest.bytes());
}

#[tokio::test]
async fn the_safe_is_mended_and_the_rest_is_left() {
    let rest = Rest::new().await;
    let healthy = rest.bytes();
    // Safe: a layer that was opened for writing, a key of nobody, an orphan, an unfinished file.
    rest.word(1, 44, 0x746F_6E59);
    rest.word(1, 52, 0);
    let layer = fs::File::options().write(true).open(rest.delta(1)).unwrap();
    layer.write_all_at(&[9; 100], 2 * 65536 + 50).unwrap();
    drop(layer);
    let store = rest.root.join("store.redb");
    let database = Database::open(&store).unwrap();
    let txn = database.begin_write().unwrap();
    txn.open_table(KEYS)
        .unwrap()
        .insert(("ploop", "ghost"), 77)
        .unwrap();
    txn.commit().unwrap();
    drop(database);
    fs::write(rest.root.join("deltas/9.hds"), "somebody's").unwrap();
    fs::write(rest.root.join("golden/x.tmp"), "half").unwrap();
    // Not safe: a top in use, a corrupt top, a stranger.
    rest.word(3, 44, 0x746F_6E59);
    rest.word(5, 64, 77);
    fs::write(rest.root.join("deltas/notes"), "mine").unwrap();
    let damaged = rest.bytes();
    let found = rest.check().findings.len();

    let done = mend(&rest);
    assert_eq!(done.mended.len(), 4, "{:?}", done.mended);
    assert_eq!(done.left, []);
    let left = faults(&done.after);
    assert_eq!(left.len(), found - 4, "{left:?}");
    assert!(left.iter().all(|fault| !fault.mendable()), "{left:?}");
    assert_eq!(faults(&rest.check()), left, "a second look says the same");

    // The layer is the very one that was sealed.
    assert!(fs::read(rest.delta(1)).unwrap() == healthy[&rest.delta(1)]);
    // Whatever was not mended has its bytes, and all that was is kept.
    let after = rest.bytes();
    let untouched = [
        rest.delta(2),
        rest.delta(3),
        rest.delta(5),
        rest.root.join("deltas/notes"),
    ];
    for path in untouched {
        assert!(after[&path] == damaged[&path], "{}", path.display());
    }
    let kept = done.kept.unwrap();
    assert_eq!(kept, rest.root.join("kept/1"));
    assert!(after[&kept.join("store.redb")] == damaged[&store]);
    assert!(after[&kept.join("1.hds.header")][..] == damaged[&rest.delta(1)][..4096]);
    assert!(after[&kept.join("1.hds.tail")][..] == damaged[&rest.delta(1)][2 * 65536..]);
    assert_eq!(after[&kept.join("9.hds")], b"somebody's");
    assert_eq!(after[&kept.join("x.tmp")], b"half");
    assert_eq!(fs::read_dir(&kept).unwrap().count(), 5);
}

#[tokio::test]
async fn a_mended_root_is_used_as_before() {
    let rest = Rest::new().await;
    rest.word(1, 44, 0x746F_6E59);
    fs::write(rest.root.join("deltas/9.hds"), "").unwrap();
    assert_eq!(mend(&rest).after.findings, []);
    let disks = super::super::double::Double::new(&rest.dir.path().join("devices"));
    let house = House::open(rest.dir, disks).await.unwrap();
    for key in ["top", "alone", "view"] {
        house.ploop.mounts(key).await.unwrap();
    }
    house
        .ploop
        .prepare("new", "A", Labels::new())
        .await
        .unwrap();
}

#[tokio::test]
async fn what_somebody_has_open_is_left_and_said() {
    let rest = Rest::new().await;
    let orphan = rest.root.join("deltas/9.hds");
    fs::write(&orphan, "").unwrap();
    rest.word(2, 44, 0x746F_6E59);
    let files = [&orphan, &rest.delta(2)].map(|path| fs::File::open(path).unwrap());
    for file in &files {
        flock(file, FlockOperation::LockShared).unwrap();
    }
    let before = rest.bytes();
    let done = mend(&rest);
    assert_eq!(
        (done.mended.len(), done.left.len(), done.kept),
        (0, 2, None)
    );
    assert!(
        done.left
            .iter()
            .all(|(_, why)| why.contains("open in another process"))
    );
    assert!(before == rest.bytes());
    drop(files);
    assert_eq!(mend(&rest).after.findings, []);
    // A second repair keeps in a folder of its own.
    fs::write(&orphan, "again").unwrap();
    assert_eq!(mend(&rest).kept, Some(rest.root.join("kept/2")));
    assert!(rest.root.join("kept/1/9.hds").exists());
}

#[tokio::test]
async fn a_root_that_a_daemon_has_is_refused() {
    let rest = Rest::new().await;
    fs::write(rest.root.join("deltas/9.hds"), "").unwrap();
    let lock = fs::File::open(rest.root.join("lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let before = rest.bytes();
    assert!(matches!(repair(&rest.root), Err(Error::RootBusy { .. })));
    assert!(before == rest.bytes());
}

#[test]
fn a_flaw_that_no_rule_decides_is_not_mended() {
    let flaw = Flaw::KeyTaken {
        space: "s".into(),
        key: "k".into(),
        id: Id(2),
        taken: Id(1),
    };
    assert!(!Fault::Store(flaw).mendable());
}
