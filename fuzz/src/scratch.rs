//! Where a target may make files.

use std::path::PathBuf;

/// A folder of this process in memory; `fuzz/run` clears it away.
///
/// # Panics
/// If it cannot be made.
#[must_use]
pub fn folder() -> PathBuf {
    let shared = std::env::var_os("FUZZ_SCRATCH").unwrap_or_else(|| "/dev/shm".into());
    let folder = PathBuf::from(shared).join(format!("ploop-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("there is a file system in memory");
    folder
}
