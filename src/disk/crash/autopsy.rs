//! Opens what a stop has left, with the code that opens it in life, and holds it against what may be.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::history::Allowed;
use super::layout::{self, ALL, SECTORS};
use crate::causes::in_full;
use crate::chain::{Base, Source};
use crate::disk::open::ReadyTop;
use crate::disk::pending::Identity;
use crate::disk::request::Op;
use crate::disk::serve::Disk;
use crate::disk::shared::Shared;
use crate::image::{Defect, Format, Image, Seal, Severity, check, ploop};
use crate::io::crash::{Contents, CrashFile};
use crate::io::sectors::{self, BYTES, Id};
use crate::io::{File, Piece, Pool, now};
use crate::units::{ByteRange, Cluster, Place};

/// A disk over simulated files.
pub(super) type CrashDisk = Disk<CrashFile>;

/// Opens a top upon sealed levels as `disk::open` does.
pub(super) fn open(
    base: &Arc<Base<CrashFile>>,
    top: &CrashFile,
    identity: &Identity,
    pending: &Path,
    pool: &Rc<Pool>,
) -> Result<CrashDisk, String> {
    let image = now(ploop::open_top(top)).map_err(|error| told("the top is refused", &error))?;
    let identity = identity.with(image.header.entries());
    let size = image.header.size();
    let ready = ReadyTop::recover(top.clone(), top, image, &identity, ("crash", pending))
        .map_err(|error| told("the top cannot be taken over", &error))?;
    Ok(disk(base, Some(ready), size, pool))
}

/// What is sealed, for reading.
pub(super) fn view(base: &Arc<Base<CrashFile>>, pool: &Rc<Pool>) -> CrashDisk {
    disk(base, None, base.size(), pool)
}

fn disk(
    base: &Arc<Base<CrashFile>>,
    top: Option<ReadyTop<CrashFile>>,
    size: u64,
    pool: &Rc<Pool>,
) -> CrashDisk {
    let shared = Shared::new("crash".into(), size, layout::cluster(), 2, top.is_none());
    Disk {
        base: Arc::clone(base),
        writable: top.map(ReadyTop::into_writable),
        shared: Arc::new(shared),
        pool: Rc::clone(pool),
        patience: Duration::ZERO,
    }
}

/// These levels with a sealed one on top.
pub(super) fn sealed(
    base: &Base<CrashFile>,
    file: &CrashFile,
    seal: Option<&Seal>,
) -> Result<Arc<Base<CrashFile>>, String> {
    let format = if seal.is_some() {
        Format::Ploop
    } else {
        Format::Raw
    };
    let image = now(Image::open_sealed(
        file,
        Some(format),
        seal,
        layout::cluster(),
    ))
    .map_err(|error| told("a sealed level is refused", &error))?;
    base.with(&image, Arc::new(file.clone()), "sealed".as_ref())
        .map(Arc::new)
        .map_err(|error| told("a sealed level does not fit", &error))
}

fn told(what: &str, error: &(dyn std::error::Error + 'static)) -> String {
    format!("{what}: {}", in_full(error))
}

/// What is needed to look at a dead disk.
pub(super) struct Table {
    /// A folder on tmpfs.
    folder: PathBuf,
    pool: Rc<Pool>,
    piece: Piece,
    /// How many images QEMU has looked at.
    pub(super) judged: u64,
}

/// The circumstances of a stop.
pub(super) struct Case<'a> {
    pub(super) base: &'a Arc<Base<CrashFile>>,
    pub(super) identity: &'a Identity,
    pub(super) allowed: &'a Allowed,
    /// Was the image being closed? Then it may already say so while its tail is not cut.
    pub(super) closing: bool,
}

/// How closely to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// Open twice, read everything.
    Twice,
    /// And go on: write everywhere, flush, seal.
    GoOn,
    /// And ask QEMU.
    Judge,
}

impl Table {
    pub(super) fn new(folder: PathBuf, pool: Rc<Pool>) -> Self {
        Self {
            folder,
            pool,
            piece: Piece::zeroed(layout::REGION * BYTES),
            judged: 0,
        }
    }

