//! Commit: seal the top; it becomes what others stand on.
//!
//! containerd calls this inside its one write transaction, so it must take milliseconds, and it may
//! call it again after a crash of ours, with the *active* key. Therefore a commit that was interrupted
//! before its last transaction is undone, never finished: finishing it would take the key that the
//! retry asks for, and containerd would hear "not found" for a layer that it cannot name otherwise.
//! Undoing costs nothing, because a sealed file is as good a top as any: whoever attaches it next marks
//! it as in use again. For the same reason the first transaction need not be durable. A commit whose caller
//! has given up meanwhile is undone too: see `caller`.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Instant;

use super::device::{Use, free_and_flush, superblock};
use super::paths::disk_of;
use super::shared::{Shared, blocking, seal_in};
use super::words::{check_key, check_labels};
use super::{Caller, Error, Labels, Snapshotter, Usage};
use crate::causes::in_full;
use crate::filesystem;
use crate::image;
use crate::io::{Direct, now};
use crate::link;
use crate::store::{Record, Seal};
use crate::units::Cluster;

/// A sealed delta is written by nobody, not even by mistake.
const SEALED: u32 = 0o444;
/// An active one is written by the disk server.
const WRITABLE: u32 = 0o600;

impl Snapshotter {
    /// Seals an active snapshot and gives it its name; its labels are replaced.
    ///
    /// # Errors
    /// `AlreadyExists`, `NotFound`, `FailedPrecondition` if it is no active one or still mounted,
    /// `DataLoss` if something that was written to it is missing. It is then still active, and everything
    /// in it is as it was.
    pub async fn commit(&self, name: &str, key: &str, labels: Labels) -> Result<(), Error> {
        check_key(name)?;
        check_key(key)?;
        let labels = check_labels(labels)?;
        let _turn = self.turn(key).await;
        Caller::still_waits(key)?;
        let shared = self.shared();
        let (space, asked, wanted) = (self.space().to_owned(), key.to_owned(), name.to_owned());
        let record = shared
            .store(move |store| store.committing(&space, &asked, &wanted))
            .await?;
        shared.steps.pass("committing").await;
        let done = finish(shared, &record, labels).await;
        if done.is_err() {
            undo(shared, &record).await;
        }
        done
    }
}

async fn finish(shared: &Shared, record: &Record, labels: Labels) -> Result<(), Error> {
    let (seal, size) = seal(shared, record).await?;
    shared.steps.pass("sealed").await;
    let seal = without_journal(shared, record, seal).await?;
    protect(shared, record, SEALED).await?;
    shared.steps.pass("protected").await;
    let usage = Usage {
        bytes: seal.allocated,
        inodes: 1,
    };
    Caller::decide(&record.key)?;
    let (id, now) = (record.id, shared.now());
    shared
        .store(move |store| store.committed(id, seal, size, usage, labels, now))
        .await?;
    shared.steps.pass("committed").await;
    Ok(())
}

