//! The only place that starts programs of the system: where it is, how old it is, how long it may take.
//!
//! Programs are found in fixed directories, never through `PATH`, and run with an environment of our
//! own: no message in another language, no configuration from somewhere.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::spawn::starting;

/// Where programs of the system are.
const PLACES: [&str; 6] = [
    "/usr/sbin",
    "/sbin",
    "/usr/bin",
    "/bin",
    "/usr/local/sbin",
    "/usr/local/bin",
];
/// Of a program's output, an error shows so much of the end.
const SHOWN: usize = 2000;

/// Why a program was of no use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not there.
    #[error("{program} was not found in {places}: install {package}")]
    Missing {
        /// Its name.
        program: &'static str,
        /// Where we looked.
        places: String,
        /// What brings it.
        package: &'static str,
    },
    /// It is too old.
    #[error("{path} is of {package} {found}, at least {needed} is needed")]
    Old {
        /// The program.
        path: PathBuf,
        /// What brings it.
        package: &'static str,
        /// What it says of itself.
        found: String,
        /// What we need.
        needed: String,
    },
    /// It could not be started or waited for.
    #[error("cannot run {path}")]
    Run {
        /// The program.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ended badly.
    #[error("{command} ended with {status}: {output}")]
    Failed {
        /// The program and its arguments.
        command: String,
        /// How it ended.
        status: String,
        /// What it printed.
        output: String,
    },
    /// It did not end in time, and was killed.
    #[error("{command} did not end within {limit:?}")]
    Timeout {
        /// The program and its arguments.
        command: String,
        /// What it was given.
        limit: Duration,
    },
}

/// A version of a program: `1.47`.
pub type Version = (u32, u32);

/// One program.
#[derive(Clone, Debug)]
pub struct Tool {
    path: PathBuf,
    package: &'static str,
    limit: Duration,
}

/// What a program said.
#[derive(Debug)]
pub struct Output {
    /// Its exit status; none if a signal ended it.
    pub status: Option<i32>,
    /// What it printed on both streams.
    pub text: String,
    command: String,
}

impl Output {
    /// What it printed, if it ended with 0.
    ///
    /// # Errors
    /// [`Error::Failed`].
    pub fn success(self) -> Result<String, Error> {
        if self.status == Some(0) {
            return Ok(self.text);
        }
        Err(self.failure())
    }

    /// The program's end as an error.
    #[must_use]
    pub fn failure(self) -> Error {
        let text = self.text.trim();
        let from = text.len().saturating_sub(SHOWN);
        let from = (from..=text.len())
            .find(|at| text.is_char_boundary(*at))
            .unwrap_or(text.len());
        Error::Failed {
            command: self.command,
            status: self
                .status
                .map_or_else(|| "a signal".to_owned(), |code| format!("status {code}")),
            output: text[from..].to_owned(),
        }
    }
}

impl Tool {
    /// Looks for a program of this package.
    ///
    /// # Errors
    /// [`Error::Missing`].
    pub fn find(program: &'static str, package: &'static str) -> Result<Self, Error> {
        Self::find_in(program, package, &PLACES.map(Path::new))
    }

    fn find_in(
        program: &'static str,
        package: &'static str,
        places: &[&Path],
    ) -> Result<Self, Error> {
        let found = places.iter().map(|place| place.join(program)).find(|path| {
            use std::os::unix::fs::PermissionsExt;
            path.metadata()
                .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
        });
        let Some(path) = found else {
            let places: Vec<_> = places.iter().map(|place| place.to_string_lossy()).collect();
            return Err(Error::Missing {
                program,
                places: places.join(", "),
                package,
            });
        };
        Ok(Self {
            path,
            package,
            limit: Duration::from_secs(120),
        })
    }

    /// Runs it to its end, or kills it when the time is up or nobody waits for it any more.
    ///
    /// # Errors
    /// [`Error::Run`], [`Error::Timeout`]; how it ended is in its output.
    pub async fn run(&self, arguments: &[&str]) -> Result<Output, Error> {
        let child = starting(|| self.command(arguments).kill_on_drop(true).output());
        match tokio::time::timeout(self.limit, child).await {
            Ok(ended) => self.output(arguments, ended),
            Err(_) => Err(Error::Timeout {
                command: self.line(arguments),
                limit: self.limit,
            }),
        }
    }

