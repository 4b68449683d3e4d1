//! Say what an image is.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::files;
use super::output::{self, Style};
use super::verdict::Verdict;
use crate::format::ploop::{Header, Version};
use crate::image::Severity;
use crate::image::check::{Report, check};
use crate::io::now;
use crate::units::Bytes;

/// Bytes in one of the blocks that `stat` counts.
const BLOCK: u64 = 512;

/// What is said about one image.
struct Found {
    header: Header,
    report: Report,
    on_host: u64,
    served: bool,
}

/// Describes each image.
pub(super) fn info(paths: &[PathBuf], style: Style) -> Result<Verdict> {
    let mut all = Vec::new();
    for path in paths {
        let found = look(path).with_context(|| path.display().to_string())?;
        match style {
            Style::Text => output::pairs(&path.display().to_string(), &found.as_pairs()),
            Style::Json => all.push(found.as_json(path)),
        }
    }
    if style == Style::Json {
        output::json(&Value::Array(all));
    }
    Ok(Verdict::Clean)
}

fn look(path: &Path) -> Result<Found> {
    let (file, served) = files::peek(path)?;
    let report = now(check(&file))?;
    let Some(header) = report.header else {
        match report.defects.first() {
            Some(defect) => bail!("{defect}: {}", defect.advice()),
            None => bail!("not an image"),
        }
    };
    let on_host = file.as_file().metadata()?.blocks() * BLOCK;
    Ok(Found {
        header,
        report,
        on_host,
        served,
    })
}

impl Found {
    fn version(&self) -> u32 {
        match self.header.version() {
            Version::V1 => 1,
            Version::V2 => 2,
        }
    }

    fn state(&self) -> &'static str {
        if self.served {
            return "open for writing in another process";
        }
        match self.report.worst() {
            Some(Severity::Corrupt) => "corrupt: see `ploop check`",
            Some(Severity::Unclean) => "not closed in order: see `ploop check`",
            Some(Severity::Leak) => "closed, with unused space: see `ploop check`",
            Some(Severity::Note) => "closed, with notes: see `ploop check`",
            None => "closed",
        }
    }

    fn data(&self) -> u64 {
        self.report.entries.len() as u64 * self.header.cluster().bytes()
    }

    fn as_pairs(&self) -> Vec<(&'static str, String)> {
        let Self {
            header,
            report,
            on_host,
            ..
        } = self;
        let cluster = header.cluster();
        let mut pairs = vec![
            ("format", format!("ploop, version {}", self.version())),
            (
                "disk",
                format!(
                    "{} ({} clusters of {cluster})",
                    Bytes(header.size()),
                    header.entries()
                ),
            ),
            (
                "data",
                format!("{} ({} clusters)", Bytes(self.data()), report.entries.len()),
            ),
            (
                "file",
                format!("{} ({} on the host)", Bytes(report.length), Bytes(*on_host)),
            ),
            ("state", self.state().to_owned()),
        ];
        if let Some(seal) = report.seal {
            pairs.push(("seal", seal.to_string()));
        }
        pairs
    }

    fn as_json(&self, path: &Path) -> Value {
        json!({
            "file": path.to_string_lossy(),
            "format": "ploop",
            "version": self.version(),
            "disk_bytes": self.header.size(),
            "cluster_bytes": self.header.cluster().bytes(),
            "clusters": self.header.entries(),
            "used_clusters": self.report.entries.len(),
            "file_bytes": self.report.length,
            "host_bytes": self.on_host,
            "open_elsewhere": self.served,
            "worst": self.report.worst().map(|worst| worst.to_string()),
            "seal": self.report.seal.map(|seal| json!({
                "length": seal.length,
                "digest": format!("{:08x}", seal.digest),
            })),
        })
    }
}
