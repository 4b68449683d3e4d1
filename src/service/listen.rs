//! The sockets, and the orderly stop.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use containerd_snapshots::tonic::transport::Server;
use futures_util::Stream;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic_health::server::HealthReporter;

use super::node::NodeService;
use super::running::Running;
use super::snapshots::Service;
use super::{Acts, Error, Node, Observer, Options};
use crate::proto::v1::node_server::NodeServer;
use crate::socket::{self, Socket};

/// What clients of the health service may ask for, beside the whole.
const SERVICE: &str = "containerd.services.snapshots.v1.Snapshots";

/// A snapshotter, and where containerd finds it.
#[derive(Debug)]
pub struct Name<A> {
    /// Its name.
    pub name: String,
    /// Its socket.
    pub socket: PathBuf,
    /// What stands behind it.
    pub acts: Arc<A>,
}

/// The open doors.
#[derive(Debug)]
pub struct Doors {
    doors: Vec<Door>,
    stop: watch::Sender<bool>,
    running: Running,
    options: Options,
}

struct Door {
    name: String,
    socket: Socket,
    health: HealthReporter,
    task: JoinHandle<()>,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Door({} at {})", self.name, self.socket.path().display())
    }
}

impl Doors {
    /// Opens every door, or none. Each of them shows the whole `node` too.
    ///
    /// # Errors
    /// [`Error::Door`] if a socket cannot be had, for example because another process answers there.
    pub async fn open<A: Acts>(
        names: Vec<Name<A>>,
        node: Option<Node>,
        options: Options,
        observer: Observer,
    ) -> Result<Self, Error> {
        let mut bound = Vec::new();
        for name in names {
            let door = |source| Error::Door {
                name: name.name.clone(),
                source,
            };
            let (socket, listener) = Socket::bind(&name.socket).map_err(door)?;
            let listener = UnixListener::from_std(listener).map_err(|source| {
                door(socket::Error::Host {
                    act: "listen at",
                    path: name.socket.clone(),
                    source,
                })
            })?;
            bound.push((name, socket, listener));
        }
        let running = Running::new(observer);
        let (stop, stopping) = watch::channel(false);
        let mut doors = Vec::new();
        for (name, socket, listener) in bound {
            let service = Service::new(&name.name, name.acts, options, running.clone());
            let service = containerd_snapshots::server(Arc::new(service));
            let (mut health, health_service) = tonic_health::server::health_reporter();
            set_serving(&mut health, true).await;
            let node = node
                .clone()
                .map(|node| NodeServer::new(NodeService::new(node, options, running.clone())));
            let router = Server::builder()
                .add_service(health_service)
                .add_service(service)
                .add_optional_service(node);
            let who = name.name.clone();
            let mut stopping = stopping.clone();
            let task = tokio::spawn(async move {
                let signal = async move {
                    // An error means that the doors were dropped: a reason to stop as well.
                    let _ = stopping.wait_for(|stop| *stop).await;
                };
                let served = router.serve_with_incoming_shutdown(incoming(listener), signal);
                if let Err(error) = served.await {
                    tracing::error!(snapshotter = who, %error, "a door broke");
                }
            });
            tracing::info!(snapshotter = name.name, socket = %name.socket.display(), "open");
            doors.push(Door {
                name: name.name,
                socket,
                health,
                task,
            });
        }
        Ok(Self {
            doors,
            stop,
            running,
            options,
        })
    }

    /// Ends once any door has broken; never while all is well.
    pub async fn broken(&mut self) {
        if self.doors.is_empty() {
            return std::future::pending().await;
        }
        let tasks = self.doors.iter_mut().map(|door| &mut door.task);
        // Why it broke is in the log already.
        let _ = futures_util::future::select_all(tasks).await;
    }

    /// Closes in order: nothing new begins, what runs may end, within the limit; then the sockets go.
    ///
    /// Answers how many acts had to be left: the next start finishes or undoes them.
    pub async fn close(mut self) -> usize {
        let end = Instant::now() + self.options.stop_limit;
        let left = || end.saturating_duration_since(Instant::now());
        for door in &mut self.doors {
            set_serving(&mut door.health, false).await;
        }
        self.running.stop();
        let _ = self.stop.send(true);
        let acts = self.running.ended(left()).await;
        for door in &mut self.doors {
            // A client that does not read its answer must not hold us.
            if !door.task.is_finished()
                && tokio::time::timeout(left(), &mut door.task).await.is_err()
            {
                tracing::warn!(snapshotter = door.name, "a connection had to be cut");
                door.task.abort();
            }
        }
        if acts > 0 {
            tracing::warn!(acts, "stopping although some acts have not ended");
        }
        acts
    }
}

async fn set_serving(health: &mut HealthReporter, serving: bool) {
    use tonic_health::ServingStatus;
    let status = if serving {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    };
    health.set_service_status("", status).await;
    health.set_service_status(SERVICE, status).await;
}

/// Connections, for ever: an error of accepting one (no descriptor left, say) must not close the door.
fn incoming(listener: UnixListener) -> impl Stream<Item = std::io::Result<UnixStream>> {
    futures_util::stream::unfold(listener, |listener| async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some((Ok(stream), listener)),
                Err(error) => {
                    tracing::warn!(%error, "cannot take a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    })
}
