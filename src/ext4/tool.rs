//! The only place that starts a program: where it is, how old it is, how long it may take.
//!
//! Programs are found in fixed directories, never through `PATH`, and run with an environment of our
//! own: no message in another language, no configuration from somewhere.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::Error;

/// Where programs of the system are.
const PLACES: [&str; 6] = [
    "/usr/sbin",
    "/sbin",
    "/usr/bin",
    "/bin",
    "/usr/local/sbin",
    "/usr/local/bin",
];
/// The first e2fsprogs with every option that we use.
const OLDEST: (u32, u32) = (1, 43);
/// Of a program's output, an error shows so much of the end.
const SHOWN: usize = 2000;

/// The programs of e2fsprogs that we use.
#[derive(Clone, Debug)]
pub struct Tools {
    pub(super) mkfs: Tool,
    pub(super) debugfs: Tool,
    pub(super) e2fsck: Tool,
    pub(super) resize: Tool,
    pub(super) tune: Tool,
}

impl Tools {
    /// Finds the programs and asks how old they are.
    ///
    /// # Errors
    /// [`Error::NoProgram`], [`Error::OldProgram`].
    pub async fn find() -> Result<Self, Error> {
        let places = PLACES.map(Path::new);
        let tools = Self {
            mkfs: Tool::find("mkfs.ext4", &places)?,
            debugfs: Tool::find("debugfs", &places)?,
            e2fsck: Tool::find("e2fsck", &places)?,
            resize: Tool::find("resize2fs", &places)?,
            tune: Tool::find("tune2fs", &places)?,
        };
        tools.mkfs.check_version().await?;
        Ok(tools)
    }
}

/// One program.
#[derive(Clone, Debug)]
pub(super) struct Tool {
    path: PathBuf,
    limit: Duration,
}

/// What a program said.
#[derive(Debug)]
pub(super) struct Output {
    /// Its exit status; none if a signal ended it.
    pub(super) status: Option<i32>,
    /// What it printed on both streams.
    pub(super) text: String,
    command: String,
}

impl Output {
    /// An error unless the program ended with 0.
    pub(super) fn success(self) -> Result<String, Error> {
        if self.status == Some(0) {
            return Ok(self.text);
        }
        Err(self.failure())
    }

    /// The program's end as an error.
    pub(super) fn failure(self) -> Error {
        let text = self.text.trim();
        let from = text.len().saturating_sub(SHOWN);
        let from = (from..=text.len())
            .find(|at| text.is_char_boundary(*at))
            .unwrap_or(text.len());
        Error::Program {
            command: self.command,
            status: self
                .status
                .map_or_else(|| "a signal".to_owned(), |code| format!("status {code}")),
            output: text[from..].to_owned(),
        }
    }
}

impl Tool {
    /// Looks for a program.
    fn find(program: &'static str, places: &[&Path]) -> Result<Self, Error> {
        let found = places.iter().map(|place| place.join(program)).find(|path| {
            use std::os::unix::fs::PermissionsExt;
            path.metadata()
                .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
        });
        let Some(path) = found else {
            let places: Vec<_> = places.iter().map(|place| place.to_string_lossy()).collect();
            return Err(Error::NoProgram {
                program,
                places: places.join(", "),
            });
        };
        Ok(Self {
            path,
            limit: Duration::from_secs(120),
        })
    }

    /// Runs it to its end, or kills it when the time is up.
    pub(super) async fn run(&self, arguments: &[&str]) -> Result<Output, Error> {
        let command = format!("{} {}", self.path.display(), arguments.join(" "));
        let child = Command::new(&self.path)
            .args(arguments)
            .env_clear()
            .env("PATH", PLACES.join(":"))
            .env("LC_ALL", "C")
            .current_dir("/")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(self.limit, child)
            .await
            .map_err(|_| Error::Timeout {
                command: command.clone(),
                limit: self.limit,
            })?
            .map_err(|source| Error::Run {
                path: self.path.clone(),
                source,
            })?;
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        Ok(Output {
            status: output.status.code(),
            text,
            command,
        })
    }

    async fn check_version(&self) -> Result<(), Error> {
        let text = self.run(&["-V"]).await?.success()?;
        let found = version(&text);
        if found.is_some_and(|found| found >= OLDEST) {
            return Ok(());
        }
        Err(Error::OldProgram {
            path: self.path.clone(),
            found: found.map_or_else(
                || format!("an unknown version ({:?})", text.trim()),
                |(major, minor)| format!("{major}.{minor}"),
            ),
            needed: format!("{}.{}", OLDEST.0, OLDEST.1),
        })
    }
}

/// Reads `mke2fs 1.47.0 (5-Feb-2023)`, and `1.45-rc1`.
fn version(text: &str) -> Option<(u32, u32)> {
    let word = text.split_whitespace().nth(1)?;
    let mut numbers = word
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse::<u32>);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::{Error, Tool, Tools, version};

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
        assert_eq!(version("mke2fs"), None);
        assert_eq!(version("mke2fs version nine"), None);
    }

    #[tokio::test]
    async fn the_systems_programs_are_found() {
        Tools::find().await.unwrap();
    }

    #[tokio::test]
    async fn an_old_program_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        script(
            dir.path(),
            "mkfs.ext4",
            "echo 'mke2fs 1.42.9 (28-Dec-2013)' >&2",
        );
        let tool = Tool::find("mkfs.ext4", &[dir.path()]).unwrap();
        let error = tool.check_version().await.unwrap_err();
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
        let tool = Tool::find("e2fsck", &[dir.path()]).unwrap();
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
        let mut tool = Tool::find("debugfs", &[dir.path()]).unwrap();
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

    #[test]
    fn a_missing_program_says_what_to_install() {
        let dir = tempfile::tempdir().unwrap();
        // Not executable: as good as absent.
        std::fs::write(dir.path().join("debugfs"), "").unwrap();
        let error = Tool::find("debugfs", &[dir.path()]).unwrap_err();
        assert!(error.to_string().contains("install e2fsprogs"), "{error}");
    }
}
