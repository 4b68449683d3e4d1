//! What was found: rows for the terminal, and the same as JSON.
//!
//! The rule it guards: both come from one place, so the table can say nothing that the file does not.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::samples::Spread;

/// A reading of one subject in one case.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) case: String,
    pub(crate) subject: String,
    /// The median.
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// Every round's reading, in order: a row's rounds belong to those of its neighbours.
    pub(crate) rounds: Vec<f64>,
}

/// What was to be reached, and whether it was.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Ratio {
    pub(crate) name: String,
    /// The median.
    pub(crate) value: f64,
    pub(crate) goal: String,
    pub(crate) met: bool,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

/// Numbers that are exact.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Count {
    pub(crate) name: String,
    pub(crate) value: Value,
}

/// Which side of its goal a ratio has to lie on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// As far from 1 as this at most.
    Equal(f64),
}

impl Goal {
    fn words(self) -> String {
        match self {
            Self::AtLeast(bound) => format!(">= {bound}"),
            Self::AtMost(bound) => format!("<= {bound}"),
            Self::Equal(slack) => format!("1 +- {slack}"),
        }
    }

    fn met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
            Self::Equal(slack) => (value - 1.0).abs() <= slack,
        }
    }
}

/// All of it.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Map<String, Value>,
    pub(crate) results: Vec<Row>,
    pub(crate) ratios: Vec<Ratio>,
    pub(crate) counts: Vec<Count>,
}

impl Report {
    pub(crate) fn row(
        &mut self,
        case: &str,
        subject: &str,
        unit: &'static str,
        rounds: &[f64],
    ) -> Result<()> {
        let spread = Spread::of(rounds)
            .with_context(|| format!("nothing was read of {subject} in {case}"))?;
        self.results.push(Row {
            case: case.to_owned(),
            subject: subject.to_owned(),
            value: round(spread.median),
            unit,
            min: round(spread.min),
            max: round(spread.max),
            rounds: rounds.iter().copied().map(round).collect(),
        });
        Ok(())
    }

    /// The readings of a row that was reported.
    pub(crate) fn rounds(&self, case: &str, subject: &str) -> Option<&[f64]> {
        let mut rows = self.results.iter();
        let row = rows.find(|row| row.case == case && row.subject == subject)?;
        Some(&row.rounds)
    }

    pub(crate) fn ratio(&mut self, name: &str, spread: Spread, goal: Goal) {
        self.ratios.push(Ratio {
            name: name.to_owned(),
            value: round(spread.median),
            goal: goal.words(),
            met: goal.met(spread.median),
            min: round(spread.min),
            max: round(spread.max),
        });
    }

    /// What the figures were read on.
    pub(crate) fn machine(&mut self, name: &str, value: impl Into<Value>) {
        self.machine.insert(name.to_owned(), value.into());
    }

    pub(crate) fn count(&mut self, name: &str, value: impl Into<Value>) {
        self.counts.push(Count {
            name: name.to_owned(),
            value: value.into(),
        });
    }

    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("cannot say it as JSON")?;
        std::fs::write(path, text + "\n")
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Four digits are more than any of these readings is worth.
pub(crate) fn round(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let scale = 10_f64.powf(3.0 - value.abs().log10().floor());
    (value * scale).round() / scale
}
