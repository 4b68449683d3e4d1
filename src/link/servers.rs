//! All disk servers as one: a call goes where its disk is, a new disk where the fewest are.
//!
//! A server that is gone is started again by its monitor, and on a transport that survives restarts it
//! takes its devices over. So a call to one of its disks waits for it, for a bounded time; a new disk
//! goes to another server at once.

use std::fs::DirBuilder;
use std::future::Future;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::task::JoinHandle;

use super::disk::{Access, Delta, Detached, Disk, DiskStats, Hello};
use super::disks::{Client, Limits};
use super::error::{Error, Kind};
use super::fleet::Fleet;
use super::server::Server;
use super::start::StartOptions;
use crate::lock::{self, Answer, Failed, Lock};
use crate::seat::Name;

/// How often an absent server is tried again.
const AGAIN: Duration = Duration::from_millis(50);
/// How often servers are looked for that somebody else starts.
const ROUND: Duration = Duration::from_secs(10);
/// How long a lock may be held by somebody who is just ending.
const PATIENCE: Duration = Duration::from_secs(2);

/// Which servers, and what to do if there are none.
#[derive(Clone, Debug)]
pub struct Options {
    /// The run directory, which holds their seats.
    pub run: PathBuf,
    /// How many take new disks, where we start them.
    pub servers: usize,
    /// The `ploopd` that is installed: those that run may be of another build.
    pub installed: PathBuf,
    /// How to start one; `None` where somebody else does, such as systemd.
    pub start: Option<StartOptions>,
    /// Time limits of calls.
    pub limits: Limits,
}

/// One server, as people may see it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its generation and number.
    pub name: Name,
    /// What it said of itself last.
    pub hello: Hello,
    /// Did it give its last sign of life in time?
    pub alive: bool,
    /// Counts its processes since we look after it, the first one included.
    pub starts: u64,
    /// Does it end with its last disk?
    pub retiring: bool,
}

/// The disk servers of this node.
#[derive(Debug)]
pub struct Servers {
    fleet: Arc<Fleet>,
    /// Looks for servers that somebody else starts.
    scout: Option<JoinHandle<()>>,
    limits: Limits,
    started: bool,
    /// Two who look after the same servers would start each twice. Held as long as we live.
    _lock: Lock,
}

impl Drop for Servers {
    fn drop(&mut self) {
        // The fleet goes with us, and its servers stay.
        if let Some(scout) = &self.scout {
            scout.abort();
        }
    }
}

