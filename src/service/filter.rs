//! containerd's filter language, as `List` takes it.
//!
//! ```text
//! selectors := selector ("," selector)*             all must match
//! selector  := fieldpath [operator value]           without operator: the field is present
//! fieldpath := field ("." field)*
//! field     := quoted | [A-Za-z0-9_]+
//! operator  := "==" | "!=" | "~="
//! value     := quoted | [^\s,]+
//! quoted    := "…" as in Go; after "~=" also /…/ and |…|
//! ```
//!
//! Several filters: one of them must match; none at all, or an empty one, matches everything. `!=` is
//! true of a field that is absent, `==` is not, and `~=` sees an absent field as empty. Single quotes
//! are ordinary characters, as in containerd.
//!
//! Parsed once: a label's path and an expression are known good before the first snapshot is looked
//! at. containerd itself lets a bad expression match nothing; here it is an error, like every other
//! mistake in a filter.

use regex::Regex;

use super::quote::{BadQuote, unquote};

/// A field of a snapshot that a filter may name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Name,
    Parent,
    Kind,
    /// Whatever stands after `labels.`, dots and all.
    Label(String),
    /// No snapshot has it.
    Unknown,
}

/// Why a text is no filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("filter {filter:?} is wrong at byte {at}: {reason}")]
pub struct BadFilter {
    /// The filter.
    pub filter: String,
    /// The byte.
    pub at: usize,
    /// What is wrong there.
    pub reason: String,
}

#[derive(Debug)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(Regex),
}

#[derive(Debug)]
struct Selector {
    field: Field,
    test: Test,
}

impl Selector {
    fn matches(&self, value: Option<&str>) -> bool {
        match &self.test {
            Test::Present => value.is_some(),
            Test::Equal(wanted) => value == Some(wanted),
            Test::NotEqual(unwanted) => value.unwrap_or_default() != unwanted,
            Test::Matches(expression) => expression.is_match(value.unwrap_or_default()),
        }
    }
}

/// The filters of one request: any of the rows, all of a row's selectors.
#[derive(Debug)]
pub(super) struct Filters {
    rows: Vec<Vec<Selector>>,
}

impl Filters {
    /// Reads every filter of a request.
    ///
    /// # Errors
    /// [`BadFilter`] says which of them cannot be read, where and why.
    pub(super) fn parse<S: AsRef<str>>(filters: &[S]) -> Result<Self, BadFilter> {
        let rows = filters
            .iter()
            .map(|filter| Parser::new(filter.as_ref()).selectors())
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { rows })
    }

    /// Does what `value_of` describes match?
    pub(super) fn matches<'a>(&self, value_of: impl Fn(&Field) -> Option<&'a str>) -> bool {
        let fits = |row: &Vec<Selector>| row.iter().all(|s| s.matches(value_of(&s.field)));
        self.rows.is_empty() || self.rows.iter().any(fits)
    }
}

struct Parser<'a> {
    filter: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn new(filter: &'a str) -> Self {
        Self { filter, at: 0 }
    }

    fn rest(&self) -> &'a str {
        &self.filter[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn wrong(&self, at: usize, reason: impl Into<String>) -> BadFilter {
        BadFilter {
            filter: self.filter.to_owned(),
            at,
            reason: reason.into(),
        }
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    /// Takes characters as long as they are of one kind.
    fn take(&mut self, kind: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !kind(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn selectors(mut self) -> Result<Vec<Selector>, BadFilter> {
        let mut found = Vec::new();
        if self.filter.is_empty() {
            return Ok(found);
        }
        loop {
            found.push(self.selector()?);
            match self.peek() {
                None => return Ok(found),
                Some(',') => self.at += 1,
                Some(c) => return Err(self.wrong(self.at, format!("unexpected {c:?}"))),
            }
        }
    }

    fn selector(&mut self) -> Result<Selector, BadFilter> {
        let field = self.field_path()?;
        if matches!(self.peek(), None | Some(',')) {
            let test = Test::Present;
            return Ok(Selector { field, test });
        }
        self.skip_space();
        let at = self.at;
        let test = match self.take(|c| matches!(c, '=' | '!' | '~')) {
            "==" => Test::Equal(self.value(false)?),
            "!=" => Test::NotEqual(self.value(false)?),
            "~=" => {
                self.skip_space();
                let at = self.at;
                let text = self.value(true)?;
                let expression = Regex::new(&text)
                    .map_err(|error| self.wrong(at, format!("bad expression: {error}")))?;
                Test::Matches(expression)
            }
            "" => return Err(self.wrong(at, r#"expected an operator ("==", "!=" or "~=")"#)),
            other => return Err(self.wrong(at, format!("unsupported operator {other:?}"))),
        };
        Ok(Selector { field, test })
    }

    fn field_path(&mut self) -> Result<Field, BadFilter> {
        let first = self.field()?;
        let mut rest = Vec::new();
        while self.peek() == Some('.') {
            self.at += 1;
            rest.push(self.field()?);
        }
        Ok(match (first.as_str(), rest.is_empty()) {
            ("name", _) => Field::Name,
            ("parent", _) => Field::Parent,
            ("kind", _) => Field::Kind,
            ("labels", false) => Field::Label(rest.join(".")),
            _ => Field::Unknown,
        })
    }

    fn field(&mut self) -> Result<String, BadFilter> {
        self.skip_space();
        match self.peek() {
            Some('"') => self.quoted(),
            Some('/' | '|') => Err(self.wrong(self.at, "only \"…\" may quote a field")),
            Some(c) if is_field(c) => Ok(self.take(is_field).to_owned()),
            _ => Err(self.wrong(self.at, "expected a field, quoted or not")),
        }
    }

    fn value(&mut self, expression: bool) -> Result<String, BadFilter> {
        self.skip_space();
        match self.peek() {
            Some('"') => self.quoted(),
            Some('/' | '|') if expression => self.quoted(),
            Some('/' | '|') => Err(self.wrong(self.at, "only \"…\" may quote this value")),
            Some(c) if is_value(c) && !matches!(c, '.' | '=' | '!' | '~') => {
                Ok(self.take(is_value).to_owned())
            }
            _ => Err(self.wrong(self.at, "expected a value, quoted or not")),
        }
    }

    fn quoted(&mut self) -> Result<String, BadFilter> {
        let (value, taken) = unquote(self.rest()).map_err(|error: BadQuote| {
            let at = self.at + error.at;
            self.wrong(at, error.reason)
        })?;
        self.at += taken;
        Ok(value)
    }
}

fn is_field(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn is_value(c: char) -> bool {
    c != ',' && !c.is_whitespace() && !c.is_control()
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
