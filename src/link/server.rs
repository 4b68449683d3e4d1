//! One disk server as the others see it: its seat, its client, and what is known of it now.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Notify, watch};

use super::disk::Hello;
use super::disks::{Client, Limits};
use super::error::Error;
use crate::proto::PROTOCOL;
use crate::seat::{Name, Seat};

/// What is known of a server.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) hello: Hello,
    /// Counts the processes seen, the first one included.
    pub(super) starts: u64,
    /// Did it give its last sign of life in time?
    pub(super) alive: bool,
}

/// A server.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) seat: Seat,
    pub(super) client: Client,
    state: watch::Sender<State>,
    /// Rung by whoever found it not answering.
    pub(super) trouble: Notify,
    /// It takes no new disks, and its end is no death.
    retiring: AtomicBool,
}

impl Server {
    /// A server that has just said hello.
    ///
    /// # Errors
    /// If it speaks another protocol.
    pub(super) fn new(seat: Seat, client: Client, hello: Hello) -> Result<Self, Error> {
        check_protocol(&seat, &hello)?;
        let state = State {
            hello,
            starts: 1,
            alive: true,
        };
        Ok(Self {
            seat,
            client,
            state: watch::Sender::new(state),
            trouble: Notify::new(),
            retiring: AtomicBool::new(false),
        })
    }

    /// A client for a seat.
    pub(super) fn client(seat: &Seat, limits: Limits) -> Client {
        Client::new(&seat.socket(), limits)
    }

    pub(super) fn name(&self) -> Name {
        self.seat.name()
    }

    pub(super) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    pub(super) fn pid(&self) -> u32 {
        self.state.borrow().hello.pid
    }

    pub(super) fn retiring(&self) -> bool {
        self.retiring.load(Ordering::Acquire)
    }

    /// Is it one for new disks, as far as is known?
    pub(super) fn takes(&self) -> bool {
        let state = self.state.borrow();
        state.alive && !state.hello.draining && !self.retiring()
    }

    /// From now on it takes no new disks, and may end.
    pub(super) fn retire(&self) {
        self.retiring.store(true, Ordering::Release);
    }

    /// It refused a new disk.
    pub(super) fn refuses_new(&self) {
        self.state.send_modify(|state| state.hello.draining = true);
        self.trouble.notify_one();
    }

    /// Nobody answered.
    pub(super) fn gone(&self) {
        self.set_alive(false);
        self.trouble.notify_one();
    }

    pub(super) fn set_alive(&self, alive: bool) {
        self.state.send_modify(|state| state.alive = alive);
    }

    /// It answered. Says whether it is another process than before.
    ///
    /// # Errors
    /// If it speaks another protocol; it counts as dead then.
    pub(super) fn heard(&self, hello: Hello) -> Result<bool, Error> {
        if let Err(error) = check_protocol(&self.seat, &hello) {
            self.set_alive(false);
            return Err(error);
        }
        let mut other = false;
        self.state.send_modify(|state| {
            other = state.hello.pid != hello.pid;
            state.starts += u64::from(other);
            state.alive = true;
            state.hello = hello;
        });
        Ok(other)
    }
}

/// Only another major number is a stranger: what is newer or older by a revision is understood.
pub(super) fn check_protocol(seat: &Seat, hello: &Hello) -> Result<(), Error> {
    if hello.protocol == PROTOCOL {
        return Ok(());
    }
    Err(Error::Protocol {
        socket: seat.socket(),
        pid: hello.pid,
        version: hello.version.clone(),
        theirs: hello.protocol,
        ours: PROTOCOL,
    })
}
