//! Builds a disk server from its options, and runs it until it may end.
//!
//! How it ends. On ublk, at the first SIGTERM (or SIGINT): the kernel holds every request for the next
//! server, which takes the devices over. On the FUSE transport the end of this process takes every disk
//! from its containers. So there the first signal only *drains*: no new disks, and the end comes with
//! the last detach, at once if there is none. A second signal ends it now, in order: everything is
//! written out and the images are closed, and whoever still has a device open gets I/O errors.
//!
//! SIGHUP is meant for ploop-snapshotter and may reach us too (`pkill -HUP ploop`): it changes nothing.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server as Grpc;

use super::aliases::Aliases;
use super::disks::Door;
use super::error::{Error, host};
use super::lock;
use super::recover::{self, Waiting};
use super::registry::Registry;
use super::serve::{Server, blocking};
use crate::causes::in_full;
use crate::device::{self, Devices, Wish};
use crate::disk::{self, Shards};
use crate::proto::v1::disks_server::DisksServer;
use crate::seat::Seat;
use crate::socket::Socket;

/// How long callers may take to hear their last answers.
const FAREWELL: Duration = Duration::from_secs(3);
/// How long one disk may take to be written out when the server has to end.
const LAST_FLUSH: Duration = Duration::from_secs(20);

/// What this room needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its place in the run directory, on tmpfs: socket, lock, FUSE mount, registry.
    pub seat: Seat,
    /// How the engine's threads are run.
    pub disk: disk::Options,
    /// Which way to the kernel is asked for.
    pub transport: Wish,
    /// Should ublk requests' pages be used where they are, where the kernel can do that?
    pub zero_copy: bool,
    /// Threads that take requests from FUSE.
    pub fuse_threads: usize,
}

impl Options {
    /// A server of this seat, everything else as it is by default.
    #[must_use]
    pub fn new(seat: Seat) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            disk: disk::Options::default(),
            transport: Wish::Auto,
            zero_copy: true,
            fuse_threads: cores.clamp(2, 4),
            seat,
        }
    }
}

/// What a server leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Nothing: it may stay away.
    Nothing,
    /// Devices that wait for the next server of its seat: whoever supervises it should start one at once.
    Devices,
}

/// Runs a disk server until it may end.
///
/// # Errors
/// If it cannot start, or its door fails.
pub async fn run(options: Options) -> Result<Left, Error> {
    let seat = options.seat.clone();
    let mut signals = Signals::listen(&seat.folder())?;
    let taken = seat.clone();
    let _lock = blocking("locking the run folder", move || {
        make_folder(&taken.folder())?;
        lock::take(&taken)
    })
    .await??;
    let (server, waiting) = build(&options).await?;
    let (socket, listener) = Socket::bind(&seat.socket())?;
    let listener = UnixListener::from_std(listener).map_err(host("listen at", socket.path()))?;
    let (stop, stopped) = oneshot::channel::<()>();
    let mut door = tokio::spawn(
        Grpc::builder()
            .add_service(DisksServer::new(Door(Arc::clone(&server))))
            .serve_with_incoming_shutdown(UnixListenerStream::new(listener), async {
                // A dropped sender says the same as a message.
                let _ = stopped.await;
            }),
    );
    tracing::info!(
        pid = std::process::id(), server = %seat.name(), socket = %socket.path().display(),
        transport = server.devices().transport().name(), "serving disks"
    );
    // Systemd's word, where systemd asks for it.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tokio::spawn(recover::go_on(Arc::clone(&server), waiting));

    let ended = tokio::select! {
        ended = &mut door => Some(ended),
        () = until_the_end(&server, &mut signals) => None,
    };
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    // Before the door is shut: whoever finds nobody here then knows that nothing was left to take over.
    if server.idle()
        && let Err(error) = fs::remove_file(seat.registry())
    {
        tracing::warn!(%error, "another server will look for the disks of this one, and find none");
    }
    drop(stop);
    if ended.is_none() && tokio::time::timeout(FAREWELL, &mut door).await.is_err() {
        door.abort();
    }
    // Not before: until then a disk may have come.
    let left = if server.idle() || !server.devices().transport().survives_restart() {
        Left::Nothing
    } else {
        Left::Devices
    };
    close_all(&server).await;
    drop(socket);
    match ended {
        Some(Ok(Err(error))) => Err(Error::Transport(error)),
        Some(Err(_)) => Err(Error::Lost("the gRPC server")),
        Some(Ok(Ok(()))) | None => Ok(left),
    }
}

