//! What every subject can do.
//!
//! The rule it guards: who cannot be set up says why and fails the run; no row goes missing in silence.

use std::path::{Path, PathBuf};

use anyhow::Result;

/// A block device that can be set up and taken down.
pub(crate) trait Subject {
    /// What its rows are called.
    fn name(&self) -> &'static str;

    /// Its process, where one serves it: io_uring calls are counted there.
    fn process(&self) -> Option<u32> {
        None
    }

    /// Sets it up over `folder` with `size` bytes; the device.
    fn up(&mut self, folder: &Path, size: u64) -> Result<PathBuf>;

    /// Takes it down; nothing of it stays in the kernel.
    fn down(&mut self) -> Result<()>;
}

/// A subject that can put an empty writable layer over a full one.
pub(crate) trait Fresh: Subject {
    /// Makes what is there now the full layer. The device is gone after it.
    fn freeze(&mut self) -> Result<()>;

    /// A new layer over the full one; the device.
    fn layer(&mut self) -> Result<PathBuf>;

    /// The layer goes.
    fn drop_layer(&mut self) -> Result<()>;
}
