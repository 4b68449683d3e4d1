//! Say what this machine offers, and what is lost without what it does not.
//!
//! Nothing is changed: a file that has to be tried is made and removed again. Each row says what was
//! looked at, what was found, what is lost without it, and, where it is missing, what to do.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::host;
use super::output::{self, Style};
use super::verdict::Verdict;
use crate::config::Config;
use crate::filesystem::Kind;
use crate::ublk;

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// As it should be.
    Good,
    /// It goes without, and something is lost.
    Less,
    /// Something does not go at all.
    Missing,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Less => "less",
            Self::Missing => "MISSING",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) what: &'static str,
    pub(super) state: State,
    pub(super) found: String,
    /// What is lost without it.
    pub(super) without: &'static str,
    /// What to do, where there is something.
    pub(super) advice: String,
}

impl Row {
    pub(super) fn new(what: &'static str, without: &'static str) -> Self {
        Self {
            what,
            state: State::Good,
            found: String::new(),
            without,
            advice: String::new(),
        }
    }

    pub(super) fn good(mut self, found: impl Into<String>) -> Self {
        self.found = found.into();
        self
    }

    pub(super) fn bad(
        mut self,
        state: State,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        self.state = state;
        self.found = found.into();
        self.advice = advice.into();
        self
    }

    fn as_json(&self) -> Value {
        json!({
            "what": self.what,
            "state": self.state.word(),
            "found": self.found,
            "without": self.without,
            "advice": self.advice,
        })
    }
}

/// Looks at everything.
pub(super) fn preflight(config: &Config, style: Style) -> Result<Verdict> {
    let mut rows = vec![host::kernel(), host::io_uring(), host::admin()];
    let rights = rows.iter().all(|row| row.state != State::Missing);
    let (mut ublk_rows, driver) = ublk();
    rows.append(&mut ublk_rows);
    let fuse = [host::fuse(), host::loops()];
    let fuse_works = fuse.iter().all(|row| row.state != State::Missing);
    rows.extend(fuse);
    rows.extend([
        host::io_flusher(),
        host::locked_memory(),
        host::open_files(),
        host::run_folder(&config.run_dir),
    ]);
    rows.extend(host::root(&config.root));
    rows.push(host::e2fsprogs()?);
    if config.wants_user_quota() {
        rows.push(host::user_quota());
    }
    if config.makes(Kind::Xfs) {
        rows.extend(host::xfs()?);
    }

    let transport = match (rights, driver, fuse_works) {
        (true, true, _) => Some("ublk"),
        (true, false, true) => Some("fuse"),
        _ => None,
    };
    match style {
        Style::Json => output::json(&json!({
            "transport": transport,
            "rows": rows.iter().map(Row::as_json).collect::<Vec<_>>(),
        })),
        Style::Text => {
            show(&rows);
            output::line(match transport {
                Some("ublk") => "Disks reach the kernel by ublk, and outlive ploopd.",
                Some(_) => {
                    "Disks reach the kernel by FUSE and loop devices: slower, and containers lose theirs if ploopd \
                     ends."
                }
                None => "No disk can reach the kernel here.",
            });
        }
    }
    Ok(match transport {
        Some(_) => Verdict::Clean,
        None => Verdict::Failed,
    })
}

fn show(rows: &[Row]) {
    let width = rows.iter().map(|row| row.what.len()).max().unwrap_or(0);
    for row in rows {
        let Row { what, found, .. } = row;
        output::line(&format!("{:8} {what:width$}  {found}", row.state.word()));
        if row.state == State::Good {
            continue;
        }
        let blank = " ".repeat(9 + width);
        output::line(&format!("{blank}  without it: {}", row.without));
        if !row.advice.is_empty() {
            output::line(&format!("{blank}  what to do: {}", row.advice));
        }
    }
}

/// The driver, and each thing that it can do. Says whether it is one that we use.
fn ublk() -> (Vec<Row>, bool) {
    let driver = Row::new(
        "ublk driver",
        "disks go through FUSE and loop devices: slower, and they die with ploopd",
    );
    let features = match ublk::probe() {
        Ok(features) => features,
        Err(error) => {
            let (found, advice) = host::why_no_ublk(&error);
            return (vec![driver.bad(State::Less, found, advice)], false);
        }
    };
    let mut rows = vec![match features.suffice() {
        Ok(()) => driver.good(format!("present, features {:#x}", features.bits())),
        Err(error) => driver.bad(
            State::Less,
            format!("present, features {:#x}", features.bits()),
            error.to_string(),
        ),
    }];
    for (what, has, without, since) in [
        (
            "ublk recovery",
            features.recovery(),
            "disks die with ploopd",
            "6.1",
        ),
        (
            "ublk user copy",
            features.user_copy(),
            "ublk is not used at all",
            "6.5",
        ),
        (
            "ublk zero copy",
            features.zero_copy(),
            "every request is copied once more between kernel and ploopd",
            "6.16",
        ),
        (
            "ublk size change",
            features.update_size(),
            "a disk gets another size only while nobody uses it",
            "6.16",
        ),
        (
            "ublk no partition scan",
            features.no_partition_scan(),
            "the kernel reads a new disk once to look for partitions",
            "7.0",
        ),
    ] {
        let row = Row::new(what, without);
        rows.push(if has {
            row.good("yes")
        } else {
            row.bad(State::Less, "no", format!("Linux {since} has it"))
        });
    }
    rows.push(host::ublks_max());
    (rows, features.suffice().is_ok())
}

/// The nearest folder that is there already.
pub(super) fn standing(path: &Path) -> &Path {
    path.ancestors()
        .find(|path| path.is_dir())
        .unwrap_or(Path::new("/"))
}
