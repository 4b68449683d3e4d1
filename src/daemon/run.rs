//! Builds everything, waits for the order to stop, takes everything down.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::RwLock;
use tokio::time::{sleep, timeout};

use super::containers::{node, of_containers};
use super::sizes::Everywhere;
use super::{Error, numbers, remarks};
use crate::config::Config;
use crate::link::Servers;
use crate::nri::{self, Connected, Containers};
use crate::observe::{Address, Call, Door, Health, Metrics, State, start_log};
use crate::service::{Doors, Name, Observer};
use crate::snapshot::Snapshotters;

/// How long a process that was killed may keep the address of the metrics, once its disk servers are back.
const LET_GO: Duration = Duration::from_secs(10);
/// How often that is looked at.
const AGAIN: Duration = Duration::from_millis(100);
/// How long threads that hang in the host may hold up the end of the process.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// What a daemon is built from.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The configuration.
    pub config: Config,
    /// Its file, which a disk server that we start reads too.
    pub path: PathBuf,
    /// The folder of our own program: `ploopd` is looked for there.
    pub beside: PathBuf,
    /// The version that is shown.
    pub version: &'static str,
}

/// Runs until told to stop.
///
/// # Errors
/// If something needed cannot be had, or breaks.
pub fn run(setup: &Setup) -> Result<(), Error> {
    start_log(&setup.config.log_options())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Process {
            act: "start threads",
            source,
        })?;
    let ended = runtime.block_on(until_stopped(setup));
    runtime.shutdown_timeout(LAST_WAIT);
    ended
}

async fn until_stopped(setup: &Setup) -> Result<(), Error> {
    let mut orders = Orders::new()?;
    let (mut house, closing) = tokio::select! {
        built = House::build(setup) => built?,
        // Whatever was under way is finished or undone by the next start.
        () = orders.stop() => return Ok(()),
    };
    house.health.set(State::Ready);
    notify(&[NotifyState::Ready, NotifyState::Status("serving")]);
    tracing::info!(version = setup.version, "ready");
    let ended = loop {
        tokio::select! {
            order = orders.next() => match order {
                Order::Stop => break Ok(()),
                Order::Renew => renew(&house.servers),
            },
            () = house.doors.broken() => break Err(Error::Door),
        }
    };
    house.health.set(State::Stopping);
    notify(&[NotifyState::Stopping]);
    tracing::info!("stopping");
    tokio::select! {
        () = house.close(closing) => {}
        () = orders.stop() => tracing::warn!("told twice: stopping at once"),
    }
    ended
}

/// Says how we are to systemd, if it started us.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "cannot notify systemd");
    }
}

/// Looks whether another `ploopd` is installed. Nobody waits for it.
fn renew(servers: &Arc<Servers>) {
    let servers = Arc::clone(servers);
    tokio::spawn(async move {
        match servers.renew().await {
            Ok(0) => tracing::info!("told to renew: the disk servers stay"),
            Ok(retiring) => tracing::info!(retiring, "told to renew: new disks go to new servers"),
            Err(error) => {
                tracing::error!(%error, "told to renew: the disk servers stay as they were")
            }
        }
    });
}

/// What somebody outside wants of us.
enum Order {
    /// SIGTERM, SIGINT.
    Stop,
    /// SIGHUP: use what is installed now.
    Renew,
}

