//! What is to be reached, beside what was.
//!
//! The rule it guards: a goal whose readings are missing is an error, not a goal met.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::fresh::FRESH;
use crate::report::{Goal, Report};
use crate::samples::Spread;
use crate::throughput::{READ_QD1, READ_QD32, WRITE_QD1, WRITE_QD32};

/// Ours against one peer in one case.
const AGAINST: [(&str, &str, f64); 11] = [
    (READ_QD32, "kernel loop", 1.15),
    (WRITE_QD32, "kernel loop", 1.25),
    (READ_QD32, BEST, 0.97),
    (WRITE_QD32, BEST, 0.97),
    (READ_QD32, "rublk qcow2", 1.1),
    (WRITE_QD32, "rublk qcow2", 1.1),
    (READ_QD32, "qemu-nbd qcow2", 4.0),
    (WRITE_QD32, "qemu-nbd qcow2", 4.0),
    (READ_QD1, "kernel loop", 0.9),
    (WRITE_QD1, "kernel loop", 0.9),
    (FRESH, "dm-thin", 2.0),
];

/// Whichever of rublk's modes is the quickest in that case.
const BEST: &str = "rublk loop, best mode";
const MODES: [&str; 2] = ["rublk loop", "rublk loop zc"];

/// Holds the rows that were reported against their goals, of the peers that were wanted.
pub(crate) fn judge(report: &mut Report, wanted: impl Fn(&str) -> bool) -> Result<()> {
    for (case, peer, bound) in AGAINST {
        let there = if peer == BEST {
            MODES.iter().all(|mode| wanted(mode))
        } else {
            wanted(peer)
        };
        if !there || !wanted("ours") {
            continue;
        }
        let missing = |who: &str| format!("{who} was not measured in {case}");
        let ours = report
            .rounds(case, "ours")
            .with_context(|| missing("ours"))?;
        let theirs = if peer == BEST {
            best(report, case)
        } else {
            report.rounds(case, peer)
        };
        let theirs = theirs.with_context(|| missing(peer))?;
        let spread = Spread::of_ratios(ours, theirs).with_context(|| missing(peer))?;
        report.ratio(
            &format!("{case}: ours / {peer}"),
            spread,
            Goal::AtLeast(bound),
        );
    }
    Ok(())
}

fn best<'a>(report: &'a Report, case: &str) -> Option<&'a [f64]> {
    let median = |rounds: &[f64]| Spread::of(rounds).map_or(0.0, |spread| spread.median);
    MODES
        .iter()
        .filter_map(|mode| report.rounds(case, mode))
        .max_by(|a, b| median(a).total_cmp(&median(b)))
}

/// Instructions by depth, as `instructions` counted them.
pub(crate) fn judge_instructions(report: &mut Report, counted: &Value) -> Result<()> {
    let of = |depth: &str| {
        counted[depth]
            .as_f64()
            .with_context(|| format!("no instructions were counted at depth {depth}"))
    };
    let shallow = of("1")?;
    for depth in ["32", "128"] {
        let ratio = Spread::of(&[of(depth)? / shallow]).context("one reading")?;
        report.ratio(
            &format!("instructions a request, chain of {depth} / of 1"),
            ratio,
            Goal::Equal(0.02),
        );
    }
    report.count("instructions a request by chain depth", counted.clone());
    Ok(())
}
