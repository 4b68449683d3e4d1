//! The exploration: `make crash-test`.
#![expect(
    clippy::print_stdout,
    reason = "what was explored is for a person to see"
)]

use std::time::Instant;

use super::acts::by_chance;
use super::explore::{Plan, Tally, Violation, run, shrink};
use super::kept::REGRESSIONS;
use super::scenarios::SCENARIOS;

/// States by chance at a moment that has too many.
const SAMPLES: usize = 12;
/// One state in eight times as many goes to QEMU.
const JUDGED: usize = 400;

/// A number from the environment.
fn number(name: &str, otherwise: u64) -> u64 {
    let text = std::env::var(name).unwrap_or_default();
    if text.is_empty() {
        return otherwise;
    }
    text.parse()
        .unwrap_or_else(|_| panic!("{name}={text} is not a number"))
}

/// Plays plans until `states` were seen; says what was wrong, made small.
fn explore(name: &str, states: u64, plan: impl Fn(u64) -> Plan) -> (Tally, Vec<Violation>) {
    let start = Instant::now();
    let mut tally = Tally::default();
    let mut violations = Vec::new();
    let mut round = 0;
    while tally.states() < states && violations.len() < 3 {
        if let Err(violation) = run(&plan(round), None, &mut tally) {
            violations.push(shrink(violation, None));
        }
        round += 1;
    }
    println!(
        "{name:<34} {round:>6} {:>8} {:>9} {:>9} {:>6} {:>6} {:>10} {:>6.1}",
        tally.moments,
        tally.process,
        tally.power,
        tally.lives,
        tally.judged,
        violations.len(),
        start.elapsed().as_secs_f64()
    );
    (tally, violations)
}

#[test]
#[ignore = "minutes: make crash-test"]
fn no_stop_at_any_moment_loses_anything() {
    let states = number("STATES", 110_000);
    let seed = number("SEED", 1);
    println!(
        "{:<34} {:>6} {:>8} {:>9} {:>9} {:>6} {:>6} {:>10} {:>6}",
        "scenario", "runs", "moments", "process", "power", "lives", "QEMU", "violations", "s"
    );
    let each = states / (SCENARIOS.len() as u64 + 4);
    let mut all = Tally::default();
    let mut wrong = Vec::new();
    let mut add = |(tally, violations): (Tally, Vec<Violation>)| {
        all.add(&tally);
        wrong.extend(violations);
    };
    for kept in REGRESSIONS {
        add(explore("what once failed", 1, |_| kept.plan()));
    }
    for scenario in SCENARIOS {
        add(explore(scenario.name, each, |round| {
            scenario.plan(seed + round, SAMPLES, JUDGED)
        }));
    }
    add(explore("by chance", each * 4, |round| {
        by_chance(seed + round, SAMPLES, JUDGED)
    }));
    println!(
        "{} crash states explored (seed {seed}), {} violations",
        all.states(),
        wrong.len()
    );
    for violation in &wrong {
        println!("{violation}");
    }
    assert!(wrong.is_empty(), "{} violations", wrong.len());
    assert!(all.states() >= states && all.judged > 0, "{all:?}");
}

#[test]
fn every_scenario_survives_every_stop_of_one_run() {
    let mut tally = Tally::default();
    for scenario in SCENARIOS {
        if let Err(violation) = run(&scenario.plan(7, 2, 0), None, &mut tally) {
            panic!("{}", shrink(violation, None));
        }
    }
    assert!(tally.states() > 1000, "{tally:?}");
}
