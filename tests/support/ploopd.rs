//! A real `ploopd` with a run folder of its own, asked through `link` as the snapshotter asks it.

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use ploop_snapshotter::link::{Access, Delta, Disk, Error, Format, Limits, Options, Seal};
use ploop_snapshotter::link::{Seen, Servers, StartOptions};
use ploop_snapshotter::seat::Seat;
use ploop_snapshotter::ublk::{self, Control, Owner};
use ploop_snapshotter::units::ClusterSize;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};

use super::{host, images};

/// The server, its client, and the folders of both.
pub(crate) struct Ploopd {
    pub(crate) folder: tempfile::TempDir,
    run: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    servers: Option<Servers>,
    /// How many are to work side by side.
    pub(crate) count: usize,
    /// The program that is started.
    pub(crate) binary: PathBuf,
}

impl Ploopd {
    pub(crate) fn start() -> Self {
        let mut server = Self::folders();
        server.connect(true).unwrap();
        server
    }

    /// Several servers.
    pub(crate) fn start_many(count: usize) -> Self {
        let mut server = Self::folders();
        server.count = count;
        server.connect(true).unwrap();
        server
    }

    /// The servers' processes, as far as they are known to live.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let seen = self.servers().seen();
        seen.iter().map(|seen| seen.hello.pid).collect()
    }

    /// The folders alone.
    pub(crate) fn folders() -> Self {
        let server = Self {
            folder: tempfile::tempdir().unwrap(),
            run: tempfile::tempdir_in("/dev/shm").unwrap(),
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap(),
            servers: None,
            count: 1,
            binary: env!("CARGO_BIN_EXE_ploopd").into(),
        };
        let text = format!(
            "run_dir = {:?}\nroot = {:?}\n[disk_server]\nshards = 1\n[names.ploop]\n",
            server.run_folder(),
            server.folder.path()
        );
        fs::write(server.config(), text).unwrap();
        server
    }

    pub(crate) fn run_folder(&self) -> PathBuf {
        self.run.path().join("run")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.seat().socket()
    }

    /// Where the first server sits.
    pub(crate) fn seat(&self) -> Seat {
        Seat::new(&self.run_folder(), "1-1".parse().unwrap())
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.run.path().join("config.toml")
    }

    pub(crate) fn options(&self, start: bool) -> Options {
        Options {
            run: self.run_folder(),
            servers: self.count,
            installed: self.binary.clone(),
            start: start.then(|| StartOptions {
                binary: self.binary.clone(),
                config_path: self.config(),
                arguments: Vec::new(),
            }),
            limits: Limits {
                other: Duration::from_secs(2),
                ..Limits::default()
            },
        }
    }

    /// Finds the server that runs, or starts one.
    pub(crate) fn connect(&mut self, start: bool) -> Result<(), Error> {
        let options = self.options(start);
        self.connect_with(options)
    }

    pub(crate) fn connect_with(&mut self, options: Options) -> Result<(), Error> {
        self.servers = None;
        let servers = self.block(Servers::start(options))?;
        for seen in servers.seen() {
            host::meets(&seen.hello.transport);
        }
        self.servers = Some(servers);
        Ok(())
    }

    pub(crate) fn servers(&self) -> &Servers {
        self.servers.as_ref().unwrap()
    }

    pub(crate) fn block<T>(&self, act: impl Future<Output = T>) -> T {
        self.runtime.block_on(act)
    }

    pub(crate) fn attach(&self, id: &str, deltas: &[Delta]) -> Result<Disk, Error> {
        self.block(self.servers().attach(id, deltas, Access::Write))
    }

    pub(crate) fn view(&self, id: &str, deltas: &[Delta]) -> Result<Disk, Error> {
        self.block(self.servers().attach(id, deltas, Access::Read))
    }

    pub(crate) fn detach(&self, id: &str) -> Result<bool, Error> {
        Ok(self.block(self.servers().detach(id, false))?.existed)
    }

    pub(crate) fn seal(&self, id: &str) -> Result<Option<Seal>, Error> {
        Ok(self.block(self.servers().detach(id, true))?.seal)
    }

    /// A new, empty, writable delta.
    pub(crate) fn delta(&self, name: &str, size: u64) -> Delta {
        let path = self.folder.path().join(name);
        images::create(&path, size, ClusterSize::DEFAULT);
        Delta {
            path,
            format: Format::Ploop,
            seal: None,
        }
    }

    /// Starts another process like ours and waits for its end.
    pub(crate) fn second(&self) -> std::process::Output {
        Command::new(env!("CARGO_BIN_EXE_ploopd"))
            .arg("--config")
            .arg(self.config())
            .args(["--server", "1-1"])
            .output()
            .unwrap()
    }

    /// The oldest server.
    pub(crate) fn seen(&self) -> Seen {
        self.servers().seen().remove(0)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.seen().hello.pid
    }

    pub(crate) fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.seat().log()).unwrap_or_default()
    }

    /// Servers that read our configuration.
    fn processes(&self) -> Vec<u32> {
        let config = self.config();
        let wanted = config.to_str().unwrap().as_bytes();
        let Ok(entries) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                line.split(|byte| *byte == 0).any(|word| word == wanted) && alive(*pid)
            })
            .collect()
    }

    /// Loop devices that hang on our run folder.
    pub(crate) fn loops(&self) -> Vec<String> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/sys/block").unwrap() {
            let entry = entry.unwrap();
            let backing = fs::read_to_string(entry.path().join("loop/backing_file"));
            if backing.is_ok_and(|path| Path::new(path.trim()).starts_with(self.run.path())) {
                found.push(entry.file_name().into_string().unwrap());
            }
        }
        found
    }

    /// Do the disks go over ublk here?
    pub(crate) fn is_ublk(&self) -> bool {
        self.seen().hello.transport == "ublk"
    }

    /// The numbers of the ublk devices of our run folder.
    pub(crate) fn numbers(&self) -> Vec<u32> {
        let Ok(control) = Control::open() else {
            return Vec::new();
        };
        let seats = Seat::all(&self.run_folder()).unwrap_or_default();
        let owners: Vec<_> = seats
            .iter()
            .filter_map(|seat| {
                let (run, folder) = (seat.run_dir(), seat.folder());
                Some(
                    Owner::of(&run, &seat.name().to_string(), &folder)
                        .ok()?
                        .tag(),
                )
            })
            .collect();
        let ours = |number: &u32| {
            let info = control.info(*number).ok().flatten();
            info.is_some_and(|info| owners.contains(&info.tag))
        };
        ublk::list().into_iter().filter(ours).collect()
    }

    /// How many devices of ours the kernel has.
    pub(crate) fn devices(&self) -> usize {
        if self.is_ublk() {
            self.numbers().len()
        } else {
            self.loops().len()
        }
    }

    /// Mounts that hang on our run folder.
    pub(crate) fn mounts(&self) -> usize {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let run = self.run.path().to_str().unwrap();
        table.lines().filter(|line| line.contains(run)).count()
    }
}

