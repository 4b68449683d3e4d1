//! Looks after one server's process: adopts a living one, starts one where nobody answers, again when
//! it dies, and lets it go when it retires.
//!
//! A server that hangs is reported and left alone: killing it would take every disk from its
//! containers, or stop them for as long as the next one takes to come.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::unix::AsyncFd;

use super::disk::Hello;
use super::disks::{Client, Limits};
use super::error::{Error, Kind};
use super::log;
use super::places::Places;
use super::server::Server;
use super::start::{self, StartOptions};
use crate::seat::Seat;

/// How often a server is asked for a sign of life, beside watching its process.
const ROUND: Duration = Duration::from_secs(10);
/// The first pause after a failed start; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between two starts.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The longest pause between two looks for a server that somebody else starts.
const LONGEST_LOOK: Duration = Duration::from_secs(1);
/// A server that ends within this time of its first word did not end by chance.
const SHORT_LIFE: Duration = Duration::from_secs(1);
/// How long one that ended in order, having nothing to serve, is waited for where somebody else starts servers: after
/// that it was taken away, not restarted.
const RESTART: Duration = Duration::from_secs(2);
/// How often a server that ends is looked for.
const AGAIN: Duration = Duration::from_millis(20);

/// The server of a seat: the living one, or one that is started now.
///
/// # Errors
/// If none can be had, or it hangs.
pub(super) async fn ensure(
    seat: &Seat,
    client: &Client,
    how: Option<&StartOptions>,
    limits: Limits,
) -> Result<Hello, Error> {
    match client.hello().await {
        Ok(hello) => {
            let (pid, version) = (hello.pid, &hello.version);
            tracing::info!(server = %seat.name(), pid, %version, "adopting the disk server that runs");
            Ok(hello)
        }
        Err(error) if error.kind() == Kind::Unavailable => match how {
            Some(how) => match start::start(how, seat, client, limits.start).await {
                // Perhaps because another one is just coming up in this seat.
                Err(error @ Error::Start { .. }) => client.hello().await.map_err(|_| error),
                answer => answer,
            },
            None => wait_for_one(client, limits.start).await,
        },
        Err(error) => Err(error),
    }
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

/// The one task that looks after a server.
pub(super) struct Monitor {
    pub(super) server: Arc<Server>,
    pub(super) how: Option<StartOptions>,
    pub(super) limits: Limits,
    pub(super) places: Arc<Places>,
}

/// How long the processes of a server live: one that answers and dies at once, again and again (a request that the
/// kernel gives to each of them kills it), is started again ever later.
#[derive(Debug, Default)]
struct Lives {
    begun: Option<Instant>,
    pause: Duration,
}

impl Lives {
    /// There is a new one.
    fn begin(&mut self) {
        self.begun = Some(Instant::now());
    }

    /// It is dead: how long to wait for the next.
    fn pause(&mut self) -> Duration {
        self.pause = match self.begun {
            Some(begun) if begun.elapsed() < SHORT_LIFE => {
                (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE)
            }
            _ => Duration::ZERO,
        };
        self.pause
    }
}

impl Monitor {
    /// Until the server has retired.
    pub(super) async fn run(self) {
        let mut lives = Lives::default();
        loop {
            let server = &self.server;
            let pid = server.pid();
            self.wait_for_trouble(pid).await;
            log::keep_short(server.seat.log()).await;
            match server.client.hello().await {
                Ok(hello) => self.adopt(hello).await,
                Err(error) if error.kind() == Kind::Unavailable => {
                    if self.over().await {
                        return;
                    }
                    server.set_alive(false);
                    tracing::error!(server = %server.name(), pid, %error, "the disk server is gone");
                    tokio::time::sleep(lives.pause()).await;
                    if !self.bring_back().await {
                        return;
                    }
                    lives.begin();
                }
                Err(error) => {
                    server.set_alive(false);
                    tracing::error!(
                        server = %server.name(), pid, %error, "the disk server does not answer as it should"
                    );
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
                // In another pid namespace, or dead before we could look: whoever waits for its disks
                // cannot wait for the next round.
                None if self.server.client.hello().await.is_err() => {}
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            () = ended => {}
            () = self.server.trouble.notified() => {}
            () = tokio::time::sleep(ROUND) => {}
        }
    }

    /// Did it end as it was asked to, with nothing left to take over? Then its seat is cleared.
    async fn over(&self) -> bool {
        let seat = &self.server.seat;
        if !self.server.retiring() || seat.registry().exists() {
            return false;
        }
        tracing::info!(server = %seat.name(), "a disk server has given away its last disk and ended");
        self.server.set_alive(false);
        self.places.forget_all(seat.name());
        let begun = Instant::now();
        loop {
            let done = seat.clear();
            match done {
                Ok(true) => break,
                Ok(false) if begun.elapsed() < self.limits.start => tokio::time::sleep(AGAIN).await,
                Ok(false) => {
                    tracing::warn!(server = %seat.name(), "it answers nobody and does not go");
                    break;
                }
                Err(error) => {
                    tracing::warn!(folder = %seat.folder().display(), %error, "cannot clear a seat");
                    break;
                }
            }
        }
        log::keep_last_words(seat.log()).await;
        true
    }

    /// Did whoever starts the servers end it, when it had nothing to serve?
    fn taken_away(&self) -> bool {
        self.how.is_none() && !self.server.seat.registry().exists()
    }

    /// Answers whether there is a server again; if not, it is over.
    async fn bring_back(&self) -> bool {
        let (server, client) = (&self.server, &self.server.client);
        let begun = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let found = match &self.how {
                Some(how) => match client.hello().await {
                    // Somebody was faster, or it was only the connection.
                    Ok(hello) => Ok(hello),
                    Err(_) => start::start(how, &server.seat, client, self.limits.start).await,
                },
                None => client.hello().await,
            };
            match found {
                Ok(hello) => {
                    self.adopt(hello).await;
                    return true;
                }
                Err(_) if self.over().await => return false,
                Err(_) if self.taken_away() => {
                    if begun.elapsed() > RESTART {
                        server.retire();
                    }
                }
                Err(error) => {
                    tracing::error!(
                        server = %server.name(), %error, next_try_in = ?pause, "still no disk server"
                    );
                }
            }
            tokio::time::sleep(pause).await;
            let longest = match &self.how {
                Some(_) => LONGEST_PAUSE,
                None => LONGEST_LOOK,
            };
            pause = (pause * 2).min(longest);
        }
    }

    async fn adopt(&self, hello: Hello) {
        let server = &self.server;
        match server.heard(hello) {
            Ok(false) => {}
            Ok(true) => {
                let (pid, starts) = (server.pid(), server.state().starts);
                tracing::warn!(server = %server.name(), pid, starts, "a disk server answers again");
                // What it took over is there; what it did not may be asked for there once more.
                match server.client.held().await {
                    Ok(disks) => {
                        for id in disks {
                            self.places.note(&id, server.name());
                        }
                    }
                    Err(error) => {
                        tracing::warn!(server = %server.name(), %error, "cannot hear what it serves");
                    }
                }
            }
            Err(error) => {
                tracing::error!(%error, "another disk server answers, and it is not ours to use");
                return;
            }
        }
        if server.retiring()
            && !server.state().hello.draining
            && let Err(error) = server.client.drain().await
        {
            tracing::warn!(server = %server.name(), %error, "cannot tell it to take no new disks");
        }
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Lives, SHORT_LIFE};

    #[test]
    fn only_who_dies_at_once_again_and_again_is_waited_with() {
        let mut lives = Lives::default();
        assert_eq!(lives.pause(), Duration::ZERO, "that was not ours");
        for expected in [100, 200, 400] {
            lives.begin();
            assert_eq!(lives.pause(), Duration::from_millis(expected));
        }
        lives.begun = Instant::now().checked_sub(SHORT_LIFE);
        assert_eq!(lives.pause(), Duration::ZERO);
        lives.begin();
        assert_eq!(lives.pause(), Duration::from_millis(100));
    }
}