    /// Runs it to its end, however long that is and whatever becomes of us: a program that would leave half of
    /// something behind. A signal to our process group is not for it.
    ///
    /// # Errors
    /// [`Error::Run`]; how it ended is in its output.
    pub async fn run_to_the_end(&self, arguments: &[&str]) -> Result<Output, Error> {
        let child = starting(|| self.command(arguments).process_group(0).output());
        self.output(arguments, child.await)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.path);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", PLACES.join(":"))
            .env("LC_ALL", "C")
            .current_dir("/")
            .stdin(Stdio::null());
        command
    }

    /// What was asked for, for messages.
    fn line(&self, arguments: &[&str]) -> String {
        format!("{} {}", self.path.display(), arguments.join(" "))
    }

    fn output(
        &self,
        arguments: &[&str],
        ended: io::Result<std::process::Output>,
    ) -> Result<Output, Error> {
        let output = ended.map_err(|source| Error::Run {
            path: self.path.clone(),
            source,
        })?;
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        Ok(Output {
            status: output.status.code(),
            text,
            command: self.line(arguments),
        })
    }

    /// Its version, if that is not older than `oldest`.
    ///
    /// # Errors
    /// [`Error::Old`], and whatever hinders it from saying.
    pub async fn version(&self, oldest: Version) -> Result<Version, Error> {
        let text = self.run(&["-V"]).await?.success()?;
        let found = version(&text);
        match found {
            Some(found) if found >= oldest => Ok(found),
            _ => Err(Error::Old {
                path: self.path.clone(),
                package: self.package,
                found: found.map_or_else(
                    || format!("an unknown version ({:?})", text.trim()),
                    |(major, minor)| format!("{major}.{minor}"),
                ),
                needed: format!("{}.{}", oldest.0, oldest.1),
            }),
        }
    }
}

/// Reads `mke2fs 1.47.0 (5-Feb-2023)`, `mke2fs 1.45-rc1` and `mkfs.xfs version 6.1.0`.
fn version(text: &str) -> Option<Version> {
    let mut words = text.split_whitespace().skip(1);
    let word = words.find(|word| *word != "version")?;
    let mut numbers = word
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse::<u32>);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::{Error, Tool, version};

    /// A program of ours.
    ///
    /// Another process writes it: were it open for writing here, a test that forks at that moment would
    /// inherit it, and starting it would fail with "text file busy".
    fn script(dir: &Path, name: &str, text: &str) {
        let path = dir.join(name);
        let written = std::process::Command::new("sh")
            .args([
                "-c",
                "printf '#!/bin/sh\\n%s\\n' \"$2\" > \"$1\" && chmod 755 \"$1\"",
                "sh",
            ])
            .arg(&path)
            .arg(text)
            .status();
        assert!(written.unwrap().success());
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(
            version("mke2fs 1.47.0 (5-Feb-2023)\n\tUsing"),
            Some((1, 47))
        );
        assert_eq!(version("mke2fs 1.43-WIP (1-Jan-2016)"), Some((1, 43)));
        assert_eq!(version("mkfs.xfs version 6.1.0"), Some((6, 1)));
        assert_eq!(version("mke2fs"), None);
        assert_eq!(version("mke2fs version nine"), None);
    }

    #[tokio::test]
    async fn an_old_program_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        script(
            dir.path(),
            "mkfs.ext4",
            "echo 'mke2fs 1.42.9 (28-Dec-2013)' >&2",
        );
        let tool = Tool::find_in("mkfs.ext4", "e2fsprogs", &[dir.path()]).unwrap();
        let error = tool.version((1, 43)).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "{} is of e2fsprogs 1.42, at least 1.43 is needed",
                dir.path().join("mkfs.ext4").display()
            )
        );
    }

    #[tokio::test]
    async fn a_failure_shows_what_was_printed() {
        let dir = tempfile::tempdir().unwrap();
        script(dir.path(), "e2fsck", "echo out; echo wrong >&2; exit 4");
        let tool = Tool::find_in("e2fsck", "e2fsprogs", &[dir.path()]).unwrap();
        let error = tool
            .run(&["-fn", "x"])
            .await
            .unwrap()
            .success()
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.ends_with("e2fsck -fn x ended with status 4: out\nwrong"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_given_up_and_killed() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let text = format!("echo $$ > {}; exec sleep 600", pid.display());
        script(dir.path(), "debugfs", &text);
        let mut tool = Tool::find_in("debugfs", "e2fsprogs", &[dir.path()]).unwrap();
        tool.limit = Duration::from_millis(300);
        assert!(matches!(tool.run(&[]).await, Err(Error::Timeout { .. })));
        let pid = std::fs::read_to_string(&pid).unwrap();
        let process = format!("/proc/{}/cmdline", pid.trim());
        for _ in 0..100 {
            // A killed process has no command line any more, even before it is reaped.
            if std::fs::read(&process).unwrap_or_default().is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("process {pid} still runs");
    }

    #[tokio::test]
    async fn what_must_not_be_cut_short_outlives_who_waits_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let (begun, done) = (dir.path().join("begun"), dir.path().join("done"));
        let text = format!(
            "touch {}; sleep 0.5; touch {}",
            begun.display(),
            done.display()
        );
        script(dir.path(), "resize2fs", &text);
        let mut tool = Tool::find_in("resize2fs", "e2fsprogs", &[dir.path()]).unwrap();
        tool.limit = Duration::from_millis(1);
        let running = tokio::spawn(async move { tool.run_to_the_end(&[]).await });
        while !begun.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        running.abort();
        assert!(running.await.unwrap_err().is_cancelled());
        for _ in 0..500 {
            if done.exists() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it was killed");
    }

    #[test]
    fn a_missing_program_says_what_to_install() {
        let dir = tempfile::tempdir().unwrap();
        // Not executable: as good as absent.
        std::fs::write(dir.path().join("debugfs"), "").unwrap();
        let error = Tool::find_in("debugfs", "e2fsprogs", &[dir.path()]).unwrap_err();
        assert!(error.to_string().contains("install e2fsprogs"), "{error}");
    }
}
