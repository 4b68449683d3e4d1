//! What was acknowledged at a cut: the last value of each key, a line each.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Keys and their last values.
#[derive(Debug, Default)]
pub(crate) struct State(BTreeMap<String, String>);

impl State {
    pub(crate) fn put(&mut self, key: String, value: String) {
        self.0.insert(key, value);
    }

    pub(crate) fn store(&self, path: &Path) -> Result<()> {
        let lines: String = self
            .0
            .iter()
            .map(|(key, value)| format!("{key} {value}\n"))
            .collect();
        fs::write(path, lines).with_context(|| path.display().to_string())
    }

    pub(crate) fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let pairs = text.lines().filter_map(|line| line.split_once(' '));
        Ok(Self(
            pairs
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        ))
    }

    /// How far a writer was; none if it had acknowledged nothing yet.
    pub(crate) fn number(&self, key: &str) -> Result<Option<u64>> {
        let value = self.0.get(key).map(|value| value.parse());
        value
            .transpose()
            .with_context(|| format!("{key} is no number"))
    }
}
