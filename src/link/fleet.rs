//! The servers that there are, and which of them take new disks: found at the start, raised, retired.
//!
//! The newest generation takes new disks. Where the program that would be started is another build than
//! the one that runs, a new generation is raised beside the old one, and the old one retires: it serves
//! what it has, ends when that is empty, and if it dies before, the new program takes its devices over
//! in the same seat. No container notices an upgrade, because none of its disks moves.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use tokio::task::JoinHandle;

use super::disk::Hello;
use super::disks::Client;
use super::error::{Error, Kind};
use super::places::Places;
use super::server::Server;
use super::servers::Options;
use super::supervise::{Monitor, ensure};
use crate::program::build_of;
use crate::seat::{Name, Seat};

/// How often somebody else's servers are looked for.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug)]
struct Member {
    server: Arc<Server>,
    monitor: JoinHandle<()>,
}

/// All servers.
#[derive(Debug)]
pub(super) struct Fleet {
    options: Options,
    pub(super) places: Arc<Places>,
    /// Held for a look-up or a change.
    members: Mutex<Vec<Member>>,
    /// One change of generations at a time; held across awaits, taken before `members`.
    change: tokio::sync::Mutex<()>,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // The servers themselves go on: they belong to their disks, not to us.
        self.leave_alone();
    }
}

impl Fleet {
    pub(super) fn new(options: Options) -> Self {
        Self {
            options,
            places: Arc::default(),
            members: Mutex::default(),
            change: tokio::sync::Mutex::default(),
        }
    }

    /// Every server, the oldest first.
    pub(super) fn all(&self) -> Vec<Arc<Server>> {
        let mut members = self.lock();
        members.retain(|member| !member.monitor.is_finished() || !member.server.retiring());
        let mut all: Vec<_> = members.iter().map(|m| Arc::clone(&m.server)).collect();
        all.sort_by_key(|server| server.name());
        all
    }

    /// The server of this name.
    pub(super) fn named(&self, name: Name) -> Option<Arc<Server>> {
        self.all().into_iter().find(|server| server.name() == name)
    }

    /// Those that take new disks, without those named in `but`.
    pub(super) fn takers(&self, but: &[Name]) -> Vec<Name> {
        let all = self.all().into_iter();
        let takers = all.filter(|server| server.takes() && !but.contains(&server.name()));
        takers.map(|server| server.name()).collect()
    }

    /// Nobody is looked after any more: what ends stays ended.
    pub(super) fn leave_alone(&self) {
        for member in self.lock().iter() {
            member.monitor.abort();
        }
    }

    /// Finds what runs, brings back what died with disks, and sees to it that there are enough.
    /// Answers whether there was nobody before, and who came is ours to send home.
    pub(super) async fn gather(&self) -> Result<bool, Error> {
        let _change = self.change.lock().await;
        let seats = self.seats()?;
        let mut left = Vec::new();
        for seat in seats {
            // A seat without a registry was left in order, or was never sat in.
            if !seat.registry().exists() && self.clear(&seat)? {
                continue;
            }
            left.push(seat);
        }
        let nobody = left.is_empty() && self.options.start.is_some();
        try_join_all(left.into_iter().map(|seat| self.bring(seat))).await?;
        if self.options.start.is_some() {
            self.renew_locked().await?;
        } else {
            self.wait_for_somebody().await?;
            self.retire_older(self.newest()).await;
        }
        Ok(nobody)
    }

    /// Raises a new generation if the program to start is another build than the one that runs, or if one
    /// that runs was told to end; where somebody else starts servers, looks for new ones of theirs.
    /// Answers how many servers retire.
    pub(super) async fn renew(&self) -> Result<usize, Error> {
        let _change = self.change.lock().await;
        if self.options.start.is_some() {
            self.renew_locked().await
        } else {
            self.find_new().await?;
            Ok(self.retire_older(self.newest()).await)
        }
    }

    /// Where somebody else starts the servers: says so if another `ploopd` is installed than the one that runs.
    pub(super) async fn compare(&self) {
        let newest = self.newest();
        let running = self.all().into_iter();
        let running: Vec<_> = running
            .filter(|server| server.name().generation == newest && server.takes())
            .collect();
        // In a container of its own it is not ours to see.
        if !self.options.installed.exists() {
            return;
        }
        if let Some(build) = self.installed().await
            && running
                .iter()
                .any(|server| server.state().hello.build != build)
        {
            tracing::warn!(
                installed = %build,
                "another ploopd is installed than the one that runs; `systemctl start ploopd@{}-{{1..{}}}` gives new \
                 disks to it, and the old ones end with their last",
                newest + 1, running.len()
            );
        }
    }

