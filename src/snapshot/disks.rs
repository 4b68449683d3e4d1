//! Disk servers as acts use them: six verbs.
//!
//! A trait, because there are two of them: `link::Servers`, and a double in tests that opens the same
//! files and makes no devices.

use std::fmt;

use futures_util::future::BoxFuture;

use crate::link::{Access, Delta, Detached, Disk, DiskStats, Error, Servers};

/// Attaches chains of deltas as devices.
pub trait Disks: fmt::Debug + Send + Sync + 'static {
    /// Serves a chain. May be repeated: an attached disk is answered again.
    fn attach<'a>(
        &'a self,
        id: &'a str,
        deltas: &'a [Delta],
        access: Access,
    ) -> BoxFuture<'a, Result<Disk, Error>>;

    /// Ends serving a disk, and seals its top if asked to. May be repeated.
    fn detach<'a>(&'a self, id: &'a str, seal: bool) -> BoxFuture<'a, Result<Detached, Error>>;

    /// Makes a writable disk that is served larger, and its device. May be repeated.
    fn grow<'a>(&'a self, id: &'a str, size: u64) -> BoxFuture<'a, Result<Disk, Error>>;

    /// What a disk has done.
    fn stats<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<DiskStats, Error>>;

    /// A disk, if it is served.
    fn find<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Disk>, Error>>;

    /// Every disk that is served.
    fn list(&self) -> BoxFuture<'_, Result<Vec<Disk>, Error>>;

    /// Those of them that their servers tell at once: for who only looks.
    fn glance(&self) -> BoxFuture<'_, Vec<Disk>>;
}

impl Disks for Servers {
    fn attach<'a>(
        &'a self,
        id: &'a str,
        deltas: &'a [Delta],
        access: Access,
    ) -> BoxFuture<'a, Result<Disk, Error>> {
        Box::pin(Self::attach(self, id, deltas, access))
    }

    fn detach<'a>(&'a self, id: &'a str, seal: bool) -> BoxFuture<'a, Result<Detached, Error>> {
        Box::pin(Self::detach(self, id, seal))
    }

    fn grow<'a>(&'a self, id: &'a str, size: u64) -> BoxFuture<'a, Result<Disk, Error>> {
        Box::pin(Self::grow(self, id, size))
    }

    fn stats<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<DiskStats, Error>> {
        Box::pin(async move {
            let mut stats = Self::stats(self, Some(id)).await?;
            stats.pop().ok_or_else(|| Error::Answer {
                call: "Stats",
                what: format!("nothing is said of {id}"),
            })
        })
    }

    fn find<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Disk>, Error>> {
        Box::pin(Self::find(self, id))
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Disk>, Error>> {
        Box::pin(Self::list(self))
    }

    fn glance(&self) -> BoxFuture<'_, Vec<Disk>> {
        Box::pin(Self::glance(self))
    }
}
