//! Tracing, set up once for a daemon: lines on stderr, for people or for machines.
//!
//! Stderr, because whoever starts a daemon already decides where that goes: the journal, a log file
//! of a detached server, or a terminal.

use std::fmt;
use std::io::IsTerminal;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::util::SubscriberInitExt;

use super::Error;

/// The variable that overrules the configured filter.
const VARIABLE: &str = "PLOOP_LOG";

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why a text is no format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no log format: write text or json")]
pub struct BadFormat(String);

impl FromStr for LogFormat {
    type Err = BadFormat;

    fn from_str(text: &str) -> Result<Self, BadFormat> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(BadFormat(text.to_owned())),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// What is worth a line: `info`, `debug`, `info,ploop_snapshotter::disk=trace`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(String);

/// Why a text is no filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{text}\" is no log level or filter: write error, warn, info, debug, trace, or target=level ({reason})"
)]
pub struct BadFilter {
    text: String,
    reason: String,
}

impl FromStr for LogFilter {
    type Err = BadFilter;

    fn from_str(text: &str) -> Result<Self, BadFilter> {
        let bad = |reason: String| BadFilter {
            text: text.to_owned(),
            reason,
        };
        // A bare word that is no level would be taken for a target, and nothing would be logged.
        let word = text.trim();
        let levels = ["off", "error", "warn", "info", "debug", "trace"];
        if !word.contains(['=', ',', '[', ':'])
            && !levels.contains(&word.to_ascii_lowercase().as_str())
        {
            return Err(bad("no such level".to_owned()));
        }
        EnvFilter::try_new(word)
            .map(|_| Self(word.to_owned()))
            .map_err(|error: ParseError| bad(error.to_string()))
    }
}

impl LogFilter {
    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Default for LogFilter {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

/// What a daemon's log is like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// What is worth a line, unless the variable `PLOOP_LOG` says otherwise.
    pub filter: LogFilter,
    /// How a line looks.
    pub format: LogFormat,
}

/// Starts logging for the whole process.
///
/// # Errors
/// [`Error::LogTwice`] if that was done before.
pub fn start_log(options: &LogOptions) -> Result<(), Error> {
    let wanted = std::env::var(VARIABLE).ok().filter(|text| !text.is_empty());
    let configured = || EnvFilter::new(options.filter.as_str());
    let filter = wanted
        .as_deref()
        .and_then(|text| text.parse::<LogFilter>().ok())
        .map_or_else(configured, |filter| EnvFilter::new(filter.as_str()));
    let builder = tracing_subscriber::fmt()
        // Else a line that cannot be written is told with eprintln, which panics when it is stderr that fails: the thread
        // that serves a disk would end because a log is full.
        .log_internal_errors(false)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_span_events(FmtSpan::NONE)
        .with_ansi(std::io::stderr().is_terminal());
    match options.format {
        LogFormat::Text => builder.finish().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init(),
    }
    .map_err(|_| Error::LogTwice)?;
    if let Some(text) = wanted
        && let Err(error) = text.parse::<LogFilter>()
    {
        tracing::warn!(variable = VARIABLE, text, %error, "not understood: the configuration's filter holds");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::LogFilter;

    #[test]
    fn levels_and_targets_are_filters_and_typing_errors_are_not() {
        for good in [
            "info",
            "WARN",
            "off",
            "info,h2=warn",
            "ploop_snapshotter::disk=trace",
            " debug ",
        ] {
            assert!(good.parse::<LogFilter>().is_ok(), "{good}");
        }
        for bad in ["", "inf", "verbose", "a=b=c", "disk=loud"] {
            let error = bad.parse::<LogFilter>().unwrap_err();
            assert!(error.to_string().contains("write error, warn"), "{error}");
        }
    }
}
