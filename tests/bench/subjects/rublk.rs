//! rublk, the example targets of the libublk crate: a raw file, or a QCOW2 image.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{Fresh, Subject};
use crate::host::{run, until};

/// Which of its targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Loop,
    LoopZeroCopy,
    Qcow2,
}

pub(crate) struct Rublk {
    target: Target,
    file: PathBuf,
    layer: PathBuf,
    running: bool,
}

impl Rublk {
    pub(crate) fn new(target: Target) -> Self {
        Self {
            target,
            file: PathBuf::new(),
            layer: PathBuf::new(),
            running: false,
        }
    }

    /// Numbers far from those that the kernel gives to ours.
    fn number(&self) -> &'static str {
        match self.target {
            Target::Loop => "1001",
            Target::LoopZeroCopy => "1002",
            Target::Qcow2 => "1003",
        }
    }

    fn start(&mut self, file: &Path) -> Result<PathBuf> {
        let (kind, more): (_, &[&str]) = match self.target {
            Target::Loop => ("loop", &[]),
            Target::LoopZeroCopy => ("loop", &["--zero-copy"]),
            Target::Qcow2 => ("qcow2", &[]),
        };
        let file = file.display().to_string();
        let mut arguments = vec!["add", kind, "--quiet", "--queue", "1", "--depth", "128"];
        arguments.extend(["--number", self.number(), "--file", &file]);
        arguments.extend(more);
        run("rublk", &arguments)?;
        self.running = true;
        let device = PathBuf::from(format!("/dev/ublkb{}", self.number()));
        until("rublk's device", || device.exists())?;
        Ok(device)
    }

    fn stop(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.running) {
            return Ok(());
        }
        run("rublk", &["del", "--number", self.number()]).map(drop)
    }
}

impl Subject for Rublk {
    fn name(&self) -> &'static str {
        match self.target {
            Target::Loop => "rublk loop",
            Target::LoopZeroCopy => "rublk loop zc",
            Target::Qcow2 => "rublk qcow2",
        }
    }

    /// It goes to the background without a word of its process: its command line names the number.
    fn process(&self) -> Option<u32> {
        let wanted = format!("--number\0{}\0", self.number());
        fs::read_dir("/proc").ok()?.find_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
            (line.contains(&wanted) && line.contains("add\0")).then_some(pid)
        })
    }

    fn up(&mut self, folder: &Path, size: u64) -> Result<PathBuf> {
        self.file = folder.join(format!("rublk{}", self.number()));
        if self.target == Target::Qcow2 {
            super::nbd::image(&self.file, size)?;
        } else {
            let made = fs::File::create_new(&self.file).and_then(|new| new.set_len(size));
            made.with_context(|| format!("cannot make {}", self.file.display()))?;
        }
        let file = self.file.clone();
        self.start(&file)
    }

    fn down(&mut self) -> Result<()> {
        self.stop()
    }
}

impl Fresh for Rublk {
    fn freeze(&mut self) -> Result<()> {
        if self.target != Target::Qcow2 {
            bail!("a raw file has no layers");
        }
        self.stop()
    }

    fn layer(&mut self) -> Result<PathBuf> {
        self.layer = self.file.with_extension("layer");
        super::nbd::overlay(&self.file, &self.layer)?;
        let layer = self.layer.clone();
        self.start(&layer)
    }

    fn drop_layer(&mut self) -> Result<()> {
        self.stop()?;
        fs::remove_file(&self.layer).context("cannot remove the layer")
    }
}
