//! The same writes onto a fresh snapshot with clusters of several sizes, side by side: what the default is chosen from.

use std::fs;
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result};
use ploop_snapshotter::units::ClusterSize;
use serde_json::json;

use crate::fio::{End, Job, Kind, fill};
use crate::host::{drop_caches, run, traffic};
use crate::plan::Plan;
use crate::ploopd::Ploopd;
use crate::report::{Report, round};
use crate::samples::Spread;
use crate::subjects::{Fresh, Ours, Subject};

const SIZES: [(u64, &str); 4] = [
    (64 << 10, "64 KiB"),
    (128 << 10, "128 KiB"),
    (256 << 10, "256 KiB"),
    (1 << 20, "1 MiB"),
];

/// One cluster size and what was seen of it.
struct Size {
    name: &'static str,
    ours: Ours,
    iops: Vec<f64>,
    /// Bytes that the disk below read and wrote for a byte asked.
    read: Vec<f64>,
    written: Vec<f64>,
    copied: Vec<f64>,
    index: u64,
    memory: i64,
}

/// Fills an image of each size, then writes onto fresh layers in turns. `disk` is the block device below it all.
pub(crate) fn measure(
    report: &mut Report,
    plan: &Plan,
    binaries: &Path,
    folder: &Path,
    disk: &Path,
) -> Result<()> {
    let server = Rc::new(Ploopd::start(binaries, "clusters", "")?);
    let mut sizes = SIZES
        .iter()
        .map(|(bytes, name)| set_up(&server, folder, plan, *bytes, name))
        .collect::<Result<Vec<_>>>()?;
    for round in 0..plan.snapshots {
        for turn in 0..sizes.len() {
            let index = (round + turn) % sizes.len();
            let size = &mut sizes[index];
            let name = size.name;
            write(size, plan, disk).with_context(|| format!("clusters of {name}"))?;
        }
    }
    for size in &mut sizes {
        tell(report, size, plan)?;
        size.ours.down()?;
    }
    eprintln!("bench: cluster sizes done");
    Ok(())
}

fn set_up(
    server: &Rc<Ploopd>,
    folder: &Path,
    plan: &Plan,
    bytes: u64,
    name: &'static str,
) -> Result<Size> {
    let cluster = ClusterSize::new(bytes).context("a cluster size of our own")?;
    let id = format!("cluster{bytes}");
    let mut ours = Ours::new(name, &id, server, cluster);
    let device = ours.up(folder, plan.disk)?;
    let empty = fs::metadata(folder.join(format!("{id}.full"))).context("its file")?;
    fill(&device)?;
    ours.freeze()?;
    let before = server.process().resident()?;
    ours.layer()?;
    let after = server.process().resident()?;
    ours.drop_layer()?;
    Ok(Size {
        name,
        ours,
        iops: Vec::new(),
        read: Vec::new(),
        written: Vec::new(),
        copied: Vec::new(),
        index: empty.len(),
        memory: after.cast_signed() - before.cast_signed(),
    })
}

fn write(size: &mut Size, plan: &Plan, disk: &Path) -> Result<()> {
    let job = Job {
        kind: Kind::RandomWrite,
        block: 4 << 10,
        depth: 32,
        end: End::Requests(plan.fresh),
    };
    let device = size.ours.layer()?;
    run("sync", &[] as &[&str])?;
    // Sealed layers are read through the host's cache: what a round before it left there would hide the reads.
    drop_caches()?;
    let (read, written) = traffic(disk)?;
    let reading = job.run(&device)?;
    let copied = size.ours.stats()?.copied_up_bytes;
    size.ours.drop_layer()?;
    run("sync", &[] as &[&str])?;
    let (read_after, written_after) = traffic(disk)?;
    let asked = reading.bytes as f64;
    size.iops.push(reading.iops);
    size.read.push((read_after - read) as f64 / asked);
    size.written.push((written_after - written) as f64 / asked);
    size.copied.push(copied as f64 / asked);
    Ok(())
}

fn tell(report: &mut Report, size: &Size, plan: &Plan) -> Result<()> {
    let case = format!(
        "4k randwrite QD32, fresh snapshot, clusters of {}",
        size.name
    );
    report.row(&case, "ours", "IOPS", &size.iops)?;
    let median = |readings: &[f64]| Spread::of(readings).map(|spread| round(spread.median));
    report.count(
        &format!("clusters of {}", size.name),
        json!({
            "iops": median(&size.iops),
            "disk_reads_bytes_a_byte": median(&size.read),
            "disk_writes_bytes_a_byte": median(&size.written),
            "copied_up_bytes_a_byte": median(&size.copied),
            "index_bytes": size.index,
            "index_bytes_a_gib": size.index as f64 / (plan.disk as f64 / f64::from(1 << 30)),
            "server_resident_bytes_more": size.memory,
        }),
    );
    Ok(())
}
