//! The files of a root: each snapshot's own delta, and the empty file systems below them.
//!
//! A delta is held against itself, against its record, and, if it is sealed, against its seal. The
//! superblock of a chain is read through its map: it lies in the first cluster of the disk, and the
//! highest delta that has that cluster answers for all that stand on it. So it is looked at once for
//! each delta that has one of its own, wherever in a chain that is.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::finding::Fault;
use super::{Error, Kind};
use crate::causes::in_full;
use crate::filesystem::{self, Kind as FileSystem, Superblock, Trouble};
use crate::image::check::{Report, check};
use crate::image::{Defect, Seal};
use crate::io::{Direct, now};
use crate::store::Record;
use crate::units::Cluster;

/// What a look at a delta found.
#[derive(Debug, Default)]
pub(super) struct Looked {
    pub(super) faults: Vec<Fault>,
    /// A disk server has it open for writing: what is in it changes while one looks.
    pub(super) served: bool,
}

impl Looked {
    fn at_once(fault: Fault) -> Self {
        Self {
            faults: vec![fault],
            served: false,
        }
    }
}

/// Looks at the delta of an active or committed snapshot.
pub(super) fn delta(record: &Record, path: &Path) -> Result<Looked, Error> {
    let file = match open(path) {
        Ok(file) => file,
        Err(fault) => return Ok(Looked::at_once(fault)),
    };
    // The disk server's locks: exclusive on a top, shared on what is sealed.
    match flock(file.as_file(), FlockOperation::NonBlockingLockShared) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) if is_sealed(record) => {
            return Ok(Looked::at_once(Fault::SealedServed));
        }
        Err(rustix::io::Errno::WOULDBLOCK) => {
            return Ok(Looked {
                faults: Vec::new(),
                served: true,
            });
        }
        Err(error) => return Err(Error::file("lock", path)(error.into())),
    }
    let report = match now(check(&file)) {
        Ok(report) => report,
        Err(error) => {
            return Ok(Looked::at_once(Fault::FileUnreadable(in_full(&error))));
        }
    };
    let mut faults = match record.seal {
        Some(seal) if is_sealed(record) => sealed(
            &report,
            Seal {
                length: seal.length,
                digest: seal.digest,
            },
        ),
        _ => top(&report),
    };
    let whole = !report
        .defects
        .iter()
        .any(|defect| defect.refuses() && !defect.mendable());
    if let (Some(header), true) = (report.header, whole) {
        let (found, expected) = (
            (header.size(), header.cluster()),
            (record.size, record.cluster),
        );
        // A disk keeps its size when its file system is made smaller, and gets it before that grows.
        if found.0 < expected.0 || found.1.bytes() != expected.1 {
            faults.push(Fault::OtherShape { found, expected });
        }
        if !faults.contains(&Fault::WillRecover)
            && let Some((Cluster(0), place)) = report.entries.first()
        {
            let start = header.cluster().start_of_place(*place);
            faults.extend(superblock(record, file.as_file(), start, path));
        }
    }
    Ok(Looked {
        faults,
        served: false,
    })
}

fn is_sealed(record: &Record) -> bool {
    matches!(record.kind, Kind::Committed | Kind::Fitted)
}

/// What a sealed delta may not be.
fn sealed(report: &Report, expected: Seal) -> Vec<Fault> {
    let seal = report.seal;
    if seal == Some(expected) {
        return notes(report, |_| true);
    }
    if report.mended() == Some(expected) {
        let in_use = report.defects.contains(&Defect::InUse);
        let tail = report.length - expected.length;
        let mut faults = vec![Fault::Disturbed { in_use, tail }];
        faults.extend(notes(report, |defect| !defect.mendable()));
        return faults;
    }
    let mut faults = notes(report, |_| true);
    if let Some(found) = seal {
        faults.push(Fault::OtherSeal { found, expected });
    }
    faults
}