impl Servers {
    /// Finds the servers that run, and starts those that are missing; from then on they are kept running.
    ///
    /// # Errors
    /// If there are none and none can be started, if one hangs, if one speaks another protocol, or if
    /// another process looks after them.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let lock = claim(&options.run).await?;
        let limits = options.limits;
        let others = options.start.is_none();
        let fleet = Arc::new(Fleet::new(options));
        let started = fleet.gather().await?;
        Ok(Self {
            scout: others.then(|| tokio::spawn(scout(Arc::clone(&fleet)))),
            fleet,
            limits,
            started,
            _lock: lock,
        })
    }

    /// Looks whether another `ploopd` is installed than the one that runs; if so, new servers take the
    /// new disks, and the old ones end with their last. Where somebody else starts them, it is only said. Answers how
    /// many retire.
    ///
    /// # Errors
    /// If new servers cannot be started; the old ones go on then.
    pub async fn renew(&self) -> Result<usize, Error> {
        let retiring = self.fleet.renew().await?;
        if self.scout.is_some() {
            self.fleet.compare().await;
        }
        Ok(retiring)
    }

    /// Serves a chain as a block device. Attaching what is attached alike answers the same device.
    ///
    /// # Errors
    /// See [`Kind`].
    pub async fn attach(&self, id: &str, deltas: &[Delta], access: Access) -> Result<Disk, Error> {
        let deadline = self.deadline();
        let places = &self.fleet.places;
        let mut refused = Vec::new();
        let mut last = None;
        loop {
            let takers = self.fleet.takers(&refused);
            let Some((name, new)) = places.of_or_new(id, &takers) else {
                if Instant::now() >= deadline {
                    return Err(last.unwrap_or_else(|| self.none_takes()));
                }
                // All of them at once are gone, or end: what comes back may be asked again.
                refused.clear();
                tokio::time::sleep(AGAIN).await;
                continue;
            };
            let Some(server) = self.fleet.named(name) else {
                places.forget(id, name);
                continue;
            };
            let limit = if new { Instant::now() } else { deadline };
            let ask = |client: Client| async move { client.attach(id, deltas, access).await };
            let error = match self.ask(&server, limit, ask).await {
                Ok(disk) => {
                    places.note(id, name);
                    return Ok(disk);
                }
                Err(error) => error,
            };
            match &error {
                // Nothing was sent, or the server takes no new disks, and this is none that it has.
                Error::Unavailable { .. } if new => {}
                Error::Refused {
                    kind: Kind::Unavailable,
                    ..
                } => server.refuses_new(),
                // Perhaps it did it before it went; if so, it has it again when it is back.
                Error::Broken { .. } if Instant::now() < deadline => {
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
                Error::Refused { .. } if new => {
                    places.forget(id, name);
                    return Err(error);
                }
                _ => return Err(error),
            }
            places.forget(id, name);
            if Instant::now() >= deadline {
                return Err(error);
            }
            refused.push(name);
            last = Some(error);
        }
    }

    /// Stops serving a disk; with `seal`, its top becomes a sealed delta.
    ///
    /// # Errors
    /// See [`Kind`]; `Busy` while somebody holds the device open.
    pub async fn detach(&self, id: &str, seal: bool) -> Result<Detached, Error> {
        let Some(server) = self.server_of(id) else {
            return self.detached_before(id, seal).await;
        };
        let ask = |client: Client| async move { client.detach(id, seal).await };
        let detached = self.ask(&server, self.deadline(), ask).await?;
        self.fleet.places.forget(id, server.name());
        Ok(detached)
    }

    /// For a disk that is nowhere: perhaps a server sealed it, and its answer was lost.
    async fn detached_before(&self, id: &str, seal: bool) -> Result<Detached, Error> {
        let nothing = Detached {
            existed: false,
            seal: None,
        };
        if !seal {
            return Ok(nothing);
        }
        for server in self.fleet.all() {
            let ask = |client: Client| async move { client.detach(id, seal).await };
            let found = self.ask(&server, self.deadline(), ask).await?;
            if found != nothing {
                return Ok(found);
            }
        }
        Ok(nothing)
    }

    /// Makes a writable disk and its device larger while it is served. May be repeated.
    ///
    /// # Errors
    /// See [`Kind`]; `Other` from a server that is older than this call.
    pub async fn grow(&self, id: &str, size: u64) -> Result<Disk, Error> {
        let server = self.server_of(id).ok_or_else(|| not_served("Grow", id))?;
        let ask = |client: Client| async move { client.grow(id, size).await };
        self.ask(&server, self.deadline(), ask).await
    }

    /// Makes everything that the disk completed survive the power.
    ///
    /// # Errors
    /// See [`Kind`].
    pub async fn sync(&self, id: &str) -> Result<(), Error> {
        let server = self.server_of(id).ok_or_else(|| not_served("Sync", id))?;
        let ask = |client: Client| async move { client.sync(id).await };
        self.ask(&server, self.deadline(), ask).await
    }

    /// Every disk that is served.
    ///
    /// # Errors
    /// See [`Kind`]; an answer without one server's disks would be a lie.
    pub async fn list(&self) -> Result<Vec<Disk>, Error> {
        let deadline = self.deadline();
        let servers = self.fleet.all();
        let lists = servers.iter().map(|server| async move {
            let ask = |client: Client| async move { client.list(None).await };
            match self.ask(server, deadline, ask).await {
                // It has ended, with nothing.
                Err(_) if self.fleet.named(server.name()).is_none() => Ok(Vec::new()),
                answer => answer,
            }
        });
        let mut disks = Vec::new();
        for list in join_all(lists).await {
            disks.extend(list?);
        }
        Ok(disks)
    }

    /// The disks of those servers that answer at once: for who only looks, and wants the rest whatever one server does.
    pub async fn glance(&self) -> Vec<Disk> {
        let servers = self.fleet.all();
        let answers = join_all(servers.iter().map(|server| server.client.glance())).await;
        let answers = answers.into_iter().zip(&servers);
        answers
            .filter_map(|(answer, server)| {
                let missing = |error: &Error| {
                    tracing::warn!(server = %server.name(), %error, "which disks it serves is not known");
                };
                answer.inspect_err(missing).ok()
            })
            .flatten()
            .collect()
    }

    /// A disk, if it is served.
    ///
    /// # Errors
    /// See [`Kind`].
    pub async fn find(&self, id: &str) -> Result<Option<Disk>, Error> {
        let Some(server) = self.server_of(id) else {
            return Ok(None);
        };
        let ask = |client: Client| async move { client.list(Some(id)).await };
        Ok(self.ask(&server, self.deadline(), ask).await?.pop())
    }

    /// Counters of one disk, or of all whose servers answer.
    ///
    /// # Errors
    /// See [`Kind`]; for all, only if no server answers.
    pub async fn stats(&self, id: Option<&str>) -> Result<Vec<DiskStats>, Error> {
        if let Some(id) = id {
            let server = self.server_of(id).ok_or_else(|| not_served("Stats", id))?;
            return server.client.stats(Some(id)).await;
        }
        let servers = self.fleet.all();
        let answers = join_all(servers.iter().map(|server| async move {
            let answer = server.client.stats(None).await;
            answer.inspect_err(|_| server.trouble.notify_one())
        }))
        .await;
        let mut disks = Vec::new();
        let mut last = None;
        let mut answered = false;
        for answer in answers {
            match answer {
                Ok(some) => {
                    answered = true;
                    disks.extend(some);
                }
                Err(error) => last = Some(error),
            }
        }
        match last {
            Some(error) if !answered => Err(error),
            Some(error) => {
                tracing::warn!(%error, "one server's counters are missing");
                Ok(disks)
            }
            None => Ok(disks),
        }
    }

    /// Asks all to take no new disk and to end with their last one; answers how many disks there are.
    ///
    /// From then on nobody looks after them: a monitor that goes on would see an end as a death, and
    /// start another one.
    ///
    /// # Errors
    /// See [`Kind`]; all are asked, whatever one answers.
    pub async fn drain(&self) -> Result<u64, Error> {
        if let Some(scout) = &self.scout {
            scout.abort();
        }
        self.fleet.leave_alone();
        let servers = self.fleet.all();
        let mut disks = 0;
        for answer in join_all(servers.iter().map(|server| server.client.drain())).await {
            disks += answer?;
        }
        Ok(disks)
    }

    /// Every server, the oldest first.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        let all = self.fleet.all().into_iter();
        all.map(|server| {
            let state = server.state();
            Seen {
                name: server.name(),
                hello: state.hello,
                alive: state.alive,
                starts: state.starts,
                retiring: server.retiring(),
            }
        })
        .collect()
    }

    /// Do we start them? Otherwise it is not for us to send them home.
    #[must_use]
    pub fn are_ours(&self) -> bool {
        self.scout.is_none()
    }

    /// Was there none before us? Then whoever cannot go on after all may send them home again.
    #[must_use]
    pub fn started(&self) -> bool {
        self.started
    }

    fn server_of(&self, id: &str) -> Option<Arc<Server>> {
        let name = self.fleet.places.of(id)?;
        self.fleet.named(name)
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.limits.absent
    }

    fn none_takes(&self) -> Error {
        let absent = self.limits.absent;
        let logs = match self.scout {
            None => "ploopd-*.log in run_dir",
            Some(_) => "`journalctl -u 'ploopd@*'` where systemd starts them",
        };
        Error::NoneTakes {
            reason: format!("none was back within {absent:?}; see their logs, {logs}"),
        }
    }

    /// Asks a server, again and again while nobody answers. Every call may be repeated.
    async fn ask<T, F: Future<Output = Result<T, Error>>>(
        &self,
        server: &Server,
        deadline: Instant,
        call: impl Fn(Client) -> F,
    ) -> Result<T, Error> {
        loop {
            let answer = call(server.client.clone()).await;
            match &answer {
                Err(Error::Unavailable { .. } | Error::Broken { .. }) => server.gone(),
                Err(error) if error.kind() == Kind::Timeout => {
                    server.trouble.notify_one();
                    return answer;
                }
                _ => return answer,
            }
            let over = self.fleet.named(server.name()).is_none();
            if over || Instant::now() >= deadline {
                return answer;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Sees servers that somebody else started since, and lets a new generation of them take over.
async fn scout(fleet: Arc<Fleet>) {
    // Here, because nobody's start should wait until all of a program is read.
    fleet.compare().await;
    loop {
        tokio::time::sleep(ROUND).await;
        if let Err(error) = fleet.renew().await {
            tracing::warn!(%error, "cannot look for new disk servers");
        }
    }
}

fn not_served(call: &'static str, id: &str) -> Error {
    Error::Refused {
        call,
        kind: Kind::NotFound,
        message: format!("no disk {id} is attached"),
    }
}

/// The run directory's servers are looked after by whoever holds this lock.
async fn claim(run: &Path) -> Result<Lock, Error> {
    let path = run.join("servers.lock");
    let failed = |act| {
        let path = path.clone();
        move |source| Error::Host { act, path, source }
    };
    let folder = DirBuilder::new().recursive(true).mode(0o700).create(run);
    folder.map_err(failed("make the folder of"))?;
    let begun = Instant::now();
    loop {
        // Who had it before may hang in a call to a device that waits for the very server we are to start.
        match lock::take_from_killed(&path) {
            Ok(Answer::Ours(lock)) => return Ok(lock),
            Ok(Answer::Theirs(_)) if begun.elapsed() < PATIENCE => {
                tokio::time::sleep(AGAIN).await;
            }
            Ok(Answer::Theirs(holder)) => {
                let (run, who) = (run.to_owned(), holder.to_string());
                return Err(Error::Taken { run, who });
            }
            Err(Failed { act, source }) => return Err(failed(act)(source)),
        }
    }
}
