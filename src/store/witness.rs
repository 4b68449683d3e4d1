//! A store's file with somebody who writes down what is written to it and what is synced, for tests.
//!
//! What the power leaves of it is then for the test to choose: all that was synced, and of the writes since
//! any part.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use redb::StorageBackend;

/// One act on the file.
#[derive(Clone, Debug)]
pub(crate) enum Written {
    /// These bytes, from there on.
    Bytes(u64, Vec<u8>),
    /// This length.
    Len(u64),
}

/// The file at one moment: what is on the platter, and what no sync has covered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Moment {
    pub(crate) synced: Vec<u8>,
    pub(crate) since: Vec<Written>,
}

impl Written {
    /// Makes it.
    pub(crate) fn apply(&self, bytes: &mut Vec<u8>) {
        let index = |at: u64| usize::try_from(at).unwrap();
        match self {
            Self::Bytes(at, data) => {
                let (start, end) = (index(*at), index(*at) + data.len());
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[start..end].copy_from_slice(data);
            }
            Self::Len(len) => bytes.resize(index(*len), 0),
        }
    }
}

type Stopped = Box<dyn Fn() + Send + Sync>;

struct Seen {
    now: Moment,
    events: u64,
    /// After so many events the world stands still.
    stop_at: u64,
    stopped: Option<Moment>,
    /// Is nothing ever synced? A test that does not notice proves nothing.
    deaf: bool,
}

/// Who looks at one store's file.
pub(crate) struct Witness {
    path: PathBuf,
    seen: Mutex<Seen>,
    tell: Stopped,
}

static WATCHED: LazyLock<Mutex<HashMap<PathBuf, Arc<Witness>>>> = LazyLock::new(Mutex::default);

impl Witness {
    /// Watches the store that will be opened at `path`; calls `tell` at the event with that number.
    pub(crate) fn watch(path: &Path, stop_at: u64, tell: Stopped) -> Arc<Self> {
        let witness = Arc::new(Self {
            path: path.to_owned(),
            seen: Mutex::new(Seen {
                now: Moment::default(),
                events: 0,
                stop_at,
                stopped: None,
                deaf: false,
            }),
            tell,
        });
        let mut watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
        watched.insert(path.to_owned(), Arc::clone(&witness));
        witness
    }

    /// From now on every sync is a lie.
    pub(crate) fn lie(&self) {
        self.seen.lock().unwrap().deaf = true;
    }

    /// Looks away. What was there when the world stood still, if it did.
    pub(crate) fn end(&self) -> Option<Moment> {
        let mut watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
        watched.remove(&self.path);
        drop(watched);
        self.seen.lock().unwrap().stopped.take()
    }

    fn happens(&self, change: impl FnOnce(&mut Moment)) {
        let mut seen = self.seen.lock().unwrap();
        change(&mut seen.now);
        seen.events += 1;
        if seen.events == seen.stop_at {
            seen.stopped = Some(seen.now.clone());
            drop(seen);
            (self.tell)();
        }
    }
}

/// What a database is made on, if its file is watched.
pub(super) fn backend(path: &Path) -> Option<Watched> {
    let watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
    let witness = Arc::clone(watched.get(path)?);
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    let file = options.open(path).unwrap();
    witness.seen.lock().unwrap().now.synced = std::fs::read(path).unwrap();
    Some(Watched { file, witness })
}

pub(super) struct Watched {
    file: File,
    witness: Arc<Witness>,
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.file.fmt(f)
    }
}

impl StorageBackend for Watched {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.witness
            .happens(|moment| moment.since.push(Written::Len(len)));
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let deaf = self.witness.seen.lock().unwrap().deaf;
        self.witness.happens(|moment| {
            let covered = if deaf { 0 } else { moment.since.len() };
            for written in moment.since.drain(..covered) {
                written.apply(&mut moment.synced);
            }
        });
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.witness.happens(|moment| {
            let written = Written::Bytes(offset, data.to_vec());
            moment.since.push(written);
        });
        self.file.write_all_at(data, offset)
    }
}
