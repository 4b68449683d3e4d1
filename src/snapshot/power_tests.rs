//! The power goes at every write and every sync of the store, and takes along what was not synced: of the
//! store's file any part, of the names and modes of files any. Then everything is opened again, and held
//! to the same as after the plug was pulled.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::Runtime;

use super::super::super::double::{Double, fast_dir};
use super::super::super::steps::Plug;
use super::{STORY, ends_well, golden, make_root, open, perform};
use crate::io::stops::Chance;
use crate::store::{Moment, Store, Witness, Written};

const SECTOR: usize = 512;

/// How far the story came.
struct Gone {
    /// The store's file.
    store: Moment,
    /// Acts that were answered for.
    answered: usize,
    /// Numbers that were given to snapshots whose files may have been begun.
    ids: u64,
}

/// Tells the story until the store has done so many acts on its file, and somebody then comes to a place;
/// none if the story came to its end.
fn until_the_power_goes(root: &Path, disks: &Arc<Double>, event: u64, lies: bool) -> Option<Gone> {
    let runtime = Runtime::new().unwrap();
    let (steps, plug) = Plug::new(i64::MAX);
    let next = Arc::clone(&plug);
    let witness = Witness::watch(
        &root.join("store.redb"),
        event,
        Box::new(move || next.pull_next()),
    );
    if lies {
        witness.lie();
    }
    let answered = Arc::new(AtomicUsize::new(0));
    let done = Arc::clone(&answered);
    let pulled = runtime.block_on(async {
        let all = open(root, disks, steps).await;
        let story = tokio::spawn(async move {
            let ploop = all.named("ploop").unwrap();
            for act in STORY {
                perform(&ploop, act).await.unwrap();
                done.fetch_add(1, Ordering::SeqCst);
                ploop.cleanup().await.unwrap();
            }
        });
        tokio::select! {
            () = plug.pulled() => true,
            ended = story => { ended.unwrap(); false }
        }
    });
    let answered = answered.load(Ordering::SeqCst);
    runtime.shutdown_timeout(Duration::from_secs(10));
    let moment = witness.end();
    let reserved = plug.places().into_iter().filter(|it| *it == "reserved");
    let ids = reserved.count() as u64;
    pulled.then(|| Gone {
        store: moment.unwrap(),
        answered,
        ids,
    })
}

/// What may be left of the store's file.
fn part(moment: Moment, chance: &mut Chance) -> Vec<u8> {
    let mut bytes = moment.synced;
    for written in moment.since {
        match (chance.below(4), written) {
            (0, _) => {}
            (3, Written::Bytes(at, data)) => {
                for (index, sector) in data.chunks(SECTOR).enumerate() {
                    if chance.one_in(2) {
                        let at = at + (index * SECTOR) as u64;
                        Written::Bytes(at, sector.to_vec()).apply(&mut bytes);
                    }
                }
            }
            (_, written) => written.apply(&mut bytes),
        }
    }
    bytes
}

/// What no sync has covered in the directory of deltas: names that were removed come back, names that were
/// never answered for are there with anything in them, modes are as before.
fn shuffle(deltas: &Path, ids: u64, chance: &mut Chance) {
    for id in 1..=ids {
        let path = deltas.join(format!("{id}.hds"));
        if path.exists() {
            let mode = if chance.one_in(2) { 0o600 } else { 0o444 };
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        } else if chance.one_in(3) {
            let garbage = vec![0x5A; chance.below(3) * 4096];
            fs::write(&path, garbage).unwrap();
        }
    }
}

/// Did the story go on until there?
fn power_goes_at(event: u64, seed: u64, golden: &Path, lies: bool) -> bool {
    let dir = fast_dir();
    let root = make_root(&dir, golden);
    // The store is there already: how it comes to be is its own affair.
    drop(Store::open(&root.join("store.redb")).unwrap());
    let disks = Double::new(&dir.path().join("devices"));
    let Some(gone) = until_the_power_goes(&root, &disks, event, lies) else {
        return false;
    };
    let answered = gone.answered;
    let mut chance = Chance::new(event << 32 | seed);
    fs::write(root.join("store.redb"), part(gone.store, &mut chance)).unwrap();
    shuffle(&root.join("deltas"), gone.ids, &mut chance);
    disks.restart();
    let when = format!("event {event}, seed {seed}, {answered} acts done");
    Runtime::new()
        .unwrap()
        .block_on(ends_well(&root, &disks, answered, &when));
    true
}

fn explore(every: usize, seeds: u64) -> u64 {
    let dir = fast_dir();
    let golden = golden(&dir);
    let mut states = 0;
    for event in (1..).step_by(every) {
        for seed in 0..seeds {
            if !power_goes_at(event, seed, &golden, false) {
                return states;
            }
            states += 1;
        }
    }
    states
}

#[test]
fn a_disk_that_lies_about_its_syncs_is_caught() {
    let dir = fast_dir();
    let golden = golden(&dir);
    // By then several acts were answered for.
    let caught = |event| {
        let goes = || power_goes_at(event, 0, &golden, true);
        std::panic::catch_unwind(goes).is_err()
    };
    assert!((60..80).any(caught));
}

#[test]
fn the_power_may_go_at_some_writes_of_the_store() {
    assert!(explore(29, 1) > 3);
}

#[test]
#[ignore = "minutes: make crash-test"]
#[expect(
    clippy::print_stdout,
    reason = "what was explored is for a person to see"
)]
fn the_power_may_go_at_every_write_of_the_store() {
    let states = explore(1, 3);
    println!("{states} states of store and files explored");
    assert!(states > 300, "{states}");
}
