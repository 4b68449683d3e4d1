//! What a disk server does: attach, detach, sync, and tell.
//!
//! Every act may be repeated. An attach that fails half-way leaves nothing; a detach that fails
//! because somebody holds the device leaves everything as it was.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::aliases::Aliases;
use super::build::Build;
use super::claims::Claims;
use super::error::Error;
use super::registry::{Registry, Served};
use super::turns::Turns;
use super::wanted::Wanted;
use crate::device::Devices;
use crate::disk::{DiskHandle, Shards, Spec};
use crate::failpoint::pass;
use crate::image;
use crate::seat::{Name, Seat};

/// How many seals are remembered for callers who missed the answer.
const SEALS: usize = 4096;

/// The identity of a sealed top, and what it takes on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) seal: image::Seal,
    pub(super) allocated: u64,
}

/// How long a disk may take to close that got no device.
const CLOSE: Duration = Duration::from_secs(60);

/// What a detach found and did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Detached {
    pub(super) existed: bool,
    pub(super) sealed: Option<Sealed>,
}

/// A disk server.
pub(super) struct Server {
    pub(super) name: Name,
    pub(super) build: Build,
    pub(super) shards: Shards,
    devices: Arc<Devices>,
    pub(super) aliases: Arc<Aliases>,
    pub(super) registry: Arc<Registry>,
    pub(super) claims: Arc<Claims>,
    pub(super) turns: Turns,
    seat: Seat,
    draining: AtomicBool,
    /// Attaches under way: each may become a disk.
    arriving: AtomicUsize,
    /// Rung whenever a disk has gone.
    pub(super) gone: Notify,
    /// What was sealed, for a caller whose detach was done but whose answer was lost. Held for a
    /// look-up or a change.
    seals: Mutex<BTreeMap<String, Sealed>>,
}

impl Server {
    pub(super) fn new(
        seat: Seat,
        shards: Shards,
        devices: Devices,
        aliases: Aliases,
        registry: Registry,
    ) -> Self {
        Self {
            name: seat.name(),
            build: Build::default(),
            shards,
            devices: Arc::new(devices),
            aliases: Arc::new(aliases),
            registry: Arc::new(registry),
            claims: Arc::new(Claims::default()),
            turns: Turns::default(),
            seat,
            draining: AtomicBool::new(false),
            arriving: AtomicUsize::new(0),
            gone: Notify::new(),
            seals: Mutex::default(),
        }
    }

    /// Serves a chain; answers what is served already if it is the same.
    pub(super) async fn attach(&self, wanted: Wanted) -> Result<Arc<Served>, Error> {
        let _turn = self.turns.take(&wanted.id).await;
        if let Some(served) = self.registry.find(&wanted.id) {
            if let Some(difference) = served.wanted.difference(&wanted) {
                let id = wanted.id;
                return Err(Error::Different { id, difference });
            }
            if self.devices.stands(&wanted.id) {
                return Ok(served);
            }
            tracing::warn!(disk = %wanted.id, "its device was taken away by somebody else: attaching it anew");
            self.let_go(&served, false).await?;
        }
        self.not_waiting(&wanted.id)?;
        // Counted before it looks, as a drain is said before it counts: one of the two sees the other.
        let _arriving = Arriving::begin(self);
        if self.draining() {
            return Err(Error::Draining);
        }
        let begun = Instant::now();
        self.claim(&wanted).await?;
        let read_only = wanted.read_only;
        match self.open(&wanted).await {
            Ok((disk, device)) => {
                tracing::info!(
                    disk = %wanted.id, device = %device.path.display(), depth = disk.depth(),
                    size = disk.size(), read_only, took = ?begun.elapsed(), "attached"
                );
                self.remembered().remove(&wanted.id);
                let served = Arc::new(Served {
                    wanted,
                    disk,
                    device,
                });
                pass("attach-started");
                self.registry.insert(Arc::clone(&served));
                self.write_account().await;
                pass("attach-written");
                Ok(served)
            }
            Err(error) => {
                self.claims.release(&wanted.id);
                Err(error)
            }
        }
    }

