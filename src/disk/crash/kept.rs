//! Plans that once failed, to be played again.

use super::acts::Act;
use super::explore::Plan;
use crate::io::Hardship;

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
