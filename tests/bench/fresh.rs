//! Random writes onto a fresh snapshot over a full image: every one of them has to copy first.
//!
//! The number of writes is fixed, not the seconds: a subject that is quicker would otherwise meet
//! fewer clusters for the first time.

use anyhow::{Context, Result};

use crate::fio::{End, Job, Kind};
use crate::plan::Plan;
use crate::report::Report;
use crate::subjects::Fresh;

pub(crate) const FRESH: &str = "4k randwrite QD32, fresh snapshot";

/// Takes subjects that are set up and full; their layers come and go in turns.
pub(crate) fn measure(
    report: &mut Report,
    plan: &Plan,
    subjects: &mut [&mut dyn Fresh],
) -> Result<()> {
    let job = Job {
        kind: Kind::RandomWrite,
        block: 4 << 10,
        depth: 32,
        end: End::Requests(plan.fresh),
    };
    for subject in subjects.iter_mut() {
        let name = subject.name();
        subject
            .freeze()
            .with_context(|| format!("cannot make a full image of {name}"))?;
    }
    let mut readings = vec![Vec::new(); subjects.len()];
    for round in 0..plan.snapshots {
        for turn in 0..subjects.len() {
            let index = (round + turn) % subjects.len();
            let subject = &mut subjects[index];
            let name = subject.name();
            let device = subject
                .layer()
                .with_context(|| format!("cannot put a layer over {name}"))?;
            let reading = job
                .run(&device)
                .with_context(|| format!("{name}, {FRESH}"))?;
            subject
                .drop_layer()
                .with_context(|| format!("cannot drop a layer of {name}"))?;
            readings[index].push(reading.iops);
        }
    }
    for (subject, rounds) in subjects.iter().zip(&readings) {
        report.row(FRESH, subject.name(), "IOPS", rounds)?;
    }
    eprintln!("bench: {FRESH} done");
    Ok(())
}
