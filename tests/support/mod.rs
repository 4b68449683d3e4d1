//! What several tests need: builders, fixtures, other people's tools.

pub(crate) mod device;
pub(crate) mod engine;
pub(crate) mod host;
pub(crate) mod images;
pub(crate) mod openvz;
pub(crate) mod ploopd;
pub(crate) mod qemu;
pub(crate) mod unsynced;
