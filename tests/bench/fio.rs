//! One fio job on one block device, direct: what it reached.
//!
//! The rule it guards: a job with an error, or one that did nothing, is no reading.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::host;

/// What a job does to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    RandomRead,
    RandomWrite,
    Read,
    Write,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::RandomRead => "randread",
            Self::RandomWrite => "randwrite",
            Self::Read => "read",
            Self::Write => "write",
        }
    }

    pub(crate) fn writes(self) -> bool {
        matches!(self, Self::RandomWrite | Self::Write)
    }
}

/// When a job ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    Seconds(f64),
    /// No block twice.
    Requests(u64),
    /// When all of the device was met once.
    Once,
}

/// One job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    pub(crate) kind: Kind,
    /// Bytes of a request.
    pub(crate) block: u64,
    pub(crate) depth: u32,
    pub(crate) end: End,
}

/// What it reached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) iops: f64,
    pub(crate) bytes_per_second: f64,
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
}

impl Job {
    /// Runs it on `device`.
    pub(crate) fn run(self, device: &Path) -> Result<Reading> {
        let mut arguments = vec![
            "--name=job".to_owned(),
            format!("--filename={}", device.display()),
            format!("--rw={}", self.kind.word()),
            format!("--bs={}", self.block),
            format!("--iodepth={}", self.depth),
            "--ioengine=io_uring".to_owned(),
            "--direct=1".to_owned(),
            // One process less to start; the same seed meets the same blocks on every subject.
            "--thread".to_owned(),
            "--randrepeat=1".to_owned(),
            // A clock is dear in an emulated machine, and fio would ask for it several times a request.
            "--gtod_reduce=1".to_owned(),
            "--output-format=json".to_owned(),
        ];
        match self.end {
            End::Seconds(seconds) => arguments.extend([
                "--time_based".to_owned(),
                "--ramp_time=300ms".to_owned(),
                // Whole seconds are not enough of a choice, and fio's other units are.
                format!("--runtime={}ms", (seconds * 1000.0).round()),
            ]),
            End::Requests(count) => arguments.push(format!("--io_size={}", count * self.block)),
            // A file system's worth of bytes that no layer can leave out.
            End::Once => arguments.push("--refill_buffers".to_owned()),
        }
        let said = host::run("fio", &arguments)?;
        // fio puts its remarks before the JSON.
        let json = said.find('{').map_or("", |at| &said[at..]);
        let answer: Value = serde_json::from_str(json)
            .with_context(|| format!("fio's answer is no JSON: {said}"))?;
        let job = &answer["jobs"][0];
        let side = &job[if self.kind.writes() { "write" } else { "read" }];
        if job["error"] != 0 {
            bail!("fio met error {} on {}", job["error"], device.display());
        }
        let number = |name: &str| {
            side[name]
                .as_f64()
                .with_context(|| format!("fio says no {name}"))
        };
        let count = |name: &str| {
            side[name]
                .as_u64()
                .with_context(|| format!("fio says no {name}"))
        };
        let reading = Reading {
            iops: number("iops")?,
            bytes_per_second: number("bw_bytes")?,
            requests: count("total_ios")?,
            bytes: count("io_bytes")?,
        };
        if reading.requests == 0 {
            bail!("fio did nothing on {}", device.display());
        }
        Ok(reading)
    }
}

/// Writes all of a device once, so that every block of it has its place.
pub(crate) fn fill(device: &Path) -> Result<()> {
    let job = Job {
        kind: Kind::Write,
        block: 1 << 20,
        depth: 4,
        end: End::Once,
    };
    job.run(device).map(drop)
}
