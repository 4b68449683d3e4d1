//! From paths to open chains. Blocks; never runs on a thread that serves disks.
//!
//! Files and maps of sealed levels are shared by all chains that name them, for as long as one of
//! them lives. Nothing is kept beyond that: a file that its owner has deleted gives its space back.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::fs::{FlockOperation, OFlags, fcntl_getfl, fcntl_setfl, flock};

use super::Error;
use super::levels::{Base, fits};
use crate::image::{self, Format, Header, Image, Seal, ploop};
use crate::io::{Direct, File as _, Uring, now};
use crate::units::ClusterSize;

/// One image file of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Delta {
    /// Where it is.
    pub path: PathBuf,
    /// What it is; `None`: look.
    pub format: Option<Format>,
    /// What it was when it was sealed; `None`: not checked. Always `None` for a writable top.
    pub seal: Option<Seal>,
}

/// A writable delta, open and locked.
#[derive(Debug)]
pub struct OpenTop {
    /// The file, with O_DIRECT.
    pub file: Uring,
    /// Its header and index.
    pub image: ploop::Opened,
    /// Where it is.
    pub path: PathBuf,
}

/// Open chains, by what they consist of.
#[derive(Debug, Default)]
pub struct Chains {
    /// Held for look-ups only, never while a file is read and never across an await.
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    files: HashMap<PathBuf, Weak<Uring>>,
    /// By all that was asked for: a delta of which another seal is expected is looked at again.
    bases: HashMap<Vec<Delta>, Weak<Base<Uring>>>,
}

impl Chains {
    /// Opens a chain, lowest delta first. All are sealed, but for the last one if `writable`.
    ///
    /// # Errors
    /// If a file is missing, in use, corrupt, not the one that was sealed, or does not fit on the
    /// one below it. Nothing is changed then.
    pub fn open(
        &self,
        deltas: &[Delta],
        writable: bool,
    ) -> Result<(Arc<Base<Uring>>, Option<OpenTop>), Error> {
        let (last, sealed) = deltas.split_last().ok_or(Error::Empty)?;
        if !writable {
            return Ok((self.base(deltas, None)?, None));
        }
        // The top last: opening it marks it as in use, which a refused chain should not leave behind.
        let peeked = peek(&last.path);
        let base = self.base(sealed, peeked.as_ref().map(Header::cluster))?;
        if let Some(header) = peeked {
            fits(&last.path, header.cluster(), base.cluster())?;
        }
        Ok((base, Some(open_top(&last.path)?)))
    }

    fn base(
        &self,
        deltas: &[Delta],
        cluster: Option<ClusterSize>,
    ) -> Result<Arc<Base<Uring>>, Error> {
        // The highest level decides for all: a plain base has clusters of any size, and may be open with others.
        // Of a plain disk the bytes are the guest's, whatever they look like.
        let highest = deltas
            .last()
            .filter(|delta| delta.format != Some(Format::Raw));
        let own = || highest.and_then(|delta| peek(&delta.path));
        let cluster = cluster.or_else(|| own().as_ref().map(Header::cluster));
        if let Some(base) = self.known_base(deltas, cluster) {
            return Ok(base);
        }
        let below = deltas
            .len()
            .checked_sub(1)
            .and_then(|below| self.known_base(&deltas[..below], cluster));
        let base = match below {
            // The usual case while an image is unpacked: one more level upon a chain that is open.
            Some(below) => {
                let delta = &deltas[deltas.len() - 1];
                let (file, image) = self.open_sealed(delta, below.cluster())?;
                below.with(&image, file, &delta.path)?
            }
            None => self.open_all(deltas, cluster)?,
        };
        let base = Arc::new(base);
        self.with_known(|known| {
            known.bases.retain(|_, base| base.strong_count() > 0);
            known.files.retain(|_, file| file.strong_count() > 0);
            known.bases.insert(deltas.to_vec(), Arc::downgrade(&base));
        });
        Ok(base)
    }

