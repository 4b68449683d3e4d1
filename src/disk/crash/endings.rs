//! How lives end: the process dies, the power goes, a sync fails; and what the next one finds.

use std::path::Path;
use std::rc::Rc;

use super::{Executor, World, identity};
use crate::disk::crash::autopsy;
use crate::disk::crash::explore::Violation;
use crate::disk::crash::history::{Allowed, Stop};
use crate::disk::crash::layout;
use crate::io::crash::CrashFile;
use crate::io::sectors::{self, Id};
use crate::io::stops;

/// Steps of a disk that answers errors, at most.
const LINGERS: usize = 12;

impl World<'_> {
    /// The process dies. The next one finds what the kernel has, and is given all open requests again.
    pub(super) fn kill(&mut self) -> Result<(), Violation> {
        let view = self.top.view();
        let loose = view.under_way.len();
        let done = self.chance.parts(&view.under_way, loose);
        self.executor = Executor::default();
        self.disk = None;
        self.top = CrashFile::after_death(&view, &done);
        self.tally.lives += 1;
        self.begin()
    }

    /// The power goes. What a sector then holds it holds for good.
    pub(super) fn cut(&mut self) -> Result<(), Violation> {
        let view = self.top.view();
        let mut left = stops::power(&view, &mut self.chance, self.plan.samples);
        let left = left.swap_remove(self.chance.below(left.len()));
        let allowed = self.history.borrow().allowed(Stop::Power);
        self.executor = Executor::default();
        self.disk = None;
        self.top = CrashFile::new(left);
        self.boot = self.boot.wrapping_add(1);
        self.identity =
            identity(&self.folder, self.tops, self.boot).map_err(|what| self.wrong(None, what))?;
        self.tally.lives += 1;
        let reader = self.folder.join("reader");
        self.go_on_from_what_is_there(&allowed, Stop::Power, &reader)
    }

    /// The sync under way fails. The disk answers errors, and is closed or dies; the next process opens it in the same
    /// boot, and finds of what was not flushed what the power's end might have left.
    pub(super) fn sync_fails(&mut self) -> Result<(), Violation> {
        let Some(sync) = self.top.syncing() else {
            return Ok(());
        };
        let view = self.top.view();
        let lefts = stops::power(&view, &mut self.chance, self.plan.samples);
        let stays = self.chance.parts(&view.unsynced, 0);
        self.broken.set(true);
        self.top.fail(sync, stays);
        // A death before the process has heard of it cannot be told from one without any failure: that one is not tried.
        while self.executor.tick() {}
        let pending = self.read_pending();
        let allowed = self.history.borrow().allowed(Stop::Power);
        for (number, left) in lefts.iter().enumerate() {
            self.tally.process += 1;
            self.dissect((Stop::Process, &allowed), left, Some(&pending), number)?;
        }
        self.kept = pending;
        for _ in 0..self.chance.below(LINGERS) {
            self.go_on(false)?;
            self.look()?;
        }
        if self.chance.one_in(2) {
            self.close_broken()?;
        }
        let view = self.top.view();
        let done = self.chance.parts(&view.under_way, view.under_way.len());
        let allowed = self.history.borrow().allowed(Stop::Power);
        self.executor = Executor::default();
        self.disk = None;
        self.broken.set(false);
        self.top = CrashFile::after_death(&view, &done);
        self.tally.lives += 1;
        let pending = self.pending();
        self.go_on_from_what_is_there(&allowed, Stop::Process, &pending)
    }

    /// Closes a disk that answers errors, everything being answered: it says so, and leaves all as it is.
    fn close_broken(&mut self) -> Result<(), Violation> {
        while !self.history.borrow().open().is_empty() || self.top.under_way() > 0 {
            self.go_on(true)?;
            self.look()?;
        }
        while self.executor.tick() {}
        let disk = self.disk.take().and_then(|disk| Rc::try_unwrap(disk).ok());
        let Some(disk) = disk else {
            return Err(self.wrong(None, "somebody holds a disk that answers errors"));
        };
        let seal = self.chance.one_in(2);
        match self.until_done(async move { disk.finish(seal).await.map(drop) })? {
            Ok(()) => Err(self.wrong(None, "a disk that answers errors is closed in order")),
            Err(_) => Ok(()),
        }
    }

    /// What is not answered will never be; what a new process finds is the beginning, and it goes on from there.
    fn go_on_from_what_is_there(
        &mut self,
        allowed: &Allowed,
        stop: Stop,
        pending: &Path,
    ) -> Result<(), Violation> {
        let nothing = vec![0; layout::ALL];
        self.history.borrow_mut().begin_again(nothing);
        self.top.hold(false);
        let disk = autopsy::open(&self.base, &self.top, &self.identity, pending, &self.pool);
        let read = disk.and_then(|disk| {
            self.table.read(&disk, |sector, bytes| {
                let ids = allowed[sector].iter().copied();
                ids.clone().find(|id| sectors::is(bytes, *id))
            })
        });
        let found: Vec<Id> = read.map_err(|what| self.wrong(Some(stop), what))?;
        self.history.borrow_mut().begin_again(found);
        self.begin()
    }
}
