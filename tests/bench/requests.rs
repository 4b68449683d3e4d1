//! What one request costs in kernel calls: io_uring_enter, SQEs, system calls of any kind.

use anyhow::{Context, Result};
use serde_json::json;

use crate::fio::{End, Job, Kind};
use crate::host::Process;
use crate::plan::Plan;
use crate::report::{Report, round};
use crate::throughput::Up;
use crate::trace;

/// What was counted, for one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) enters: f64,
    pub(crate) submissions: f64,
    pub(crate) workers: f64,
    pub(crate) calls: f64,
}

/// Counts over a fixed number of requests on `up`'s device.
pub(crate) fn cost(
    device: &std::path::Path,
    process: Process,
    kind: Kind,
    depth: u32,
    requests: u64,
) -> Result<Cost> {
    let job = Job {
        kind,
        block: 4 << 10,
        depth,
        end: End::Requests(requests),
    };
    let (reading, calls) = trace::during(process, || job.run(device))?;
    // fio reads a little of a device before its job begins: at thousands of requests that is nothing.
    let each = |count: u64| count as f64 / reading.requests as f64;
    Ok(Cost {
        enters: each(calls.enters),
        submissions: each(calls.submissions),
        workers: each(calls.workers),
        calls: each(calls.calls),
    })
}

/// Counts every subject that has a process.
pub(crate) fn measure(report: &mut Report, plan: &Plan, subjects: &[Up<'_>]) -> Result<()> {
    for up in subjects {
        let Some(pid) = up.subject.process() else {
            continue;
        };
        let name = up.subject.name();
        for (word, kind) in [("read", Kind::RandomRead), ("write", Kind::RandomWrite)] {
            for depth in [1, 32] {
                let cost = cost(&up.device, Process(pid), kind, depth, plan.requests)
                    .with_context(|| format!("counting the calls of {name}"))?;
                report.count(
                    &format!("a request: {name}, 4k {word} QD{depth}"),
                    json!({
                        "io_uring_enter": round(cost.enters),
                        "sqes": round(cost.submissions),
                        "left_to_workers": round(cost.workers),
                        "system_calls": round(cost.calls),
                    }),
                );
            }
        }
    }
    eprintln!("bench: calls counted");
    Ok(())
}
