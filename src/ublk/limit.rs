//! How many ublk devices the driver allows, and how to be allowed more.
//!
//! The driver's own number is 64. Up to Linux 6.14 it may hold for every device, whoever makes it; later
//! only for those of unprivileged users. It can be written from 6.7 on.

use std::fs;
use std::io;

/// Where it stands.
pub const LIMIT: &str = "/sys/module/ublk_drv/parameters/ublks_max";

/// More than a node has room for: each container is one, and each of its devices costs the kernel some
/// 100 KB.
pub const ENOUGH: u64 = 16_384;

/// What became of the limit.
#[derive(Debug)]
pub enum Limit {
    /// It was high enough, or there is none.
    Stands,
    /// It was this and is [`ENOUGH`] now.
    Raised(u64),
    /// It is this, and cannot be raised.
    Low(u64, io::Error),
}

/// How many devices there may be; `None` where the driver says nothing of a limit.
#[must_use]
pub fn limit() -> Option<u64> {
    fs::read_to_string(LIMIT).ok()?.trim().parse().ok()
}

/// Sees to it that there may be [`ENOUGH`].
#[must_use]
pub fn raise_limit() -> Limit {
    match limit() {
        Some(now) if now < ENOUGH => match fs::write(LIMIT, ENOUGH.to_string()) {
            Ok(()) => Limit::Raised(now),
            Err(error) => Limit::Low(now, error),
        },
        _ => Limit::Stands,
    }
}
