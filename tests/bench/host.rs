//! What the machine is asked: programs, and numbers below /proc and /sys.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Runs a program that has to succeed; what it said on standard output.
pub(crate) fn run<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {program}: is it installed?"))?;
    if !output.status.success() {
        let line: Vec<_> = arguments
            .iter()
            .map(|a| a.as_ref().to_string_lossy())
            .collect();
        bail!(
            "{program} {} ended with {}: {}{}",
            line.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim(),
            String::from_utf8_lossy(&output.stdout).trim(),
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Waits until `done`, at most half a minute.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) -> Result<()> {
    let begun = Instant::now();
    while !done() {
        if begun.elapsed() > Duration::from_secs(30) {
            bail!("{what}: not within 30 s");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

pub(crate) fn read(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

pub(crate) fn write(path: impl AsRef<Path>, text: &str) -> Result<()> {
    let path = path.as_ref();
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The number of a line `Name: 123 kB`, in bytes.
pub(crate) fn kib_of(text: &str, name: &str) -> Result<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .with_context(|| format!("there is no {name} in it"))?;
    let number = line.split_whitespace().next().context("an empty line")?;
    Ok(number.parse::<u64>()? * 1024)
}

/// A process as /proc shows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process(pub(crate) u32);

impl Process {
    pub(crate) fn threads(self) -> Result<Vec<u32>> {
        self.entries("task")
    }

    pub(crate) fn descriptors(self) -> Result<usize> {
        Ok(self.entries("fd")?.len())
    }

    fn entries(self, folder: &str) -> Result<Vec<u32>> {
        let path = PathBuf::from(format!("/proc/{}/{folder}", self.0));
        let entries =
            fs::read_dir(&path).with_context(|| format!("cannot list {}", path.display()))?;
        Ok(entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect())
    }

    /// Bytes of memory that it holds, its share of what is shared.
    pub(crate) fn resident(self) -> Result<u64> {
        kib_of(&read(format!("/proc/{}/smaps_rollup", self.0))?, "Pss")
    }
}

/// Empties the kernel's caches of files.
pub(crate) fn drop_caches() -> Result<()> {
    write("/proc/sys/vm/drop_caches", "3")
}

/// Bytes of memory in use by anybody, caches of files aside.
pub(crate) fn memory_in_use() -> Result<u64> {
    drop_caches()?;
    let text = read("/proc/meminfo")?;
    let kib = |name| kib_of(&text, name);
    Ok(kib("MemTotal")? - kib("MemFree")? - kib("Buffers")? - kib("Cached")?)
}

/// Bytes that a block device was asked to read and to write since the machine started.
pub(crate) fn traffic(device: &Path) -> Result<(u64, u64)> {
    // It may be called by a link.
    let node = fs::canonicalize(device);
    let node = node.with_context(|| format!("there is no {}", device.display()))?;
    let name = node.file_name().context("a device has a name")?;
    let stat = read(Path::new("/sys/class/block").join(name).join("stat"))?;
    let fields: Vec<u64> = stat
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    match (fields.get(2), fields.get(6)) {
        (Some(read), Some(written)) => Ok((read * 512, written * 512)),
        _ => bail!("{} has a stat that we cannot read", device.display()),
    }
}
