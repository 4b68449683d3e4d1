//! Find and mend.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::files;
use super::output::{self, Style};
use super::run::Chain;
use super::verdict::Verdict;
use crate::config::Config;
use crate::disk::answered_for;
use crate::format::ploop::InUse;
use crate::image::check::{self, Level};
use crate::image::{Defect, Error, Format};
use crate::io::{Direct, now};
use crate::seat::{Name, Seat};

/// What was found in one file.
struct Found {
    path: PathBuf,
    defects: Vec<Defect>,
    /// What it is to its chain, as far as it can be told.
    level: Option<Level>,
}

/// Checks an image or a chain.
pub(super) fn check(chain: &Chain, style: Style) -> Result<Verdict> {
    let mut found = Vec::new();
    for (path, format) in files::formats(chain) {
        let file = files::read(path)?;
        found.push(look(path, format, &file)?);
    }
    // A file of which nothing is known has no place in a chain to be judged.
    let known: Vec<_> = (0..found.len())
        .filter(|index| found[*index].level.is_some())
        .collect();
    let levels: Vec<_> = found.iter().filter_map(|one| one.level).collect();
    for (index, defect) in check::chain(&levels) {
        let one = &mut found[known[index]].defects;
        // The same mark, told with what it means here.
        one.retain(|other| !(defect == Defect::LowerInUse && *other == Defect::InUse));
        one.push(defect);
    }
    report(&found, style);
    Ok(verdict(&found))
}

/// Mends an image, unless a disk server that died left something for it in the run directory.
pub(super) fn mend(chain: &Chain, config: &Config, style: Style) -> Result<Verdict> {
    let [path] = chain.files.as_slice() else {
        bail!("one file is repaired at a time: check the chain first, then repair each by itself");
    };
    let file = files::write(path)?;
    let before = look(path, Format::Ploop, &file)?;
    // A server marks what it has open before it answers for anything.
    let in_use = before.level.filter(|level| level.in_use);
    if let Some(cluster) = in_use.and_then(|level| level.cluster) {
        let folder = Seat::new(&config.run_dir, Name::PLAIN).pending();
        let left = answered_for(&folder, file.as_file(), cluster)
            .with_context(|| format!("cannot look into {}", folder.display()))?;
        if left > 0 {
            bail!(
                "{} is left as it is: {left} of its clusters were answered for by a ploopd that died, and are named only in \
                 {}; attach the disk again (start the container, or ploopd), which takes them over, and mending would lose \
                 them; if that is refused because they contradict the image, its message names the file in {} to \
                 remove: what was flushed is whole without it",
                path.display(),
                folder.display(),
                folder.display()
            );
        }
    }
    match now(check::repair(&file)) {
        Ok(_) => {}
        // Not the tool's failure: the answer is what the check found.
        Err(Error::Defect(_)) => {
            let verdict = verdict(std::slice::from_ref(&before));
            report(&[before], style);
            output::note(&format!(
                "{} is left as it is: mending it would lose data",
                path.display()
            ));
            return Ok(verdict);
        }
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    }
    let after = look(path, Format::Ploop, &file)?;
    let verdict = verdict(std::slice::from_ref(&after));
    let mended: Vec<_> = before
        .defects
        .iter()
        .filter(|it| !after.defects.contains(it))
        .collect();
    match style {
        Style::Text => {
            for defect in mended {
                output::line(&format!("{}: mended: {defect}", path.display()));
            }
            report(&[after], style)
        }
        Style::Json => output::json(&json!({
            "mended": mended.iter().map(|it| as_json(it)).collect::<Vec<_>>(),
            "files": [file_json(&after)],
        })),
    }
    Ok(verdict)
}

fn look(path: &Path, format: Format, file: &Direct) -> Result<Found> {
    let path = path.to_owned();
    if format == Format::Raw {
        let level = Level {
            cluster: None,
            in_use: false,
        };
        return Ok(Found {
            path,
            defects: Vec::new(),
            level: Some(level),
        });
    }
    let report = now(check::check(file)).with_context(|| path.display().to_string())?;
    let level = report.header.map(|header| Level {
        cluster: Some(header.cluster()),
        in_use: header.in_use() == InUse::Yes,
    });
    Ok(Found {
        path,
        defects: report.defects,
        level,
    })
}

fn verdict(found: &[Found]) -> Verdict {
    Verdict::of(
        found
            .iter()
            .flat_map(|one| &one.defects)
            .map(Defect::severity)
            .max(),
    )
}

fn report(found: &[Found], style: Style) {
    if style == Style::Json {
        let files: Vec<_> = found.iter().map(file_json).collect();
        return output::json(&json!({ "files": files }));
    }
    for one in found {
        let path = one.path.display();
        if one.defects.is_empty() {
            output::line(&format!("{path}: clean"));
        }
        for defect in &one.defects {
            let place = defect
                .offset()
                .map_or(String::new(), |at| format!(" (byte {at})"));
            output::line(&format!("{path}: {}: {defect}{place}", defect.severity()));
            output::line(&format!("    {}", defect.advice()));
        }
    }
}

fn file_json(one: &Found) -> Value {
    json!({
        "file": one.path.to_string_lossy(),
        "clean": one.defects.is_empty(),
        "findings": one.defects.iter().map(as_json).collect::<Vec<_>>(),
    })
}

fn as_json(defect: &Defect) -> Value {
    json!({
        "severity": defect.severity().to_string(),
        "what": defect.to_string(),
        "cluster": defect.cluster().map(|cluster| cluster.0),
        "offset": defect.offset(),
        "mendable": defect.mendable(),
        "advice": defect.advice(),
    })
}