    fn open_all(
        &self,
        deltas: &[Delta],
        cluster: Option<ClusterSize>,
    ) -> Result<Base<Uring>, Error> {
        // From the highest down: a raw base takes its cluster size from those above it.
        let mut cluster = cluster;
        let mut opened = Vec::with_capacity(deltas.len());
        for delta in deltas.iter().rev() {
            let wanted = cluster.unwrap_or(ClusterSize::DEFAULT);
            let (file, image) = match self.open_sealed(delta, wanted) {
                // The highest level decides for all; the others must agree with it.
                Err(Error::Image {
                    source: image::Error::ClusterSize { found, .. },
                    ..
                }) if cluster.is_none() => self.open_sealed(delta, found)?,
                answer => answer?,
            };
            cluster.get_or_insert(image.cluster());
            opened.push((delta, file, image));
        }
        let mut base = Base::empty(cluster.unwrap_or(ClusterSize::DEFAULT));
        while let Some((delta, file, image)) = opened.pop() {
            base = base.with(&image, file, &delta.path)?;
        }
        Ok(base)
    }

    fn open_sealed(
        &self,
        delta: &Delta,
        cluster: ClusterSize,
    ) -> Result<(Arc<Uring>, Image), Error> {
        let path = &delta.path;
        let failed = |source| Error::Open {
            path: path.clone(),
            source,
        };
        // Read through the page cache: one copy for all containers of an image.
        let file = fs::File::open(path).map_err(failed)?;
        lock(&file, path, FlockOperation::NonBlockingLockShared)?;
        leave_atime(&file).map_err(failed)?;
        let direct = Direct::new(file).map_err(failed)?;
        let image = now(Image::open_sealed(
            &direct,
            delta.format,
            delta.seal.as_ref(),
            cluster,
        ))
        .map_err(|source| Error::Image {
            path: path.clone(),
            source,
        })?;
        if let Some(file) = self.with_known(|known| known.files.get(path).and_then(Weak::upgrade))
            // Another file may have taken the name since, and it is that one's map that we have.
            && same(file.as_file(), direct.as_file()).map_err(failed)?
        {
            return Ok((file, image));
        }
        let file = Arc::new(Uring::locked(direct.into_inner()).map_err(failed)?);
        self.with_known(|known| known.files.insert(path.clone(), Arc::downgrade(&file)));
        Ok((file, image))
    }

    /// What is open of these, with clusters of this size where it is known.
    fn known_base(
        &self,
        deltas: &[Delta],
        cluster: Option<ClusterSize>,
    ) -> Option<Arc<Base<Uring>>> {
        self.with_known(|known| known.bases.get(deltas).and_then(Weak::upgrade))
            .filter(|base| cluster.is_none_or(|cluster| cluster == base.cluster()))
    }