    async fn open(&self, wanted: &Wanted) -> Result<(DiskHandle, crate::device::Device), Error> {
        let disk = self.shards.open(self.spec(wanted)).await?;
        pass("attach-opened");
        let devices = Arc::clone(&self.devices);
        let registry = Arc::clone(&self.registry);
        let aliases = Arc::clone(&self.aliases);
        let (promised, handle) = (wanted.clone(), disk.clone());
        let attached = blocking("attaching a device", move || {
            // Written down first: if this process dies now, the next one knows what the device is.
            let tell = |number| {
                let noted = registry.promise(&promised, number);
                pass("attach-noted");
                noted
                    .inspect_err(|error| tracing::error!(%error, "a device cannot be noted"))
                    .is_ok()
            };
            let id = &promised.id;
            let device = devices.attach(id, handle, promised.will_grow, tell)?;
            aliases
                .point(id, &device.path)
                .or_else(|error| devices.detach(id).map_err(Error::from).and(Err(error)))?;
            Ok::<_, Error>(device)
        })
        .await;
        if !matches!(attached, Ok(Ok(_))) {
            self.registry.withdraw(&wanted.id);
        }
        match attached {
            Ok(Ok(device)) => Ok((disk, device)),
            Ok(Err(error)) => {
                self.close_after(&disk).await;
                Err(error)
            }
            Err(error) => {
                self.close_after(&disk).await;
                Err(error)
            }
        }
    }

    pub(super) fn spec(&self, wanted: &Wanted) -> Spec {
        Spec {
            id: wanted.id.clone(),
            deltas: wanted.chain(),
            read_only: wanted.read_only,
            pending: self.seat.pending_of(wanted.top()),
        }
    }

    pub(super) async fn claim(&self, wanted: &Wanted) -> Result<(), Error> {
        let claims = Arc::clone(&self.claims);
        let id = wanted.id.clone();
        let paths: Vec<_> = wanted.deltas.iter().map(|d| d.path.clone()).collect();
        let read_only = wanted.read_only;
        blocking("looking at files", move || {
            claims.take(&id, &paths, read_only)
        })
        .await?
    }

