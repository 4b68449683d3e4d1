//! Exact counts of a process's kernel calls, by the kernel's own histograms.
//!
//! Nothing stops at them, unlike strace: what is counted runs as it always does.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::host::{Process, read, run, write};

const TRACING: &str = "/sys/kernel/tracing";
const ENTER: &str = "syscalls/sys_enter_io_uring_enter";
const SUBMIT: &str = "io_uring/io_uring_submit_req";
/// What the kernel could not do at once and gave to a worker of its own.
const WORKER: &str = "io_uring/io_uring_queue_async_work";
const CALL: &str = "raw_syscalls/sys_enter";

/// What a process did between two moments.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Calls {
    pub(crate) enters: u64,
    pub(crate) submissions: u64,
    pub(crate) workers: u64,
    /// System calls of any kind.
    pub(crate) calls: u64,
}

fn trigger(event: &str) -> PathBuf {
    Path::new(TRACING)
        .join("events")
        .join(event)
        .join("trigger")
}

fn switch(word: &str) -> Result<()> {
    for event in [ENTER, SUBMIT, WORKER, CALL] {
        write(trigger(event), &format!("{word}hist:keys=common_pid"))?;
    }
    Ok(())
}

/// The count of each key.
fn histogram(event: &str) -> Result<Vec<(String, u64)>> {
    let text = read(trigger(event).with_file_name("hist"))?;
    let lines = text.lines().filter(|line| line.starts_with('{'));
    lines
        .map(|line| {
            let (key, count) = line
                .split_once("hitcount:")
                .with_context(|| format!("a histogram's line that we cannot read: {line}"))?;
            let key = key.trim_matches(|c: char| "{} ".contains(c));
            let key = key.rsplit(':').next().unwrap_or(key).trim();
            Ok((key.to_owned(), count.trim().parse()?))
        })
        .collect()
}

/// Counts what `process` does while `act` runs.
pub(crate) fn during<T>(process: Process, act: impl FnOnce() -> Result<T>) -> Result<(T, Calls)> {
    if !Path::new(TRACING).join("events").exists() {
        run("mount", &["-t", "tracefs", "tracefs", TRACING])?;
    }
    switch("")?;
    let done = act();
    let mut calls = Calls::default();
    let counted = count(process, &mut calls);
    switch("!")?;
    let done = done?;
    counted?;
    if calls.calls == 0 {
        bail!("the kernel counted no call of process {}", process.0);
    }
    Ok((done, calls))
}

fn count(process: Process, calls: &mut Calls) -> Result<()> {
    let threads: HashSet<String> = process.threads()?.iter().map(u32::to_string).collect();
    let of_threads = |event| -> Result<u64> {
        let rows = histogram(event)?;
        let ours = rows.iter().filter(|(key, _)| threads.contains(key));
        Ok(ours.map(|(_, count)| count).sum())
    };
    calls.enters = of_threads(ENTER)?;
    calls.submissions = of_threads(SUBMIT)?;
    calls.workers = of_threads(WORKER)?;
    calls.calls = of_threads(CALL)?;
    Ok(())
}
