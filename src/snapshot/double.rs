//! A disk server without devices, for tests: it opens, marks and seals the same files.
//!
//! Its "devices" are plain files, so they can be opened and flushed; nothing can be mounted. It refuses
//! what a real server refuses, and can be told to be busy, slow to answer, or gone.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::disks::Disks;
use super::paths::Paths;
use super::root::{claim, probe};
use crate::image::{self, Format, Image, Seal, ploop};
use crate::io::{Direct, now};
use crate::link::{self, Access, Delta, Detached, Disk, DiskStats, Error};
use crate::units::ClusterSize;

/// How often a call that hangs is looked at.
const AGAIN: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(super) struct Double {
    dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    served: BTreeMap<String, Disk>,
    /// Detaching these answers "busy".
    busy: HashSet<String>,
    /// Attaching and detaching these is not answered.
    hanging: HashSet<String>,
    /// So many calls are not.
    waiting: u32,
    /// Every call answers this.
    down: Option<link::Kind>,
    /// Detaching with a seal lets the disk go and seals nothing: the server was restarted.
    forgetful: u32,
    stats: BTreeMap<String, DiskStats>,
    attaches: u64,
    next: u32,
}

/// A directory for a test: in memory if that will do for a root, since a story has hundreds of syncs.
pub(super) fn fast_dir() -> tempfile::TempDir {
    if let Ok(dir) = tempfile::tempdir_in("/dev/shm") {
        let paths = Paths::new(dir.path());
        if claim(&paths).and_then(|_lock| probe(&paths)).is_ok() {
            return dir;
        }
    }
    tempfile::tempdir().unwrap()
}

fn refused(call: &'static str, kind: link::Kind, message: impl ToString) -> Error {
    Error::Refused {
        call,
        kind,
        message: message.to_string(),
    }
}

impl Double {
    pub(super) fn new(dir: &Path) -> Arc<Self> {
        std::fs::create_dir_all(dir).unwrap();
        Arc::new(Self {
            dir: dir.to_owned(),
            state: Mutex::default(),
        })
    }

    /// The ids of all disks that are served.
    pub(super) fn served(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        state.served.keys().cloned().collect()
    }

    /// The server dies, and another one starts: nothing is served, tops stay marked as in use.
    pub(super) fn restart(&self) {
        self.state.lock().unwrap().served.clear();
    }

    pub(super) fn set_busy(&self, id: &str, busy: bool) {
        let mut state = self.state.lock().unwrap();
        if busy {
            state.busy.insert(id.to_owned());
        } else {
            state.busy.remove(id);
        }
    }

    pub(super) fn hang(&self, id: &str, hangs: bool) {
        let mut state = self.state.lock().unwrap();
        if hangs {
            state.hanging.insert(id.to_owned());
        } else {
            state.hanging.remove(id);
        }
    }

