//! What idle disks cost: threads, descriptors, memory of the process and of the kernel; and how long
//! one takes to come and to go.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ploop_snapshotter::units::ClusterSize;
use serde_json::json;

use crate::host::memory_in_use;
use crate::plan::{MI, Plan};
use crate::ploopd::{Ploopd, delta};
use crate::report::{Goal, Report};
use crate::samples::Spread;

/// Bytes that an idle disk may cost.
const LIMIT: f64 = 256.0 * 1024.0;

struct Seen {
    disks: usize,
    threads: usize,
    descriptors: usize,
    process: u64,
    all: u64,
}

/// A runtime keeps the threads of what has blocked for so long; then the process is idle.
const CALM: Duration = Duration::from_secs(11);

fn look(server: &Ploopd, disks: usize) -> Result<Seen> {
    std::thread::sleep(CALM);
    let process = server.process();
    Ok(Seen {
        disks,
        threads: process.threads()?.len(),
        descriptors: process.descriptors()?,
        all: memory_in_use()?,
        process: process.resident()?,
    })
}

/// Attaches disks one by one over one sealed base each has in common, looks, detaches them.
pub(crate) fn measure(
    report: &mut Report,
    plan: &Plan,
    binaries: &Path,
    folder: &Path,
) -> Result<()> {
    let server = Ploopd::start(binaries, "density", "")?;
    let folder = folder.join("density");
    fs::create_dir(&folder).context("cannot make a folder")?;
    let size = 64 * MI;
    let cluster = ClusterSize::DEFAULT;
    let mut base = delta(&folder.join("base"), size, cluster)?;
    server.attach("base", std::slice::from_ref(&base))?;
    base.seal = server.detach("base", true)?;

    let (mut adds, mut removes, mut seen) = (Vec::new(), Vec::new(), Vec::new());
    let most = plan.densities[2];
    let ids: Vec<_> = (0..most).map(|index| format!("d{index}")).collect();
    for (index, id) in ids.iter().enumerate() {
        let top = delta(&folder.join(id), size, cluster)?;
        let begun = Instant::now();
        server.attach(id, &[base.clone(), top])?;
        adds.push(begun.elapsed().as_secs_f64() * 1000.0);
        if plan.densities.contains(&(index + 1)) {
            seen.push(look(&server, index + 1)?);
        }
    }
    for id in &ids {
        let begun = Instant::now();
        server.detach(id, false)?;
        removes.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    drop(server);
    fs::remove_dir_all(&folder).context("cannot remove the folder")?;

    report.row("attach (add and start)", "ours", "ms", &adds)?;
    report.row("detach (stop and delete)", "ours", "ms", &removes)?;
    eprintln!("bench: idle disks done");
    tell(report, &seen)
}

fn tell(report: &mut Report, seen: &[Seen]) -> Result<()> {
    for at in seen {
        report.count(
            &format!("idle disks: {}", at.disks),
            json!({
                "threads": at.threads,
                "descriptors": at.descriptors,
                "process_resident_kib": at.process / 1024,
                "machine_in_use_kib": at.all / 1024,
            }),
        );
    }
    let (first, last) = seen.first().zip(seen.last()).context("nothing was seen")?;
    let more = (last.disks - first.disks) as f64;
    let process = (last.process as f64 - first.process as f64) / more;
    let all = (last.all as f64 - first.all as f64) / more;
    report.count(
        "one idle disk more",
        json!({
            "process_resident_bytes": process.round(),
            "kernel_bytes": (all - process).round(),
            "descriptors": (last.descriptors - first.descriptors) as f64 / more,
            "threads": (last.threads as f64 - first.threads as f64) / more,
        }),
    );
    let once = |value| Spread::of(&[value]).context("one reading");
    report.ratio(
        "memory of an idle disk / 256 KiB (process and kernel)",
        once(all / LIMIT)?,
        Goal::AtMost(1.0),
    );
    report.ratio(
        "threads at the most disks / at one",
        once(last.threads as f64 / first.threads as f64)?,
        Goal::Equal(0.0),
    );
    Ok(())
}
