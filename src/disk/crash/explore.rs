//! Runs plans, counts what they saw, and makes a failing one small.

use std::fmt;

use super::acts::Act;
use super::history::Stop;
use super::world::World;
use crate::io::{Bug, Hardship, bear, sabotage};

/// What is to be played, to the last operation.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) name: &'static str,
    pub(super) acts: Vec<Act>,
    pub(super) hardship: Hardship,
    /// What is left to chance.
    pub(super) seed: u64,
    /// States by chance at each moment, where there are too many.
    pub(super) samples: usize,
    /// One state in how many times eight is shown to QEMU; 0: none.
    pub(super) judged: usize,
}

/// What was seen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    /// Moments at which it could have stopped.
    pub(super) moments: u64,
    /// States after the process' death.
    pub(super) process: u64,
    /// States after the power's.
    pub(super) power: u64,
    /// Processes that went on after a death.
    pub(super) lives: u64,
    /// States that QEMU has seen.
    pub(super) judged: u64,
}

impl Tally {
    /// Crash states in all.
    pub(super) fn states(&self) -> u64 {
        self.process + self.power
    }

    /// Adds another one's.
    pub(super) fn add(&mut self, other: &Self) {
        self.moments += other.moments;
        self.process += other.process;
        self.power += other.power;
        self.lives += other.lives;
        self.judged += other.judged;
    }
}

/// Something that may not be.
#[derive(Clone, Debug)]
pub(super) struct Violation {
    pub(super) plan: Box<Plan>,
    /// At which moment.
    moment: u64,
    stop: Option<Stop>,
    pub(super) what: String,
}

impl Violation {
    pub(super) fn new(plan: &Plan, moment: u64, stop: Option<Stop>, what: String) -> Self {
        Self {
            plan: Box::new(plan.clone()),
            moment,
            stop,
            what,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = &self.plan;
        let stop = match self.stop {
            Some(Stop::Process) => "the process died",
            Some(Stop::Power) => "the power went",
            None => "nothing stopped",
        };
        writeln!(
            f,
            "{}: {stop} at moment {}: {}",
            plan.name, self.moment, self.what
        )?;
        writeln!(
            f,
            "    to keep it, add to REGRESSIONS in src/disk/crash/kept.rs:"
        )?;
        let Hardship { no_room, ahead } = plan.hardship;
        write!(
            f,
            "    Kept {{ seed: {}, samples: {}, no_room: {no_room}, ahead: {ahead:?}, acts: &{:?} }},",
            plan.seed, plan.samples, plan.acts
        )
    }
}

/// Plays a plan, with a deliberate bug or without.
pub(super) fn run(plan: &Plan, bug: Option<Bug>, tally: &mut Tally) -> Result<(), Violation> {
    let folder = tempfile::tempdir_in("/dev/shm")
        .map_err(|error| Violation::new(plan, 0, None, error.to_string()))?;
    bear(plan.hardship);
    sabotage(bug);
    let mut seen = Tally::default();
    let result =
        World::new(plan, &mut seen, folder.path().to_owned()).and_then(|mut world| world.play());
    sabotage(None);
    bear(Hardship::default());
    tally.add(&seen);
    result
}

/// Takes acts away as long as something is still wrong.
pub(super) fn shrink(violation: Violation, bug: Option<Bug>) -> Violation {
    let mut smallest = violation;
    let mut size = smallest.plan.acts.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < smallest.plan.acts.len() {
            let mut plan = smallest.plan.clone();
            let end = (at + size).min(plan.acts.len());
            plan.acts.drain(at..end);
            match run(&plan, bug, &mut Tally::default()) {
                Err(smaller) => smallest = smaller,
                Ok(()) => at += size,
            }
        }
        size = if size == 1 { 0 } else { size.div_ceil(2) };
    }
    smallest
}