/// Everything written is in the file, the file is sealed and durable, and nobody serves it. Answers the size of what
/// stands on it too.
async fn seal(shared: &Shared, record: &Record) -> Result<(Seal, u64), Error> {
    let disk = disk_of(record);
    let deadline = Instant::now() + shared.options.busy_wait;
    loop {
        let device = shared.serve_as_is(record).await?;
        let incomplete = |what, how| Error::Incomplete {
            key: record.key.clone(),
            what,
            how,
        };
        // Opened again it would be sealed without complaint, and without what its last sync lost.
        if let Some(reason) = device.failed {
            return Err(incomplete(
                format!("disk {disk}"),
                format!("has failed ({reason})"),
            ));
        }
        let wait = deadline.saturating_duration_since(Instant::now());
        let in_use = |how| Error::InUse {
            key: record.key.clone(),
            device: device.device.clone(),
            how,
        };
        let used = match free_and_flush(&device, wait, shared.options.flush_limit).await {
            Ok(used) => used,
            Err(error) => return Err(shared.why_not_flushed(record, &device, error).await),
        };
        match used {
            Use::Free => {}
            Use::Busy(how) => return Err(in_use(how)),
            Use::Torn(how) => {
                let what = format!("the file system on {}", device.device.display());
                return Err(incomplete(what, how.to_owned()));
            }
        }
        shared.steps.pass("flushed").await;
        // A growth that was cut short has not told the record, and on a smaller disk the file system would be cut off.
        let found = superblock(&device, shared.options.flush_limit).await?;
        let found = found.map_or(0, |found| found.size.min(device.size));
        let size = record.size.max(found.next_multiple_of(record.cluster));
        match shared.disks.detach(&disk, true).await {
            Ok(link::Detached {
                seal: Some(seal), ..
            }) => {
                return Ok((seal_in(&seal), size));
            }
            // The server was restarted since we asked; a prober opened the device since we looked.
            Ok(_) if Instant::now() < deadline => {}
            Err(error) if error.kind() == link::Kind::Busy && Instant::now() < deadline => {}
            Ok(_) => {
                return Err(Error::NotSealed {
                    key: record.key.clone(),
                    disk,
                });
            }
            Err(error) if error.kind() == link::Kind::Busy => {
                return Err(in_use(format!("busy ({error})")));
            }
            Err(error) => return Err(Error::disk(&record.key, "seal", &disk)(error)),
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// The layer without what the journal of its file system left behind, if that can be told.
///
/// It was unmounted in order, so nobody replays it any more; and each layer of a chain would carry the
/// few hundred kilobytes again. Nothing depends on it: a layer with a journal is as good as one without.
async fn without_journal(shared: &Shared, record: &Record, seal: Seal) -> Result<Seal, Error> {
    let path = shared.paths.delta(record.id);
    let hollowed = blocking("punching out a journal", move || {
        let done = hollow(&path, seal);
        if let Err(error) = &done {
            let error = in_full(error);
            tracing::warn!(file = %path.display(), error, "a layer keeps its journal");
        }
        done.ok()
    });
    Ok(Seal {
        allocated: hollowed.await?.unwrap_or(seal.allocated),
        ..seal
    })
}

/// Answers the bytes that the layer takes on the host now.
fn hollow(path: &Path, seal: Seal) -> Result<u64, Error> {
    let cannot = |source| Error::Image {
        path: path.to_owned(),
        source: Box::new(source),
    };
    let file = Direct::open_write(path).map_err(Error::file("open", path))?;
    let report = now(image::check::check(&file)).map_err(cannot)?;
    // Without a superblock of its own nothing was mounted to be written in it.
    if let (Some(header), Some((Cluster(0), place))) = (report.header, report.entries.first()) {
        let start = header.cluster().start_of_place(*place);
        let spent = match filesystem::spent_journal(file.as_file(), start, path) {
            Ok(spent) => spent,
            Err(error) if error.host().is_some() => {
                return Err(Error::file("read", path)(io::Error::other(error)));
            }
            // Whatever else somebody keeps on it is theirs.
            Err(_) => Vec::new(),
        };
        let seal = image::Seal {
            length: seal.length,
            digest: seal.digest,
        };
        now(image::ploop::hollow(&file, &seal, &spent)).map_err(cannot)?;
    }
    let found = file.as_file().metadata();
    Ok(found.map_err(Error::file("look at", path))?.blocks() * 512)
}

/// It stays active.
async fn undo(shared: &Shared, record: &Record) {
    let id = record.id;
    // Without effect on root's disk server; it keeps the file's mode honest.
    let unprotected = protect(shared, record, WRITABLE).await;
    let back = shared.store(move |store| store.roll_back(id)).await;
    for error in [unprotected.err(), back.err()].into_iter().flatten() {
        tracing::error!(key = record.key, %error, "a commit that failed is not undone in full");
    }
}

async fn protect(shared: &Shared, record: &Record, mode: u32) -> Result<(), Error> {
    let path = shared.paths.delta(record.id);
    let asked = path.clone();
    let set = move || fs::set_permissions(&asked, Permissions::from_mode(mode));
    let done = blocking("changing a file's mode", set).await?;
    done.map_err(Error::file("change the mode of", &path))
}
