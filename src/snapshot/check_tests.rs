//! Real roots, damaged in every way that has a name: each is found, with nothing beside it, and a look
//! changes no byte.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::super::rest::{CLUSTER, Rest, told};
use super::super::{Error, Fault};
use super::check;
use crate::image::{Defect, Severity};
use crate::store::{Id, Record, Stage};

fn at(place: &str, fault: Fault) -> Vec<(String, Fault)> {
    vec![(place.to_owned(), fault)]
}

#[tokio::test]
async fn a_healthy_root_gives_no_finding() {
    let rest = Rest::new().await;
    let report = rest.check();
    assert_eq!(told(&report), []);
    assert_eq!((report.snapshots, report.files), (5, 5));
    assert_eq!(report.worst(), None);
}

#[tokio::test]
async fn a_root_that_a_daemon_has_is_left_alone_and_so_is_what_is_none() {
    let rest = Rest::new().await;
    let lock = fs::File::open(rest.root.join("lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let error = check(&rest.root).unwrap_err();
    assert!(matches!(error, Error::RootBusy { .. }), "{error}");
    assert!(error.to_string().contains("stop that first"), "{error}");
    drop(lock);
    let error = check(&rest.dir.path().join("devices")).unwrap_err();
    assert!(matches!(error, Error::NoRoot { .. }), "{error}");
}

#[tokio::test]
async fn what_lies_about_is_named() {
    let rest = Rest::new().await;
    fs::write(rest.root.join("deltas/9.hds"), vec![1; 4096]).unwrap();
    fs::write(rest.root.join("deltas/4.hds"), vec![1; 4096]).unwrap();
    fs::write(rest.root.join("deltas/x.tmp"), "").unwrap();
    fs::write(rest.root.join("golden/notes"), "").unwrap();
    fs::write(rest.root.join("README"), "").unwrap();
    let expected = [
        ("4.hds", Fault::Orphan(4096)),
        ("9.hds", Fault::Orphan(4096)),
        ("x.tmp", Fault::Unfinished(0)),
        ("notes", Fault::Foreign),
        ("README", Fault::Foreign),
    ];
    let expected = expected.map(|(place, fault)| (place.to_owned(), fault));
    assert_eq!(rest.faults(), expected);
    assert_eq!(rest.check().worst(), Some(Severity::Leak));
}

#[tokio::test]
async fn files_are_held_against_their_records() {
    let rest = Rest::new().await;
    let saved = rest.dir.path().join("saved");
    type Damage = Box<dyn Fn(&Path)>;
    let cases: Vec<(u64, Damage, Vec<&str>)> = vec![
        (
            3,
            Box::new(|path| fs::remove_file(path).unwrap()),
            vec!["missing"],
        ),
        (
            1,
            Box::new(|path| {
                fs::remove_file(path).unwrap();
                fs::create_dir(path).unwrap();
            }),
            vec!["no regular file"],
        ),
        (
            2,
            Box::new(|path| fs::write(path, "").unwrap()),
            vec!["too short for a header"],
        ),
        (
            2,
            Box::new(|path| {
                fs::File::options()
                    .write(true)
                    .open(path)
                    .unwrap()
                    .set_len(4096)
                    .unwrap()
            }),
            vec!["ends inside its index"],
        ),
    ];
    for (id, damage, words) in cases {
        let path = rest.delta(id);
        fs::copy(&path, &saved).unwrap();
        damage(&path);
        let found = rest.faults();
        assert_eq!(found.len(), words.len(), "{found:?}");
        for ((place, fault), words) in found.iter().zip(words) {
            assert_eq!(*place, format!("{id}.hds"));
            assert!(fault.to_string().contains(words), "{fault}");
            assert_eq!(fault.severity(), Severity::Corrupt);
            assert!(!fault.mendable());
        }
        if path.is_dir() {
            fs::remove_dir(&path).unwrap();
        }
        fs::copy(&saved, &path).unwrap();
        assert_eq!(rest.faults(), []);
    }
    // Another sealed layer under its name: sound, and not the one that was meant.
    fs::copy(rest.delta(1), rest.delta(2)).unwrap();
    let found = rest.faults();
    assert!(
        matches!(&found[..], [(place, Fault::OtherSeal { .. })] if place == "2.hds"),
        "{found:?}"
    );
}

#[tokio::test]
async fn marks_of_use_mean_what_they_mean_for_each_kind() {
    let rest = Rest::new().await;
    // As a disk server that died leaves a top: in use, and with clusters behind the index.
    rest.word(3, 44, 0x746F_6E59);
    let top = fs::File::options().write(true).open(rest.delta(3)).unwrap();
    top.write_all_at(&[7; 5000], CLUSTER).unwrap();
    assert_eq!(rest.faults(), at("3.hds", Fault::WillRecover));
    assert_eq!(rest.check().worst(), Some(Severity::Note));
    // Served: left out.
    flock(&top, FlockOperation::LockExclusive).unwrap();
    let report = rest.check();
    assert_eq!(
        (told(&report), report.served),
        (vec![], vec![rest.delta(3)])
    );
    drop(top);
    rest.word(3, 44, 0);
    let top = fs::File::options().write(true).open(rest.delta(3)).unwrap();
    top.set_len(CLUSTER).unwrap();
    assert_eq!(rest.faults(), []);

    rest.word(1, 44, 0x746F_6E59);
    let disturbed = |in_use, tail| Fault::Disturbed { in_use, tail };
    assert_eq!(rest.faults(), at("1.hds", disturbed(true, 0)));
    let layer = fs::File::options()
        .append(true)
        .open(rest.delta(1))
        .unwrap();
    layer.set_len(4 * CLUSTER).unwrap();
    assert_eq!(rest.faults(), at("1.hds", disturbed(true, 2 * CLUSTER)));
    rest.word(1, 44, 0);
    assert_eq!(rest.faults(), at("1.hds", disturbed(false, 2 * CLUSTER)));
    layer.set_len(2 * CLUSTER).unwrap();
    // An entry more: no closing brings the sealed one back.
    rest.word(1, 44, 0x746F_6E59);
    layer.set_len(3 * CLUSTER).unwrap();
    rest.word(1, 68, 2);
    assert_eq!(rest.faults(), at("1.hds", Fault::Image(Defect::InUse)));
    rest.word(1, 44, 0);
    let found = rest.faults();
    assert!(
        matches!(found[..], [(_, Fault::OtherSeal { .. })]),
        "{found:?}"
    );
    flock(&layer, FlockOperation::LockExclusive).unwrap();
    assert_eq!(rest.faults(), at("1.hds", Fault::SealedServed));
}

#[tokio::test]
async fn the_file_system_is_read_through_the_chain() {
    let rest = Rest::new().await;
    let put = |id: u64, at: u64, bytes: &[u8]| {
        let file = fs::File::options()
            .write(true)
            .open(rest.delta(id))
            .unwrap();
        file.write_all_at(bytes, CLUSTER + 1024 + at).unwrap();
    };
    let sound = fs::read(rest.delta(1)).unwrap();
    let cases: [(u64, &[u8], Fault); 5] = [
        (0x60, &[0x46], Fault::Journal { sealed: true }),
        (0x3a, &[3], Fault::MetErrors),
        (
            0x38,
            &[0],
            Fault::NoFileSystem(
                "the magic number is neither that of ext4 nor that of XFS".to_owned(),
            ),
        ),
        (
            0x04,
            &[0, 0x80],
            Fault::OtherSize {
                found: 128 << 20,
                disk: 64 << 20,
            },
        ),
        (
            0x04,
            &[0, 0x3f],
            Fault::OtherSize {
                found: 63 << 20,
                disk: 64 << 20,
            },
        ),
    ];
    for (field, bytes, fault) in cases {
        let at_field = usize::try_from(CLUSTER + 1024 + field).unwrap();
        if field == 0x60 {
            assert_eq!(sound[at_field] & 0x46, 0x42, "else this is no damage");
        }
        put(1, field, bytes);
        // Of A, which has the cluster; B and all above read the same.
        assert_eq!(rest.faults(), at("1.hds", fault));
        fs::write(rest.delta(1), &sound).unwrap();
    }
    assert_eq!(rest.faults(), []);
}

#[tokio::test]
async fn an_empty_file_system_that_changed_or_went_is_named() {
    let rest = Rest::new().await;
    let path = rest.golden();
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    let whole = fs::read(&path).unwrap();
    let mut dirty = whole.clone();
    dirty[1024 + 0x60] |= 4;
    for (bytes, words) in [
        (&whole[..32 << 20], "bytes"),
        (&dirty, "mounted"),
        (&vec![0; whole.len()], "ext4"),
    ] {
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
        let found = rest.faults();
        assert!(
            matches!(&found[..], [(place, Fault::GoldenChanged(why))] if *place == name && why.contains(words)),
            "{words}: {found:?}"
        );
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(
        rest.faults(),
        at(&name, Fault::GoldenMissing { standing: 2 })
    );
}

#[tokio::test]
async fn records_are_held_against_each_other() {
    type Change = Box<dyn FnOnce(&mut Record)>;
    let parent = |id: u64, name: &str| {
        Some(crate::store::Parent {
            id: Id(id),
            name: name.to_owned(),
        })
    };
    let (gone, other, on_top) = (parent(99, "Z"), parent(1, "Z"), parent(3, "top"));
    let other_shape = (128_u64 << 20, CLUSTER);
    // What else follows from the change, by the words of it, in any order.
    let cases: Vec<(u64, Change, Vec<&str>)> = vec![
        (
            2,
            Box::new(move |it| it.parent = gone),
            vec!["is not in the store", "not counted", "is counted"],
        ),
        (
            2,
            Box::new(move |it| it.parent = other),
            vec!["should be \"Z\""],
        ),
        (
            5,
            Box::new(move |it| {
                it.parent = on_top;
                it.golden = None;
            }),
            vec!["is not committed", "not counted", "is counted"],
        ),
        (
            5,
            Box::new(|it| it.golden = None),
            vec!["stands on nothing"],
        ),
        (
            5,
            Box::new(|it| it.golden = Some("../x".into())),
            vec!["cannot be one of ours"],
        ),
        (
            3,
            Box::new(|it| it.golden = Some("ext4-1-1.raw".into())),
            vec!["stands on both", "is missing that 1"],
        ),
        (
            2,
            Box::new(|it| it.seal = None),
            vec!["does not say what its file must be"],
        ),
        (
            3,
            Box::new(|it| {
                it.seal = Some(crate::store::Seal {
                    length: 1,
                    digest: 1,
                    allocated: 1,
                })
            }),
            vec!["says that it is sealed"],
        ),
        (
            3,
            Box::new(|it| it.cluster = 5),
            vec![
                "clusters of 5 bytes",
                "cannot stand on one",
                "its record says",
            ],
        ),
        (
            5,
            Box::new(move |it| it.size = other_shape.0),
            vec!["its record says"],
        ),
        (
            2,
            // A disk may be larger than its file system was made, never smaller.
            Box::new(|it| it.size = 128 << 20),
            vec!["its record says"],
        ),
        (
            4,
            Box::new(|it| {
                it.stage = Stage::Committing {
                    name: "view".into(),
                }
            }),
            vec!["never is"],
        ),
    ];
    for (id, change, words) in cases {
        let rest = Rest::new().await;
        rest.record(id, change);
        let found = rest.faults();
        let mut texts: Vec<_> = found.iter().map(|(_, fault)| fault.to_string()).collect();
        for words in &words {
            let at = texts.iter().position(|text| text.contains(words));
            let at = at.unwrap_or_else(|| panic!("{words}: {texts:?}"));
            texts.swap_remove(at);
        }
        // The size of a golden file or of the file system follows from the record's size.
        texts.retain(|text| !text.contains("is not what was made"));
        assert_eq!(texts, [""; 0], "{words:?}");
    }
}

#[tokio::test]
async fn a_circle_is_told_once() {
    let rest = Rest::new().await;
    rest.record(1, |it| {
        it.golden = None;
        it.parent = Some(crate::store::Parent {
            id: Id(2),
            name: "B".to_owned(),
        });
    });
    let circles = rest.faults();
    let circles: Vec<_> = circles
        .iter()
        .filter(|(_, fault)| matches!(fault, Fault::Cycle(_)))
        .collect();
    assert_eq!(
        circles,
        [&("1".to_owned(), Fault::Cycle("1 on 2".to_owned()))]
    );
}

#[tokio::test]
async fn interrupted_acts_are_for_the_next_start() {
    let rest = Rest::new().await;
    let committing = Stage::Committing { name: "C".into() };
    let stages = [
        (5, Stage::Preparing),
        (3, committing.clone()),
        (4, Stage::Removing),
    ];
    for (id, stage) in stages.clone() {
        rest.record(id, |it| it.stage = stage);
    }
    fs::remove_file(rest.delta(5)).unwrap();
    let found = rest.check();
    let interrupted: Vec<_> = told(&found)
        .into_iter()
        .filter(|(_, fault)| matches!(fault, Fault::Interrupted(_)))
        .collect();
    let expected = [(3, committing), (4, Stage::Removing), (5, Stage::Preparing)]
        .map(|(id, stage)| (id.to_string(), Fault::Interrupted(stage)));
    assert_eq!(interrupted, expected);
}

#[tokio::test]
async fn a_store_that_is_lost_or_damaged_is_told_alone() {
    let rest = Rest::new().await;
    let store = rest.root.join("store.redb");
    let whole = fs::read(&store).unwrap();
    fs::write(&store, "").unwrap();
    assert_eq!(rest.faults(), at("store.redb", Fault::StoreLost));
    fs::write(&store, vec![7; 5000]).unwrap();
    let found = rest.faults();
    assert!(
        matches!(found[..], [(_, Fault::StoreUnreadable(_))]),
        "{found:?}"
    );
    fs::write(&store, whole).unwrap();
    assert_eq!(rest.faults(), []);
}
