//! Find and mend in a whole root. What is to be found there is `snapshot`'s to know.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::output::{self, Style};
use super::verdict::Verdict;
use crate::snapshot::{self, Finding, Report};

/// Checks a root; mends it.
pub(super) fn check(root: &Path, repair: bool, style: Style) -> Result<Verdict> {
    if repair {
        return mend(root, style);
    }
    let report = snapshot::check(root).with_context(|| cannot(root))?;
    match style {
        Style::Text => tell(root, &report),
        Style::Json => output::json(&as_json(root, &report)),
    }
    Ok(Verdict::of(report.worst()))
}

fn mend(root: &Path, style: Style) -> Result<Verdict> {
    let done = snapshot::repair(root).with_context(|| cannot(root))?;
    match style {
        Style::Text => {
            for finding in &done.mended {
                output::line(&format!("{}: mended: {}", place(finding), finding.fault));
            }
            for (finding, why) in &done.left {
                output::line(&format!("{}: not mended: {why}", place(finding)));
            }
            if let Some(kept) = &done.kept {
                output::line(&format!(
                    "what was changed or moved is kept as it was in {}: remove it when nobody misses anything",
                    kept.display()
                ));
            }
            tell(root, &done.after);
        }
        Style::Json => {
            let mut answer = as_json(root, &done.after);
            let mended = done.mended.iter().map(finding_json);
            answer["mended"] = Value::Array(mended.collect());
            let left = done.left.iter().map(|(finding, why)| {
                let mut row = finding_json(finding);
                row["why"] = json!(why);
                row
            });
            answer["not_mended"] = Value::Array(left.collect());
            answer["kept"] = json!(done.kept);
            output::json(&answer);
        }
    }
    Ok(Verdict::of(done.after.worst()))
}

fn cannot(root: &Path) -> String {
    format!("cannot check {}", root.display())
}

fn tell(root: &Path, report: &Report) {
    for finding in &report.findings {
        let fault = &finding.fault;
        let at = fault.offset();
        let at = at.map_or(String::new(), |at| format!(" (byte {at})"));
        output::line(&format!(
            "{}: {}: {fault}{at}",
            place(finding),
            fault.severity()
        ));
        output::line(&format!("    {}", fault.advice()));
    }
    let Report {
        snapshots,
        files,
        served,
        findings,
    } = report;
    let served = match served.len() {
        0 => String::new(),
        count => format!(", {count} of them served now and left out"),
    };
    let found = match findings.len() {
        0 => "clean".to_owned(),
        1 => "1 finding".to_owned(),
        count => format!("{count} findings"),
    };
    output::line(&format!(
        "{}: {snapshots} snapshots, {files} files{served}: {found}",
        root.display()
    ));
}

/// Where it is, in words: the file, the snapshot, or both.
fn place(finding: &Finding) -> String {
    let snapshot = finding.snapshot.as_ref();
    let snapshot = snapshot.map(|it| format!("snapshot {} of {} ({:?})", it.id, it.space, it.key));
    let file = finding.file.as_ref().map(|file| file.display().to_string());
    match (file, snapshot) {
        (Some(file), Some(snapshot)) => format!("{file}: {snapshot}"),
        (file, snapshot) => file.or(snapshot).unwrap_or_default(),
    }
}

fn as_json(root: &Path, report: &Report) -> Value {
    json!({
        "root": root.to_string_lossy(),
        "clean": report.findings.is_empty(),
        "snapshots": report.snapshots,
        "files": report.files,
        "served": report.served,
        "findings": report.findings.iter().map(finding_json).collect::<Vec<_>>(),
    })
}

fn finding_json(finding: &Finding) -> Value {
    let fault = &finding.fault;
    json!({
        "severity": fault.severity().to_string(),
        "file": finding.file.as_ref().map(|file| file.to_string_lossy()),
        "snapshot": finding.snapshot.as_ref().map(|it| json!({
            "id": it.id.0,
            "space": it.space,
            "key": it.key,
        })),
        "what": fault.to_string(),
        "offset": fault.offset(),
        "mendable": fault.mendable(),
        "advice": fault.advice(),
    })
}
