//! Sectors that know who they are: their number, and the round that wrote them.
//!
//! A round writes some runs of sectors in place, flushes, and says so. At a cut after round N was
//! acknowledged every sector is as the last of the rounds up to N left it, or as round N + 1 would: old or
//! new, sector by sector, and nothing third.

use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use anyhow::{Context, Result, ensure};
use ploop_snapshotter::io::Piece;

use crate::chance::Chance;
use crate::log::SECTOR;
use crate::state::State;
use crate::{Compare, Work};

const SECTORS: u64 = 16_384;
/// The sectors of a run begin and end where a page does: what is written past the page cache must.
const PAGE: u64 = 8;

/// The bytes of a sector.
fn sector(seed: u64, number: u64, round: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SECTOR);
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&round.to_le_bytes());
    bytes.extend(Chance::new(seed ^ (number << 32), round).bytes(SECTOR - 16));
    bytes
}

/// The runs of a round: their first sector, and how many. Round 0 writes all.
fn runs(seed: u64, round: u64) -> Vec<(u64, u64)> {
    const AT_ONCE: u64 = 512;
    if round == 0 {
        return (0..SECTORS / AT_ONCE)
            .map(|nth| (nth * AT_ONCE, AT_ONCE))
            .collect();
    }
    let mut chance = Chance::new(seed, round);
    let pages = SECTORS / PAGE;
    let count = 1 + chance.below(24);
    let run = |chance: &mut Chance| {
        let first = chance.below(pages);
        let most = if chance.below(8) == 0 { 32 } else { 3 };
        let len = 1 + chance.below(most);
        (first * PAGE, len.min(pages - first) * PAGE)
    };
    (0..count).map(|_| run(&mut chance)).collect()
}

/// Writes until it is killed or the disk fails.
pub(crate) fn write(work: &Work, direct: bool) -> Result<Infallible> {
    let marks = work.place.open()?;
    let flags = if direct {
        i32::try_from(rustix::fs::OFlags::DIRECT.bits())?
    } else {
        0
    };
    let path = work.folder.join("sectors");
    let file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .custom_flags(flags)
        .open(&path);
    let file = file.with_context(|| path.display().to_string())?;
    for round in 0.. {
        for (first, count) in runs(work.seed, round) {
            let bytes: Vec<u8> = (first..first + count)
                .flat_map(|number| sector(work.seed, number, round))
                .collect();
            Piece::from_bytes(&bytes)
                .with_bytes(|bytes| file.write_all_at(bytes, first * SECTOR as u64))?;
        }
        // The one and the other, as a database and an editor would.
        if !work.careless {
            if round.is_multiple_of(2) {
                file.sync_all()?
            } else {
                file.sync_data()?
            }
        }
        if round == 0 && !work.careless {
            File::open(&work.folder)?.sync_all()?;
        }
        marks.say(&work.key, &round.to_string())?;
    }
    unreachable!("there is always another round")
}

/// Every sector is one of those that it may be.
pub(crate) fn check(compare: &Compare) -> Result<String> {
    let Some(round) = State::load(&compare.state)?.number(&compare.key)? else {
        return Ok("nothing was acknowledged yet".to_owned());
    };
    let path = compare.folder.join("sectors");
    let bytes = std::fs::read(&path)
        .with_context(|| format!("{}, acknowledged up to round {round}", path.display()))?;
    ensure!(
        bytes.len() == usize::try_from(SECTORS)? * SECTOR,
        "{} has {} bytes, and was flushed whole",
        path.display(),
        bytes.len()
    );
    let mut wanted = vec![0; usize::try_from(SECTORS)?];
    let mut next = vec![false; usize::try_from(SECTORS)?];
    for round in 1..=round {
        for (first, count) in runs(compare.seed, round) {
            wanted[usize::try_from(first)?..usize::try_from(first + count)?].fill(round);
        }
    }
    for (first, count) in runs(compare.seed, round + 1) {
        next[usize::try_from(first)?..usize::try_from(first + count)?].fill(true);
    }
    let mut ahead = 0;
    for ((number, found), (wanted, next)) in
        (0..).zip(bytes.chunks(SECTOR)).zip(wanted.iter().zip(next))
    {
        if found == sector(compare.seed, number, *wanted) {
            continue;
        }
        let says = found[8..16]
            .iter()
            .rev()
            .fold(0, |all, byte| (all << 8) | u64::from(*byte));
        ensure!(
            next && found == sector(compare.seed, number, round + 1),
            "sector {number}: round {wanted} wrote it last of the {round} that were acknowledged; it says it is number {} of round {says}, and {}",
            found[..8]
                .iter()
                .rev()
                .fold(0, |all, byte| (all << 8) | u64::from(*byte)),
            if found == sector(compare.seed, number, says) {
                "is"
            } else {
                "is not"
            },
        );
        ahead += 1;
    }
    Ok(format!("round {round}, {ahead} sectors of the next"))
}
