//! The scenarios by name, and what once failed.

use super::acts::{self, Act};
use super::explore::Plan;
use super::layout::CLUSTER;
use crate::io::Hardship;
use crate::io::stops::Chance;

use Act::{Cut, Discard, Flush, Fua, Grow, Kill, Reopen, Snapshot, Wait, Write, Zero};

/// A scenario: what it is called, what it has to bear, what it does.
pub(super) struct Scenario {
    pub(super) name: &'static str,
    hardship: Hardship,
    acts: &'static [Act],
}

const NONE: Hardship = Hardship {
    no_room: false,
    ahead: None,
};
const NO_ROOM: Hardship = Hardship {
    no_room: true,
    ahead: None,
};
/// The file grows by one cluster at a time.
const SHORT: Hardship = Hardship {
    no_room: false,
    ahead: Some(CLUSTER),
};

const fn scenario(name: &'static str, hardship: Hardship, acts: &'static [Act]) -> Scenario {
    Scenario {
        name,
        hardship,
        acts,
    }
}

// The regions: sectors 0..192, 192..384, 384..576, three clusters of 64 sectors each. The base has the
// clusters at 0, 128, 256 (its second half) and 448.

/// All scenarios; the ones by chance come after them.
pub(super) const SCENARIOS: &[Scenario] = &[
    scenario(
        "first writes",
        NONE,
        &[
            Write(64, 8),
            Write(70, 20),
            Flush,
            Write(192, 64),
            Write(320, 3),
            Write(384, 64),
            Write(512, 9),
            Flush,
            Wait,
            Write(100, 28),
            Write(200, 8),
            Flush,
        ],
    ),
    scenario(
        "parts copied up",
        NONE,
        &[
            Write(3, 5),
            Write(130, 1),
            Flush,
            Write(10, 8),
            Write(451, 9),
            Write(12, 70),
            Flush,
            Write(260, 8),
            Write(300, 4),
            Flush,
            Wait,
            Write(5, 5),
            Write(262, 3),
        ],
    ),
    scenario(
        "whole clusters over the parent's",
        NONE,
        &[
            Write(0, 64),
            Write(128, 64),
            Flush,
            Write(448, 64),
            Write(192, 192),
            Flush,
            Write(0, 64),
            Write(384, 128),
            Flush,
        ],
    ),
    scenario(
        "overwritten in place",
        NONE,
        &[
            Write(64, 64),
            Write(0, 4),
            Flush,
            Wait,
            Write(66, 3),
            Write(2, 2),
            Write(66, 5),
            Flush,
            Wait,
            Write(64, 64),
            Wait,
            Write(80, 8),
            Flush,
            Wait,
            Write(64, 16),
            Wait,
            Write(64, 16),
        ],
    ),
    scenario(
        "discarded",
        NONE,
        &[
            Write(64, 64),
            Write(0, 64),
            Write(192, 64),
            Flush,
            Wait,
            Discard(64, 64),
            Discard(0, 64),
            Discard(197, 20),
            Flush,
            Wait,
            Write(66, 4),
            Discard(64, 128),
            Write(70, 3),
            Flush,
            Wait,
            Discard(128, 64),
            Flush,
            Write(130, 4),
        ],
    ),
    scenario(
        "zeroed",
        NONE,
        &[
            Write(64, 64),
            Flush,
            Wait,
            Zero(70, 20),
            Wait,
            Flush,
            Wait,
            Zero(0, 64),
            Zero(130, 10),
            Flush,
            Zero(192, 192),
            Write(200, 4),
            Zero(198, 8),
            Flush,
            Wait,
            Zero(64, 64),
            Wait,
            Flush,
        ],
    ),
    scenario(
        "force unit access",
        NONE,
        &[
            Write(64, 4),
            Fua(66, 8),
            Fua(3, 4),
            Wait,
            Write(3, 2),
            Fua(4, 1),
            Wait,
            Fua(240, 100),
            Write(250, 8),
            Fua(448, 64),
            Fua(64, 4),
            Wait,
            Fua(70, 4),
        ],
    ),
    scenario(
        "flushes at once",
        NONE,
        &[
            Write(64, 8),
            Flush,
            Write(0, 8),
            Flush,
            Write(192, 8),
            Flush,
            Write(384, 8),
            Flush,
            Write(128, 64),
            Flush,
            Write(320, 8),
            Flush,
            Write(512, 8),
            Flush,
            Wait,
            Write(256, 64),
            Flush,
            Write(448, 4),
            Flush,
        ],
    ),
    scenario(
        "writes at once",
        NONE,
        &[
            Write(0, 8),
            Write(8, 8),
            Write(16, 8),
            Zero(20, 8),
            Write(4, 8),
            Flush,
            Write(448, 3),
            Write(450, 6),
            Discard(448, 64),
            Write(460, 8),
            Flush,
            Write(250, 12),
            Write(254, 4),
        ],
    ),
    scenario(
        "growing",
        SHORT,
        &[
            Write(64, 4),
            Write(192, 192),
            Write(320, 8),
            Flush,
            Write(384, 4),
            Write(0, 192),
            Write(512, 4),
            Flush,
            Write(128, 4),
            Write(448, 4),
            Write(256, 64),
            Flush,
        ],
    ),
    scenario(
        "growing through deaths",
        SHORT,
        &[
            Write(64, 4),
            Write(192, 64),
            Kill,
            Write(320, 8),
            Flush,
            Write(384, 4),
            Cut,
            Write(0, 64),
            Write(512, 4),
            Kill,
            Write(128, 4),
            Flush,
            Write(448, 4),
            Cut,
            Write(70, 4),
            Write(328, 4),
            Write(256, 64),
            Flush,
        ],
    ),
    scenario(
        "a larger disk",
        NONE,
        &[
            Write(64, 64),
            Write(3, 5),
            Flush,
            Write(384, 64),
            Grow(100),
            Write(0, 8),
            Grow(8192),
            Write(70, 3),
            Flush,
            Write(192, 64),
            Grow(20_000),
            Write(66, 9),
            Write(448, 9),
            Flush,
            Grow(8192),
        ],
    ),
    scenario(
        "a larger disk, after deaths in a flush",
        SHORT,
        &[
            Write(64, 64),
            Write(0, 64),
            Wait,
            Flush,
            Kill,
            Grow(8192),
            Kill,
            Write(128, 64),
            Wait,
            Flush,
            Kill,
            Grow(16_384),
            Kill,
            Write(192, 64),
            Write(256, 64),
            Wait,
            Flush,
            Kill,
            Grow(20_000),
            Reopen,
            Write(70, 3),
            Flush,
        ],
    ),
    scenario(
        "a larger disk, through deaths",
        SHORT,
        &[
            Write(64, 64),
            Write(0, 64),
            Write(384, 8),
            Kill,
            Grow(8192),
            Write(0, 64),
            Kill,
            Write(400, 8),
            Cut,
            Write(64, 9),
            Grow(9000),
            Snapshot,
            Write(64, 9),
            Grow(30_000),
            Write(3, 3),
            Reopen,
            Write(384, 64),
        ],
    ),
    scenario(
        "snapshots under load",
        NONE,
        &[
            Write(64, 8),
            Write(0, 8),
            Write(192, 100),
            Snapshot,
            Write(66, 4),
            Write(2, 2),
            Zero(192, 8),
            Flush,
            Write(384, 192),
            Snapshot,
            Write(450, 4),
            Discard(64, 64),
            Zero(0, 64),
            Snapshot,
            Write(64, 2),
            Flush,
        ],
    ),
    scenario(
        "closed and opened",
        NONE,
        &[
            Write(64, 8),
            Write(0, 8),
            Reopen,
            Write(70, 8),
            Reopen,
            Reopen,
            Write(320, 4),
            Write(448, 9),
            Flush,
            Reopen,
            Zero(64, 64),
            Reopen,
        ],
    ),
    scenario(
        "asked again after a death",
        NONE,
        &[
            Write(64, 8),
            Write(3, 5),
            Write(192, 128),
            Kill,
            Flush,
            Write(66, 8),
            Kill,
            Write(448, 4),
            Zero(130, 8),
            Kill,
            Write(450, 4),
            Discard(192, 64),
            Kill,
            Kill,
            Flush,
            Wait,
            Write(64, 64),
            Wait,
            Kill,
            Flush,
        ],
    ),
    scenario(
        "the power goes, again and again",
        NONE,
        &[
            Write(64, 8),
            Write(3, 5),
            Flush,
            Write(192, 128),
            Cut,
            Write(66, 8),
            Write(200, 8),
            Flush,
            Cut,
            Write(448, 4),
            Zero(130, 8),
            Cut,
            Write(450, 4),
            Fua(132, 2),
            Cut,
            Write(384, 64),
            Flush,
        ],
    ),
    scenario(
        "no room in the pending file",
        NO_ROOM,
        &[
            Write(64, 8),
            Write(3, 5),
            Write(192, 128),
            Flush,
            Write(66, 8),
            Write(4, 4),
            Kill,
            Zero(128, 64),
            Write(448, 4),
            Write(2, 8),
            Kill,
            Write(384, 192),
            Write(0, 4),
        ],
    ),
];

impl Scenario {
    /// One way in which it may go.
    pub(super) fn plan(&self, seed: u64, samples: usize, judged: usize) -> Plan {
        Plan {
            name: self.name,
            acts: self.acts.to_vec(),
            hardship: self.hardship,
            seed,
            samples,
            judged,
        }
    }
}

/// Acts by chance.
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
        acts: acts::random(&mut chance, count),
        hardship,
        seed,
        samples,
        judged,
    }
}

/// A plan that once failed.
pub(super) struct Kept {
    pub(super) seed: u64,
    pub(super) samples: usize,
    pub(super) no_room: bool,
    pub(super) ahead: Option<u64>,
    pub(super) acts: &'static [Act],
}

/// All of them.
pub(super) const REGRESSIONS: &[Kept] = &[];

impl Kept {
    /// To be played again.
    pub(super) fn plan(&self) -> Plan {
        Plan {
            name: "what once failed",
            acts: self.acts.to_vec(),
            hardship: Hardship {
                no_room: self.no_room,
                ahead: self.ahead,
            },
            seed: self.seed,
            samples: self.samples,
            judged: 0,
        }
    }
}
