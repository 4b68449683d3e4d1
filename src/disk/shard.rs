//! A thread, its ring, and the disks that live there.
//!
//! A disk lives on one shard and shares it with many. Its requests are tasks of the shard's executor;
//! they never change threads. The shard sleeps in one place, the ring: letters from other threads
//! arrive there too.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::sync::oneshot;

use super::Error;
use super::executor::Executor;
use super::front::{Front, Local};
use super::mailbox::Mailbox;
use super::request::{Errno, Request};
use super::resident::Resident;
use super::serve::Disk;
use crate::image::Seal;
use crate::io::{Piece, Pool, Ring, Setup, Uring};

/// Slots for requests' pages: a transport without copies needs one for each request that its devices
/// may have under way. As many as a kernel gives.
const SLOTS: u32 = 16 * 1024;

/// Makes a disk on its shard's thread; it gets the pool of copy-up buffers of its cluster size.
pub(super) type Build = Box<dyn FnOnce(Rc<Pool>) -> Disk<Uring> + Send>;

/// What a shard may be told.
pub(super) enum Letter {
    /// Here is a disk; answer when it lives.
    Open(u64, usize, Build, oneshot::Sender<()>),
    /// A request for a disk.
    Request(u64, Request),
    /// Something that takes requests for a disk here.
    Front(u64, Box<dyn Front>),
    /// Become at least so large.
    Grow(u64, u64, oneshot::Sender<Result<(), Error>>),
    /// No more requests; finish; with `true`, seal.
    Close(u64, bool, oneshot::Sender<Result<Option<Seal>, Error>>),
    /// End when the last disk is closed, its files too.
    Stop,
}

/// A shard as other threads see it.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) mailbox: Arc<Mailbox<Letter>>,
    /// How many disks live there.
    pub(super) disks: Arc<AtomicUsize>,
}

impl Shard {
    /// Starts the thread; returns once its ring stands.
    pub(super) fn start(index: usize) -> Result<Self, Error> {
        let mailbox = Arc::new(Mailbox::new().map_err(Error::Ring)?);
        let disks = Arc::new(AtomicUsize::new(0));
        let (ready, started) = std::sync::mpsc::channel();
        let (inbox, count) = (Arc::clone(&mailbox), Arc::clone(&disks));
        thread::Builder::new()
            .name(format!("shard-{index}"))
            .spawn(move || match Ring::install(Setup { slots: SLOTS }) {
                Ok(ring) => {
                    let _ = ready.send(Ok(()));
                    run(&ring, inbox, count);
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            })
            .map_err(Error::Ring)?;
        let answer = started
            .recv()
            .map_err(|_| std::io::Error::other("the shard's thread ended"));
        answer.and_then(|answer| answer).map_err(Error::Ring)?;
        Ok(Self { mailbox, disks })
    }
}

/// Puts a letter into a shard's mailbox; if the shard has ended, answers in its place.
pub(super) fn send(mailbox: &Mailbox<Letter>, letter: Letter) {
    if let Err(letter) = mailbox.put(letter) {
        refuse(letter);
    }
}

/// The answer of a shard that has ended. Whoever opens or closes a disk hears it by the silence.
fn refuse(letter: Letter) {
    if let Letter::Request(_, request) = letter {
        answer(request, Err(Errno::NODEV));
    }
}

/// The reader of a mailbox; when it ends, in whatever way, nobody waits for it.
struct Reader(Arc<Mailbox<Letter>>);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.shut().into_iter().for_each(refuse);
    }
}

struct Residents {
    disks: RefCell<HashMap<u64, Rc<Resident>>>,
    /// One pool of copy-up buffers for each cluster size.
    pools: RefCell<HashMap<usize, Rc<Pool>>>,
    count: Arc<AtomicUsize>,
    /// Disks that live here, and those that are being closed.
    alive: Cell<usize>,
    stopping: Cell<bool>,
}