    async fn renew_locked(&self) -> Result<usize, Error> {
        let newest = self.newest();
        let mut generation = newest.max(1);
        let running = self.all().into_iter().filter(|server| {
            server.name().generation == newest && server.name() != Name::PLAIN && !server.retiring()
        });
        let running: Vec<_> = running.map(|server| server.state().hello).collect();
        if let Some(build) = self.installed().await
            && let Some(other) = running.iter().find(|hello| hello.build != build)
        {
            tracing::info!(
                runs = %other.build, installed = %build,
                "another ploopd is installed: new disks go to new servers, the old ones drain"
            );
            generation = newest + 1;
        } else if running.iter().any(|hello| hello.draining) {
            // Somebody told it to end, and its disks keep it: without others the node would take no new ones.
            tracing::info!(
                "a ploopd takes no new disks any more: they go to new servers beside it"
            );
            generation = newest + 1;
        }
        let wanted = u32::try_from(self.options.servers.max(1)).unwrap_or(u32::MAX);
        let missing = (1..=wanted)
            .map(|number| Name { generation, number })
            .filter(|name| self.named(*name).is_none())
            .map(|name| self.bring(Seat::new(&self.options.run, name)));
        if let Err(error) = try_join_all(missing).await {
            // The old ones go on as they were; what was raised in vain goes.
            if generation > newest && newest > 0 {
                self.retire(|name| name.generation == generation).await;
            }
            return Err(error);
        }
        let over = |name: Name| name.generation < generation || name.number > wanted;
        Ok(self.retire(over).await)
    }

    /// Takes a server into the fleet: the living one of a seat, or one that is started there.
    async fn bring(&self, seat: Seat) -> Result<(), Error> {
        let limits = self.options.limits;
        let client = Server::client(&seat, limits);
        let hello = ensure(&seat, &client, self.options.start.as_ref(), limits).await?;
        self.enlist(seat, client, hello).await
    }

    async fn enlist(&self, seat: Seat, client: Client, hello: Hello) -> Result<(), Error> {
        if !hello.survives_restart {
            tracing::warn!(
                server = %seat.name(), transport = %hello.transport,
                "disks do not outlive the disk server on this transport: containers lose theirs if it ends"
            );
        }
        let server = Arc::new(Server::new(seat, client, hello)?);
        for id in server.client.held().await? {
            self.places.note(&id, server.name());
        }
        let monitor = Monitor {
            server: Arc::clone(&server),
            how: self.options.start.clone(),
            limits: self.options.limits,
            places: Arc::clone(&self.places),
        };
        let monitor = tokio::spawn(monitor.run());
        self.lock().push(Member { server, monitor });
        Ok(())
    }

    /// Those of somebody else that came since.
    async fn find_new(&self) -> Result<(), Error> {
        for seat in self.seats()? {
            if self.named(seat.name()).is_some() {
                continue;
            }
            let client = Server::client(&seat, self.options.limits);
            match client.hello().await {
                Ok(hello) => self.enlist(seat, client, hello).await?,
                Err(error) if error.kind() == Kind::Unavailable => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn wait_for_somebody(&self) -> Result<(), Error> {
        let begun = Instant::now();
        loop {
            self.find_new().await?;
            if !self.all().is_empty() {
                return Ok(());
            }
            if begun.elapsed() > self.options.limits.start {
                return Err(Error::Unavailable {
                    socket: self.options.run.clone(),
                    reason: "`start = false` says that somebody else starts them: `systemctl start ploopd@1-{1..4}`, then \
                             see `journalctl -u 'ploopd@*'`"
                        .to_owned(),
                });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn newest(&self) -> u32 {
        let all = self.all();
        let staying = all.iter().filter(|server| !server.retiring());
        staying
            .map(|server| server.name().generation)
            .max()
            .unwrap_or(0)
    }

    async fn retire_older(&self, generation: u32) -> usize {
        self.retire(|name| name.generation < generation).await
    }

    /// Tells servers to take no new disks and to end with their last one.
    async fn retire(&self, which: impl Fn(Name) -> bool) -> usize {
        let mut retiring = 0;
        for server in self.all() {
            if !which(server.name()) {
                continue;
            }
            retiring += 1;
            let before = server.retiring();
            server.retire();
            match server.client.drain().await {
                Ok(disks) if !before => {
                    tracing::info!(server = %server.name(), disks, "retires: no new disks go there");
                }
                Ok(_) => {}
                // Its monitor tells it again when it is back.
                Err(error) => {
                    tracing::warn!(server = %server.name(), %error, "cannot tell it to retire")
                }
            }
        }
        retiring
    }

    /// The build that is installed. Without one, whatever runs goes on.
    async fn installed(&self) -> Option<String> {
        let binary = self.options.installed.clone();
        let asked = binary.clone();
        let found = tokio::task::spawn_blocking(move || build_of(&asked)).await;
        match found {
            Ok(Ok(build)) => Some(build),
            Ok(Err(error)) => {
                tracing::warn!(binary = %binary.display(), %error, "cannot read the disk server's program");
                None
            }
            Err(_) => None,
        }
    }

    fn seats(&self) -> Result<Vec<Seat>, Error> {
        let run = &self.options.run;
        Seat::all(run).map_err(|source| Error::Host {
            act: "look for disk servers in",
            path: run.clone(),
            source,
        })
    }

    /// Clears a seat; answers whether nobody sat there.
    fn clear(&self, seat: &Seat) -> Result<bool, Error> {
        seat.clear().map_err(|source| Error::Host {
            act: "clear the seat",
            path: seat.folder(),
            source,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
