//! Chains that must not be opened: each gets an error that names the file and says what is wrong, and no
//! byte of it changes.

use std::error::Error as _;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::support::engine::{Engine, ploop, raw};
use ploop_snapshotter::chain::Delta;
use ploop_snapshotter::disk::Error;
use ploop_snapshotter::units::ClusterSize;

const SIZE: u64 = 1 << 20;

/// The whole story an error tells.
fn story(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Two sealed deltas with some content, and an empty top.
fn chain(engine: &Engine) -> Vec<Delta> {
    let mut deltas = Vec::new();
    for name in ["0.hds", "1.hds"] {
        deltas.push(engine.create(name, SIZE, ClusterSize::DEFAULT));
        let disk = engine.open(&deltas);
        disk.try_write(0, &[1; 65536], false).unwrap();
        disk.try_write(3 * 65536, &[2; 512], false).unwrap();
        let seal = disk.seal();
        let top = deltas.last_mut().unwrap();
        *top = ploop(&top.path, Some(seal));
    }
    deltas.push(engine.create("top.hds", SIZE, ClusterSize::DEFAULT));
    deltas
}

fn refused(engine: &Engine, deltas: &[Delta], read_only: bool, file: &str, words: &[&str]) {
    let before: Vec<_> = deltas
        .iter()
        .map(|delta| fs::read(&delta.path).ok())
        .collect();
    let error = match engine.try_open(deltas, read_only) {
        Ok(_) => panic!("{file} was opened; expected {words:?}"),
        Err(error) => story(&error),
    };
    assert!(error.contains(file), "{error}: does not name {file}");
    for word in words {
        assert!(error.contains(word), "{error}: does not say {word:?}");
    }
    for (delta, before) in deltas.iter().zip(before) {
        let after = fs::read(&delta.path).ok();
        assert!(after == before, "{} was changed", delta.path.display());
    }
}

fn poke(path: &Path, at: u64, bytes: &[u8]) {
    // Sealed files are ordinary files here: root may write them.
    fs::File::options()
        .write(true)
        .open(path)
        .unwrap()
        .write_all_at(bytes, at)
        .unwrap();
}

/// The index entry of a cluster.
fn entry(cluster: u64) -> u64 {
    64 + 4 * cluster
}

#[test]
fn a_damaged_level_is_refused_wherever_it_lies() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage, &[&str]); 8] = [
        ("signature", |path| poke(path, 0, b"X"), &[]),
        (
            "entry beyond the end",
            |path| poke(path, entry(5), &[99, 0, 0, 0]),
            &[],
        ),
        (
            "entry inside the index",
            |path| poke(path, entry(16), &[1, 0, 0, 0]),
            &[],
        ),
        (
            "duplicate entry",
            |path| poke(path, entry(6), &[1, 0, 0, 0]),
            &[],
        ),
        ("truncated tail", |path| truncate(path, 65536 + 100), &[]),
        ("truncated header", |path| truncate(path, 10), &[]),
        ("cluster size", |path| poke(path, 28, &[0, 1, 0, 0]), &[]),
        ("in use", |path| poke(path, 44, b"Ynot"), &["in use"]),
    ];
    for (name, damage, words) in damages {
        for victim in ["0.hds", "1.hds", "top.hds"] {
            if victim == "top.hds" && (name == "in use" || name == "truncated tail") {
                // An unclean top is what a crash leaves, and an empty one has no tail.
                continue;
            }
            let engine = Engine::new();
            let mut deltas = chain(&engine);
            // Without the seals, so that each defect itself must be seen.
            for delta in &mut deltas {
                delta.seal = None;
            }
            damage(&engine.path(victim));
            refused(&engine, &deltas, false, victim, words);
            if victim != "top.hds" {
                refused(&engine, &deltas[..2], true, victim, words);
            }
        }
    }
}

fn truncate(path: &Path, len: u64) {
    fs::File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(len)
        .unwrap();
}

#[test]
fn a_parent_that_is_not_the_one_that_was_sealed_is_refused() {
    let engine = Engine::new();
    let deltas = chain(&engine);
    // A valid image, only another one: its index differs in one entry.
    let stranger = engine.create("stranger.hds", SIZE, ClusterSize::DEFAULT);
    let disk = engine.open(std::slice::from_ref(&stranger));
    disk.try_write(0, &[1; 65536], false).unwrap();
    disk.try_write(4 * 65536, &[2; 512], false).unwrap();
    disk.seal();
    fs::rename(&stranger.path, &deltas[0].path).unwrap();
    refused(
        &engine,
        &deltas,
        false,
        "0.hds",
        &["not the delta that was sealed"],
    );
}

