//! A disk that lives, dies and lives again over simulated files, and is looked at all the while.
//!
//! One thread, one source of chance: the same plan is the same run, to the last operation.

use std::cell::{Cell, RefCell};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use super::acts::Act;
use super::autopsy::{self, Case, CrashDisk, Depth, Table};
use super::explore::{Plan, Tally, Violation};
use super::history::{Allowed, History, Kind, Stop};
use super::layout;
use crate::chain::Base;
use crate::disk::executor::Executor;
use crate::disk::pending::Identity;
use crate::disk::request::{Errno, Op};
use crate::image::Seal;
use crate::io::crash::{Contents, CrashFile, View};
use crate::io::sectors::{self, BYTES};
use crate::io::stops::{self, Chance};
use crate::io::{Piece, Pool};
use crate::units::ByteRange;

#[path = "endings.rs"]
mod endings;

/// Most requests under way at once.
const AT_ONCE: usize = 6;

pub(super) struct World<'a> {
    plan: &'a Plan,
    tally: &'a mut Tally,
    chance: Chance,
    /// A folder on tmpfs.
    folder: PathBuf,
    pool: Rc<Pool>,
    table: Table,
    base: Arc<Base<CrashFile>>,
    top: CrashFile,
    /// How many tops there were: each has a pending file of its own.
    tops: usize,
    boot: u8,
    identity: Identity,
    executor: Executor,
    disk: Option<Rc<CrashDisk>>,
    history: Rc<RefCell<History>>,
    /// A request that was answered with an error.
    refused: Rc<Cell<Option<(usize, Errno)>>>,
    closing: bool,
    /// Has a sync failed? Then requests are refused, and what was answered is as after a power cut.
    broken: Rc<Cell<bool>>,
    /// What the last look saw.
    seen: u64,
    kept: Vec<u8>,
    allowed: Allowed,
}

impl<'a> World<'a> {
    pub(super) fn new(
        plan: &'a Plan,
        tally: &'a mut Tally,
        folder: PathBuf,
    ) -> Result<Self, Violation> {
        sectors::forget();
        let size = usize::try_from(layout::CLUSTER).unwrap_or(usize::MAX);
        let pool = Rc::new(Pool::new(size));
        let (raw, initial) = layout::base();
        let early = |what| Violation::new(plan, 0, None, what);
        let base = autopsy::sealed(&Base::empty(layout::cluster()), &raw, None).map_err(early)?;
        let identity = identity(&folder, 0, 1).map_err(early)?;
        Ok(Self {
            plan,
            tally,
            chance: Chance::new(plan.seed),
            table: Table::new(folder.clone(), Rc::clone(&pool)),
            folder,
            pool,
            base,
            top: layout::new_top(),
            tops: 0,
            boot: 1,
            identity,
            executor: Executor::default(),
            disk: None,
            history: Rc::new(RefCell::new(History::new(initial))),
            refused: Rc::default(),
            closing: false,
            broken: Rc::default(),
            seen: 0,
            kept: Vec::new(),
            allowed: Vec::new(),
        })
    }

    fn wrong(&self, stop: Option<Stop>, what: impl Into<String>) -> Violation {
        Violation::new(self.plan, self.tally.moments, stop, what.into())
    }

    fn pending(&self) -> PathBuf {
        self.folder.join(format!("pending-{}", self.tops))
    }

