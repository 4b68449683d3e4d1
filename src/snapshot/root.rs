//! The root directory: ours alone, and on a file system that can do what we need.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::Error;
use super::paths::{Found, Paths, found};
use crate::io::{Direct, File as _, Piece, now};
use crate::lock::{self, Answer, Failed, Lock};
use crate::units::ByteRange;

/// The root is ours until this is dropped.
#[derive(Debug)]
pub(super) struct RootLock {
    _lock: Lock,
}

/// Makes the directories and takes the lock.
pub(super) fn claim(paths: &Paths) -> Result<RootLock, Error> {
    for dir in [paths.root(), &paths.deltas(), &paths.goldens()] {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(Error::file("make the directory", dir))?;
    }
    let path = paths.lock();
    match lock::patiently(|| lock::take(&path)) {
        Ok(Answer::Ours(lock)) => Ok(RootLock { _lock: lock }),
        Ok(Answer::Theirs(holder)) => Err(Error::RootTaken {
            root: paths.root().to_owned(),
            owner: holder.to_string(),
        }),
        Err(Failed { act, source }) => Err(Error::file(act, &path)(source)),
    }
}

/// Takes the lock of a root that is only looked at: nothing is made or written.
///
/// While it is held no daemon starts there. A root without a lock's file is one that no daemon has.
pub(super) fn hold(paths: &Paths) -> Result<Option<Lock>, Error> {
    let path = paths.lock();
    match lock::patiently(|| lock::keep_out(&path)) {
        Ok(Answer::Ours(lock)) => Ok(Some(lock)),
        Ok(Answer::Theirs(holder)) => Err(Error::RootBusy {
            root: paths.root().to_owned(),
            owner: holder.to_string(),
        }),
        Err(Failed { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(Failed { act, source }) => Err(Error::file(act, &path)(source)),
    }
}

/// An empty store beside deltas that it should name means that the store was lost, not that the deltas
/// are nobody's: sweeping them would turn a mistake that can be mended into a loss.
pub(super) fn refuse_without_store(paths: &Paths) -> Result<(), Error> {
    let (store, deltas) = (paths.store(), paths.deltas());
    // An empty file is what a repaired host may leave of a store, and would be made one without a word.
    if fs::metadata(&store).is_ok_and(|file| file.len() > 0) {
        return Ok(());
    }
    let is_delta = |name: &str| matches!(found(name), Found::Delta(_));
    if names(&deltas)?.iter().any(|(name, _)| is_delta(name)) {
        return Err(Error::StoreLost { store, deltas });
    }
    Ok(())
}

/// Tries out O_DIRECT and hole punching: the disk server cannot do without either.
pub(super) fn probe(paths: &Paths) -> Result<(), Error> {
    let path = paths.probe();
    let tried = try_out(&path);
    let _ = fs::remove_file(&path);
    let (verb, source) = match tried {
        Ok(()) => return Ok(()),
        Err(failure) => failure,
    };
    use io::ErrorKind as K;
    match source.kind() {
        // What a file system answers to what it has never heard of.
        K::InvalidInput | K::Unsupported => Err(Error::UnfitRoot {
            root: paths.root().to_owned(),
            verb,
            source,
        }),
        // A file system is fit or not whether it is full or not; and only who is there can remove anything.
        K::StorageFull | K::QuotaExceeded => {
            let root = paths.root().display();
            tracing::warn!(%root, "the root's file system is full, and was not tried out");
            Ok(())
        }
        _ => Err(Error::file(verb, &path)(source)),
    }
}

fn try_out(path: &Path) -> Result<(), (&'static str, io::Error)> {
    let flags = i32::try_from(OFlags::DIRECT.bits()).unwrap_or_default();
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(flags)
        .open(path)
        .map_err(|error| ("open with O_DIRECT", error))?;
    let direct = Direct::new(file).map_err(|error| ("open with O_DIRECT", error))?;
    let data = Piece::from_bytes(&[0x5a; 8192]);
    now(direct.write_at(0, data)).map_err(|error| ("write with O_DIRECT", error))?;
    now(direct.zero(ByteRange::new(4096, 4096))).map_err(|error| ("punch a hole into", error))?;
    now(direct.sync()).map_err(|error| ("sync", error))?;
    let back = Piece::zeroed(8192);
    now(direct.read_at(0, back.clone())).map_err(|error| ("read with O_DIRECT", error))?;
    let right = back.with_bytes(|bytes| {
        bytes[..4096].iter().all(|byte| *byte == 0x5a)
            && bytes[4096..].iter().all(|byte| *byte == 0)
    });
    if right {
        return Ok(());
    }
    let wrong = io::Error::new(io::ErrorKind::Unsupported, "other bytes were read back");
    Err(("write with O_DIRECT", wrong))
}

/// Makes the names in a directory survive the power.
pub(super) fn sync_dir(dir: &Path) -> Result<(), Error> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(Error::file("sync the directory", dir))
}

/// The names in a directory.
pub(super) fn names(dir: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    let entries = fs::read_dir(dir).map_err(Error::file("read the directory", dir))?;
    entries
        .map(|entry| {
            let entry = entry.map_err(Error::file("read the directory", dir))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            Ok((name, entry.path()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Error, Paths, claim, probe, refuse_without_store};
    use crate::snapshot::ErrorKind;

    #[test]
    fn a_second_owner_is_told_who_has_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(&dir.path().join("deep/root"));
        let lock = claim(&paths).unwrap();
        let error = claim(&paths).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("deep/root"), "{text}");
        assert!(text.contains(&std::process::id().to_string()), "{text}");
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
        drop(lock);
        claim(&paths).unwrap();
    }

    #[test]
    fn this_file_system_will_do() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let paths = Paths::new(dir.path());
        let _lock = claim(&paths).unwrap();
        probe(&paths).unwrap();
        assert!(!paths.probe().exists());
    }

    /// /proc/self/... cannot be written; /dev/mqueue and the like differ by host. The kernel's own
    /// ramfs is everywhere and has neither O_DIRECT nor holes.
    #[test]
    fn a_file_system_without_holes_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("none", dir.path(), "ramfs", flags, None).unwrap();
        let paths = Paths::new(dir.path());
        let lock = claim(&paths).unwrap();
        let refused = probe(&paths);
        drop(lock);
        rustix::mount::unmount(dir.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
        let error = refused.unwrap_err();
        assert!(matches!(error, Error::UnfitRoot { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("ext4") && text.contains("xfs"), "{text}");
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    }

    #[test]
    fn deltas_without_their_store_are_never_swept() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        let _lock = claim(&paths).unwrap();
        refuse_without_store(&paths).unwrap();
        std::fs::write(paths.delta(crate::store::Id(7)), "a disk").unwrap();
        let error = refuse_without_store(&paths).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DataLoss);
        assert!(error.to_string().contains("put the store back"), "{error}");
        std::fs::write(paths.store(), "").unwrap();
        let error = refuse_without_store(&paths).unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::DataLoss,
            "an empty file names nothing"
        );
        std::fs::write(paths.store(), "a store").unwrap();
        refuse_without_store(&paths).unwrap();
    }
}
