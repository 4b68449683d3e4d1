//! The kernel's loop device over a raw file, with direct I/O: what everybody is measured against.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Subject;
use crate::host::run;

#[derive(Default)]
pub(crate) struct Loop {
    device: Option<PathBuf>,
}

/// A loop device over a new file of `size` bytes.
pub(super) fn attach(file: &Path, size: u64) -> Result<PathBuf> {
    let made = fs::File::create_new(file).and_then(|new| new.set_len(size));
    made.with_context(|| format!("cannot make {}", file.display()))?;
    let file = file.display().to_string();
    let said = run("losetup", &["--find", "--show", "--direct-io=on", &file])?;
    Ok(PathBuf::from(said.trim()))
}

pub(super) fn detach(device: &Path) -> Result<()> {
    run("losetup", &["--detach", &device.display().to_string()]).map(drop)
}

impl Subject for Loop {
    fn name(&self) -> &'static str {
        "kernel loop"
    }

    fn up(&mut self, folder: &Path, size: u64) -> Result<PathBuf> {
        let device = attach(&folder.join("loop.raw"), size)?;
        self.device = Some(device.clone());
        Ok(device)
    }

    fn down(&mut self) -> Result<()> {
        self.device.take().map_or(Ok(()), |device| detach(&device))
    }
}
