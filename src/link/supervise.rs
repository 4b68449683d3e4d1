//! Adopts a living disk server, starts one where nobody answers, and again when it dies.
//!
//! Calls never wait for a start: while no server answers they fail at once with
//! [`Kind::Unavailable`], and one task alone (the monitor) looks after the process. A server that
//! hangs is reported and left alone: killing it would take every disk from its containers.

use std::future::Future;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::disk::{Delta, Detached, Disk, DiskStats, Hello};
use super::disks::{Client, Limits};
use super::error::{Error, Kind};
use super::start::{self, StartOptions};
use crate::proto::PROTOCOL;

/// How often a server is asked for a sign of life, beside watching its process.
const ROUND: Duration = Duration::from_secs(10);
/// The first pause after a failed start; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between two starts.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Which server, and what to do if there is none.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens.
    pub socket: PathBuf,
    /// How to start one; `None` where somebody else does, such as systemd.
    pub start: Option<StartOptions>,
    /// Time limits of calls.
    pub limits: Limits,
}

#[derive(Clone, Debug)]
struct State {
    hello: Hello,
    /// Counts the processes seen, the first one included.
    generation: u64,
    alive: bool,
}

/// The disk servers of this node; today there is one.
#[derive(Debug)]
pub struct Servers {
    client: Client,
    state: watch::Receiver<State>,
    generation: watch::Receiver<u64>,
    trouble: Arc<Notify>,
    started: bool,
    monitor: JoinHandle<()>,
}

impl Drop for Servers {
    fn drop(&mut self) {
        // The server itself goes on: it belongs to its disks, not to us.
        self.monitor.abort();
    }
}

impl Servers {
    /// Finds the server that runs, or starts one; from then on one is kept running.
    ///
    /// # Errors
    /// If there is none and none can be started, if it hangs, or if it speaks another protocol.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let client = Client::new(&options.socket, options.limits);
        let mut started = false;
        let hello = match client.hello().await {
            Ok(hello) => {
                let pid = hello.pid;
                tracing::info!(pid, version = %hello.version, "adopting the disk server that runs");
                hello
            }
            Err(error) if error.kind() == Kind::Unavailable => match &options.start {
                Some(how) => {
                    started = true;
                    start::start(how, &client, options.limits.start).await?
                }
                None => wait_for_one(&client, options.limits.start).await?,
            },
            Err(error) => return Err(error),
        };
        check_protocol(&options, &hello)?;
        if !hello.survives_restart {
            tracing::warn!(
                transport = %hello.transport,
                "disks do not outlive the disk server on this transport: containers lose theirs if it ends"
            );
        }
        let (state_out, state) = watch::channel(State {
            hello,
            generation: 1,
            alive: true,
        });
        let (generation_out, generation) = watch::channel(1);
        let trouble = Arc::new(Notify::new());
        let monitor = Monitor {
            client: client.clone(),
            options,
            state: state_out,
            generation: generation_out,
            trouble: Arc::clone(&trouble),
        };
        Ok(Self {
            client,
            state,
            generation,
            trouble,
            started,
            monitor: tokio::spawn(monitor.run()),
        })
    }

    /// Serves a chain as a block device. Attaching what is attached alike answers the same device.
    ///
    /// # Errors
    /// See [`Kind`].
    pub async fn attach(&self, id: &str, deltas: &[Delta], read_only: bool) -> Result<Disk, Error> {
        self.watched(self.client.attach(id, deltas, read_only))
            .await
    }

    /// Stops serving a disk; with `seal`, its top becomes a sealed delta.
    ///
    /// # Errors
    /// See [`Kind`]; `Busy` while somebody holds the device open.
    pub async fn detach(&self, id: &str, seal: bool) -> Result<Detached, Error> {
        self.watched(self.client.detach(id, seal)).await
    }

    /// Makes everything that the disk completed survive the power.
    ///
    /// # Errors
    /// See [`Kind`].
    pub async fn sync(&self, id: &str) -> Result<(), Error> {
        self.watched(self.client.sync(id)).await
    }

    /// Every disk that is served.
    ///
    /// # Errors
    /// See [`Kind`].
    pub async fn list(&self) -> Result<Vec<Disk>, Error> {
        self.watched(self.client.list()).await
    }

    /// Counters of one disk, or of all.
    ///
    /// # Errors
    /// See [`Kind`].
    pub async fn stats(&self, id: Option<&str>) -> Result<Vec<DiskStats>, Error> {
        self.watched(self.client.stats(id)).await
    }

    /// Asks the server to take no new disk and to end with its last one; answers how many it has.
    ///
    /// From then on nobody looks after it: a monitor that goes on would see its end as a death, and
    /// start another one.
    ///
    /// # Errors
    /// See [`Kind`].
    pub async fn drain(&self) -> Result<u64, Error> {
        self.monitor.abort();
        self.watched(self.client.drain()).await
    }

    /// Who answered last.
    #[must_use]
    pub fn hello(&self) -> Hello {
        self.state.borrow().hello.clone()
    }

    /// Was there none before us? Then whoever cannot go on after all may send it home again.
    #[must_use]
    pub fn started(&self) -> bool {
        self.started
    }

    /// Did the server give its last sign of life in time?
    #[must_use]
    pub fn alive(&self) -> bool {
        self.state.borrow().alive
    }

    /// Counts server processes, from 1 on. A change says that a new one answers; unless its transport
    /// survives restarts, it serves none of the disks of the one before.
    #[must_use]
    pub fn generations(&self) -> watch::Receiver<u64> {
        self.generation.clone()
    }

    /// Runs a call; if nobody answered, the monitor looks at once.
    async fn watched<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let answer = call.await;
        if let Err(error) = &answer
            && matches!(error.kind(), Kind::Unavailable | Kind::Timeout)
        {
            self.trouble.notify_one();
        }
        answer
    }
}

