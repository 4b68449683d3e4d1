//! Mends what is safe to mend in a root at rest, and keeps a copy of all that it changes.
//!
//! | mended | how | kept |
//! |---|---|---|
//! | keys, children, numbers of the store | made again from the records | the whole store |
//! | a sealed layer that was opened for writing | closed again, if that gives the very seal of its record | its first page, and its tail |
//! | a delta that no record names, an unfinished file | moved away, before the next start deletes it | the file itself |
//!
//! Everything else is left to the next start, which knows what disk servers have, or to a person. Each
//! copy is durable before its original is touched.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::Error;
use super::check::{Report, look, refuse_other};
use super::finding::{Fault, Finding};
use super::paths::Paths;
use super::root::{claim, hold, sync_dir};
use crate::image;
use crate::io::{Direct, now};
use crate::store::Ledger;

/// A page: what the header of an image lies in.
const PAGE: usize = 4096;

/// What a repair did.
#[derive(Debug)]
pub struct Mended {
    /// What is mended.
    pub mended: Vec<Finding>,
    /// What could have been mended and was not, and why.
    pub left: Vec<(Finding, String)>,
    /// Where what was changed or moved is kept as it was; none if nothing was.
    pub kept: Option<PathBuf>,
    /// What is left to say now.
    pub after: Report,
}

/// Mends a root as far as that is safe.
///
/// # Errors
/// As for [`super::check()`]; and if a copy cannot be made or a file cannot be changed. What was mended until
/// then stays mended, and each copy is kept.
pub fn repair(root: &Path) -> Result<Mended, Error> {
    let paths = Paths::new(root);
    refuse_other(&paths)?;
    let held = hold(&paths)?;
    // A root without a lock's file gets one: whoever starts there now must be refused.
    let _claimed = match &held {
        Some(_) => None,
        None => Some(claim(&paths)?),
    };
    let before = look(&paths)?;
    let mut kept = Kept::new(&paths);
    let (mut mended, mut left) = (Vec::new(), Vec::new());
    let mut store_is_mended = false;
    for finding in before.findings {
        let (true, Some(file)) = (finding.fault.mendable(), &finding.file) else {
            continue;
        };
        let refused = match &finding.fault {
            // One transaction mends all of them.
            Fault::Store(_) if store_is_mended => None,
            Fault::Store(_) => {
                kept.copy(file)?;
                Ledger::mend(file)?;
                store_is_mended = true;
                None
            }
            Fault::Disturbed { .. } => seal_again(file, &mut kept)?,
            _ => set_aside(file, &mut kept)?,
        };
        match refused {
            None => mended.push(finding),
            Some(why) => left.push((finding, why)),
        }
    }
    Ok(Mended {
        mended,
        left,
        kept: kept.made,
        after: look(&paths)?,
    })
}

/// Brings a sealed layer back that was opened for writing. Says why not if somebody has it open.
fn seal_again(path: &Path, kept: &mut Kept) -> Result<Option<String>, Error> {
    let file = Direct::open_write(path).map_err(Error::file("open", path))?;
    if !alone(file.as_file(), path)? {
        return Ok(Some(BUSY.to_owned()));
    }
    let image = |source| Error::Image {
        path: path.to_owned(),
        source: Box::new(source),
    };
    let report = now(image::check::check(&file)).map_err(image)?;
    let Some(seal) = report.mended() else {
        return Ok(Some("it changed meanwhile".to_owned()));
    };
    kept.part(path, file.as_file(), "header", 0..PAGE as u64)?;
    if report.length > seal.length {
        kept.part(path, file.as_file(), "tail", seal.length..report.length)?;
    }
    now(image::check::repair(&file)).map_err(image)?;
    Ok(None)
}

