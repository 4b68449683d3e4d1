//! What was asked and what was answered, and so what every sector may hold after a stop.
//!
//! A request is *safe* from a stop if the stop may not undo it: from the process' death if it was answered;
//! from the power's if it was answered before a flush was asked for that was answered too, or was FUA and
//! answered. A sector may hold what a request wrote, or what it held at first, unless a safe request
//! overwrote that: one that was asked for only after the other was answered. A discard overwrites nothing:
//! the sector is as before, or zeros.

use crate::io::sectors::Id;

use super::layout::ALL;

/// What a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Write { fua: bool },
    Zero,
    Discard,
    Flush,
}

/// One request, and when what happened to it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) kind: Kind,
    /// Its first sector.
    pub(super) first: usize,
    /// What it puts there; zeros for all but writes.
    pub(super) ids: Vec<Id>,
    issued: u64,
    answered: Option<u64>,
    /// Does it outlive the power?
    safe: bool,
    /// The power went before it was answered, or it was answered with an error: nobody will ever answer it.
    forgotten: bool,
}

/// Which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The process dies, the kernel lives.
    Process,
    /// Only what was synced lives.
    Power,
}

/// Everything that was asked of a disk.
#[derive(Clone, Debug)]
pub(super) struct History {
    initial: Vec<Id>,
    asked: Vec<Asked>,
    now: u64,
}

/// What each sector may hold.
pub(super) type Allowed = Vec<Vec<Id>>;

impl History {
    /// Of a disk that holds this.
    pub(super) fn new(initial: Vec<Id>) -> Self {
        Self {
            initial,
            asked: Vec::new(),
            now: 0,
        }
    }

    fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    /// Counts requests and answers.
    pub(super) fn now(&self) -> u64 {
        self.now
    }

    /// How many requests there were: the next one's number.
    pub(super) fn count(&self) -> usize {
        self.asked.len()
    }

    /// A request is given to the disk.
    pub(super) fn ask(&mut self, kind: Kind, first: usize, ids: Vec<Id>) -> usize {
        let issued = self.tick();
        self.asked.push(Asked {
            kind,
            first,
            ids,
            issued,
            answered: None,
            safe: false,
            forgotten: false,
        });
        self.asked.len() - 1
    }

    /// It is answered.
    pub(super) fn answer(&mut self, number: usize) {
        let now = self.tick();
        let request = &mut self.asked[number];
        request.answered = Some(now);
        match request.kind {
            Kind::Write { fua } => request.safe = fua,
            Kind::Flush => {
                let issued = request.issued;
                for other in &mut self.asked {
                    other.safe |= other.answered.is_some_and(|answered| answered < issued);
                }
            }
            Kind::Zero | Kind::Discard => {}
        }
    }

    /// It is answered with an error: it may be done, in part, or not at all.
    pub(super) fn refuse(&mut self, number: usize) {
        self.tick();
        self.asked[number].forgotten = true;
    }

    /// Everything that was answered is safe: the image was closed.
    pub(super) fn close(&mut self) {
        for request in &mut self.asked {
            request.safe |= request.answered.is_some();
        }
    }

    /// Requests without an answer.
    pub(super) fn open(&self) -> Vec<usize> {
        let asked = self.asked.iter().enumerate();
        asked
            .filter(|(_, it)| it.answered.is_none() && !it.forgotten)
            .map(|(number, _)| number)
            .collect()
    }

    /// One of them.
    pub(super) fn request(&self, number: usize) -> &Asked {
        &self.asked[number]
    }

    /// The power went and this is what was left: nobody will be answered any more.
    pub(super) fn begin_again(&mut self, left: Vec<Id>) {
        self.initial = left;
        self.asked.iter_mut().for_each(|it| {
            it.forgotten = true;
            it.ids.clear();
        });
    }

    /// What each sector may hold after such a stop now; the likeliest first.
    pub(super) fn allowed(&self, stop: Stop) -> Allowed {
        let mut allowed: Vec<Vec<Id>> = Vec::with_capacity(ALL);
        for sector in 0..ALL {
            let here: Vec<(&Asked, Id)> = self
                .asked
                .iter()
                .filter_map(|it| {
                    let id = it.ids.get(sector.checked_sub(it.first)?)?;
                    Some((it, *id))
                })
                .collect();
            // When the last safe request was asked for: it overwrote what was answered before.
            let overwritten = here
                .iter()
                .filter(|(it, _)| it.kind != Kind::Discard)
                .filter(|(it, _)| match stop {
                    Stop::Process => it.answered.is_some(),
                    Stop::Power => it.safe,
                })
                .map(|(it, _)| it.issued)
                .max();
            let stays = |(it, _): &&(&Asked, Id)| {
                overwritten.is_none_or(|after| it.answered.is_none_or(|at| at > after))
            };
            let mut ids: Vec<Id> = here.iter().rev().filter(stays).map(|(_, id)| *id).collect();
            if overwritten.is_none() {
                ids.push(self.initial[sector]);
            }
            ids.dedup();
            allowed.push(ids);
        }
        allowed
    }
}
