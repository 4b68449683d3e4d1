//! What a caller wants to have attached: checked once, into a type that cannot be wrong.

use std::path::{Component, Path, PathBuf};

use super::error::Error;
use crate::chain;
use crate::image;
use crate::proto::v1;

/// Longest id.
const LONGEST_ID: usize = 64;

/// A chain to serve under an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) id: String,
    pub(super) deltas: Vec<Delta>,
    pub(super) read_only: bool,
    /// Is room for growth to be made in its device? Not part of what a disk is: an attached one is the
    /// same with either answer.
    pub(super) will_grow: bool,
}

/// One file of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Delta {
    pub(super) path: PathBuf,
    pub(super) format: Option<image::Format>,
    pub(super) seal: Option<image::Seal>,
    /// What the seal says about space; carried, not checked.
    pub(super) allocated: u64,
}

impl Wanted {
    /// Checks a request.
    pub(super) fn parse(request: v1::AttachRequest) -> Result<Self, Error> {
        let id = check_id(request.id)?;
        let last = request.deltas.len().checked_sub(1).ok_or_else(|| {
            Error::Invalid("a disk needs at least one delta: name its files".to_owned())
        })?;
        let deltas: Vec<Delta> = request
            .deltas
            .into_iter()
            .enumerate()
            .map(|(at, delta)| {
                let written = at == last && !request.read_only;
                parse_delta(delta, at == 0, written)
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            id,
            deltas,
            read_only: request.read_only,
            will_grow: request.will_grow,
        })
    }

    /// The chain in the engine's words.
    pub(super) fn chain(&self) -> Vec<chain::Delta> {
        self.deltas
            .iter()
            .map(|delta| chain::Delta {
                path: delta.path.clone(),
                format: delta.format,
                seal: delta.seal,
            })
            .collect()
    }

    /// The file that is written, or the highest that is read.
    pub(super) fn top(&self) -> &Path {
        self.deltas
            .last()
            .map_or(Path::new("/"), |delta| delta.path.as_path())
    }

    /// How another request for the same id differs, if it does.
    pub(super) fn difference(&self, other: &Self) -> Option<&'static str> {
        if self.read_only != other.read_only {
            Some("other access")
        } else if self.deltas != other.deltas {
            Some("another chain")
        } else {
            None
        }
    }
}

/// An id is a file name of ours, a word in logs, and part of a device's path.
pub(super) fn check_id(id: String) -> Result<String, Error> {
    let fine = (1..=LONGEST_ID).contains(&id.len())
        && id
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if fine {
        Ok(id)
    } else {
        Err(Error::Invalid(format!(
            "\"{}\" is no disk id: use 1 to {LONGEST_ID} of a-z, 0-9 and -",
            id.escape_default()
        )))
    }
}

fn parse_delta(delta: v1::Delta, lowest: bool, written: bool) -> Result<Delta, Error> {
    let format = match v1::Format::from_i32(delta.format) {
        Some(v1::Format::Unspecified) => None,
        Some(v1::Format::Ploop) => Some(image::Format::Ploop),
        Some(v1::Format::Raw) => Some(image::Format::Raw),
        None => {
            return Err(Error::Invalid(format!(
                "{}: format {} is not known to this ploopd",
                delta.path, delta.format
            )));
        }
    };
    let path = PathBuf::from(&delta.path);
    let invalid = |what: &str| Err(Error::Invalid(format!("\"{}\": {what}", delta.path)));
    if !path.is_absolute() || delta.path.contains('\0') {
        return invalid("a delta's path is absolute");
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return invalid("a delta's path has no \"..\"");
    }
    if format == Some(image::Format::Raw) && !lowest {
        return invalid("only the lowest file of a chain may be raw");
    }
    if format == Some(image::Format::Raw) && written {
        return invalid("a raw file is never written: put a ploop delta on top of it");
    }
    if written && delta.seal.is_some() {
        return invalid("a sealed delta is never written: put a new delta on top of it");
    }
    Ok(Delta {
        path,
        format,
        allocated: delta.seal.as_ref().map_or(0, |seal| seal.allocated),
        seal: delta.seal.map(|seal| image::Seal {
            length: seal.length,
            digest: seal.digest,
        }),
    })
}

#[cfg(test)]
#[path = "wanted_tests.rs"]
mod tests;
