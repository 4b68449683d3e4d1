//! Is a request on a deep chain as cheap as on a shallow one? Kernel calls and SQEs a request through
//! the device, at depths 1, 32 and 128.
//!
//! The clusters of each disk are dealt out over its layers like cards, so that most requests meet
//! another layer than the one before.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use ploop_snapshotter::proto::v1;
use ploop_snapshotter::units::ClusterSize;
use serde_json::json;

use crate::fio::Kind;
use crate::plan::Plan;
use crate::ploopd::{Ploopd, delta};
use crate::report::{Goal, Report, round};
use crate::requests::cost;
use crate::samples::Spread;

pub(crate) const DEPTHS: [u32; 3] = [1, 32, 128];
pub(crate) const CLUSTERS: u32 = 512;

pub(crate) fn size() -> u64 {
    u64::from(CLUSTERS) * ClusterSize::DEFAULT.bytes()
}

/// Makes a full chain of `depth` sealed layers in `folder`, and an empty top. Lowest first.
pub(crate) fn build(folder: &Path, depth: u32) -> Result<Vec<v1::Delta>> {
    fs::create_dir(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut chain = Vec::new();
    for layer in 0..depth {
        let path = folder.join(format!("layer{layer}"));
        let data: Vec<_> = (0..CLUSTERS)
            .filter(|cluster| cluster % depth == layer)
            .map(|cluster| (cluster, 0x5A))
            .collect();
        let seal = crate::images::sealed(&path, size(), ClusterSize::DEFAULT, &data);
        chain.push(v1::Delta {
            path: path.display().to_string(),
            format: v1::Format::Ploop.into(),
            seal: Some(v1::Seal {
                length: seal.length,
                digest: seal.digest,
                ..v1::Seal::default()
            }),
        });
    }
    chain.push(delta(&folder.join("top"), size(), ClusterSize::DEFAULT)?);
    Ok(chain)
}

pub(crate) fn measure(
    report: &mut Report,
    plan: &Plan,
    binaries: &Path,
    folder: &Path,
) -> Result<()> {
    let server = Ploopd::start(binaries, "chains", "")?;
    let mut costs = Vec::new();
    for depth in DEPTHS {
        let folder = folder.join(format!("chain{depth}"));
        let chain = build(&folder, depth)?;
        let id = format!("chain{depth}");
        let device = server.attach(&id, &chain)?;
        // Every block at most once: there are more of them than requests.
        let requests = plan.requests.min(size() / 4096);
        let cost = cost(&device, server.process(), Kind::RandomRead, 1, requests)?;
        server.detach(&id, false)?;
        fs::remove_dir_all(&folder).context("cannot remove a chain")?;
        report.count(
            &format!("a request: ours, chain of {depth}, 4k read QD1"),
            json!({
                "io_uring_enter": round(cost.enters),
                "sqes": round(cost.submissions),
                "system_calls": round(cost.calls),
            }),
        );
        costs.push(cost);
    }
    for (depth, cost) in DEPTHS.iter().zip(&costs).skip(1) {
        let ratio = Spread::of(&[cost.submissions / costs[0].submissions]);
        report.ratio(
            &format!("SQEs a request, chain of {depth} / of 1"),
            ratio.context("one reading")?,
            Goal::Equal(0.02),
        );
    }
    eprintln!("bench: chains done");
    Ok(())
}
