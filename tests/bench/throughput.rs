//! The cases that every subject meets on an allocated disk, in turns.
//!
//! The rule it guards: all subjects meet a case one right after another, in every round from another
//! one on, so a slow moment of the machine and the order fall on all of them alike.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::fio::{End, Job, Kind, fill};
use crate::plan::Plan;
use crate::report::Report;
use crate::subjects::Subject;

/// A case: its name, and what fio does. Short names: the table has one column for each.
struct Case {
    name: &'static str,
    kind: Kind,
    block: u64,
    depth: u32,
}

const fn case(name: &'static str, kind: Kind, block: u64, depth: u32) -> Case {
    Case {
        name,
        kind,
        block,
        depth,
    }
}

pub(crate) const READ_QD1: &str = "4k randread QD1";
pub(crate) const WRITE_QD1: &str = "4k randwrite QD1";
pub(crate) const READ_QD32: &str = "4k randread QD32";
pub(crate) const WRITE_QD32: &str = "4k randwrite QD32";

const CASES: [Case; 6] = [
    case(READ_QD1, Kind::RandomRead, 4 << 10, 1),
    case(WRITE_QD1, Kind::RandomWrite, 4 << 10, 1),
    case(READ_QD32, Kind::RandomRead, 4 << 10, 32),
    case(WRITE_QD32, Kind::RandomWrite, 4 << 10, 32),
    case("128k read QD8", Kind::Read, 128 << 10, 8),
    case("128k write QD8", Kind::Write, 128 << 10, 8),
];

/// A subject that is set up and full.
pub(crate) struct Up<'a> {
    pub(crate) subject: &'a mut dyn Subject,
    pub(crate) device: PathBuf,
}

/// Sets up and fills a subject; an error names it.
pub(crate) fn set_up<'a>(
    subject: &'a mut dyn Subject,
    folder: &Path,
    plan: &Plan,
) -> Result<Up<'a>> {
    let name = subject.name();
    let begun = Instant::now();
    let device = subject
        .up(folder, plan.disk)
        .with_context(|| format!("cannot set up {name}"))?;
    fill(&device).with_context(|| format!("cannot fill {name}"))?;
    eprintln!("bench: {name} is up and full ({:.0?})", begun.elapsed());
    Ok(Up { subject, device })
}

/// Runs every case.
pub(crate) fn measure(report: &mut Report, plan: &Plan, subjects: &[Up<'_>]) -> Result<()> {
    for case in &CASES {
        let job = Job {
            kind: case.kind,
            block: case.block,
            depth: case.depth,
            end: End::Seconds(plan.seconds),
        };
        let large = case.block > 4 << 10;
        let mut readings = vec![Vec::new(); subjects.len()];
        for round in 0..plan.rounds {
            for turn in 0..subjects.len() {
                let index = (round + turn) % subjects.len();
                let up = &subjects[index];
                let reading = job
                    .run(&up.device)
                    .with_context(|| format!("{}, {}", up.subject.name(), case.name))?;
                readings[index].push(if large {
                    reading.bytes_per_second / (1 << 20) as f64
                } else {
                    reading.iops
                });
            }
        }
        let unit = if large { "MiB/s" } else { "IOPS" };
        for (up, rounds) in subjects.iter().zip(&readings) {
            report.row(case.name, up.subject.name(), unit, rounds)?;
        }
        eprintln!("bench: {} done", case.name);
    }
    Ok(())
}