#[test]
fn levels_that_do_not_fit_together_are_refused() {
    let engine = Engine::new();
    let mut deltas = chain(&engine);
    deltas.pop();
    let mut with = |delta: Delta, words: &[&str]| {
        let name = delta.path.file_name().unwrap().to_str().unwrap().to_owned();
        deltas.push(delta);
        refused(&engine, &deltas, false, &name, words);
        deltas.pop();
    };
    let other = ClusterSize::new(128 << 10).unwrap();
    let missing = ploop(&engine.path("missing.hds"), None);
    with(missing, &["No such file"]);
    let raw_file = engine.path("upper.raw");
    fs::write(&raw_file, vec![1; 1 << 20]).unwrap();
    let coarse = engine.create("coarse.hds", SIZE, other);

    let top = engine.create("newtop.hds", SIZE, ClusterSize::DEFAULT);
    let mixed = [deltas[0].clone(), raw(&raw_file), top.clone()];
    refused(
        &engine,
        &mixed,
        false,
        "upper.raw",
        &["only the lowest level"],
    );
    // The lower levels must agree with the top, not the other way round.
    let coarse_top = [deltas[0].clone(), coarse];
    refused(
        &engine,
        &coarse_top,
        false,
        "0.hds",
        &["64.0 KiB", "128 KiB"],
    );
}

#[test]
fn a_writable_delta_has_one_owner() {
    let engine = Engine::new();
    let delta = engine.create("0.hds", SIZE, ClusterSize::DEFAULT);
    let chain = std::slice::from_ref(&delta);
    let disk = engine.open(chain);
    refused(
        &engine,
        chain,
        false,
        "0.hds",
        &["in use", "stop that process"],
    );
    refused(&engine, chain, true, "0.hds", &["in use"]);
    disk.close();
    let view = engine.open_view(chain);
    refused(&engine, chain, false, "0.hds", &["in use"]);
    view.close();
    engine.open(chain).close();
}

/// The host's file system was mounted again after an error, in the same boot: the places that were not flushed are gone,
/// the pending file names them still. Attaching says so, mending says "attach it": neither must be the end.
#[test]
fn what_the_host_lost_is_given_up_by_removing_the_pending_file() {
    let engine = Engine::new();
    let delta = engine.create("0.hds", SIZE, ClusterSize::DEFAULT);
    let chain = std::slice::from_ref(&delta);
    let disk = engine.open(chain);
    disk.try_write(0, &[1; 512], false).unwrap();
    disk.flush();
    let flushed = fs::read(&delta.path).unwrap();
    disk.try_write(2 * 65536, &[2; 512], false).unwrap();
    let left = fs::read(engine.pending("0.hds")).unwrap();
    disk.close();
    fs::write(&delta.path, flushed).unwrap();
    truncate(&delta.path, 2 * 65536);
    fs::write(engine.pending("0.hds"), left).unwrap();
    let error = story(&engine.try_open(chain, false).err().expect("refused"));
    let way = format!("remove {}", engine.pending("0.hds").display());
    assert!(
        error.contains("beyond the end") && error.contains(&way),
        "{error}"
    );
    fs::remove_file(engine.pending("0.hds")).unwrap();
    let disk = engine.open(chain);
    assert_eq!(
        (disk.read(0, 512), disk.read(2 * 65536, 512)),
        (vec![1; 512], vec![0; 512])
    );
    disk.close();
}

/// A pending file that contradicts the image means that somebody changed it: nothing is guessed.
#[test]
fn a_contradicting_pending_file_is_refused() {
    let engine = Engine::new();
    let delta = engine.create("0.hds", SIZE, ClusterSize::DEFAULT);
    let chain = std::slice::from_ref(&delta);
    let disk = engine.open(chain);
    disk.try_write(0, &[1; 512], false).unwrap();
    disk.try_write(65536, &[2; 512], false).unwrap();
    let left = fs::read(engine.pending("0.hds")).unwrap();
    disk.close();
    for (place, words) in [(99_u32, "beyond the end"), (2, "puts elsewhere")] {
        let mut bytes = left.clone();
        let cluster = usize::from(place == 99) * 5;
        bytes[4096 + 4 * cluster..][..4].copy_from_slice(&place.to_le_bytes());
        fs::write(engine.pending("0.hds"), &bytes).unwrap();
        let error = story(&engine.try_open(chain, false).err().expect("refused"));
        assert!(
            error.contains(words) && error.contains("changed behind our back"),
            "{error}"
        );
    }
    // What it says truly is no news and does no harm.
    fs::write(engine.pending("0.hds"), &left).unwrap();
    let disk = engine.open(chain);
    assert_eq!(
        (disk.read(0, 512), disk.read(65536, 512)),
        (vec![1; 512], vec![2; 512])
    );
    disk.close();
}