fn run(ring: &Rc<Ring>, mailbox: Arc<Mailbox<Letter>>, count: Arc<AtomicUsize>) {
    let _reader = Reader(Arc::clone(&mailbox));
    let executor = Rc::new(Executor::default());
    let residents = Rc::new(Residents {
        disks: RefCell::default(),
        pools: RefCell::default(),
        count,
        alive: Cell::new(0),
        stopping: Cell::new(false),
    });
    executor.spawn(read_letters(
        Rc::downgrade(&executor),
        Rc::clone(&residents),
        mailbox,
    ));
    loop {
        while executor.tick() {}
        if residents.stopping.get() && residents.alive.get() == 0 {
            break;
        }
        if let Err(error) = ring.wait() {
            // Nothing that we do can make this happen; if it passes, waiting requests go on.
            tracing::error!(%error, "the ring refuses to wait");
            thread::sleep(std::time::Duration::from_millis(10));
        }
    }
    Ring::uninstall();
}

async fn read_letters(
    executor: std::rc::Weak<Executor>,
    residents: Rc<Residents>,
    mailbox: Arc<Mailbox<Letter>>,
) {
    let scratch = Piece::zeroed(8);
    loop {
        while let Some(letter) = mailbox.take() {
            let Some(executor) = executor.upgrade() else {
                return;
            };
            residents.open_letter(&executor, letter);
        }
        if let Err(error) = mailbox.wait(&scratch).await {
            tracing::error!(%error, "a shard cannot hear its bell");
            let _ = crate::io::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}

impl Residents {
    fn open_letter(self: &Rc<Self>, executor: &Rc<Executor>, letter: Letter) {
        match letter {
            Letter::Open(key, buffer, build, answer) => {
                let pool = Rc::clone(
                    self.pools
                        .borrow_mut()
                        .entry(buffer)
                        .or_insert_with(|| Rc::new(Pool::new(buffer))),
                );
                let resident = Rc::new(Resident::new(build(pool)));
                self.disks.borrow_mut().insert(key, resident);
                self.alive.set(self.alive.get() + 1);
                let _ = answer.send(());
            }
            Letter::Request(key, request) => {
                let resident = self.disks.borrow().get(&key).cloned();
                match resident {
                    Some(resident) => {
                        executor.spawn(serve(resident, request));
                    }
                    None => answer(request, Err(Errno::NODEV)),
                }
            }
            Letter::Front(key, front) => {
                let resident = self.disks.borrow().get(&key).cloned();
                // Dropped if there is no such disk: its sender hears the silence.
                if let Some(resident) = resident {
                    front.begin(Local::new(resident, executor));
                }
            }
            Letter::Grow(key, size, reply) => {
                let resident = self.disks.borrow().get(&key).cloned();
                // Dropped if there is no such disk: its sender hears the silence.
                if let Some(resident) = resident {
                    executor.spawn(async move {
                        let _ = reply.send(resident.grow(size).await);
                    });
                }
            }
            Letter::Close(key, seal, reply) => {
                let resident = self.disks.borrow_mut().remove(&key);
                match resident {
                    Some(resident) => {
                        let residents = Rc::clone(self);
                        executor.spawn(async move {
                            let answer = resident.close(seal).await;
                            residents.count.fetch_sub(1, Ordering::Relaxed);
                            residents.alive.set(residents.alive.get() - 1);
                            let _ = reply.send(answer);
                        });
                    }
                    None => {
                        let _ = reply.send(Err(Error::Closed {
                            id: key.to_string(),
                        }));
                    }
                }
            }
            Letter::Stop => self.stopping.set(true),
        }
    }
}

async fn serve(resident: Rc<Resident>, mut request: Request) {
    let piece = std::mem::replace(&mut request.piece, Piece::empty());
    let result = resident.serve(request.op, request.range, &piece).await;
    answer(request, result.map(|()| piece));
}

fn answer(request: Request, result: Result<Piece, Errno>) {
    let done = request.done;
    let told = std::panic::catch_unwind(AssertUnwindSafe(move || done(result)));
    if told.is_err() {
        tracing::error!("a request's owner panicked when it was answered; this is a bug");
    }
}

#[cfg(test)]
#[path = "shard_tests.rs"]
mod tests;