/// Moves a file away that nobody names. Says why not if somebody has it open.
fn set_aside(path: &Path, kept: &mut Kept) -> Result<Option<String>, Error> {
    let kind = fs::symlink_metadata(path).map_err(Error::file("look at", path))?;
    if kind.is_file() {
        let file = File::open(path).map_err(Error::file("open", path))?;
        if !alone(&file, path)? {
            return Ok(Some(BUSY.to_owned()));
        }
    }
    let to = kept.place(path, "")?;
    fs::rename(path, &to).map_err(Error::file("move away", path))?;
    for dir in [to.parent(), path.parent()].into_iter().flatten() {
        sync_dir(dir)?;
    }
    Ok(None)
}

const BUSY: &str =
    "it is open in another process, which may be a disk server: detach the disk there first";

/// Has nobody else a lock on the file, as disk servers have on what they serve?
fn alone(file: &File, path: &Path) -> Result<bool, Error> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(Error::file("lock", path)(error.into())),
    }
}

/// The folder of one repair; made with the first thing that is kept.
struct Kept {
    all: PathBuf,
    root: PathBuf,
    made: Option<PathBuf>,
}

impl Kept {
    fn new(paths: &Paths) -> Self {
        Self {
            all: paths.kept(),
            root: paths.root().to_owned(),
            made: None,
        }
    }

    /// Where something of this file is kept: a name that nothing has yet.
    fn place(&mut self, of: &Path, what: &str) -> Result<PathBuf, Error> {
        let folder = match &self.made {
            Some(made) => made.clone(),
            None => self.make()?,
        };
        let name = of.file_name().unwrap_or(of.as_os_str()).to_string_lossy();
        let dot = if what.is_empty() { "" } else { "." };
        let wanted = format!("{name}{dot}{what}");
        // Two directories may hold the same name; what is kept is never overwritten.
        let free = |name: &String| !folder.join(name).exists();
        let mut names = std::iter::once(wanted.clone())
            .chain((2_u64..).map(|number| format!("{wanted}.{number}")));
        let name = names.find(free).unwrap_or(wanted);
        Ok(folder.join(name))
    }

    fn make(&mut self) -> Result<PathBuf, Error> {
        let mut maker = DirBuilder::new();
        maker.mode(0o700);
        match maker.create(&self.all) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::file("make the directory", &self.all)(error));
            }
            _ => {}
        }
        let mut number = 1_u64;
        loop {
            let folder = self.all.join(number.to_string());
            match maker.create(&folder) {
                Ok(()) => {
                    sync_dir(&self.all)?;
                    sync_dir(&self.root)?;
                    self.made = Some(folder.clone());
                    return Ok(folder);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(Error::file("make the directory", &folder)(error)),
            }
        }
    }

    /// Keeps a copy of a whole file, durably.
    fn copy(&mut self, path: &Path) -> Result<(), Error> {
        let to = self.place(path, "")?;
        fs::copy(path, &to)
            .and_then(|_| File::open(&to)?.sync_all())
            .map_err(Error::file("write", &to))?;
        sync_dir(to.parent().unwrap_or(&self.all))
    }

    /// Keeps a copy of a part of a file, durably. What is all zeros stays a hole.
    fn part(
        &mut self,
        path: &Path,
        file: &File,
        what: &str,
        range: std::ops::Range<u64>,
    ) -> Result<(), Error> {
        let to = self.place(path, what)?;
        let write = || {
            let copy = File::options()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&to)?;
            let mut page = [0; PAGE];
            let mut at = range.start;
            while at < range.end {
                let len = PAGE.min(usize::try_from(range.end - at).unwrap_or(PAGE));
                file.read_exact_at(&mut page[..len], at)?;
                if page[..len].iter().any(|byte| *byte != 0) {
                    copy.write_all_at(&page[..len], at - range.start)?;
                }
                at += len as u64;
            }
            copy.set_len(range.end - range.start)?;
            copy.sync_all()
        };
        write().map_err(Error::file("write", &to))?;
        sync_dir(to.parent().unwrap_or(&self.all))
    }
}

#[cfg(test)]
#[path = "mend_tests.rs"]
mod tests;
