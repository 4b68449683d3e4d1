//! Starts a disk server where none runs, detached: it outlives us.
//!
//! The server gets a session of its own (`--detached`), `/` as its directory, nothing to read, and a
//! log file for what it says. It is not killed with us, and the next `ploop-snapshotter` adopts it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

use super::disk::Hello;
use super::disks::Client;
use super::error::{Error, Kind};
use super::log;
use crate::seat::{Name, Seat};
use crate::spawn::starting;

/// How often a server that was just started is asked whether it is there yet.
const PAUSE: Duration = Duration::from_millis(20);

/// How to start a server.
#[derive(Clone, Debug)]
pub struct StartOptions {
    /// The program `ploopd`.
    pub binary: PathBuf,
    /// The configuration file that it reads.
    pub config_path: PathBuf,
    /// Further flags for it.
    pub arguments: Vec<OsString>,
}

/// Starts a server in a seat and waits until it answers, at most for `limit`.
///
/// # Errors
/// If it cannot be started, ends at once, or does not answer; the error carries its last words.
pub(super) async fn start(
    options: &StartOptions,
    seat: &Seat,
    client: &Client,
    limit: Duration,
) -> Result<Hello, Error> {
    let log_path = seat.log();
    let log = log::open(&log_path)?;
    let said_before = log.metadata().map_or(0, |meta| meta.len());
    let mut child = spawn(options, seat, log)?;
    let failed = |reason: String| Error::Start {
        binary: options.binary.clone(),
        reason,
    };
    let begun = Instant::now();
    loop {
        let trouble = match client.hello().await {
            Ok(hello) => {
                // Whoever waits for a child that ended keeps it from staying a zombie.
                tokio::spawn(async move { child.wait().await });
                return Ok(hello);
            }
            Err(error) if matches!(error.kind(), Kind::Unavailable | Kind::Timeout) => error,
            Err(error) => return Err(error),
        };
        if let Ok(Some(status)) = child.try_wait() {
            let words = last_words(&log_path, said_before);
            return Err(failed(format!("it ended with {status}: {words}")));
        }
        if begun.elapsed() > limit {
            let words = last_words(&log_path, said_before);
            return Err(failed(format!(
                "no answer within {limit:?} ({trouble}); its log says: {words}"
            )));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn spawn(options: &StartOptions, seat: &Seat, log: File) -> Result<Child, Error> {
    let failed = |error: std::io::Error| Error::Start {
        binary: options.binary.clone(),
        reason: error.to_string(),
    };
    let config = std::path::absolute(&options.config_path).map_err(failed)?;
    let errors = log.try_clone().map_err(failed)?;
    let mut command = Command::new(&options.binary);
    if seat.name() != Name::PLAIN {
        command.arg("--server").arg(seat.name().to_string());
    }
    command
        .arg("--detached")
        .arg("--config")
        .arg(config)
        .args(&options.arguments)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors);
    starting(|| command.spawn()).map_err(failed)
}

/// What the log says since `from`: its last line, or where to look.
fn last_words(path: &Path, from: u64) -> String {
    let mut text = String::new();
    let read = File::open(path).and_then(|mut file| {
        file.seek(SeekFrom::Start(from))?;
        file.take(64 << 10).read_to_string(&mut text)
    });
    match (read, text.lines().rfind(|line| !line.trim().is_empty())) {
        (Ok(_), Some(line)) => line.trim().to_owned(),
        _ => format!("it said nothing; see {}", path.display()),
    }
}