    /// Says what is wrong with what a stop has left.
    pub(super) fn autopsy(
        &mut self,
        case: &Case<'_>,
        left: &Contents,
        pending: Option<&[u8]>,
        depth: Depth,
    ) -> Result<(), String> {
        let path = self.folder.join("autopsy");
        match pending {
            Some(bytes) => fs::write(&path, bytes),
            None => match fs::remove_file(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                answer => answer,
            },
        }
        .map_err(|error| told("tmpfs", &error))?;
        let top = CrashFile::new(left.clone());
        raw(&top, case.closing)?;

        let disk = open(case.base, &top, case.identity, &path, &self.pool)?;
        let found = self.read(&disk, |sector, bytes| {
            let allowed = &case.allowed[sector];
            allowed.iter().copied().find(|id| sectors::is(bytes, *id))
        })?;
        let kept = disk
            .writable
            .as_ref()
            .is_some_and(|it| it.top.borrow().pending() > 0);
        opened(&top, kept)?;
        space(&top, &disk)?;

        let once = (top.view().kernel, map(&disk));
        drop(disk);
        let disk = open(case.base, &top, case.identity, &path, &self.pool)?;
        if once != (top.view().kernel, map(&disk)) {
            return Err("opening it twice changes it again".into());
        }
        if depth == Depth::Twice {
            return Ok(());
        }
        let image = self.go_on(case.base, disk, &top, found)?;
        if depth == Depth::Judge {
            self.judge(&image)?;
        }
        Ok(())
    }

    /// Reads every region; `know` says which content it is that was read there, if it may be.
    pub(super) fn read(
        &self,
        disk: &CrashDisk,
        know: impl Fn(usize, &[u8]) -> Option<Id>,
    ) -> Result<Vec<Id>, String> {
        let mut found = Vec::with_capacity(ALL);
        for (first, range) in layout::regions() {
            now(disk.serve(Op::Read, range, &self.piece))
                .map_err(|errno| format!("a read is answered {errno}"))?;
            self.piece.with_bytes(|bytes| {
                for (sector, bytes) in (first..).zip(bytes.chunks_exact(BYTES)) {
                    let id = know(sector, bytes).ok_or_else(|| wrong(sector, bytes))?;
                    found.push(id);
                }
                Ok::<_, String>(())
            })?;
        }
        for range in layout::between() {
            let run = disk.look(|view| view.run(range));
            if run.source != Source::Nowhere || run.range != range {
                return Err(format!("something lies between the regions: {run:?}"));
            }
        }
        Ok(found)
    }

    /// Life goes on: a sector is written in every cluster, flushed, sealed, and read as sealed.
    fn go_on(
        &self,
        base: &Arc<Base<CrashFile>>,
        disk: CrashDisk,
        top: &CrashFile,
        mut expected: Vec<Id>,
    ) -> Result<Contents, String> {
        for sector in (7..ALL).step_by(SECTORS) {
            let bytes = layout::pattern(1 << 21, sector);
            expected[sector] = sectors::id(&bytes, 0);
            let write = Op::Write { fua: false };
            now(disk.serve(write, layout::range(sector, 1), &Piece::from_bytes(&bytes)))
                .map_err(|errno| format!("a later write is answered {errno}"))?;
        }
        let same = |sector: usize, bytes: &[u8]| {
            Some(expected[sector]).filter(|id| sectors::is(bytes, *id))
        };
        self.read(&disk, same)
            .map_err(|why| format!("after later writes: {why}"))?;
        now(disk.serve(Op::Flush, ByteRange::new(0, 0), &Piece::empty()))
            .map_err(|errno| format!("a later flush is answered {errno}"))?;
        let seal = now(disk.finish(true))
            .map_err(|error| told("it cannot be sealed", &error))?
            .ok_or("sealed without a seal")?;
        let report = now(check::check(top)).map_err(|error| told("check", &error))?;
        // A place that was reserved in vain stays a hole.
        let defect = |it: &&Defect| !matches!(it, Defect::Holes { .. });
        if let Some(defect) = report.defects.iter().find(defect) {
            return Err(format!("sealed, but: {defect}"));
        }
        let base = sealed(base, top, Some(&seal))?;
        self.read(&view(&base, &self.pool), same)
            .map_err(|why| format!("after sealing: {why}"))?;
        Ok(top.view().platter)
    }

