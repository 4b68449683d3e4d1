//! The report as a person reads it on a terminal.

use serde_json::Value;

use crate::report::{Ratio, Report};

/// A row for each subject, a column for each case that more than one met; then the rest, a line each.
pub(crate) fn text(report: &Report) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(text.trim_end());
        out.push('\n');
    };
    let several: Vec<&str> = cases(report)
        .into_iter()
        .filter(|case| subjects_of(report, case).count() > 1)
        .collect();

    line(String::new());
    line("Medians; in brackets the multiple of the kernel's loop device. Absolute figures mean nothing.".to_owned());
    for case in &several {
        line(format!("\n  {case}"));
        let base = report.rounds(case, "kernel loop").map(<[f64]>::to_vec);
        for row in report.results.iter().filter(|row| row.case == *case) {
            let multiple = base
                .as_ref()
                .and_then(|base| crate::samples::Spread::of_ratios(&row.rounds, base))
                .map_or(String::new(), |spread| {
                    format!(
                        "({:.2}; {:.2} to {:.2})",
                        spread.median, spread.min, spread.max
                    )
                });
            line(format!(
                "    {:<18}{:>10} {:<6} {multiple}",
                row.subject, row.value, row.unit
            ));
        }
    }
    line("\nOurs alone, and others' like it".to_owned());
    for row in report
        .results
        .iter()
        .filter(|row| !several.contains(&row.case.as_str()))
    {
        line(format!(
            "    {:<58}{:<10}{:>9} {} ({} to {}, {} readings)",
            row.case,
            row.subject,
            row.value,
            row.unit,
            row.min,
            row.max,
            row.rounds.len()
        ));
    }
    if !report.counts.is_empty() {
        line("\nCounts".to_owned());
    }
    for count in &report.counts {
        line(format!("    {:<46}{}", count.name, flat(&count.value)));
    }
    line("\nGoals: the median of the rounds' quotients, and how far they lie apart".to_owned());
    for ratio in &report.ratios {
        line(goal(ratio));
    }
    let missed = report.ratios.iter().filter(|ratio| !ratio.met).count();
    line(format!(
        "\n{} goals met, {missed} not",
        report.ratios.len() - missed
    ));
    out
}

fn goal(ratio: &Ratio) -> String {
    let word = if ratio.met { "met    " } else { "NOT MET" };
    let apart = if (ratio.max - ratio.min).abs() > 0.0 {
        format!("({} to {})", ratio.min, ratio.max)
    } else {
        String::new()
    };
    format!(
        "    {word} {:<62}{:>8}  goal {:<9} {apart}",
        ratio.name, ratio.value, ratio.goal
    )
}

fn cases(report: &Report) -> Vec<&str> {
    let mut cases = Vec::new();
    for row in &report.results {
        if !cases.contains(&row.case.as_str()) {
            cases.push(&row.case);
        }
    }
    cases
}

fn subjects_of<'a>(report: &'a Report, case: &'a str) -> impl Iterator<Item = &'a str> {
    let rows = report.results.iter().filter(move |row| row.case == case);
    rows.map(|row| row.subject.as_str())
}

/// `{"a": 1, "b": 2}` as `a 1, b 2`.
fn flat(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let pairs: Vec<_> = map
                .iter()
                .map(|(name, value)| format!("{} {}", name.replace('_', " "), flat(value)))
                .collect();
            pairs.join(", ")
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
