//! Marks: what is acknowledged, said on the logged disk itself, behind the end of its file system.
//!
//! A mark is one sector, written past the page cache after what it speaks of has returned. So it stands in
//! the log of the disk behind every write and flush that the acknowledgement rests on. It is read from the
//! log, and never from the disk: it needs no flush.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use ploop_snapshotter::io::Piece;

use crate::log::SECTOR;

/// How a mark begins.
const SIGN: &str = "mark: ";

/// Where marks are written.
#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    /// The logged disk.
    #[arg(long)]
    marks: PathBuf,
    /// The byte behind the end of its file system.
    #[arg(long)]
    at: u64,
}

impl Place {
    pub(crate) fn open(&self) -> Result<Marks> {
        let direct = i32::try_from(rustix::fs::OFlags::DIRECT.bits())?;
        let disk = OpenOptions::new()
            .write(true)
            .custom_flags(direct)
            .open(&self.marks);
        let disk = disk.with_context(|| self.marks.display().to_string())?;
        Ok(Marks { disk, at: self.at })
    }
}

/// Who says what is acknowledged.
pub(crate) struct Marks {
    disk: File,
    at: u64,
}

impl Marks {
    /// Returns when the log has it.
    pub(crate) fn say(&self, key: &str, value: &str) -> Result<()> {
        let mut line = format!("{SIGN}{key} {value}\n").into_bytes();
        ensure!(
            line.len() <= SECTOR,
            "a mark is one sector, and {key} {value} is longer"
        );
        line.resize(SECTOR, 0);
        let sector = Piece::from_bytes(&line);
        sector.with_bytes(|bytes| self.disk.write_all_at(bytes, self.at))?;
        Ok(())
    }
}

/// The key and the value of a sector that is a mark.
pub(crate) fn read(sector: &[u8]) -> Option<(String, String)> {
    let text = std::str::from_utf8(sector).ok()?;
    let (line, _) = text.strip_prefix(SIGN)?.split_once('\n')?;
    let (key, value) = line.split_once(' ')?;
    Some((key.to_owned(), value.to_owned()))
}