async fn build(options: &Options) -> Result<(Arc<Server>, Vec<Waiting>), Error> {
    make_folder(&options.seat.pending())?;
    let registry = options.seat.registry();
    // Before any device is given back: from then on its number may be another disk's.
    let aliases = Aliases::open(&options.seat.folder())?;
    let devices = device::Options {
        run: options.seat.folder(),
        whose: (options.seat.run_dir(), options.seat.name().to_string()),
        wish: options.transport,
        zero_copy: options.zero_copy,
        threads: options.fuse_threads,
    };
    let (account, opened) = {
        let registry = registry.clone();
        blocking("opening devices", move || {
            let account = recover::before(&registry)?;
            let opened = Devices::open(&devices, &recover::devices_of(account.as_ref()));
            Ok::<_, Error>((account, opened))
        })
        .await??
    };
    let (devices, found) = opened?;
    let outlived = devices.transport().survives_restart();
    recover::tell(account.as_ref(), &found, outlived);
    let shards = Shards::start(options.disk.clone())?;
    let server = Arc::new(Server::new(
        options.seat.clone(),
        shards,
        devices,
        aliases,
        Registry::new(registry),
    ));
    let waiting = match account {
        // The old account stands until the new one is complete: whoever comes next needs it whole.
        Some(account) if outlived => recover::take_over(&server, &account).await,
        _ => Vec::new(),
    };
    server.write_account().await;
    // From here on the disks are served: no path is worth ending that.
    for served in server.all() {
        server.aliases.keep(&served.wanted.id, &served.device.path);
    }
    let registry = &server.registry;
    let known = |id: &str| registry.find(id).is_some() || registry.promises(id, None);
    if let Err(error) = server.aliases.sweep(known) {
        let error = in_full(&error);
        tracing::warn!(%error, "paths of disks that are not served may be left");
    }
    Ok((server, waiting))
}

/// Until a signal or a drain has come and the last disk has gone, or a second signal comes.
async fn until_the_end(server: &Server, signals: &mut Signals) {
    loop {
        let gone = server.gone.notified();
        tokio::pin!(gone);
        // Listened before looked: a disk that goes between the two is not missed.
        gone.as_mut().enable();
        if server.draining() && server.idle() {
            tracing::info!("the last disk has gone: ending");
            return;
        }
        tokio::select! {
            () = gone => {}
            () = signals.next() => {
                let disks = server.count();
                if server.devices().transport().survives_restart() {
                    tracing::info!(disks, "told to end: the devices wait for the next server");
                    return;
                }
                if server.draining() {
                    // Without a disk it waits for an attach, perhaps for one that the host keeps for ever.
                    tracing::error!(disks, "told twice to end: ending now, and these disks with it");
                    return;
                }
                server.drain();
                if disks > 0 {
                    tracing::warn!(
                        disks,
                        "told to end, but containers would lose these disks: serving until the last is \
                         detached; a second signal ends it at once"
                    );
                }
            }
        }
    }
}

/// Lets go of every device. Those that die with this process are written out before, and their images
/// closed; those that outlive it go on from what was answered, which needs nothing.
async fn close_all(server: &Server) {
    let survives = server.devices().transport().survives_restart();
    let disks = if survives { Vec::new() } else { server.all() };
    let closing = disks.iter().map(|served| async move {
        let id = &served.wanted.id;
        match tokio::time::timeout(LAST_FLUSH, served.disk.close(false)).await {
            Ok(Ok(_)) => tracing::info!(disk = %id, "closed"),
            Ok(Err(error)) => tracing::error!(disk = %id, %error, "not closed in order"),
            Err(_) => tracing::error!(disk = %id, "not closed within {LAST_FLUSH:?}"),
        }
    });
    join_all(closing).await;
    let devices = server.devices();
    match blocking("letting go of devices", move || devices.close()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "something stays; the next start cleans it up"),
        Err(error) => tracing::warn!(%error, "something stays; the next start cleans it up"),
    }
}

fn make_folder(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(host("make", path))
}

/// The signals that mean "end", and the one that means nothing here.
struct Signals {
    term: Signal,
    int: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen(run: &Path) -> Result<Self, Error> {
        let listen = |kind| signal(kind).map_err(host("listen to signals for", run));
        Ok(Self {
            term: listen(SignalKind::terminate())?,
            int: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// The next that means "end".
    async fn next(&mut self) {
        loop {
            tokio::select! {
                _ = self.term.recv() => return,
                _ = self.int.recv() => return,
                _ = self.hangup.recv() => tracing::info!(
                    "SIGHUP: nothing to do here; after an upgrade it is ploop-snapshotter that is told"
                ),
            }
        }
    }
}
