//! Reads the file, and says where it is wrong.

use std::io;
use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::{Config, Error, check};

/// Where the file is if nothing else is said. There it may be missing: then all defaults hold.
pub const DEFAULT_PATH: &str = "/etc/ploop-snapshotter/config.toml";

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// If it is missing (except at [`DEFAULT_PATH`]) or anything in it is wrong.
    pub fn load(path: &Path) -> Result<Self, Error> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(path, &text),
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && path == Path::new(DEFAULT_PATH) =>
            {
                Ok(Self::default())
            }
            Err(source) => Err(Error::Read {
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// Checks a text; `path` is for errors.
    ///
    /// # Errors
    /// If anything in it is wrong.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Error> {
        let wrong = |span: Option<Range<usize>>, reason: String| {
            let (line, column) = line_and_column(text, span.map_or(0, |span| span.start));
            Error::Value {
                path: path.to_owned(),
                line,
                column,
                reason,
            }
        };
        let config: Self =
            toml::from_str(text).map_err(|e| wrong(e.span(), e.message().to_owned()))?;
        match check::contradiction(&config) {
            None => Ok(config),
            Some(found) => Err(wrong(place_of(text, &found.keys), found.reason)),
        }
    }

    /// The configuration that holds, with every default filled in, as TOML.
    ///
    /// # Errors
    /// Only if a value cannot be written as TOML, such as a path that is no text.
    pub fn print(&self) -> Result<String, Error> {
        let mut whole = self.clone();
        for (name, section) in &mut whole.names {
            section.socket = Some(self.socket_of(name, section));
            section.size = Some(section.size.unwrap_or(self.snapshots.size));
        }
        Ok(toml::to_string(&whole)?)
    }
}

/// Where the innermost of these keys stands; the outer ones if it is left out.
fn place_of(text: &str, keys: &[String]) -> Option<Range<usize>> {
    let document = DeTable::parse(text).ok()?;
    let mut table = document.get_ref();
    let mut place = None;
    for key in keys {
        let Some((name, value)) = table.get_key_value(key.as_str()) else {
            break;
        };
        place = Some(name.span());
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => break,
        }
    }
    place
}

/// Both from 1.
fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |end| end + 1);
    (line, before[start..].chars().count() + 1)
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
