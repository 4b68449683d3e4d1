//! The only place that writes to the terminal: lines, pairs, JSON, and progress.

use std::io::{self, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

/// How answers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl Style {
    pub(super) fn of(json: bool) -> Self {
        if json { Self::Json } else { Self::Text }
    }
}

/// Writes a line.
pub(super) fn line(text: &str) {
    write(text);
}

/// Writes a title, and names with values below it, in columns.
pub(super) fn pairs(title: &str, pairs: &[(&str, String)]) {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    write(title);
    for (name, value) in pairs {
        write(&format!("  {name:width$}  {value}"));
    }
}

/// Where a column's words stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    /// At its left edge: names.
    Left,
    /// At its right edge: figures.
    Right,
}

/// Writes a table: its heads, and a row a line. No head and no word is ever left out, so that columns can be
/// counted on.
pub(super) fn table(heads: &[(&str, Align)], rows: &[Vec<String>]) {
    for line in laid_out(heads, rows) {
        write(&line);
    }
}

fn laid_out(heads: &[(&str, Align)], rows: &[Vec<String>]) -> Vec<String> {
    let first: Vec<String> = heads.iter().map(|(head, _)| (*head).to_owned()).collect();
    let all = || std::iter::once(&first).chain(rows);
    let width = |at: usize| {
        let words = all().filter_map(|row| row.get(at));
        words.map(|word| word.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let words = row.iter().zip(heads).zip(&widths);
        let words = words.map(|((word, (_, align)), width)| match align {
            Align::Left => format!("{word:<width$}"),
            Align::Right => format!("{word:>width$}"),
        });
        words.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    all().map(line).collect()
}

/// Writes a value as JSON.
pub(super) fn json(value: &Value) {
    write(&format!("{value:#}"));
}

/// Says something beside the answer.
pub(super) fn note(text: &str) {
    // Nobody is left to be told if stderr is gone too.
    let _ = writeln!(io::stderr(), "ploop: {text}");
}

/// Says why it could not be done, and all that led to it.
pub(super) fn error(error: &anyhow::Error) {
    note(&format!("{error:#}"));
}

/// Says what was wrong with the arguments; or gives the help or the version that was asked for.
pub(super) fn usage(answer: &clap::Error) {
    // As above.
    let _ = answer.print();
}

/// A bar for `total` bytes, on stderr; nothing is drawn unless that is a terminal.
pub(super) fn progress(total: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{bar:40} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(total).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// A reader that has seen enough (`| head`) is no failure.
fn write(text: &str) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::{Align, laid_out};

    #[test]
    fn a_table_keeps_its_columns() {
        let heads = [
            ("KEY", Align::Left),
            ("SIZE", Align::Right),
            ("X", Align::Left),
        ];
        let row = |words: [&str; 3]| words.map(str::to_owned).to_vec();
        let rows = [row(["a", "10.0 GiB", "-"]), row(["ünder", "1 B", "y"])];
        let expected = [
            "KEY        SIZE  X",
            "a      10.0 GiB  -",
            "ünder       1 B  y",
        ];
        assert_eq!(laid_out(&heads, &rows), expected);
        assert_eq!(laid_out(&heads, &[]), ["KEY  SIZE  X"]);
    }
}