impl Drop for Ploopd {
    fn drop(&mut self) {
        // The monitor first: it would start another one.
        drop(self.servers.take());
        let begun = Instant::now();
        // No panic here: this also runs when a test has failed, perhaps with a stopped server.
        loop {
            let left = self.processes();
            if left.is_empty() {
                break;
            }
            let patient = begun.elapsed() < Duration::from_secs(10);
            for pid in left {
                send(pid, if patient { Signal::TERM } else { Signal::KILL });
                send(pid, Signal::CONT);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        // What a server left for the next one waits in vain now.
        if let Ok(control) = Control::open() {
            for number in self.numbers() {
                let _ = control
                    .stop(number)
                    .and_then(|()| control.delete_later(number));
            }
        }
        // The folder must not be removed through a mount.
        for seat in Seat::all(&self.run_folder()).unwrap_or_default() {
            let _ = Command::new("umount")
                .args(["-q", "-l"])
                .arg(seat.folder().join("fuse"))
                .output();
        }
    }
}

/// Says how many descriptors a process may have from now on; otherwise as many as we may.
pub(crate) fn may_open(pid: u32, descriptors: Option<u64>) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: descriptors.or(maximum),
        maximum,
    };
    let pid = Pid::from_raw(i32::try_from(pid).unwrap());
    prlimit(pid, Resource::Nofile, limit).unwrap();
}

pub(crate) fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let _ = kill_process(pid, signal);
}

/// Is there such a process, and is it more than a zombie?
pub(crate) fn alive(pid: u32) -> bool {
    state(pid).is_some_and(|state| !"ZX".contains(state))
}

/// Does the process stand still? A signal is sent at once and obeyed a moment later.
pub(crate) fn stopped(pid: u32) -> bool {
    state(pid) == Some('T')
}

/// The letter that stands for a process' state.
pub(crate) fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.chars().next()
}

pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "{what}: not within 30 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a program that has to succeed; its output.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {text}");
    text
}

/// A mount that ends with the test.
pub(crate) struct Mounted(tempfile::TempDir);

impl Mounted {
    pub(crate) fn new(device: &Path) -> Self {
        let point = tempfile::tempdir().unwrap();
        run(
            "mount",
            &[device.to_str().unwrap(), point.path().to_str().unwrap()],
        );
        Self(point)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily where it must be: a dead disk's file system cannot be written out.
        let point = self.0.path().to_str().unwrap();
        let ended = Command::new("umount").arg(point).output();
        if !ended.is_ok_and(|output| output.status.success()) {
            let _ = Command::new("umount").args(["-l", point]).output();
        }
    }
}