    /// Plays the acts to the end.
    pub(super) fn play(&mut self) -> Result<(), Violation> {
        self.begin()?;
        let plan = self.plan;
        let mut acts = plan.acts.iter().peekable();
        loop {
            let open = self.history.borrow().open().len();
            match acts.peek().copied() {
                None if open == 0 => break,
                Some(Act::Wait) if open == 0 => _ = acts.next(),
                Some(Act::Snapshot) if open == 0 => {
                    acts.next();
                    self.snapshot()?;
                }
                Some(Act::Reopen) if open == 0 => {
                    acts.next();
                    self.close(false)?;
                    self.begin()?;
                }
                Some(Act::Grow(clusters)) if open == 0 => {
                    acts.next();
                    self.grow(*clusters)?;
                }
                Some(Act::Kill) if self.chance.one_in(3) => {
                    acts.next();
                    self.kill()?;
                }
                Some(Act::Cut) if self.chance.one_in(3) => {
                    acts.next();
                    self.cut()?;
                }
                Some(Act::SyncFails) if open == 0 => _ = acts.next(),
                Some(Act::SyncFails) if self.top.syncing().is_some() && self.chance.one_in(2) => {
                    acts.next();
                    self.sync_fails()?;
                }
                Some(Act::Wait | Act::Snapshot | Act::Reopen | Act::Grow(_)) | None => {
                    self.go_on(true)?
                }
                Some(Act::Kill | Act::Cut | Act::SyncFails) => self.go_on(open > 0)?,
                Some(act) if open < AT_ONCE && (open == 0 || self.chance.one_in(3)) => {
                    self.ask(*act);
                    acts.next();
                }
                Some(_) => self.go_on(true)?,
            }
            self.look()?;
        }
        // At last nothing stops, and all that was answered is there.
        self.hold_all_answered()?;
        self.snapshot()?;
        self.hold_all_answered()
    }

    /// Something that can go on does; if `must` and nothing can, the disk hangs.
    fn go_on(&mut self, must: bool) -> Result<(), Violation> {
        let under_way = self.top.under_way();
        if under_way > 0 && self.chance.one_in(3) {
            self.top.complete(self.chance.below(under_way));
        } else if self.executor.tick() {
        } else if under_way > 0 {
            self.top.complete(self.chance.below(under_way));
        } else if must {
            let open = self.history.borrow().open();
            return Err(self.wrong(None, format!("requests {open:?} hang")));
        }
        if let Some((number, errno)) = self.refused.get() {
            return Err(self.wrong(None, format!("request {number} is answered {errno}")));
        }
        Ok(())
    }

    /// A process opens the disk; every moment of that is looked at too.
    fn begin(&mut self) -> Result<(), Violation> {
        self.top.listen();
        let opened = autopsy::open(
            &self.base,
            &self.top,
            &self.identity,
            &self.pending(),
            &self.pool,
        );
        let disk = opened.map_err(|what| self.wrong(None, what))?;
        let heard = self.top.heard();
        self.top.hold(true);
        self.disk = Some(Rc::new(disk));
        self.kept = self.read_pending();
        for view in heard {
            self.explore(&view)?;
        }
        for number in self.history.borrow().open() {
            self.spawn(number);
        }
        self.look()
    }

    fn ask(&mut self, act: Act) {
        let (kind, first, count) = match act {
            Act::Write(first, count) => (Kind::Write { fua: false }, first, count),
            Act::Fua(first, count) => (Kind::Write { fua: true }, first, count),
            Act::Zero(first, count) => (Kind::Zero, first, count),
            Act::Discard(first, count) => (Kind::Discard, first, count),
            _ => (Kind::Flush, 0, 0),
        };
        let mut history = self.history.borrow_mut();
        let request = history.count() as u64;
        let ids = (first..first + count).map(|sector| match kind {
            Kind::Write { .. } => sectors::id(&layout::pattern(request, sector), 0),
            Kind::Zero | Kind::Discard | Kind::Flush => 0,
        });
        let number = history.ask(kind, first, ids.collect());
        drop(history);
        self.spawn(number);
    }

    fn spawn(&self, number: usize) {
        let Some(disk) = self.disk.clone() else {
            return;
        };
        let history = Rc::clone(&self.history);
        let refused = Rc::clone(&self.refused);
        let broken = Rc::clone(&self.broken);
        let request = history.borrow().request(number).clone();
        let range = match request.ids.len() {
            0 => ByteRange::new(0, 0),
            count => layout::range(request.first, count),
        };
        let (op, piece) = match request.kind {
            Kind::Write { fua } => {
                let piece = Piece::zeroed(request.ids.len() * BYTES);
                piece.with_bytes_mut(|bytes| sectors::fill(request.ids.iter().copied(), bytes));
                (Op::Write { fua }, piece)
            }
            Kind::Zero => (Op::WriteZeroes, Piece::empty()),
            Kind::Discard => (Op::Discard, Piece::empty()),
            Kind::Flush => (Op::Flush, Piece::empty()),
        };
        self.executor.spawn(async move {
            match disk.serve(op, range, &piece).await {
                Ok(()) => history.borrow_mut().answer(number),
                Err(Errno::IO) if broken.get() => history.borrow_mut().refuse(number),
                Err(errno) => refused.set(Some((number, errno))),
            }
        });
    }

