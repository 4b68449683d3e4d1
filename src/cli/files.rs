//! Opens image files at rest, locked against whoever has them open for writing.
//!
//! The locks are the disk server's: it holds an exclusive one on the top of a chain, and shared ones
//! on the deltas below. They are the kernel's, so a dead process holds none.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::run::Chain;
use crate::image::Format;
use crate::io::Direct;

/// Opens a file for reading; fails if somebody has it open for writing.
pub(super) fn read(path: &Path) -> Result<Direct> {
    let file = fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    lock(path, file, FlockOperation::NonBlockingLockShared)
}

/// Opens a file for writing; fails if somebody has it open.
pub(super) fn write(path: &Path) -> Result<Direct> {
    let file = fs::File::options().read(true).write(true).open(path);
    let file = file.with_context(|| format!("cannot open {} for writing", path.display()))?;
    lock(path, file, FlockOperation::NonBlockingLockExclusive)
}

/// Opens a file for reading, whoever else has it open; answers whether somebody writes to it.
pub(super) fn peek(path: &Path) -> Result<(Direct, bool)> {
    let file = fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let served = flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK);
    Ok((Direct::new(file)?, served))
}

fn lock(path: &Path, file: fs::File, how: FlockOperation) -> Result<Direct> {
    match flock(&file, how) {
        Ok(()) => Ok(Direct::new(file)?),
        Err(Errno::WOULDBLOCK) => bail!(
            "{} is open in another process: stop that process, or detach the disk there",
            path.display()
        ),
        Err(error) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// Each delta with its format, lowest first.
///
/// Which file is a plain disk is the user's word or the file's name, never its bytes: those are the
/// guest's.
pub(super) fn formats(chain: &Chain) -> impl Iterator<Item = (&Path, Format)> {
    chain.files.iter().enumerate().map(|(level, path)| {
        let named = path
            .extension()
            .is_some_and(|extension| extension == "raw" || extension == "img");
        let raw = level == 0 && (chain.raw_base || named);
        (
            path.as_path(),
            if raw { Format::Raw } else { Format::Ploop },
        )
    })
}
