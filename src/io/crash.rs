//! A simulated file with three places for a byte: the process, the kernel, the platter.
//!
//! ```text
//!   process  --issue-->  under way  --complete-->  kernel  --sync-->  platter
//!                                                  dies with the power   stays
//! ```
//!
//! A write, a hole, a change of length is a [`Change`]. It is under way until the test completes it, in any
//! order; then the kernel has it and every read shows it. A sync makes durable what was complete when it
//! was *issued*, when it is complete itself. What else the platter has is for the test to choose
//! ([`super::stops`]).

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::sectors::{self, BYTES, Id};
use super::{File, Piece};
use crate::units::ByteRange;

/// Granularity at which holes are seen, in sectors.
const BLOCK: usize = 8;

/// What a file holds: its sectors, without the zeros at its end, and its length.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Contents {
    ids: Vec<Id>,
    len: u64,
}

impl Contents {
    /// A file of that length, all zeros but for these sectors.
    pub(crate) fn new(len: u64, data: impl IntoIterator<Item = (usize, Id)>) -> Self {
        let mut contents = Self {
            ids: Vec::new(),
            len,
        };
        for (sector, id) in data {
            contents.put(sector, id);
        }
        contents
    }

    fn get(&self, sector: usize) -> Id {
        self.ids.get(sector).copied().unwrap_or(0)
    }

    fn put(&mut self, sector: usize, id: Id) {
        if self.ids.len() <= sector {
            if id == 0 {
                return;
            }
            self.ids.resize(sector + 1, 0);
        }
        self.ids[sector] = id;
        while self.ids.last() == Some(&0) {
            self.ids.pop();
        }
    }

    /// Its bytes.
    pub(crate) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; index(self.len)];
        sectors::fill(
            self.ids.iter().copied(),
            &mut bytes[..self.ids.len() * BYTES],
        );
        bytes
    }
}

/// One act on a file that its contents show.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// These sectors from that one on; `None` stays as it is. It makes the file longer only if it was
    /// shorter when the write was issued: whoever lengthens a file first must do so durably.
    Write(usize, Arc<[Option<Id>]>, bool),
    /// The length in bytes.
    Len(u64),
}

impl Change {
    /// Sectors that it may leave done in part.
    pub(crate) fn sectors(&self) -> usize {
        match self {
            Self::Write(_, ids, _) => ids.len(),
            Self::Len(_) => 1,
        }
    }

    /// The same, but only these of its sectors.
    pub(crate) fn torn(&self, stays: impl Fn(usize) -> bool) -> Option<Self> {
        match self {
            Self::Write(first, ids, extends) => {
                let torn: Arc<[_]> = ids
                    .iter()
                    .enumerate()
                    .map(|(index, id)| id.filter(|_| stays(index)))
                    .collect();
                torn.iter()
                    .any(Option::is_some)
                    .then_some(Self::Write(*first, torn, *extends))
            }
            Self::Len(len) => stays(0).then_some(Self::Len(*len)),
        }
    }

    /// Would it make a difference to what this file holds there?
    pub(crate) fn matters(&self, index: usize, contents: &Contents) -> bool {
        match self {
            Self::Write(first, ids, _) => {
                ids[index].is_some_and(|id| id != contents.get(first + index))
            }
            Self::Len(len) => *len != contents.len,
        }
    }

    /// Which sector of the file it changes there; `None` is the length.
    pub(crate) fn sector(&self, index: usize) -> Option<usize> {
        match self {
            Self::Write(first, ..) => Some(first + index),
            Self::Len(_) => None,
        }
    }

    /// Makes it.
    pub(crate) fn apply(&self, contents: &mut Contents) {
        match self {
            Self::Write(first, ids, extends) => {
                let end = (first + ids.len()) * BYTES;
                if *extends {
                    contents.len = contents.len.max(end as u64);
                }
                let inside = index(contents.len).div_ceil(BYTES);
                let room = inside.saturating_sub(*first);
                for (sector, id) in (*first..).zip(ids.iter().take(room)) {
                    if let Some(id) = id {
                        contents.put(sector, *id);
                    }
                }
            }
            Self::Len(len) => {
                contents.len = *len;
                contents.ids.truncate(index(*len).div_ceil(BYTES));
                while contents.ids.last() == Some(&0) {
                    contents.ids.pop();
                }
            }
        }
    }
}

/// Everything about a file at one moment.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// What the power cannot take away.
    pub(crate) platter: Contents,
    /// What every read shows.
    pub(crate) kernel: Contents,
    /// What the kernel has and no sync has covered.
    pub(crate) unsynced: Vec<Change>,
    /// What was asked for and not answered.
    pub(crate) under_way: Vec<Change>,
}

enum Asked {
    Read(usize, Piece),
    Change(Change),
    /// A sync, which covers the changes before this number.
    Sync(u64),
}

