//! The plug is pulled at every place that an act passes, with the disk server alive and with it dead
//! too, and with intents lost and with intents that another snapshot's durable step took along; then everything is opened again. Each snapshot must be whole or absent, what was answered for
//! must stand, nothing may be left over, and the rest of the story must end as if nothing had happened.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::Runtime;

use super::super::double::{Double, fast_dir};
use super::super::fixture;
use super::super::steps::{Plug, Steps};
use super::super::{Error, ErrorKind, Labels, NameOptions, Options, Snapshotter, Snapshotters};
use super::{Kind, has_delta, wanted};

#[derive(Clone, Copy, Debug)]
enum Act {
    Prepare(&'static str, &'static str),
    View(&'static str, &'static str),
    /// Name, key.
    Commit(&'static str, &'static str),
    Remove(&'static str),
}

use Act::{Commit, Prepare, Remove, View};

const STORY: [Act; 18] = [
    Prepare("a", ""),
    Commit("A", "a"),
    Prepare("b", "A"),
    View("v", "A"),
    View("w", "A"),
    Prepare("c", ""),
    View("g", ""),
    Commit("B", "b"),
    Remove("v"),
    Remove("w"),
    Remove("g"),
    Prepare("d", "B"),
    View("x", "B"),
    Commit("D", "d"),
    Remove("D"),
    Remove("c"),
    Remove("x"),
    Remove("B"),
];

/// What containerd believes: key -> kind and parent.
type World = BTreeMap<String, (Kind, String)>;

fn after(acts: &[Act]) -> World {
    let mut world = World::new();
    for act in acts {
        match *act {
            Prepare(key, parent) => world.insert(key.into(), (Kind::Active, parent.into())),
            View(key, parent) => world.insert(key.into(), (Kind::View, parent.into())),
            Commit(name, key) => {
                let (_, parent) = world.remove(key).unwrap();
                world.insert(name.into(), (Kind::Committed, parent))
            }
            Remove(key) => world.remove(key),
        };
    }
    world
}

async fn perform(ploop: &Snapshotter, act: Act) -> Result<(), Error> {
    let none = Labels::new;
    match act {
        Prepare(key, parent) => ploop.prepare(key, parent, none()).await.map(drop),
        View(key, parent) => ploop.view(key, parent, none()).await.map(drop),
        Commit(name, key) => ploop.commit(name, key, none()).await,
        Remove(key) => ploop.remove(key).await,
    }
}

async fn world(ploop: &Snapshotter) -> World {
    let infos = ploop.list().await.unwrap();
    infos
        .into_iter()
        .map(|info| (info.name, (info.kind, info.parent)))
        .collect()
}

fn options(root: &Path) -> Options {
    let mut options = Options::new(root.to_owned());
    let mut name = NameOptions::new("ploop");
    name.size = 64 << 20;
    options.names = vec![name];
    options
}

async fn open(root: &Path, disks: &Arc<Double>, steps: Steps) -> Snapshotters {
    fixture::open(options(root), disks, steps).await.unwrap()
}

/// Every snapshot can be used, and nothing is there that no snapshot needs.
async fn check_whole(all: &Snapshotters, disks: &Double, when: &str) {
    let ploop = all.named("ploop").unwrap();
    ploop.cleanup().await.unwrap();
    let records = all.shared.store(crate::store::Store::all).await.unwrap();
    for record in &records {
        assert!(record.visible(), "{when}: left over: {record:?}");
    }
    let served: BTreeSet<_> = disks.served().into_iter().collect();
    let wanted: BTreeSet<_> = wanted(&records).into_iter().collect();
    assert!(served.is_subset(&wanted), "{when}: {served:?}, {wanted:?}");
    let files: BTreeSet<_> = std::fs::read_dir(all.shared.paths.deltas())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let named: BTreeSet<_> = records
        .iter()
        .filter(|record| has_delta(record))
        .map(|record| all.shared.paths.delta(record.id))
        .collect();
    assert_eq!(files, named, "{when}: files and records");
    for record in &records {
        ploop.usage(&record.key).await.unwrap();
        match record.kind {
            Kind::Committed => {
                let key = format!("probe of {}", record.key);
                ploop.view(&key, &record.key, Labels::new()).await.unwrap();
                ploop.remove(&key).await.unwrap();
            }
            _ => {
                let mounts = ploop.mounts(&record.key).await.unwrap();
                assert_eq!(mounts.len(), 1, "{when}: {}", record.key);
            }
        }
    }
    ploop.cleanup().await.unwrap();
}

/// How the plug is pulled.
#[derive(Clone, Copy, Debug)]
struct Pull {
    /// At this place, counted from 0.
    place: i64,
    /// Does the disk server die too?
    server_dies: bool,
    /// Did something else make the intents durable?
    intents_last: bool,
}

/// Tells the story until the plug is pulled at place `place`. How many acts were answered for, and
/// where it stopped; or none if the story came to its end.
fn until_pulled(root: &Path, disks: &Arc<Double>, pull: Pull) -> Option<(usize, &'static str)> {
    let runtime = Runtime::new().unwrap();
    let (steps, plug) = Plug::new(pull.place);
    let answered = Arc::new(AtomicUsize::new(0));
    let done = Arc::clone(&answered);
    let store = root.join("store.redb");
    let saved = root.join("../saved.redb");
    let pulled = runtime.block_on(async {
        let all = open(root, disks, steps).await;
        let records = Arc::clone(&all.shared.store);
        let story = tokio::spawn(async move {
            let ploop = all.named("ploop").unwrap();
            for act in STORY {
                perform(&ploop, act).await.unwrap();
                done.fetch_add(1, Ordering::SeqCst);
                ploop.cleanup().await.unwrap();
            }
        });
        let pulled = tokio::select! {
            () = plug.pulled() => true,
            ended = story => { ended.unwrap(); false }
        };
        if pull.intents_last {
            records.flush();
        }
        pulled
    });
    // What the kernel has of the file at this moment; a store that is closed in order writes more.
    std::fs::copy(&store, &saved).unwrap();
    runtime.shutdown_timeout(std::time::Duration::from_secs(10));
    std::fs::rename(&saved, &store).unwrap();
    let answered = answered.load(Ordering::SeqCst);
    pulled.then(|| (answered, *plug.places().last().unwrap()))
}

/// A root that has this golden file.
fn make_root(dir: &tempfile::TempDir, golden: &Path) -> PathBuf {
    let root = dir.path().join("root");
    std::fs::create_dir_all(root.join("golden")).unwrap();
    let name = golden.file_name().unwrap();
    std::fs::hard_link(golden, root.join("golden").join(name)).unwrap();
    root
}

/// A golden file for all roots: it is read only.
fn golden(dir: &tempfile::TempDir) -> PathBuf {
    let root = dir.path().join("root");
    Runtime::new().unwrap().block_on(async {
        let disks = Double::new(&dir.path().join("devices"));
        let all = open(&root, &disks, Steps::default()).await;
        let name = all.named("ploop").unwrap().origin().golden.clone();
        all.shared.paths.golden(&name)
    })
}

fn pull_at(pull: Pull, golden: &Path) -> Option<(usize, &'static str)> {
    let dir = fast_dir();
    let root = make_root(&dir, golden);
    let disks = Double::new(&dir.path().join("devices"));
    let (answered, at) = until_pulled(&root, &disks, pull)?;
    if pull.server_dies {
        disks.restart();
    }
    let when = format!("{pull:?} ({at}), {answered} acts done");
    Runtime::new()
        .unwrap()
        .block_on(ends_well(&root, &disks, answered, &when));
    Some((answered, at))
}

/// After so many acts of the story were answered for everything is as it should be, and it goes on to its
/// end.
async fn ends_well(root: &Path, disks: &Arc<Double>, answered: usize, when: &str) {
    let all = open(root, disks, Steps::default()).await;
    let ploop = all.named("ploop").unwrap();
    let found = world(&ploop).await;
    let (before, now) = (after(&STORY[..answered]), STORY.get(answered));
    let with = now.map(|_| after(&STORY[..=answered]));
    // The act in flight is there in full or not at all.
    let happened = with.as_ref() == Some(&found);
    assert!(
        found == before || happened,
        "{when}: {found:?} is neither {before:?} nor {with:?}"
    );
    check_whole(&all, disks, when).await;
    if let Some(act) = now {
        let again = perform(&ploop, *act).await;
        match (happened, *act) {
            (false, _) => again.unwrap_or_else(|error| panic!("{when}: {error:?}")),
            (true, Prepare(..) | View(..)) => {
                assert_eq!(
                    again.unwrap_err().kind(),
                    ErrorKind::AlreadyExists,
                    "{when}"
                );
            }
            // containerd's retry of a commit that was answered by nobody.
            (true, Commit(..)) => {
                assert_eq!(
                    again.unwrap_err().kind(),
                    ErrorKind::AlreadyExists,
                    "{when}"
                );
            }
            (true, Remove(_)) => {
                assert_eq!(again.unwrap_err().kind(), ErrorKind::NotFound, "{when}");
            }
        }
        for act in &STORY[answered + 1..] {
            let done = perform(&ploop, *act).await;
            done.unwrap_or_else(|error| panic!("{when}: then {act:?}: {error:?}"));
        }
    }
    assert_eq!(world(&ploop).await, after(&STORY), "{when}");
    check_whole(&all, disks, when).await;
}

#[test]
fn the_plug_may_be_pulled_anywhere() {
    let dir = fast_dir();
    let golden = golden(&dir);
    let mut places = BTreeMap::<_, usize>::new();
    'story: for place in 0.. {
        for (server_dies, intents_last) in
            [(false, false), (true, false), (false, true), (true, true)]
        {
            let pull = Pull {
                place,
                server_dies,
                intents_last,
            };
            let Some((_, at)) = pull_at(pull, &golden) else {
                break 'story;
            };
            *places.entry(at).or_default() += 1;
        }
    }
    // Every kind of place was there, so every step of every act was cut.
    let all = [
        "attached",
        "committed",
        "committing",
        "delta made",
        "flushed",
        "protected",
        "ready",
        "released",
        "removed",
        "reserved",
        "sealed",
        "taken apart",
    ];
    assert_eq!(
        places.keys().copied().collect::<Vec<_>>(),
        all,
        "{places:?}"
    );
}

#[path = "power_tests.rs"]
mod power;
