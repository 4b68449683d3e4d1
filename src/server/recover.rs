//! After another server of this run folder: take its devices over, and say what became of the rest.
//!
//! A ublk device outlives its server: the kernel holds its requests, and gives them, those under way
//! too, to whoever takes it over. On the FUSE transport a device dies with its server: it is freed, and
//! the control side attaches the disk again where nobody holds the dead one. What was answered is not
//! lost on either: it is in the deltas and in their pending files, which the engine replays when the
//! same delta is opened again.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::Semaphore;

use super::aliases::Aliases;
use super::error::Error;
use super::registry::{Account, Served, read_account};
use super::serve::{Server, blocking};
use super::status::is_passing;
use super::wanted::Wanted;
use crate::causes::in_full;
use crate::device::Leftovers;
use crate::disk::DiskHandle;
use crate::failpoint::pass;

/// How long a dead server's process may hold its files locked.
const RELEASE: Duration = Duration::from_secs(60);
/// How often they are tried.
const PAUSE: Duration = Duration::from_millis(10);
/// Disks that are taken over at once. The kernel frees a dead server's devices all together, so more
/// would only ask it more often.
const AT_ONCE: usize = 8;
/// Descriptors that no take-over may use. Without one for its door a server could be asked for nothing, and would end.
const ROOM: usize = 16;
/// How long those wait for which something is missing, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Says in the log what an earlier server left.
pub(super) fn tell(account: Option<&Account>, found: &Leftovers, outlived: bool) {
    if let Some(account) = account.filter(|account| !account.disks.is_empty() && !outlived) {
        let disks: Vec<_> = account.disks.iter().map(|disk| disk.id.as_str()).collect();
        tracing::warn!(
            pid = account.pid, disks = ?disks,
            "the server before ended while it served disks: they are gone until they are attached again"
        );
    }
    if found.is_empty() {
        return;
    }
    tracing::warn!(
        freed = ?found.freed, mounts = found.mounts,
        "cleaned up what an earlier server left in the kernel"
    );
    if !found.held.is_empty() {
        tracing::error!(
            devices = ?found.held,
            "somebody still has these dead devices open or mounted: all they get is I/O errors; the kernel \
             frees a device when it is closed. Restart the containers on them"
        );
    }
}

/// What an earlier server wrote down about itself.
///
/// # Errors
/// See [`read_account`].
pub(super) fn before(registry: &Path) -> Result<Option<Account>, Error> {
    read_account(registry)
}

/// The ublk devices that an account names.
pub(super) fn devices_of(account: Option<&Account>) -> Vec<u32> {
    account.map_or_else(Vec::new, |account| {
        account
            .disks
            .iter()
            .filter_map(|disk| disk.number)
            .collect()
    })
}

/// A disk whose device waits for this server.
pub(super) type Waiting = (Wanted, u32);

/// Takes over every device of an account. Whoever waits for one hears from it when this returns, but for the disks that
/// are answered: those lack something that there may be again.
pub(super) async fn take_over(server: &Server, account: &Account) -> Vec<Waiting> {
    let begun = Instant::now();
    let mut disks: Vec<Waiting> = account
        .disks
        .iter()
        .filter_map(|disk| Some((disk.wanted(), disk.number?)))
        .collect();
    give_up_shared(server, &mut disks).await;
    if disks.is_empty() {
        return Vec::new();
    }
    for (wanted, number) in &disks {
        server.registry.expect(wanted, *number);
    }
    let all = disks.len();
    let room = keep_room();
    let few = Semaphore::new(AT_ONCE);
    let few = &few;
    let answers = join_all(disks.into_iter().map(|(wanted, number)| async move {
        // Never closed, so never refused.
        let _permit = few.acquire().await;
        let outcome = server.take_over(&wanted, number).await;
        ((wanted, number), outcome)
    }));
    let answers = answers.await;
    drop(room);
    let taken = answers
        .iter()
        .filter(|(_, outcome)| outcome.is_ok())
        .count();
    server.write_account().await;
    tracing::info!(taken, all, took = ?begun.elapsed(), "took over the devices of the server before");
    let passing = |outcome: &Result<(), Error>| outcome.as_ref().is_err_and(is_passing);
    let waiting = answers.into_iter().filter(|(_, outcome)| passing(outcome));
    let waiting: Vec<_> = waiting.map(|(disk, _)| disk).collect();
    if !waiting.is_empty() {
        tracing::error!(
            disks = waiting.len(),
            "disks of the server before wait for want of descriptors, memory or space, and whoever uses them waits \
             with them: raise LimitNOFILE of this ploopd (`prlimit` does it while it runs), give the node memory, make \
             room; they are tried again until then"
        );
    }
    waiting
}

/// Descriptors that are free again when this is dropped.
fn keep_room() -> Vec<File> {
    let some = || File::open("/dev/null").ok();
    (0..ROOM).map_while(|_| some()).collect()
}

