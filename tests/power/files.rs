//! Files that are replaced as careful programs do it: write another, flush it, rename it over the old one,
//! flush the folder.
//!
//! At a cut every name holds one whole file: the last one that was acknowledged for it, or the one that came
//! next.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::Write;

use anyhow::{Context, Result, ensure};

use crate::chance::Chance;
use crate::state::State;
use crate::{Compare, Work};

/// The names that are written in turn.
const NAMES: u64 = 8;

/// What turn `turn` writes.
fn content(seed: u64, turn: u64) -> Result<Vec<u8>> {
    let mut chance = Chance::new(seed, turn);
    // Small ones more often than large ones.
    let most = 1 << (8 + chance.below(11));
    let len = usize::try_from(1 + chance.below(most))?;
    Ok(chance.bytes(len))
}

fn name(turn: u64) -> String {
    format!("file-{}", turn % NAMES)
}

/// Writes until it is killed or the disk fails.
pub(crate) fn write(work: &Work) -> Result<Infallible> {
    let marks = work.place.open()?;
    let folder = File::open(&work.folder).with_context(|| work.folder.display().to_string())?;
    for turn in 0.. {
        let new = work.folder.join("new");
        let mut file = File::create(&new)?;
        file.write_all(&content(work.seed, turn)?)?;
        if !work.careless {
            file.sync_all()?;
        }
        fs::rename(&new, work.folder.join(name(turn)))?;
        if !work.careless {
            folder.sync_all()?;
        }
        marks.say(&work.key, &turn.to_string())?;
    }
    unreachable!("there is always another turn")
}

/// Every name holds one of the two files that it may hold.
pub(crate) fn check(compare: &Compare) -> Result<String> {
    let Some(last) = State::load(&compare.state)?.number(&compare.key)? else {
        return Ok("nothing was acknowledged yet".to_owned());
    };
    let mut ahead = "";
    for turn in last.saturating_sub(NAMES - 1)..=last {
        let path = compare.folder.join(name(turn));
        let found = fs::read(&path).with_context(|| {
            format!("{}, acknowledged in turn {turn} of {last}", path.display())
        })?;
        if found == content(compare.seed, turn)? {
            continue;
        }
        ensure!(
            name(turn) == name(last + 1) && found == content(compare.seed, last + 1)?,
            "{} is not what turn {turn} wrote, of {last} that were acknowledged: it has {} bytes",
            path.display(),
            found.len()
        );
        ahead = ", and the next";
    }
    Ok(format!("turn {last}{ahead}"))
}
