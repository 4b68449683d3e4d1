//! What a server that we started says: a file that it appends to, on tmpfs, where there is little room.
//!
//! Nobody but us keeps it short. The server goes on writing at the end of whatever is there (`O_APPEND`), so a log that
//! has become too long is copied, its end only, and cut to nothing. A line that comes between the two is lost.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::error::Error;

/// A log longer than this is put aside.
const LONGEST: u64 = 4 << 20;
/// What is kept of the log of a server that has ended for good: every upgrade leaves one.
const LAST: u64 = 64 << 10;

/// Opens it for a server that is about to be started.
pub(super) fn open(path: &Path) -> Result<File, Error> {
    let failed = |source| Error::Host {
        act: "open the disk server's log",
        path: path.to_owned(),
        source,
    };
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed)?;
    }
    shorten(path).map_err(failed)?;
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)
}

/// Keeps the log of a server that runs from growing without end.
pub(super) async fn keep_short(path: PathBuf) {
    say(&path, blocking(&path, shorten).await);
}

/// Keeps the last words of a server that has ended for good, and no more.
pub(super) async fn keep_last_words(path: PathBuf) {
    say(&path, blocking(&path, last_words_only).await);
}

async fn blocking(path: &Path, act: fn(&Path) -> io::Result<()>) -> io::Result<()> {
    let path = path.to_owned();
    let done = tokio::task::spawn_blocking(move || act(&path)).await;
    done.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn say(path: &Path, done: io::Result<()>) {
    if let Err(error) = done {
        tracing::warn!(log = %path.display(), %error, "cannot keep a disk server's log short");
    }
}

/// If it is too long, its end becomes the old log, and it is empty again.
fn shorten(path: &Path) -> io::Result<()> {
    let Some((log, length)) = open_there(path)? else {
        return Ok(());
    };
    if length <= LONGEST {
        return Ok(());
    }
    let old = path.with_extension("log.old");
    // Its room first: both together may be more than there is.
    let kept = gone(&old).and_then(|()| {
        let mut copy = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&old)?;
        copy.write_all(&end_of(&log, length, LONGEST)?)
    });
    // Without a copy it is cut all the same: a run directory without room takes no new disk.
    if kept.is_err() {
        gone(&old)?;
    }
    log.set_len(0)?;
    kept
}

fn last_words_only(path: &Path) -> io::Result<()> {
    gone(&path.with_extension("log.old"))?;
    let Some((mut log, length)) = open_there(path)? else {
        return Ok(());
    };
    if length <= LAST {
        return Ok(());
    }
    let last = end_of(&log, length, LAST)?;
    log.set_len(0)?;
    log.seek(SeekFrom::Start(0))?;
    log.write_all(&last)
}

fn open_there(path: &Path) -> io::Result<Option<(File, u64)>> {
    let log = match OpenOptions::new().read(true).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        log => log?,
    };
    let length = log.metadata()?.len();
    Ok(Some((log, length)))
}

/// Its last bytes, from the beginning of a line on.
fn end_of(mut log: &File, length: u64, most: u64) -> io::Result<Vec<u8>> {
    log.seek(SeekFrom::Start(length.saturating_sub(most)))?;
    let mut end = Vec::new();
    log.take(most).read_to_end(&mut end)?;
    if length > most {
        let line = end.iter().position(|byte| *byte == b'\n');
        end.drain(..line.map_or(0, |at| at + 1));
    }
    Ok(end)
}

fn gone(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::{LAST, LONGEST, last_words_only, open, shorten};

    /// A server that complained for weeks filled the run directory, and no container could be started any more.
    #[test]
    fn a_log_that_is_written_to_is_kept_short() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run").join("ploopd-1-1.log");
        let old = path.with_extension("log.old");
        let length = |path| fs::metadata(path).map_or(0, |file: fs::Metadata| file.len());
        shorten(&path).unwrap();
        let mut log = open(&path).unwrap();
        for round in ["first", "second"] {
            let mut written = 0;
            while written <= LONGEST {
                assert_eq!(length(&path), written, "it is left alone until then");
                let line = format!("{round} {written:>1000}\n");
                log.write_all(line.repeat(700).as_bytes()).unwrap();
                written += line.len() as u64 * 700;
                shorten(&path).unwrap();
            }
            assert_eq!(length(&path), 0);
            let kept = fs::read_to_string(&old).unwrap();
            assert!(kept.len() as u64 <= LONGEST && kept.len() as u64 > LONGEST - 2000);
            assert!(
                kept.lines().all(|line| line.starts_with(round)),
                "whole lines"
            );
        }
        log.write_all(b"goes on\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "goes on\n");
    }

    #[test]
    fn of_a_server_that_has_ended_only_the_last_words_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ploopd-1-1.log");
        let old = path.with_extension("log.old");
        last_words_only(&path).unwrap();
        let lines: String = (0..20_000)
            .map(|number| format!("line {number}\n"))
            .collect();
        fs::write(&path, &lines).unwrap();
        fs::write(&old, "older").unwrap();
        for _ in 0..2 {
            last_words_only(&path).unwrap();
            let kept = fs::read_to_string(&path).unwrap();
            assert!(kept.len() as u64 <= LAST && kept.len() > 60_000);
            assert!(kept.starts_with("line ") && lines.ends_with(&kept));
        }
        assert!(!old.exists());
    }
}
