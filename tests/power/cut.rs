//! The disk as a power cut may leave it.
//!
//! All that was answered before the last flush that was answered before the cut is there. Of what was
//! answered since, each write may be there or not, whole or sector by sector: which of it is chance, the same
//! for the same seed. A disk that *lies* forgets behind flushes too: that is how we know that who compares
//! can tell.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FallocateFlags, fallocate};

use crate::chance::Chance;
use crate::log::{Entry, Log, SECTOR};
use crate::state::State;

/// So many requests a disk that lies may forget, whatever was flushed.
const LIE: usize = 400;

/// Which cut.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The log of the disk.
    log: PathBuf,
    /// What every later cut has in common: made by the first, brought forward by each. Empty it to begin again.
    base: PathBuf,
    /// The disk that is rebuilt; what was acknowledged is in the file of the same name with `.state`.
    out: PathBuf,
    /// Which of them, from 0; they go from the begin of the work to its end.
    #[arg(long)]
    nth: usize,
    /// How many cuts there are.
    #[arg(long)]
    of: usize,
    /// Where they are, and what each loses.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The bytes of the disk.
    #[arg(long)]
    size: u64,
    /// The byte behind the end of its file system.
    #[arg(long)]
    at: u64,
    /// A disk that answers flushes and does nothing.
    #[arg(long)]
    lie: bool,
}

/// What becomes of writes that no flush covers.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Lost,
    Kept,
    Some,
    Torn,
}

impl Fate {
    fn of(chance: &mut Chance) -> Self {
        match chance.below(6) {
            0 => Self::Lost,
            1 => Self::Kept,
            2 | 3 => Self::Some,
            _ => Self::Torn,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Lost => "all of it lost",
            Self::Kept => "all of it kept",
            Self::Some => "some of it lost",
            Self::Torn => "torn at sectors",
        }
    }

    fn keeps(self, chance: &mut Chance) -> bool {
        match self {
            Self::Lost => false,
            Self::Kept => true,
            Self::Some | Self::Torn => chance.below(2) == 0,
        }
    }
}

/// Rebuilds the disk at one cut.
pub(crate) fn cut(arguments: &Arguments) -> Result<String> {
    let log = Log::open(&arguments.log)?;
    let moments = moments(&log, arguments)?;
    let cut = *moments.get(arguments.nth).context("there is no such cut")?;
    let flushed = log.entries[..cut]
        .iter()
        .rposition(Entry::is_flush)
        .map_or(0, |at| at + 1);
    let sure = if arguments.lie {
        flushed.min(cut.saturating_sub(LIE))
    } else {
        flushed
    };
    forward(&log, arguments, sure)?;
    let copied = Command::new("cp")
        .arg("--sparse=auto")
        .args([&arguments.base, &arguments.out])
        .status()?;
    ensure!(
        copied.success(),
        "{} cannot be copied",
        arguments.base.display()
    );

    let disk = OpenOptions::new().write(true).open(&arguments.out)?;
    let mut chance = Chance::new(arguments.seed, cut as u64);
    let fate = if arguments.lie {
        Fate::Some
    } else {
        Fate::of(&mut chance)
    };
    let mut open = 0;
    for entry in log.entries[sure..cut].iter().filter(|entry| entry.len > 0) {
        open += 1;
        let bytes = log.data(entry)?;
        if entry.is_durable() {
            put(&disk, entry.offset, &bytes)?;
        } else if matches!(fate, Fate::Torn) {
            for (at, sector) in (entry.offset..).step_by(SECTOR).zip(bytes.chunks(SECTOR)) {
                if fate.keeps(&mut chance) {
                    put(&disk, at, sector)?;
                }
            }
        } else if fate.keeps(&mut chance) {
            put(&disk, entry.offset, &bytes)?;
        }
    }
    let mut state = State::default();
    for entry in &log.entries[..cut] {
        for (key, value) in log.marks(entry, arguments.at)? {
            state.put(key, value);
        }
    }
    let mut path = arguments.out.clone().into_os_string();
    path.push(".state");
    state.store(Path::new(&path))?;
    let what = if arguments.lie {
        "not on the platter of a disk that lies"
    } else {
        "not flushed"
    };
    Ok(format!(
        "request {cut} of {}, {open} {what}, {}",
        log.entries.len(),
        fate.words()
    ))
}

/// The cuts in their order. One half falls anywhere; the other directly behind an acknowledgement, when
/// nothing else has flushed yet.
fn moments(log: &Log, arguments: &Arguments) -> Result<Vec<usize>> {
    let mut acknowledged: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut bounds = [None, None];
    for (index, entry) in log.entries.iter().enumerate() {
        for (key, value) in log.marks(entry, arguments.at)? {
            match (key.as_str(), value.as_str()) {
                ("work", "begins") => bounds[0] = Some(index + 1),
                ("work", _) => bounds[1] = Some(index),
                // What is seldom acknowledged counts as much as what often is.
                (key, _) => {
                    let kind = key.split('-').next().unwrap_or(key).to_owned();
                    acknowledged.entry(kind).or_default().push(index + 1);
                }
            }
        }
    }
    let [Some(begin), Some(end)] = bounds else {
        bail!("the log has no begin or no end of the work");
    };
    for moments in acknowledged.values_mut() {
        moments.retain(|at| (begin..end).contains(at));
    }
    let kinds: Vec<_> = acknowledged
        .values()
        .filter(|moments| !moments.is_empty())
        .collect();
    ensure!(
        !kinds.is_empty(),
        "nothing was acknowledged between the begin and the end of the work"
    );
    let mut chance = Chance::new(arguments.seed, 0);
    let mut choose = |count: usize| usize::try_from(chance.below(count as u64));
    let mut moments = Vec::new();
    for nth in 0..arguments.of {
        moments.push(if nth.is_multiple_of(2) {
            begin + choose(end - begin)?
        } else {
            let kind = kinds[choose(kinds.len())?];
            kind[choose(kind.len())?]
        });
    }
    moments.sort_unstable();
    Ok(moments)
}

/// Brings the base forward to everything before the request `sure`.
fn forward(log: &Log, arguments: &Arguments, sure: usize) -> Result<()> {
    let mut noted = arguments.base.clone().into_os_string();
    noted.push(".requests");
    let done = match fs::read_to_string(&noted) {
        Ok(text) if arguments.base.exists() => text.trim().parse()?,
        _ => 0,
    };
    ensure!(
        done <= sure,
        "the base is past this cut already: begin with an empty one"
    );
    let base = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&arguments.base)?;
    base.set_len(arguments.size)?;
    for entry in log.entries[done..sure].iter().filter(|entry| entry.len > 0) {
        put(&base, entry.offset, &log.data(entry)?)?;
    }
    fs::write(noted, sure.to_string())?;
    Ok(())
}

/// Zeros become a hole: the disk lies in memory.
fn put(disk: &File, offset: u64, bytes: &[u8]) -> Result<()> {
    if bytes.len() >= 4096 && bytes.iter().all(|byte| *byte == 0) {
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(disk, hole, offset, bytes.len() as u64)?;
    } else {
        disk.write_all_at(bytes, offset)?;
    }
    Ok(())
}
