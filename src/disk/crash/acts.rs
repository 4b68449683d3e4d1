//! What a scenario does, act by act.

use super::explore::Plan;
use super::layout::{ALL, REGION, SECTORS};
use super::scenarios::{NO_ROOM, NONE, SHORT};
use crate::io::stops::Chance;

/// One act. Places are sectors of the regions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Sector, sectors.
    Write(usize, usize),
    /// Sector, sectors; force unit access.
    Fua(usize, usize),
    /// Sector, sectors.
    Zero(usize, usize),
    /// Sector, sectors.
    Discard(usize, usize),
    Flush,
    /// Until everything is answered.
    Wait,
    /// The top is sealed once everything is answered, and a new one put on it.
    Snapshot,
    /// The disk is closed cleanly once everything is answered, and opened again.
    Reopen,
    /// The disk becomes larger by so many clusters, once everything is answered.
    Grow(u64),
    /// The process dies in the middle of it; the next one opens the disk and is given every request again
    /// that was not answered.
    Kill,
    /// The power goes in the middle of it; requests that were not answered are forgotten.
    Cut,
    /// The next sync fails, and the kernel drops what it could not write; the process answers errors, closes the disk or
    /// dies; the next one opens it in the same boot. Requests that were not answered are forgotten.
    SyncFails,
}

/// A run of sectors inside one region: short ones, whole clusters, many.
fn place(chance: &mut Chance) -> (usize, usize) {
    let region = chance.below(ALL / REGION) * REGION;
    let (at, len) = match chance.below(8) {
        0..=3 => (chance.below(REGION), 1 + chance.below(20)),
        4..=6 => (
            chance.below(REGION / SECTORS) * SECTORS,
            SECTORS * (1 + chance.below(2)),
        ),
        _ => (chance.below(REGION), 1 + chance.below(REGION)),
    };
    (region + at, len.min(REGION - at))
}

fn random(chance: &mut Chance, count: usize) -> Vec<Act> {
    let mut acts = Vec::with_capacity(count);
    for _ in 0..count {
        let (at, len) = place(chance);
        acts.push(match chance.below(42) {
            0..=15 => Act::Write(at, len),
            16..=18 => Act::Fua(at, len),
            19..=22 => Act::Zero(at, len),
            23..=26 => Act::Discard(at, len),
            27..=32 => Act::Flush,
            33 | 34 => Act::Wait,
            35 => Act::Snapshot,
            36 => Act::Reopen,
            37 | 38 => Act::Kill,
            // With 8192 clusters the index takes another one.
            39 => Act::Grow(1 << chance.below(15)),
            40 => Act::SyncFails,
            _ => Act::Cut,
        });
    }
    acts
}

/// Acts by chance, and what they have to bear.
pub(super) fn by_chance(seed: u64, samples: usize, judged: usize) -> Plan {
    let mut chance = Chance::new(!seed);
    let hardship = match chance.below(4) {
        0 => NO_ROOM,
        1 => SHORT,
        _ => NONE,
    };
    let count = 6 + chance.below(14);
    Plan {
        name: "by chance",
        acts: random(&mut chance, count),
        hardship,
        seed,
        samples,
        judged,
    }
}