/// Takes over what could not be taken over at the start: one at a time, again and again, until none is left.
pub(super) async fn go_on(server: Arc<Server>, waiting: Vec<Waiting>) {
    let all = waiting.len();
    let mut waiting = VecDeque::from(waiting);
    let mut pause = FIRST_PAUSE;
    while let Some((wanted, number)) = waiting.pop_front() {
        tokio::time::sleep(pause).await;
        let room = keep_room();
        let outcome = if room.len() < ROOM {
            Err(Error::Waits {
                id: wanted.id.clone(),
            })
        } else {
            server.take_over(&wanted, number).await
        };
        drop(room);
        match outcome {
            Err(error) if is_passing(&error) => {
                waiting.push_back((wanted, number));
                pause = (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
                continue;
            }
            Ok(()) => pause = Duration::ZERO,
            Err(_) => {}
        }
        if let Some(served) = server.registry.find(&wanted.id) {
            server.aliases.keep(&served.wanted.id, &served.device.path);
        }
        server.write_account().await;
        // Whoever waits for the last disk waits for this too.
        server.gone.notify_waiters();
    }
    if all > 0 {
        tracing::info!(disks = all, "no disk of the server before waits any more");
    }
}

/// Two disks with one device: which of them is behind it nobody can say, and one behind the other's would be the end of
/// both. No server writes such a list any more.
async fn give_up_shared(server: &Server, disks: &mut Vec<(Wanted, u32)>) {
    let mut count = BTreeMap::<u32, usize>::new();
    // The same twice, as an earlier version may have written it, is no matter.
    disks.sort_by(|(one, _), (next, _)| one.id.cmp(&next.id));
    disks.dedup_by(|(one, number), (next, its)| one.id == next.id && number == its);
    for (_, number) in &*disks {
        *count.entry(*number).or_default() += 1;
    }
    let shared: Vec<_> = disks
        .extract_if(.., |(_, number)| count[number] > 1)
        .collect();
    for (number, _) in count.into_iter().filter(|(_, disks)| *disks > 1) {
        tracing::error!(
            device = number,
            "two disks are noted with one device: it is released, and whoever waits for it gets I/O errors"
        );
        let devices = server.devices();
        let aliases = Arc::clone(&server.aliases);
        let its = shared.iter().filter(|(_, its)| *its == number);
        let ids: Vec<_> = its.map(|(wanted, _)| wanted.id.clone()).collect();
        let released = blocking("releasing a device", move || {
            ids.iter().for_each(|id| forget(&aliases, id));
            devices.release(number);
        });
        if let Err(error) = released.await {
            tracing::error!(device = number, %error, "it is not released");
        }
    }
}

/// Before a device is given up: its number may be a stranger's the next moment, in any seat.
fn forget(aliases: &Aliases, id: &str) {
    if let Err(error) = aliases.take(id) {
        tracing::error!(disk = %id, %error, "a path still leads to a device that is given up");
    }
}

impl Server {
    /// Takes over a disk from a server that has ended: the chain is opened, what was pending is
    /// replayed, and the device's requests go on. A device whose disk cannot be served is released, so
    /// that nobody waits for it for ever.
    ///
    /// If something ran out nothing is released: the kernel holds the requests until the next attempt.
    async fn take_over(&self, wanted: &Wanted, number: u32) -> Result<(), Error> {
        let id = wanted.id.clone();
        let _turn = self.turns.take(&id).await;
        if !self.registry.promises(&id, Some(number)) {
            // Somebody released the device while it waited, and the kernel gave its number out again.
            tracing::error!(disk = %id, device = number, "cannot go on serving a disk: its device is gone");
            self.registry.withdraw(&id);
            return Err(Error::NotFound { id });
        }
        let outcome = self.adopt(wanted, number).await;
        let Err(error) = &outcome else {
            return Ok(());
        };
        self.claims.release(&id);
        let reason = in_full(error);
        if is_passing(error) {
            tracing::warn!(
                disk = %id, device = number, error = %reason,
                "cannot serve a disk yet: whoever waits for it goes on waiting"
            );
            return outcome;
        }
        tracing::error!(
            disk = %id, device = number, error = %reason,
            "cannot go on serving a disk: whoever waits for it gets I/O errors; what was answered is in \
             its delta and its pending file"
        );
        self.registry.withdraw(&id);
        let (devices, aliases) = (self.devices(), Arc::clone(&self.aliases));
        blocking("releasing a device", move || {
            forget(&aliases, &id);
            devices.release(number);
        })
        .await?;
        outcome
    }

    async fn adopt(&self, wanted: &Wanted, number: u32) -> Result<(), Error> {
        let begun = Instant::now();
        self.claim(wanted).await?;
        let disk = self.open_again(wanted).await?;
        let (devices, aliases) = (self.devices(), Arc::clone(&self.aliases));
        let (id, handle) = (wanted.id.clone(), disk.clone());
        let adopted = blocking("taking over a device", move || {
            devices.adopt(&id, &handle, number, || forget(&aliases, &id))
        });
        let device = match adopted.await {
            Ok(Ok(device)) => device,
            Ok(Err(error)) => {
                self.close_after(&disk).await;
                return Err(error.into());
            }
            Err(error) => return Err(error),
        };
        pass("recovery-ended");
        tracing::info!(
            disk = %wanted.id, device = %device.path.display(), took = ?begun.elapsed(), "taken over"
        );
        self.registry.insert(Arc::new(Served {
            wanted: wanted.clone(),
            disk,
            device,
        }));
        Ok(())
    }

    /// Opens a chain that a dying process may still hold locked for a moment.
    async fn open_again(&self, wanted: &Wanted) -> Result<DiskHandle, Error> {
        let deadline = Instant::now() + RELEASE;
        loop {
            match self.shards.open(self.spec(wanted)).await {
                Err(error) if error.is_locked() && Instant::now() < deadline => {
                    tokio::time::sleep(PAUSE).await;
                }
                answer => return Ok(answer?),
            }
        }
    }
}