/// What the top of an active snapshot may not be.
///
/// Whatever was placed but is not in the index yet lies behind its end, or between what is; the server that
/// opens it next finds it by the pending file, or cuts it off or out.
fn top(report: &Report) -> Vec<Fault> {
    let after_crash = |defect: &Defect| {
        matches!(
            defect,
            Defect::InUse
                | Defect::TailLeak { .. }
                | Defect::HalfTail { .. }
                | Defect::Unused { .. }
        )
    };
    if !report.defects.contains(&Defect::InUse) {
        return notes(report, |_| true);
    }
    let others = notes(report, |defect| !after_crash(defect));
    if report.worst() == Some(Defect::InUse.severity()) {
        let mut faults = vec![Fault::WillRecover];
        faults.extend(others);
        return faults;
    }
    others
}

fn notes(report: &Report, which: impl Fn(&Defect) -> bool) -> Vec<Fault> {
    let defects = report.defects.iter().filter(|defect| which(defect));
    defects.cloned().map(Fault::Image).collect()
}

fn superblock(record: &Record, file: &fs::File, start: u64, path: &Path) -> Vec<Fault> {
    let found = match Superblock::read_at(file, start, path) {
        Ok(found) => found,
        Err(filesystem::Error::Unknown { .. }) => {
            let why = "the magic number is neither that of ext4 nor that of XFS";
            return vec![Fault::NoFileSystem(why.to_owned())];
        }
        Err(error) if error.trouble() == Trouble::Damaged => {
            return vec![Fault::NoFileSystem(error.to_string())];
        }
        Err(error) => return vec![Fault::FileUnreadable(in_full(&error))],
    };
    let mut faults = Vec::new();
    if found.needs_recovery {
        faults.push(Fault::Journal {
            sealed: is_sealed(record),
        });
    }
    if !found.clean {
        faults.push(Fault::MetErrors);
    }
    let agrees = match found.kind {
        FileSystem::Ext4 => found.fills(record.size),
        // The same of its groups. Of one that runs, or was not unmounted, the log may know of a larger size than the
        // superblock.
        FileSystem::Xfs => {
            found.size <= record.size && (!is_sealed(record) || found.fills(record.size))
        }
    };
    if !agrees {
        faults.push(Fault::OtherSize {
            found: found.size,
            disk: record.size,
        });
    }
    faults
}

/// Looks at an empty file system; `size` is what those who stand on it take it for.
pub(super) fn golden(path: &Path, size: Option<u64>) -> Option<Fault> {
    let file = match open(path) {
        Ok(file) => file,
        Err(fault) => return Some(fault),
    };
    let length = match file.as_file().metadata() {
        Ok(found) => found.len(),
        Err(error) => return Some(Fault::FileUnreadable(error.to_string())),
    };
    let changed = |why: String| Some(Fault::GoldenChanged(why));
    if let Some(size) = size
        && size != length
    {
        return changed(format!("it has {length} bytes, and had {size}"));
    }
    match Superblock::read_at(file.as_file(), 0, path) {
        Ok(found) if !found.fills(length) => changed(format!(
            "it has {length} bytes, its file system {}",
            found.size
        )),
        Ok(found) if !found.clean || found.needs_recovery => {
            changed("somebody has mounted it".to_owned())
        }
        Ok(_) => None,
        Err(error) => changed(in_full(&error)),
    }
}

/// Bytes that a file holds on the host.
pub(super) fn on_host(path: &Path) -> u64 {
    fs::symlink_metadata(path).map_or(0, |file| file.blocks() * 512)
}

fn open(path: &Path) -> Result<Direct, Fault> {
    let unreadable = |error: io::Error| Fault::FileUnreadable(error.to_string());
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() => Direct::open_read(path).map_err(unreadable),
        Ok(_) => Err(Fault::NotAFile),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Fault::FileMissing),
        Err(error) => Err(unreadable(error)),
    }
}