struct UnderWay {
    ticket: u64,
    asked: Asked,
    waker: Option<Waker>,
}

#[derive(Default)]
struct Medium {
    kernel: Contents,
    platter: Contents,
    /// Changes that no sync has covered, by number, in the order in which they were completed.
    unsynced: VecDeque<(u64, Change)>,
    next_change: u64,
    under_way: Vec<UnderWay>,
    next_ticket: u64,
    /// Syncs that failed, by ticket.
    failed: Vec<u64>,
    /// Do operations wait until the test completes them?
    held: bool,
    /// Every moment since the test began to listen.
    heard: Option<Vec<View>>,
    events: u64,
}

impl Medium {
    fn view(&self) -> View {
        let changes = self.under_way.iter().filter_map(|it| match &it.asked {
            Asked::Change(change) => Some(change.clone()),
            Asked::Read(..) | Asked::Sync(_) => None,
        });
        View {
            platter: self.platter.clone(),
            kernel: self.kernel.clone(),
            unsynced: self.unsynced.iter().map(|(_, it)| it.clone()).collect(),
            under_way: changes.collect(),
        }
    }

    fn happened(&mut self) {
        self.events += 1;
        if self.heard.is_some() {
            let view = self.view();
            self.heard.get_or_insert_default().push(view);
        }
    }

    fn issue(&mut self, asked: Asked) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let is_read = matches!(asked, Asked::Read(..));
        self.under_way.push(UnderWay {
            ticket,
            asked,
            waker: None,
        });
        if !is_read {
            self.happened();
        }
        if !self.held {
            self.complete(self.under_way.len() - 1);
        }
        ticket
    }

    fn complete(&mut self, index: usize) {
        let done = self.under_way.remove(index);
        match done.asked {
            Asked::Read(first, piece) => piece.with_bytes_mut(|bytes| {
                let ids = (first..).map(|sector| self.kernel.get(sector));
                sectors::fill(ids, bytes);
            }),
            Asked::Change(change) => {
                change.apply(&mut self.kernel);
                self.unsynced.push_back((self.next_change, change));
                self.next_change += 1;
                self.happened();
            }
            Asked::Sync(covered) => {
                while let Some((_, change)) =
                    self.unsynced.pop_front_if(|(number, _)| *number < covered)
                {
                    change.apply(&mut self.platter);
                }
                self.happened();
            }
        }
        if let Some(waker) = done.waker {
            waker.wake();
        }
    }
}

/// A file in the simulated kernel. Clones are the same file.
#[derive(Clone, Default)]
pub(crate) struct CrashFile {
    /// Held for one act, never across an await; no other lock is taken under it.
    medium: Arc<Mutex<Medium>>,
}

impl CrashFile {
    /// A file that holds this, durably. Its operations are complete at once until it is told to hold them.
    pub(crate) fn new(contents: Contents) -> Self {
        let file = Self::default();
        file.with(|medium| {
            medium.kernel = contents.clone();
            medium.platter = contents;
        });
        file
    }

    /// The file as the next process finds it: what was under way is done as far as `done` says.
    pub(crate) fn after_death(view: &View, done: &[Change]) -> Self {
        let file = Self::new(view.platter.clone());
        file.with(|medium| {
            for change in view.unsynced.iter().chain(done) {
                change.apply(&mut medium.kernel);
                medium
                    .unsynced
                    .push_back((medium.next_change, change.clone()));
                medium.next_change += 1;
            }
        });
        file
    }

    fn with<T>(&self, act: impl FnOnce(&mut Medium) -> T) -> T {
        let mut medium: MutexGuard<'_, Medium> =
            self.medium.lock().unwrap_or_else(PoisonError::into_inner);
        act(&mut medium)
    }

    /// Must operations wait from now on until they are completed?
    pub(crate) fn hold(&self, held: bool) {
        self.with(|medium| medium.held = held);
    }

    /// How many operations are under way?
    pub(crate) fn under_way(&self) -> usize {
        self.with(|medium| medium.under_way.len())
    }

    /// Completes one of them.
    pub(crate) fn complete(&self, index: usize) {
        self.with(|medium| medium.complete(index));
    }

    /// A sync that is under way, if there is one.
    pub(crate) fn syncing(&self) -> Option<usize> {
        let is_sync = |it: &UnderWay| matches!(it.asked, Asked::Sync(_));
        self.with(|medium| medium.under_way.iter().position(is_sync))
    }

    /// Lets one of them fail, a sync: of what no sync has covered the kernel keeps this much, and forgets the rest.
    pub(crate) fn fail(&self, index: usize, kept: Vec<Change>) {
        self.with(|medium| {
            let failed = medium.under_way.remove(index);
            medium.kernel = medium.platter.clone();
            medium.unsynced.clear();
            for change in kept {
                change.apply(&mut medium.kernel);
                medium.unsynced.push_back((medium.next_change, change));
                medium.next_change += 1;
            }
            medium.failed.push(failed.ticket);
            medium.happened();
            if let Some(waker) = failed.waker {
                waker.wake();
            }
        });
    }

