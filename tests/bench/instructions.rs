//! Instructions a request, by chain depth: the engine under callgrind, without a device.
//!
//! Virtual machines seldom have a processor's counters, and emulated ones never; callgrind counts what
//! the program itself executes, exactly and anywhere. The kernel's share is not in it: for that, SQEs
//! are counted. Two lengths of the same work are run, and the difference is divided by the requests
//! between them, so that starting and opening are not in it either.

use std::fs;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ploop_snapshotter::chain::Delta;
use ploop_snapshotter::disk::{Options, Request, Shards, Spec};
use ploop_snapshotter::image::{Format, Seal};
use ploop_snapshotter::io::Piece;
use ploop_snapshotter::units::ClusterSize;
use serde_json::{Value, json};

use crate::chains::{CLUSTERS, DEPTHS, build, size};
use crate::host::run;

const SHORT: u32 = 1000;
const LONG: u32 = 6000;
const RUNS: usize = 3;

/// Counts for each depth, in `folder`; `{"1": instructions, ...}`. `preload` is patient.c, made.
pub(crate) fn count(folder: &Path, preload: &Path) -> Result<Value> {
    let mut found = serde_json::Map::new();
    for depth in DEPTHS {
        let short = least(folder, preload, depth, SHORT)?;
        let long = least(folder, preload, depth, LONG)?;
        let each = long.saturating_sub(short) as f64 / f64::from(LONG - SHORT);
        found.insert(depth.to_string(), json!(each));
    }
    Ok(Value::Object(found))
}

/// When the asking thread comes in between, the disk's thread wakes once more: that only adds, so the
/// least of several runs is the work itself.
fn least(folder: &Path, preload: &Path, depth: u32, requests: u32) -> Result<u64> {
    let mut least = u64::MAX;
    for _ in 0..RUNS {
        least = least.min(under_callgrind(folder, preload, depth, requests)?);
    }
    Ok(least)
}

fn under_callgrind(folder: &Path, preload: &Path, depth: u32, requests: u32) -> Result<u64> {
    let place = tempfile::tempdir_in(folder).context("a folder for a chain")?;
    let own = std::env::current_exe().context("our own path")?;
    let out = place.path().join("callgrind");
    let arguments = [
        format!("LD_PRELOAD={}", preload.display()),
        "valgrind".to_owned(),
        "--tool=callgrind".to_owned(),
        "--fair-sched=yes".to_owned(),
        // The disk's thread is what a request costs; the asking thread is the test's.
        "--separate-threads=yes".to_owned(),
        format!("--callgrind-out-file={}", out.display()),
        own.display().to_string(),
        "engine".to_owned(),
        place.path().join("chain").display().to_string(),
        depth.to_string(),
        requests.to_string(),
    ];
    run("env", &arguments)?;
    // One file a thread; the shard's is the one that speaks of the ring.
    let mut totals = Vec::new();
    for entry in fs::read_dir(place.path()).context("callgrind's files")? {
        let path = entry.context("callgrind's files")?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        if !name.starts_with("callgrind") || !name.contains('-') {
            continue;
        }
        let text = fs::read_to_string(&path).context("a file of callgrind's")?;
        if text.contains("disk::serve::") {
            totals.push(total(&text)?);
        }
    }
    match totals.as_slice() {
        [one] => Ok(*one),
        _ => bail!("callgrind saw {} threads that serve, not one", totals.len()),
    }
}

fn total(text: &str) -> Result<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("totals: "))
        .context("callgrind wrote no total")?;
    Ok(line.trim().parse()?)
}

/// The work that is counted: reads of 4 KiB, one at a time, all over the disk.
pub(crate) fn engine(folder: &Path, depth: u32, requests: u32) -> Result<()> {
    let deltas = build(folder, depth)?
        .into_iter()
        .map(|delta| Delta {
            path: delta.path.into(),
            format: Some(Format::Ploop),
            seal: delta.seal.map(|seal| Seal {
                length: seal.length,
                digest: seal.digest,
            }),
        })
        .collect();
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let shards = Shards::start(Options {
        shards: 1,
        ..Options::default()
    })?;
    let disk = runtime.block_on(shards.open(Spec {
        id: "engine".to_owned(),
        deltas,
        read_only: false,
        pending: folder.join("pending"),
    }))?;
    let (answer, answered) = mpsc::channel();
    for index in 0..requests {
        // A stride without a common factor with the count of blocks: all over the disk, every block
        // before any a second time.
        let block = u64::from(index) * 1237 % (size() / 4096);
        let answer = answer.clone();
        let done = Box::new(move |result: Result<Piece, _>| {
            let _ = answer.send(result.is_ok());
        });
        disk.submit(Request::read(block * 4096, Piece::zeroed(4096), done));
        if !answered.recv_timeout(Duration::from_secs(60))? {
            bail!("a read failed");
        }
    }
    let bytes = u64::from(CLUSTERS) * ClusterSize::DEFAULT.bytes();
    if disk.size() != bytes {
        bail!("the disk is not as large as it was made");
    }
    runtime.block_on(disk.close(false))?;
    Ok(())
}