fn check_protocol(options: &Options, hello: &Hello) -> Result<(), Error> {
    if hello.protocol == PROTOCOL {
        return Ok(());
    }
    Err(Error::Protocol {
        socket: options.socket.clone(),
        pid: hello.pid,
        version: hello.version.clone(),
        theirs: hello.protocol,
        ours: PROTOCOL,
    })
}

/// Somebody else starts the server, perhaps at this moment.
async fn wait_for_one(client: &Client, limit: Duration) -> Result<Hello, Error> {
    let begun = Instant::now();
    loop {
        match client.hello().await {
            Err(error) if error.kind() == Kind::Unavailable && begun.elapsed() < limit => {
                tokio::time::sleep(FIRST_PAUSE).await;
            }
            answer => return answer,
        }
    }
}

/// The one task that looks after the server's process.
struct Monitor {
    client: Client,
    options: Options,
    state: watch::Sender<State>,
    generation: watch::Sender<u64>,
    trouble: Arc<Notify>,
}

impl Monitor {
    async fn run(self) {
        loop {
            let pid = self.state.borrow().hello.pid;
            self.wait_for_trouble(pid).await;
            match self.client.hello().await {
                Ok(hello) if hello.pid == pid => self.set_alive(true),
                Ok(hello) => self.adopt(hello),
                Err(error) if error.kind() == Kind::Unavailable => {
                    self.set_alive(false);
                    tracing::error!(pid, %error, "the disk server is gone");
                    self.bring_back().await;
                }
                Err(error) => {
                    self.set_alive(false);
                    tracing::error!(pid, %error, "the disk server does not answer as it should");
                }
            }
        }
    }

    /// Until the process ends, a call finds nobody, or a round is over.
    async fn wait_for_trouble(&self, pid: u32) {
        let ended = async {
            match watch_process(pid) {
                // An error here means that the descriptor cannot be waited for: the rounds remain.
                Some(process) if process.readable().await.is_ok() => {}
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            () = ended => {}
            () = self.trouble.notified() => {}
            () = tokio::time::sleep(ROUND) => {}
        }
    }

    async fn bring_back(&self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let found = match &self.options.start {
                Some(how) => match self.client.hello().await {
                    // Somebody was faster, or it was only the connection.
                    Ok(hello) => Ok(hello),
                    Err(_) => start::start(how, &self.client, self.options.limits.start).await,
                },
                None => self.client.hello().await,
            };
            match found.and_then(|hello| check_protocol(&self.options, &hello).map(|()| hello)) {
                Ok(hello) => return self.adopt(hello),
                Err(error) => {
                    tracing::error!(%error, next_try_in = ?pause, "still no disk server");
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(if self.options.start.is_some() {
                LONGEST_PAUSE
            } else {
                Duration::from_secs(1)
            });
        }
    }

    fn adopt(&self, hello: Hello) {
        if let Err(error) = check_protocol(&self.options, &hello) {
            self.set_alive(false);
            tracing::error!(%error, "another disk server answers, and it is not ours to use");
            return;
        }
        let mut generation = 0;
        self.state.send_modify(|state| {
            if state.hello.pid != hello.pid {
                state.generation += 1;
            }
            generation = state.generation;
            state.alive = true;
            state.hello = hello;
        });
        let pid = self.state.borrow().hello.pid;
        tracing::warn!(pid, generation, "a disk server answers again");
        self.generation.send_if_modified(|known| {
            let changed = *known != generation;
            *known = generation;
            changed
        });
    }

    fn set_alive(&self, alive: bool) {
        self.state.send_if_modified(|state| {
            let changed = state.alive != alive;
            state.alive = alive;
            changed
        });
    }
}

/// A descriptor that becomes readable when the process ends; `None` if there is no such process here,
/// for example because the server lives in another pid namespace.
fn watch_process(pid: u32) -> Option<AsyncFd<OwnedFd>> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    let process = pidfd_open(pid, PidfdFlags::NONBLOCK).ok()?;
    #[expect(
        deprecated,
        reason = "its successor is unsafe; an owned descriptor that nobody replaces is sound here"
    )]
    AsyncFd::with_interest(process, tokio::io::Interest::READABLE).ok()
}
