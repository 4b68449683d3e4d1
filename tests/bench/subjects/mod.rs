//! Who is measured: ours and its peers, each a block device over the same file system.

mod loopback;
mod nbd;
mod ours;
mod rublk;
mod subject;
mod thin;

pub(crate) use loopback::Loop;
pub(crate) use nbd::QemuNbd;
pub(crate) use ours::Ours;
pub(crate) use rublk::{Rublk, Target};
pub(crate) use subject::{Fresh, Subject};
pub(crate) use thin::Thin;