    /// Closes a disk that got no device. One whose device neither starts nor stops is held by it: that is not waited for.
    pub(super) async fn close_after(&self, disk: &DiskHandle) {
        match tokio::time::timeout(CLOSE, disk.close(false)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::error!(disk = %disk.id(), %error, "cannot close a disk in order");
            }
            Err(_) => tracing::error!(
                disk = %disk.id(), limit = ?CLOSE,
                "a disk is not closed yet: it waits for the host, or a device that the kernel does not let go of holds it"
            ),
        }
    }

    /// Stops serving a disk.
    pub(super) async fn detach(&self, id: &str, seal: bool) -> Result<Detached, Error> {
        let _turn = self.turns.take(id).await;
        let Some(served) = self.registry.find(id) else {
            self.not_waiting(id)?;
            let sealed = self.remembered().get(id).copied();
            return Ok(Detached {
                existed: false,
                sealed: sealed.filter(|_| seal),
            });
        };
        if seal && served.wanted.read_only {
            return Err(Error::NothingToSeal { id: id.to_owned() });
        }
        // Before anything is let go: it stays refused however often somebody asks.
        let writes = served.disk.stats().lost_writes;
        if seal && writes > 0 {
            let id = id.to_owned();
            return Err(Error::LostWrites { id, writes });
        }
        let begun = Instant::now();
        let sealed = self.let_go(&served, seal).await?;
        tracing::info!(disk = %id, sealed = sealed.is_some(), took = ?begun.elapsed(), "detached");
        Ok(Detached {
            existed: true,
            sealed,
        })
    }

    /// Device, disk, files, in this order. The caller has the id's turn.
    async fn let_go(&self, served: &Served, seal: bool) -> Result<Option<Sealed>, Error> {
        let id = served.wanted.id.clone();
        let devices = Arc::clone(&self.devices);
        let aliases = Arc::clone(&self.aliases);
        let (name, device) = (id.clone(), served.device.path.clone());
        blocking("detaching a device", move || {
            aliases.take(&name)?;
            devices.detach(&name).map_err(|error| {
                aliases.keep(&name, &device);
                Error::from(error)
            })
        })
        .await??;
        pass("detach-device-gone");
        // What the kernel wrote at the last moment may have been refused too.
        let writes = served.disk.stats().lost_writes;
        let lost = seal && writes > 0;
        // From here on there is no way back: whatever the close says, the disk is not served any more.
        let closed = served.disk.close(seal && !lost).await;
        pass("detach-closed");
        self.registry.remove(&id);
        self.claims.release(&id);
        self.write_account().await;
        pass("detach-written");
        self.gone.notify_waiters();
        let closed = closed?;
        if lost {
            return Err(Error::LostWrites { id, writes });
        }
        let Some(seal) = closed else {
            return Ok(None);
        };
        let sealed = Sealed {
            seal,
            allocated: allocated(served.wanted.top()).await,
        };
        let mut seals = self.remembered();
        if seals.len() >= SEALS {
            seals.pop_first();
        }
        seals.insert(id, sealed);
        Ok(Some(sealed))
    }

    /// Makes a disk and its device larger. May be repeated, also after half of it was done.
    pub(super) async fn grow(&self, id: &str, size: u64) -> Result<Arc<Served>, Error> {
        let _turn = self.turns.take(id).await;
        let served = self.served(id)?;
        let begun = Instant::now();
        served.disk.grow(size).await?;
        let size = served.disk.size();
        let devices = Arc::clone(&self.devices);
        let name = id.to_owned();
        blocking("resizing a device", move || devices.grow(&name, size)).await??;
        tracing::info!(disk = %id, size, took = ?begun.elapsed(), "grown");
        Ok(served)
    }

    /// Makes what a disk answered survive the power.
    pub(super) async fn sync(&self, id: &str) -> Result<(), Error> {
        let served = self.served(id)?;
        Ok(served.disk.sync().await?)
    }

    /// One disk, or all of them if `id` is empty, each with the bytes that its top takes on the host.
    pub(super) async fn stats(&self, id: &str) -> Result<Vec<(Arc<Served>, u64)>, Error> {
        let disks = if id.is_empty() {
            self.all()
        } else {
            vec![self.served(id)?]
        };
        blocking("looking at files", move || {
            disks
                .into_iter()
                .map(|served| {
                    let bytes = bytes_of(served.wanted.top());
                    (served, bytes)
                })
                .collect()
        })
        .await
    }

    /// Every disk.
    pub(super) fn all(&self) -> Vec<Arc<Served>> {
        self.registry.all()
    }

    /// The disks that are ours and not served yet.
    pub(super) fn waiting(&self) -> Vec<String> {
        self.registry.waiting()
    }

    /// How many disks there are.
    pub(super) fn count(&self) -> usize {
        self.registry.count()
    }

    /// Has it nothing to serve, and nothing that is about to be?
    pub(super) fn idle(&self) -> bool {
        // In this order: what arrives is in the registry before it is no arrival any more.
        self.arriving.load(Ordering::SeqCst) == 0
            && self.registry.promises_count() == 0
            && self.count() == 0
    }

    /// Takes no new disks from now on.
    pub(super) fn drain(&self) -> usize {
        if !self.draining.swap(true, Ordering::SeqCst) {
            tracing::info!(disks = self.count(), "draining: no new disks");
        }
        self.gone.notify_waiters();
        self.count()
    }

    /// Does it take no new disks?
    pub(super) fn draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// The device part, to end it.
    pub(super) fn devices(&self) -> Arc<Devices> {
        Arc::clone(&self.devices)
    }

    /// A disk that waits to be taken over has a device already, and is no disk that is gone. The caller has its turn.
    fn not_waiting(&self, id: &str) -> Result<(), Error> {
        if self.registry.promises(id, None) {
            return Err(Error::Waits { id: id.to_owned() });
        }
        Ok(())
    }

    fn served(&self, id: &str) -> Result<Arc<Served>, Error> {
        let id = id.to_owned();
        self.registry.find(&id).ok_or(Error::NotFound { id })
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Sealed>> {
        self.seals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn write_account(&self) {
        let registry = Arc::clone(&self.registry);
        match blocking("writing the registry", move || registry.write()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) | Err(error) => {
                tracing::warn!(%error, "the next server will not know what this one served");
            }
        }
    }
}

/// An attach under way.
struct Arriving<'a>(&'a Server);

impl<'a> Arriving<'a> {
    fn begin(server: &'a Server) -> Self {
        server.arriving.fetch_add(1, Ordering::SeqCst);
        Self(server)
    }
}

impl Drop for Arriving<'_> {
    fn drop(&mut self) {
        self.0.arriving.fetch_sub(1, Ordering::SeqCst);
        // Whoever waits for the last disk waits for this too.
        self.0.gone.notify_waiters();
    }
}

/// Runs what may block where that is allowed.
pub(super) async fn blocking<T: Send + 'static>(
    what: &'static str,
    act: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(act)
        .await
        .map_err(|_| Error::Lost(what))
}

async fn allocated(path: &Path) -> u64 {
    let path = path.to_owned();
    blocking("looking at a file", move || bytes_of(&path))
        .await
        .unwrap_or(0)
}

fn bytes_of(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.blocks() * 512)
}