/// The signals that are orders.
struct Orders {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Orders {
    fn new() -> Result<Self, Error> {
        let listen = |kind| {
            signal(kind).map_err(|source| Error::Process {
                act: "listen for signals",
                source,
            })
        };
        Ok(Self {
            hangup: listen(SignalKind::hangup())?,
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Order {
        tokio::select! {
            _ = self.terminate.recv() => Order::Stop,
            _ = self.interrupt.recv() => Order::Stop,
            _ = self.hangup.recv() => Order::Renew,
        }
    }

    async fn stop(&mut self) {
        while !matches!(self.next().await, Order::Stop) {}
    }
}

/// Everything that stands while the daemon runs.
struct House {
    health: Health,
    _metrics_door: Option<Door>,
    servers: Arc<Servers>,
    snapshotters: Arc<Snapshotters>,
    nri: Option<Connected>,
    /// What NRI has begun, see [`Everywhere`], and how long it is waited for.
    acts: Arc<RwLock<()>>,
    stop_limit: Duration,
    doors: Doors,
}

/// What happens to the disks when the doors are closed.
#[derive(Clone, Copy)]
enum Closing {
    /// They stay: containers go on.
    LeaveDisks,
    /// Those that nobody uses go, and a disk server that we started with its last one.
    DetachIdle,
}

impl House {
    async fn build(setup: &Setup) -> Result<(Self, Closing), Error> {
        let config = &setup.config;
        let health = Health::default();
        let metrics = Arc::new(Metrics::new("ploop-snapshotter", setup.version)?);
        // First: of a ploop-snapshotter that was killed a thread may wait for a device, and until its disk server is
        // back everything that it held stays held.
        let servers = Servers::start(config.link_options(&setup.path, &setup.beside)).await?;
        let servers = Arc::new(servers);
        let built = Self::open(config, health, metrics, &servers).await;
        if built.is_err() && servers.started() {
            // A disk server for a daemon that does not come up would stay for ever.
            if let Err(error) = servers.drain().await {
                tracing::warn!(%error, "cannot send the disk server home");
            }
        }
        let closing = if config.service.detach_on_stop {
            Closing::DetachIdle
        } else {
            Closing::LeaveDisks
        };
        Ok((built?, closing))
    }

    /// What stands on the disk server: snapshots, and the doors to them.
    async fn open(
        config: &Config,
        health: Health,
        metrics: Arc<Metrics>,
        servers: &Arc<Servers>,
    ) -> Result<Self, Error> {
        // Before the snapshots, so that a long recovery can be watched.
        let metrics_door = match &config.metrics.address {
            Some(address) => Some(open_door(address, &metrics, &health).await?),
            None => None,
        };
        let disks = Arc::clone(servers);
        let snapshotters = Snapshotters::open(config.snapshot_options(), disks).await?;
        let snapshotters = Arc::new(snapshotters);
        watch(&health, &metrics, servers, &snapshotters);
        let mut names = Vec::new();
        for (name, section) in &config.names {
            let acts = snapshotters
                .named(name.as_str())
                .ok_or_else(|| Error::NoName(name.as_str().to_owned()))?;
            names.push(Name {
                name: name.as_str().to_owned(),
                socket: config.socket_of(name, section),
                acts,
            });
        }
        // Before the doors: the first container should find us at both.
        let containers = Arc::new(Containers::default());
        let acts = Arc::default();
        let nri = config.nri_options().map(|options| {
            let sizes = Everywhere {
                snapshotters: Arc::clone(&snapshotters),
                acts: Arc::clone(&acts),
            };
            let containers = Arc::clone(&containers);
            let shown = Arc::clone(&containers);
            metrics.source(move || numbers::of_nri(Arc::clone(&shown)));
            nri::connect(options, sizes, containers)
        });
        let (all, owners) = (Arc::clone(&snapshotters), Arc::clone(&containers));
        metrics.source(move || of_containers(Arc::clone(&all), Arc::clone(&owners)));
        let node = node(Arc::clone(&snapshotters), containers);
        let observer = Observer::new(move |ended| {
            metrics.call(&Call {
                snapshotter: ended.snapshotter,
                method: ended.method.name(),
                code: ended.code,
                took: ended.took,
            });
        });
        let doors = Doors::open(names, Some(node), config.service_options(), observer).await?;
        Ok(Self {
            health,
            _metrics_door: metrics_door,
            servers: Arc::clone(servers),
            snapshotters,
            nri,
            acts,
            stop_limit: config.service_options().stop_limit,
            doors,
        })
    }

    async fn close(self, closing: Closing) {
        // containerd goes on without us: no pod waits for an answer that will not come.
        drop(self.nri);
        // A size that is half given would be another than the one that we remember.
        let sized = timeout(self.stop_limit, self.acts.write());
        let (_, sized) = tokio::join!(self.doors.close(), sized);
        if sized.is_err() {
            tracing::warn!("stopping although a size that NRI asked for is not given yet");
        }
        if matches!(closing, Closing::LeaveDisks) {
            return;
        }
        match self.snapshotters.detach_idle().await {
            Ok(0) => {}
            Ok(left) => tracing::warn!(left, "disks stay attached: they are in use"),
            Err(error) => tracing::warn!(%error, "cannot detach the disks"),
        }
        if !self.servers.are_ours() {
            return;
        }
        if let Err(error) = self.servers.drain().await {
            tracing::warn!(%error, "cannot send the disk servers home");
        }
    }
}

/// Opens the door to metrics, once whoever was killed before us has let go of its address.
async fn open_door(
    address: &Address,
    metrics: &Arc<Metrics>,
    health: &Health,
) -> Result<Door, Error> {
    let begun = Instant::now();
    loop {
        match Door::open(address, Arc::clone(metrics), health.clone()).await {
            Ok(door) => {
                tracing::info!(address = %door.address(), "metrics");
                return Ok(door);
            }
            Err(error) if error.is_taken() && begun.elapsed() < LET_GO => sleep(AGAIN).await,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Connects those who know with those who show.
fn watch(
    health: &Health,
    metrics: &Metrics,
    servers: &Arc<Servers>,
    snapshotters: &Arc<Snapshotters>,
) {
    let asked = Arc::clone(servers);
    health.check("disk servers", move || {
        let silent: Vec<_> = asked
            .seen()
            .iter()
            .filter(|server| !server.alive)
            .map(|server| server.name.to_string())
            .collect();
        async move {
            if silent.is_empty() {
                Ok(())
            } else {
                Err(format!("{} does not answer", silent.join(", ")))
            }
        }
    });
    let asked = Arc::clone(servers);
    health.remark("disks", move || remarks::of_disks(Arc::clone(&asked)));
    let asked = Arc::clone(servers);
    metrics.source(move || numbers::of_servers(Arc::clone(&asked)));
    let asked = Arc::clone(servers);
    metrics.source(move || numbers::of_disks(Arc::clone(&asked)));
    let asked = Arc::clone(snapshotters);
    metrics.source(move || numbers::of_snapshots(Arc::clone(&asked)));
}