    /// Counts what happened to its contents and syncs.
    pub(crate) fn events(&self) -> u64 {
        self.with(|medium| medium.events)
    }

    /// This moment.
    pub(crate) fn view(&self) -> View {
        self.with(|medium| medium.view())
    }

    /// From now on every moment is written down.
    pub(crate) fn listen(&self) {
        self.with(|medium| medium.heard = Some(vec![medium.view()]));
    }

    /// What was written down.
    pub(crate) fn heard(&self) -> Vec<View> {
        self.with(|medium| medium.heard.take()).unwrap_or_default()
    }

    fn ask(&self, asked: impl FnOnce(&Medium) -> io::Result<Asked>) -> Operation {
        let ticket = self.with(|medium| asked(medium).map(|asked| medium.issue(asked)));
        Operation {
            file: self.clone(),
            ticket,
        }
    }
}

fn index(bytes: u64) -> usize {
    usize::try_from(bytes).expect("simulated files are small")
}

fn sector(bytes: u64) -> io::Result<usize> {
    let sector = usize::try_from(bytes / BYTES as u64).map_err(io::Error::other)?;
    if bytes.is_multiple_of(BYTES as u64) {
        Ok(sector)
    } else {
        Err(io::ErrorKind::InvalidInput.into())
    }
}

/// An operation, until it is completed.
struct Operation {
    file: CrashFile,
    ticket: io::Result<u64>,
}

impl Future for Operation {
    type Output = io::Result<()>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let ticket = match &self.ticket {
            Ok(ticket) => *ticket,
            Err(error) => return Poll::Ready(Err(error.kind().into())),
        };
        self.file.with(|medium| {
            if medium.failed.contains(&ticket) {
                return Poll::Ready(Err(rustix::io::Errno::IO.into()));
            }
            let waiting = medium.under_way.iter_mut().find(|it| it.ticket == ticket);
            waiting.map_or(Poll::Ready(Ok(())), |it| {
                it.waker = Some(context.waker().clone());
                Poll::Pending
            })
        })
    }
}

impl File for CrashFile {
    fn read_at(&self, at: u64, into: Piece) -> impl Future<Output = io::Result<()>> {
        self.ask(|_| {
            sector(into.len() as u64)?;
            Ok(Asked::Read(sector(at)?, into))
        })
    }

    fn write_at(&self, at: u64, from: Piece) -> impl Future<Output = io::Result<()>> {
        self.ask(|medium| {
            let first = sector(at)?;
            sector(from.len() as u64)?;
            let ids = from.with_bytes(|bytes| {
                let sectors = bytes.chunks_exact(BYTES).zip(first..);
                sectors
                    .map(|(bytes, sector)| Some(sectors::id(bytes, medium.kernel.get(sector))))
                    .collect()
            });
            let extends = at + from.len() as u64 > medium.kernel.len;
            Ok(Asked::Change(Change::Write(first, ids, extends)))
        })
    }

    fn sync(&self) -> impl Future<Output = io::Result<()>> {
        self.ask(|medium| Ok(Asked::Sync(medium.next_change)))
    }

    fn zero(&self, range: ByteRange) -> impl Future<Output = io::Result<()>> {
        self.ask(|_| {
            let ids = std::iter::repeat_n(Some(0), sector(range.len)?).collect();
            Ok(Asked::Change(Change::Write(
                sector(range.start)?,
                ids,
                false,
            )))
        })
    }

    fn set_len(&self, len: u64) -> impl Future<Output = io::Result<()>> {
        self.ask(|_| sector(len).map(|_| Asked::Change(Change::Len(len))))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.with(|medium| medium.kernel.len))
    }

    fn next_data(&self, from: u64) -> io::Result<Option<ByteRange>> {
        let first = index(from) / BYTES;
        Ok(self.with(|medium| {
            let ids = &medium.kernel.ids;
            let blocks = first / BLOCK..ids.len().div_ceil(BLOCK);
            let has_data = |block: &usize| {
                let block = block * BLOCK..((block + 1) * BLOCK).min(ids.len());
                ids[block].iter().any(|id| *id != 0)
            };
            let start = blocks.clone().find(has_data)?;
            let end = (start..blocks.end).find(|block| !has_data(block));
            let start = (start * BLOCK * BYTES).max(index(from)) as u64;
            let end = (end.unwrap_or(blocks.end) * BLOCK * BYTES) as u64;
            let end = end.min(medium.kernel.len);
            (start < end).then(|| ByteRange::new(start, end - start))
        }))
    }

    fn alignment(&self) -> u64 {
        BYTES as u64
    }
}