    /// Returns once a call hangs.
    pub(super) async fn somebody_hangs(&self) {
        while self.state.lock().unwrap().waiting == 0 {
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Returns when a call for this disk may be answered.
    async fn answers(&self, id: &str) {
        let hangs = || self.state.lock().unwrap().hanging.contains(id);
        if !hangs() {
            return;
        }
        self.state.lock().unwrap().waiting += 1;
        while hangs() {
            tokio::time::sleep(AGAIN).await;
        }
        self.state.lock().unwrap().waiting -= 1;
    }

    pub(super) fn set_down(&self, down: Option<link::Kind>) {
        self.state.lock().unwrap().down = down;
    }

    pub(super) fn forget_seals(&self, times: u32) {
        self.state.lock().unwrap().forgetful = times;
    }

    pub(super) fn fail(&self, id: &str, reason: &str) {
        let mut state = self.state.lock().unwrap();
        state.served.get_mut(id).unwrap().failed = Some(reason.to_owned());
    }

    pub(super) fn attaches(&self) -> u64 {
        self.state.lock().unwrap().attaches
    }

    /// A disk that no snapshotter asked for.
    pub(super) fn serve_stray(&self, id: &str, file: &Path) {
        let delta = Delta {
            path: file.to_owned(),
            format: link::Format::Ploop,
            seal: None,
        };
        let disk = self.disk(id, vec![delta], 0, 1, false);
        self.state
            .lock()
            .unwrap()
            .served
            .insert(id.to_owned(), disk);
    }

    /// The device cannot be flushed any more, and this is what its disk says of itself.
    pub(super) fn spoil(&self, id: &str, stats: DiskStats) {
        std::fs::remove_file(self.dir.join(id)).unwrap();
        self.state
            .lock()
            .unwrap()
            .stats
            .insert(id.to_owned(), stats);
    }

    fn disk(&self, id: &str, deltas: Vec<Delta>, size: u64, minor: u32, read_only: bool) -> Disk {
        let device = self.dir.join(id);
        std::fs::write(&device, "").unwrap();
        Disk {
            id: id.to_owned(),
            alias: None,
            device,
            // No mount in any namespace has this number.
            major: 4095,
            minor,
            size,
            cluster: 65536,
            read_only,
            deltas,
            failed: None,
        }
    }

    fn attach_now(&self, id: &str, deltas: &[Delta], read_only: bool) -> Result<Disk, Error> {
        let mut state = self.state.lock().unwrap();
        if let Some(kind) = state.down {
            return Err(refused("attach", kind, "told to"));
        }
        state.attaches += 1;
        if let Some(disk) = state.served.get(id) {
            if disk.deltas != deltas || disk.read_only != read_only {
                return Err(refused(
                    "attach",
                    link::Kind::Busy,
                    "served with other deltas",
                ));
            }
            return Ok(disk.clone());
        }
        let other = |message: &dyn std::fmt::Display| refused("attach", link::Kind::Other, message);
        let corrupt =
            |message: &dyn std::fmt::Display| refused("attach", link::Kind::Corrupt, message);
        let top = deltas.last().ok_or_else(|| other(&"no deltas"))?;
        let mut size = 0;
        for delta in deltas {
            let file = Direct::open_write(&delta.path).map_err(|error| other(&error))?;
            if delta == top && !read_only {
                assert_eq!(delta.seal, None, "a top is not sealed");
                for disk in state.served.values() {
                    assert_ne!(disk.deltas.last(), Some(top), "one top, one disk");
                }
                let top = now(ploop::open_top(&file)).map_err(|error| corrupt(&error))?;
                size = top.header.size();
                continue;
            }
            let seal = delta.seal.expect("what is not the top is sealed");
            let expected = Seal {
                length: seal.length,
                digest: seal.digest,
            };
            let format = match delta.format {
                link::Format::Ploop => Format::Ploop,
                link::Format::Raw => Format::Raw,
            };
            let opened =
                Image::open_sealed(&file, Some(format), Some(&expected), ClusterSize::DEFAULT);
            size = now(opened).map_err(|error| corrupt(&error))?.size();
        }
        state.next += 1;
        let disk = self.disk(id, deltas.to_vec(), size, state.next, read_only);
        state.served.insert(id.to_owned(), disk.clone());
        Ok(disk)
    }

    fn grow_now(&self, id: &str, size: u64) -> Result<Disk, Error> {
        let mut state = self.state.lock().unwrap();
        if let Some(kind) = state.down {
            return Err(refused("grow", kind, "told to"));
        }
        let Some(disk) = state.served.get_mut(id) else {
            return Err(refused("grow", link::Kind::NotFound, id));
        };
        assert!(!disk.read_only, "what is sealed does not grow");
        let file = Direct::open_write(&disk.deltas.last().unwrap().path).unwrap();
        let top = now(ploop::open_top(&file)).unwrap();
        let mut end = top.end;
        let grown = now(image::grow(&file, &top.header, &mut end, size));
        match grown {
            Ok(grown) => disk.size = grown.header.size(),
            Err(error) => return Err(refused("grow", link::Kind::Busy, error)),
        }
        Ok(disk.clone())
    }

    fn detach_now(&self, id: &str, seal: bool) -> Result<Detached, Error> {
        let mut state = self.state.lock().unwrap();
        if let Some(kind) = state.down {
            return Err(refused("detach", kind, "told to"));
        }
        if state.busy.contains(id) {
            return Err(refused("detach", link::Kind::Busy, "somebody has it"));
        }
        if seal && state.forgetful > 0 {
            state.forgetful -= 1;
            state.served.remove(id);
        }
        let Some(disk) = state.served.remove(id) else {
            return Ok(Detached {
                existed: false,
                seal: None,
            });
        };
        let unsealed = Detached {
            existed: true,
            seal: None,
        };
        let path = &disk.deltas.last().unwrap().path;
        // What is gone cannot be closed either; a real server has it open.
        if disk.read_only || (!seal && !path.exists()) {
            return Ok(unsealed);
        }
        let file = Direct::open_write(path).unwrap();
        let top = now(ploop::open_top(&file)).unwrap();
        let closed = now(ploop::seal(&file, &top.header, top.end)).unwrap();
        if !seal {
            return Ok(unsealed);
        }
        let seal = closed;
        use std::os::unix::fs::MetadataExt;
        Ok(Detached {
            existed: true,
            seal: Some(link::Seal {
                length: seal.length,
                digest: seal.digest,
                allocated: path.metadata().unwrap().blocks() * 512,
            }),
        })
    }
}

impl Disks for Double {
    fn attach<'a>(
        &'a self,
        id: &'a str,
        deltas: &'a [Delta],
        access: Access,
    ) -> BoxFuture<'a, Result<Disk, Error>> {
        Box::pin(async move {
            self.answers(id).await;
            self.attach_now(id, deltas, access == Access::Read)
        })
    }

    fn detach<'a>(&'a self, id: &'a str, seal: bool) -> BoxFuture<'a, Result<Detached, Error>> {
        Box::pin(async move {
            self.answers(id).await;
            self.detach_now(id, seal)
        })
    }

    fn grow<'a>(&'a self, id: &'a str, size: u64) -> BoxFuture<'a, Result<Disk, Error>> {
        Box::pin(async move { self.grow_now(id, size) })
    }

    fn stats<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<DiskStats, Error>> {
        Box::pin(async move {
            let state = self.state.lock().unwrap();
            Ok(state.stats.get(id).cloned().unwrap_or_default())
        })
    }

    fn find<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Disk>, Error>> {
        Box::pin(async move {
            let state = self.state.lock().unwrap();
            match state.down {
                Some(kind) => Err(refused("list", kind, "told to")),
                None => Ok(state.served.get(id).cloned()),
            }
        })
    }

    fn glance(&self) -> BoxFuture<'_, Vec<Disk>> {
        Box::pin(async move { self.list().await.unwrap_or_default() })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Disk>, Error>> {
        Box::pin(async move {
            let state = self.state.lock().unwrap();
            match state.down {
                Some(kind) => Err(refused("list", kind, "told to")),
                None => Ok(state.served.values().cloned().collect()),
            }
        })
    }
}