    fn with_known<T>(&self, act: impl FnOnce(&mut Known) -> T) -> T {
        act(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The header of an image, if it has one; whether it is a sound image is `open_top`'s to say.
fn peek(path: &Path) -> Option<Header> {
    let mut bytes = [0; 64];
    fs::File::open(path)
        .ok()?
        .read_exact_at(&mut bytes, 0)
        .ok()?;
    Header::parse(&bytes).ok()
}

fn open_top(path: &Path) -> Result<OpenTop, Error> {
    let failed = |source| Error::Open {
        path: path.to_owned(),
        source,
    };
    let file = fs::File::options()
        .read(true)
        .write(true)
        .custom_flags(OFlags::DIRECT.bits().cast_signed())
        .open(path)
        .map_err(failed)?;
    lock(&file, path, FlockOperation::NonBlockingLockExclusive)?;
    leave_atime(&file).map_err(failed)?;
    let direct = Direct::new(file).map_err(failed)?;
    // Its last sectors could not be written. Devices have blocks of 4096 where the size allows it.
    let (size, block) = (peek(path).map(|header| header.size()), direct.alignment());
    if let Some(size) = size.filter(|size| !size.is_multiple_of(block)) {
        let path = path.to_owned();
        return Err(Error::Block { path, size, block });
    }
    let image = now(ploop::open_top(&direct)).map_err(|source| Error::Image {
        path: path.to_owned(),
        source,
    })?;
    let file = Uring::locked(direct.into_inner()).map_err(failed)?;
    Ok(OpenTop {
        file,
        image,
        path: path.to_owned(),
    })
}

/// Are these one file?
fn same(one: &fs::File, other: &fs::File) -> io::Result<bool> {
    let (one, other) = (one.metadata()?, other.metadata()?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}

/// Reading is to change nothing. With `relatime`, which is the default, the first read after each write changes the time of
/// the last access: a transaction of the host's journal, which a shard's thread would wait for.
fn leave_atime(file: &fs::File) -> io::Result<()> {
    match fcntl_setfl(file, fcntl_getfl(file)? | OFlags::NOATIME) {
        // Only a file's owner may ask for it, and root.
        Ok(()) | Err(rustix::io::Errno::PERM) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Holds the file against other processes until it is closed.
fn lock(file: &fs::File, path: &Path, how: FlockOperation) -> Result<(), Error> {
    match flock(file, how) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Locked {
            path: path.to_owned(),
        }),
        Err(error) => Err(Error::Open {
            path: path.to_owned(),
            source: io::Error::from(error),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::{Chains, Delta, OFlags, fcntl_getfl};
    use crate::chain::map::Level;
    use crate::image::{Format, Seal, ploop};
    use crate::io::{Direct, now};
    use crate::units::{Cluster, ClusterSize};

    fn raw(path: &std::path::Path, length: u64) -> Delta {
        Delta {
            path: path.to_owned(),
            format: Some(Format::Raw),
            seal: Some(Seal { length, digest: 0 }),
        }
    }

    #[test]
    fn what_another_disk_has_open_is_held_against_the_seal_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("base");
        fs::write(&path, vec![1; 65536]).unwrap();
        let chains = Chains::default();
        let unsealed = Delta {
            seal: None,
            ..raw(&path, 0)
        };
        let (first, _) = chains.open(&[unsealed], false).unwrap();
        assert!(chains.open(&[raw(&path, 4096)], false).is_err());
        let (second, _) = chains.open(&[raw(&path, 65536)], false).unwrap();
        assert_eq!(
            (
                first.size(),
                second.size(),
                second.map().find(Cluster(0)).is_some()
            ),
            (65536, 65536, true)
        );
    }

    #[test]
    fn what_is_read_keeps_the_time_of_its_last_access() {
        let folder = tempfile::tempdir().unwrap();
        let (base, path) = (folder.path().join("base"), folder.path().join("top"));
        fs::write(&base, vec![1; 65536]).unwrap();
        fs::File::create_new(&path).unwrap();
        let file = Direct::open_write(&path).unwrap();
        now(ploop::create(&file, 65536, ClusterSize::DEFAULT)).unwrap();
        drop(file);
        let top = Delta {
            path,
            format: Some(Format::Ploop),
            seal: None,
        };
        let chain = [raw(&base, 65536), top];
        let (below, top) = Chains::default().open(&chain, true).unwrap();
        let below = below.file(Level(0)).unwrap();
        for file in [below.as_file(), top.unwrap().file.as_file()] {
            let flags = fcntl_getfl(file).unwrap();
            assert!(flags.contains(OFlags::NOATIME), "{flags:?}");
        }
    }

    /// The golden file of a root whose cluster size was changed has tops of both sizes.
    #[test]
    fn one_plain_base_is_under_clusters_of_several_sizes_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("base");
        fs::write(&path, vec![1; 1 << 20]).unwrap();
        let chains = Chains::default();
        let base = raw(&path, 1 << 20);
        let mut open = Vec::new();
        for (name, size) in [("a", 65536), ("b", 131_072), ("c", 65536), ("d", 131_072)] {
            let size = ClusterSize::new(size).unwrap();
            let path = folder.path().join(name);
            fs::File::create_new(&path).unwrap();
            let file = Direct::open_write(&path).unwrap();
            now(ploop::create(&file, 1 << 20, size)).unwrap();
            drop(file);
            let top = Delta {
                path,
                format: Some(Format::Ploop),
                seal: None,
            };
            let chain = [base.clone(), top];
            let (below, top) = chains.open(&chain, true).unwrap();
            assert_eq!(below.cluster(), size);
            open.push((below, top));
        }
    }

    #[test]
    fn a_file_that_took_anothers_name_is_not_taken_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("base");
        fs::write(&path, vec![1; 65536]).unwrap();
        let chains = Chains::default();
        let (first, _) = chains.open(&[raw(&path, 65536)], false).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, vec![2; 131_072]).unwrap();
        let (second, _) = chains.open(&[raw(&path, 131_072)], false).unwrap();
        let inode = |base: &super::Base<super::Uring>| {
            let file = base.file(Level(0)).unwrap();
            file.as_file().metadata().unwrap().ino()
        };
        assert_eq!((first.size(), second.size()), (65536, 131_072));
        assert_ne!(inode(&first), inode(&second));
    }
}