    fn judge(&mut self, image: &Contents) -> Result<(), String> {
        let path = self.folder.join("judged.hds");
        fs::write(&path, image.to_vec()).map_err(|error| told("tmpfs", &error))?;
        let judge = Command::new("qemu-img")
            .args(["check", "-f", "parallels"])
            .arg(&path)
            .output()
            .map_err(|error| told("qemu-img is needed to judge images", &error))?;
        self.judged += 1;
        if judge.status.code() == Some(0) {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&judge.stdout).into_owned();
        Err(format!("qemu-img check: {} {said}", judge.status))
    }
}

/// Which cluster is where, and where fresh space begins.
fn map(disk: &CrashDisk) -> Vec<Option<u32>> {
    let end = disk.writable.iter().map(|it| Some(it.top.borrow().end().0));
    places(disk).into_iter().chain(end).collect()
}

/// Which place each cluster of the regions has in the top.
fn places(disk: &CrashDisk) -> Vec<Option<u32>> {
    let Some(writable) = &disk.writable else {
        return Vec::new();
    };
    let top = writable.top.borrow();
    let clusters = layout::regions().filter_map(|(_, range)| disk.base.cluster().clusters(range));
    let place = |cluster| top.map().find(Cluster(cluster)).map(|place| place.0);
    clusters.flatten().map(place).collect()
}

fn wrong(sector: usize, bytes: &[u8]) -> String {
    let range = layout::range(sector, 1);
    let what = match sectors::known(bytes) {
        Some(0) => "zeros".into(),
        Some(_) => match layout::origin(bytes) {
            Some((request, of)) => format!("what request {request} wrote to sector {of}"),
            None => "a part of the image's own".into(),
        },
        None => "bytes that nobody wrote".into(),
    };
    let cluster = range.start / layout::CLUSTER;
    format!("sector {sector} (cluster {cluster}) holds {what}")
}

/// What must be true of an image that nobody has opened yet.
fn raw(top: &CrashFile, closing: bool) -> Result<(), String> {
    let report = now(check::check(top)).map_err(|error| told("check", &error))?;
    let in_use = report.defects.contains(&Defect::InUse);
    for defect in &report.defects {
        if defect.severity() == Severity::Corrupt {
            return Err(format!("before it is opened: {defect}"));
        }
        let tail = matches!(defect, Defect::TailLeak { .. } | Defect::HalfTail { .. });
        if tail && !in_use && !closing {
            return Err(format!("{defect}, but it is not marked as in use"));
        }
    }
    Ok(())
}

/// Every place that was ever given out is used, or takes no space.
fn space(top: &CrashFile, disk: &CrashDisk) -> Result<(), String> {
    let Some(writable) = &disk.writable else {
        return Ok(());
    };
    let used: HashSet<_> = places(disk).into_iter().flatten().collect();
    let (first, end) = (
        writable.header.get().first_data(),
        writable.top.borrow().end(),
    );
    for place in (first.0..end.0).filter(|place| !used.contains(place)) {
        let start = layout::cluster().start_of_place(Place(place));
        let data = top
            .next_data(start)
            .map_err(|error| told("next_data", &error))?;
        if data.is_some_and(|run| run.start < start + layout::CLUSTER) {
            return Err(format!("place {place} takes space, and nothing uses it"));
        }
    }
    Ok(())
}

/// What must be true of one that is open. `kept`: does the pending file name places beyond the index?
fn opened(top: &CrashFile, kept: bool) -> Result<(), String> {
    let report = now(check::check(top)).map_err(|error| told("check", &error))?;
    if !report.defects.contains(&Defect::InUse) {
        return Err("open, but not marked as in use".into());
    }
    for defect in &report.defects {
        match defect {
            Defect::InUse | Defect::Holes { .. } => {}
            Defect::TailLeak { .. } | Defect::Unused { .. } if kept => {}
            defect => return Err(format!("when it was opened: {defect}")),
        }
    }
    Ok(())
}
