//! The whole of a run, part by part, and its report.

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use ploop_snapshotter::units::ClusterSize;

use crate::plan::Plan;
use crate::ploopd::Ploopd;
use crate::report::Report;
use crate::subjects::{Fresh, Loop, Ours, QemuNbd, Rublk, Subject, Target, Thin};
use crate::throughput::{self, set_up};
use crate::{chains, clusters, density, fresh, goals, host, prepare, requests, table};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The folder of our programs.
    #[arg(long)]
    binaries: PathBuf,
    /// A block device to use up: a file system is made on it.
    #[arg(long)]
    disk: PathBuf,
    /// The file to write.
    #[arg(long)]
    out: PathBuf,
    /// What `instructions` wrote.
    #[arg(long)]
    instructions: PathBuf,
    /// Less of everything.
    #[arg(long)]
    quick: bool,
    /// These parts only, with commas between; all if absent.
    #[arg(long, value_enum, value_delimiter = ',')]
    parts: Vec<Part>,
    /// Of the peers these only, as their rows are called; the goals against others are left out.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Ours and its peers on an allocated disk, their kernel calls, and fresh snapshots.
    Peers,
    /// Deep chains.
    Chains,
    /// Idle disks.
    Density,
    /// Prepare.
    Prepare,
    /// Cluster sizes.
    Clusters,
}

/// Where a run takes place.
struct Ground<'a> {
    plan: Plan,
    binaries: &'a Path,
    /// The file system that every subject lies on.
    folder: &'a Path,
    /// The block device below it.
    disk: &'a Path,
    /// Peers that are measured; all if empty.
    only: &'a [String],
}

impl Ground<'_> {
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }
}

/// Measures, prints, writes.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let place = tempfile::tempdir().context("a folder to mount at")?;
    let (disk, point) = (&arguments.disk, place.path().display().to_string());
    let disk_name = disk.display().to_string();
    host::run("mkfs.ext4", &["-q", "-F", &disk_name])?;
    host::run("mount", &[&disk_name, &point])?;
    let ground = Ground {
        plan: if arguments.quick {
            Plan::QUICK
        } else {
            Plan::FULL
        },
        binaries: &arguments.binaries,
        folder: place.path(),
        disk,
        only: &arguments.only,
    };
    let mut report = Report::default();
    let done = all(&mut report, &ground, arguments);
    // After an error something may still use it: then the error is what matters.
    let unmounted = host::run("umount", &[&point]);
    done?;
    unmounted?;
    print!("{}", table::text(&report));
    report.save(&arguments.out)
}

fn all(report: &mut Report, ground: &Ground<'_>, arguments: &Arguments) -> Result<()> {
    let wanted = |part| arguments.parts.is_empty() || arguments.parts.contains(&part);
    let Ground {
        ref plan,
        binaries,
        folder,
        disk,
        ..
    } = *ground;
    let kernel = host::run("uname", &["-r"])?;
    report.machine("kernel", kernel.trim());
    report.machine("quick", arguments.quick);
    report.machine("rounds", plan.rounds);
    report.machine("disk_bytes", plan.disk);
    if wanted(Part::Peers) {
        peers(report, ground)?;
    }
    if wanted(Part::Chains) {
        chains::measure(report, plan, binaries, folder)?;
        let text = host::read(&arguments.instructions)?;
        let counted = serde_json::from_str(&text).context("the file of instructions")?;
        goals::judge_instructions(report, &counted)?;
    }
    if wanted(Part::Density) {
        density::measure(report, plan, binaries, folder)?;
    }
    if wanted(Part::Prepare) {
        prepare::measure(report, plan, binaries, folder)?;
    }
    if wanted(Part::Clusters) {
        clusters::measure(report, plan, binaries, folder, disk)?;
    }
    Ok(())
}

/// Everybody on an allocated disk, then those with snapshots on a fresh one.
fn peers(report: &mut Report, ground: &Ground<'_>) -> Result<()> {
    let (plan, folder) = (&ground.plan, &ground.folder.join("peers"));
    fs::create_dir(folder).context("cannot make a folder")?;
    let server = Rc::new(Ploopd::start(ground.binaries, "peers", "")?);
    report.machine("transport", server.hello.transport.as_str());
    let mut ours = Ours::new("ours", "ours", &server, ClusterSize::DEFAULT);
    let copying = Rc::new(Ploopd::start(
        ground.binaries,
        "copying",
        "zero_copy = false",
    )?);
    let mut ours_copying = Ours::new("ours copying", "copying", &copying, ClusterSize::DEFAULT);
    let mut kernel_loop = Loop::default();
    let mut rublk = Rublk::new(Target::Loop);
    let mut rublk_zero_copy = Rublk::new(Target::LoopZeroCopy);
    let mut rublk_qcow2 = Rublk::new(Target::Qcow2);
    let mut nbd = QemuNbd::default();
    let mut thin = Thin::default();
    {
        let subjects: [&mut dyn Subject; 8] = [
            &mut ours,
            &mut ours_copying,
            &mut kernel_loop,
            &mut rublk,
            &mut rublk_zero_copy,
            &mut rublk_qcow2,
            &mut nbd,
            &mut thin,
        ];
        let mut up = Vec::new();
        let wanted = |subject: &&mut dyn Subject| ground.wants(subject.name());
        for subject in subjects.into_iter().filter(wanted) {
            up.push(set_up(subject, folder, plan)?);
        }
        throughput::measure(report, plan, &up)?;
        requests::measure(report, plan, &up)?;
    }
    ours_copying.down()?;
    kernel_loop.down()?;
    rublk.down()?;
    rublk_zero_copy.down()?;
    {
        let subjects: [&mut dyn Fresh; 3] = [&mut ours, &mut nbd, &mut thin];
        let wanted = |subject: &&mut dyn Fresh| ground.wants(subject.name());
        let mut subjects: Vec<_> = subjects.into_iter().filter(wanted).collect();
        fresh::measure(report, plan, &mut subjects)?;
    }
    let calls = if ground.wants(thin.name()) {
        plan.calls
    } else {
        0
    };
    let times = (0..calls)
        .map(|_| Ok(thin.time_snapshot()?.as_secs_f64() * 1000.0))
        .collect::<Result<Vec<_>>>()?;
    if !times.is_empty() {
        report.row("snapshot made and activated", "dm-thin", "ms", &times)?;
    }
    goals::judge(report, |peer| ground.wants(peer))?;
    for subject in [
        &mut ours as &mut dyn Subject,
        &mut rublk_qcow2,
        &mut nbd,
        &mut thin,
    ] {
        let name = subject.name();
        subject
            .down()
            .with_context(|| format!("cannot take {name} down"))?;
    }
    fs::remove_dir_all(folder).context("cannot remove the peers' folder")
}