    /// Makes the disk larger, everything being answered.
    fn grow(&mut self, clusters: u64) -> Result<(), Violation> {
        let Some(disk) = self.disk.clone() else {
            return Ok(());
        };
        let size = disk.shared.size() + clusters * layout::CLUSTER;
        let grown = async move { disk.grow(size).await.map(|()| disk.shared.size()) };
        match self.until_done(grown)? {
            Ok(found) if found == size => Ok(()),
            answer => Err(self.wrong(None, format!("grown to {size}, it says {answer:?}"))),
        }
    }

    /// Plays an act to its end; every moment of it is looked at.
    fn until_done<T: 'static>(
        &mut self,
        act: impl Future<Output = T> + 'static,
    ) -> Result<T, Violation> {
        let answer = Rc::new(RefCell::new(None));
        let told = Rc::clone(&answer);
        self.executor.spawn(async move {
            let result = act.await;
            *told.borrow_mut() = Some(result);
        });
        loop {
            if let Some(answer) = answer.borrow_mut().take() {
                return Ok(answer);
            }
            self.go_on(true)?;
            self.look()?;
        }
    }

    /// Closes the disk, everything being answered.
    fn close(&mut self, seal: bool) -> Result<Option<Seal>, Violation> {
        // A task may still hold the disk until its last tick.
        while self.executor.tick() {}
        let disk = self.disk.take().and_then(|disk| Rc::try_unwrap(disk).ok());
        let Some(disk) = disk else {
            return Err(self.wrong(None, "somebody holds an idle disk"));
        };
        self.closing = true;
        match self.until_done(disk.finish(seal))? {
            Ok(seal) => {
                self.history.borrow_mut().close();
                self.look()?;
                self.closing = false;
                self.top.hold(false);
                Ok(seal)
            }
            Err(error) => Err(self.wrong(None, error.to_string())),
        }
    }

    /// Seals the top, whatever the power does from then on, and puts a new one on it.
    fn snapshot(&mut self) -> Result<(), Violation> {
        let seal = self.close(true)?;
        let view = self.top.view();
        let allowed = self.history.borrow().allowed(Stop::Power);
        for left in stops::power(&view, &mut self.chance, self.plan.samples) {
            self.tally.power += 1;
            let file = CrashFile::new(left);
            let base = autopsy::sealed(&self.base, &file, seal.as_ref());
            let read = base.and_then(|base| {
                let disk = autopsy::view(&base, &self.pool);
                let may = |sector: usize, bytes: &[u8]| {
                    let ids = allowed[sector].iter().copied();
                    ids.clone().find(|id| sectors::is(bytes, *id))
                };
                self.table.read(&disk, may)
            });
            read.map_err(|what| self.wrong(Some(Stop::Power), format!("sealed: {what}")))?;
        }
        let sealed = autopsy::sealed(&self.base, &self.top, seal.as_ref());
        self.base = sealed.map_err(|what| self.wrong(None, what))?;
        self.tops += 1;
        self.top = layout::new_top();
        self.identity =
            identity(&self.folder, self.tops, self.boot).map_err(|what| self.wrong(None, what))?;
        self.begin()
    }

    fn hold_all_answered(&mut self) -> Result<(), Violation> {
        let Some(disk) = self.disk.clone() else {
            return Ok(());
        };
        let allowed = self.history.borrow().allowed(Stop::Process);
        self.top.hold(false);
        let read = self.table.read(&disk, |sector, bytes| {
            let ids = allowed[sector].iter().copied();
            ids.clone().find(|id| sectors::is(bytes, *id))
        });
        self.top.hold(true);
        read.map(drop)
            .map_err(|what| self.wrong(None, format!("without any stop: {what}")))
    }

    fn read_pending(&self) -> Vec<u8> {
        fs::read(self.pending()).unwrap_or_default()
    }

    /// Explores this moment, if it is another than the last one.
    fn look(&mut self) -> Result<(), Violation> {
        let mut hasher = DefaultHasher::new();
        let pending = self.read_pending();
        let now = self.history.borrow().now();
        (self.top.events(), now, &pending, self.tops, self.boot).hash(&mut hasher);
        let seen = hasher.finish();
        if seen == self.seen {
            return Ok(());
        }
        self.seen = seen;
        let view = self.top.view();
        self.explore(&view)?;
        self.kept = pending;
        Ok(())
    }

    /// Every stop at this moment.
    fn explore(&mut self, view: &View) -> Result<(), Violation> {
        self.tally.moments += 1;
        let samples = self.plan.samples;
        let pending = self.read_pending();
        let before = std::mem::take(&mut self.kept);
        let stores = between(&before, &pending);
        self.kept = before;
        let bound = match self.broken.get() {
            true => Stop::Power,
            false => Stop::Process,
        };
        let allowed = self.history.borrow().allowed(bound);
        let lefts = stops::process(view, &mut self.chance, samples);
        for (number, left) in lefts.iter().enumerate() {
            self.tally.process += 1;
            self.dissect((Stop::Process, &allowed), left, Some(&pending), number)?;
        }
        // The process may die between two stores into the pending file: before it answers.
        let before = std::mem::replace(&mut self.allowed, allowed);
        for store in &stores {
            self.tally.process += 1;
            self.dissect((Stop::Process, &before), &lefts[0], Some(store), 1)?;
        }
        let allowed = self.history.borrow().allowed(Stop::Power);
        let lefts = stops::power(view, &mut self.chance, samples);
        for (number, left) in lefts.iter().enumerate() {
            self.tally.power += 1;
            // tmpfs is empty after a boot; if it should not be, another boot id says enough.
            let stale = number % 4 == 3;
            let pending = stale.then_some(&pending[..]);
            self.dissect((Stop::Power, &allowed), left, pending, number)?;
        }
        Ok(())
    }

    fn dissect(
        &mut self,
        (stop, allowed): (Stop, &Allowed),
        left: &Contents,
        pending: Option<&[u8]>,
        number: usize,
    ) -> Result<(), Violation> {
        let boot = match stop {
            Stop::Process => self.boot,
            Stop::Power => self.boot.wrapping_add(1),
        };
        let identity =
            identity(&self.folder, self.tops, boot).map_err(|what| self.wrong(Some(stop), what))?;
        let depth = match self.chance.below(self.plan.judged.max(1) * 8) {
            0 if self.plan.judged > 0 => Depth::Judge,
            draw if draw % 8 == 1 || number == 0 => Depth::GoOn,
            _ => Depth::Twice,
        };
        let case = Case {
            base: &self.base,
            identity: &identity,
            allowed,
            closing: self.closing,
        };
        let found = self.table.autopsy(&case, left, pending, depth);
        self.tally.judged = self.table.judged;
        found.map_err(|what| self.wrong(Some(stop), what))
    }
}

/// The identity of a top's pending file: that of a real file which stands for the simulated one.
fn identity(folder: &std::path::Path, top: usize, boot: u8) -> Result<Identity, String> {
    let path = folder.join(format!("top-{top}"));
    let file = fs::File::options()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|error| error.to_string())?;
    let clusters = u32::try_from(layout::CLUSTERS).map_err(|error| error.to_string())?;
    Identity::new(&file, [boot; 16], clusters, layout::cluster()).map_err(|error| error.to_string())
}

/// What a pending file holds between the stores that make `after` of `before`.
fn between(before: &[u8], after: &[u8]) -> Vec<Vec<u8>> {
    if before.len() != after.len() {
        return Vec::new();
    }
    let words = before.chunks(4).zip(after.chunks(4)).enumerate();
    let changed: Vec<_> = words
        .filter(|(_, (before, after))| before != after)
        .map(|(index, _)| index * 4)
        .collect();
    let steps = 1..changed.len();
    let mut states = Vec::new();
    for count in steps {
        let mut state = before.to_vec();
        for at in &changed[..count] {
            state[*at..at + 4].copy_from_slice(&after[*at..at + 4]);
        }
        states.push(state);
    }
    states
}
