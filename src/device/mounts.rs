//! What is mounted where, as this process sees it.

use std::fs;
use std::io;
use std::path::Path;

use super::error::{Error, kernel};
use crate::mountinfo::unescape;

/// Is a block device with these numbers mounted?
pub(super) fn is_mounted(major: u32, minor: u32) -> Result<bool, Error> {
    let wanted = format!("{major}:{minor}");
    Ok(table()?
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(2))
        .any(|numbers| numbers == wanted.as_bytes()))
}

/// How many mounts lie on exactly this folder.
pub(super) fn mounts_at(folder: &Path) -> Result<usize, Error> {
    let wanted = folder.as_os_str().as_encoded_bytes();
    Ok(table()?
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .filter(|point| unescape(point) == wanted)
        .count())
}

fn table() -> Result<Vec<u8>, Error> {
    let path = Path::new("/proc/self/mountinfo");
    fs::read(path).map_err(kernel::<io::Error>("read", path))
}
