//! The real daemons in a folder of their own.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use ploop_snapshotter::seat::Seat;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tempfile::TempDir;

use super::client::Client;

const BINARY: &str = env!("CARGO_BIN_EXE_ploop-snapshotter");
const PATIENCE: Duration = Duration::from_secs(30);

/// A root and a run folder; daemons come and go over them.
pub(super) struct Place {
    dir: TempDir,
}

/// A `ploop-snapshotter`. It is told to stop, and waited for, when this is dropped.
pub(super) struct Daemon {
    child: Child,
}

/// Waits for what other processes bring about.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Place {
    /// A new place; `options` is added to its configuration.
    pub(super) fn new(options: &str) -> Self {
        let place = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        place.configure("config.toml", "root", "run", options);
        std::fs::create_dir(place.path("failpoints")).unwrap();
        place
    }

    /// Writes a configuration: a root and a run folder of this place.
    pub(super) fn configure(&self, file: &str, root: &str, run: &str, options: &str) -> PathBuf {
        let text = format!(
            "root = '{}'\nrun_dir = '{run}'\n[metrics]\naddress = '{run}/metrics.sock'\n\
             [nri]\nenabled = false\n\
             [snapshots]\nsize = '256Mi'\n{options}",
            self.path(root).display(),
            run = self.path(run).display()
        );
        let path = self.path(file);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Starts a daemon and waits until its doors are open.
    pub(super) fn start(&self) -> Daemon {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .unwrap();
        let mut child = Command::new(BINARY)
            .arg("--config")
            .arg(self.path("config.toml"))
            .env("PLOOP_FAILPOINTS", self.path("failpoints"))
            .stderr(log)
            .spawn()
            .unwrap();
        until("the daemon answers", || {
            assert_eq!(child.try_wait().unwrap(), None, "{}", self.log());
            self.http("/readyz").ends_with("\r\n\r\nready\n")
        });
        Daemon { child }
    }

    /// Whoever comes to this step next dies there (a release build does not).
    pub(super) fn arm(&self, step: &str) {
        std::fs::write(self.path("failpoints").join(step), "").unwrap();
    }

    /// Has somebody died there?
    pub(super) fn reached(&self, step: &str) -> bool {
        !self.path("failpoints").join(step).exists()
    }

    pub(super) async fn client(&self) -> Client {
        Client::new(&self.path("run/ploop.sock")).await
    }

    /// The answer of the metrics door, headers and all; nothing if nobody answers.
    pub(super) fn http(&self, path: &str) -> String {
        let mut answer = String::new();
        if let Ok(mut stream) = UnixStream::connect(self.path("run/metrics.sock")) {
            let asked = write!(stream, "GET {path} HTTP/1.0\r\n\r\n");
            if asked.is_err() || stream.read_to_string(&mut answer).is_err() {
                answer.clear();
            }
        }
        answer
    }

    /// The first disk server's process.
    pub(super) fn ploopd(&self) -> Option<Pid> {
        self.ploopds().first().copied()
    }

    /// The disk servers' processes, while they hold their locks.
    pub(super) fn ploopds(&self) -> Vec<Pid> {
        let seats = Seat::all(&self.path("run")).unwrap_or_default();
        seats.iter().filter_map(Self::holder).collect()
    }

    fn holder(seat: &Seat) -> Option<Pid> {
        let text = std::fs::read_to_string(seat.lock()).ok()?;
        let pid = Pid::from_raw(text.trim().parse().ok()?)?;
        let program = std::fs::read_link(format!("/proc/{}/exe", pid.as_raw_nonzero())).ok()?;
        program.ends_with("ploopd").then_some(pid)
    }
}

impl Drop for Place {
    /// No disk server is left behind, whatever the test did.
    fn drop(&mut self) {
        for pid in self.ploopds() {
            // The first asks it to end with its last disk, the second to end now.
            for _ in 0..2 {
                let _ = kill_process(pid, Signal::CONT);
                let _ = kill_process(pid, Signal::TERM);
                std::thread::sleep(Duration::from_millis(50));
            }
            let begun = Instant::now();
            while test_kill_process(pid).is_ok() && begun.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

impl Daemon {
    pub(super) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Sends a signal and waits for the end.
    pub(super) fn end(mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        self.wait()
    }

    /// Waits until it has died by itself.
    pub(super) fn died(mut self) {
        let status = self.wait();
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{status}");
    }

    fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        until("the daemon ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
            let begun = Instant::now();
            while let Ok(None) = self.child.try_wait() {
                if begun.elapsed() > PATIENCE {
                    let _ = self.child.kill();
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// Runs the program to its end: its code, and what it said.
pub(super) fn run(config: &Path, flags: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(BINARY)
        .arg("--config")
        .arg(config)
        .args(flags)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let words = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(words).unwrap())
}
