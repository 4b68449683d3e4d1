//! Another size for a file system, and what else is changed about one that is there.

use std::path::Path;

use super::{Error, Kind, Tools};
use crate::ext4;
use crate::units::ByteRange;
use crate::xfs;

/// Gives an ext4 that nobody has mounted another size: any that its content fits into.
///
/// # Errors
/// See [`ext4::Filesystem::resize`].
pub async fn resize_ext4(device: &Path, size: u64, tools: &Tools) -> Result<(), Error> {
    let tools = tools.ext4().await?;
    Ok(ext4::Filesystem::at(device).resize(size, tools).await?)
}

/// Makes an ext4 larger that is mounted in our namespace.
///
/// # Errors
/// See [`ext4::Filesystem::grow_mounted`].
pub async fn grow_ext4(device: &Path, size: u64, tools: &Tools) -> Result<(), Error> {
    let tools = tools.ext4().await?;
    let there = ext4::Filesystem::at(device);
    Ok(there.grow_mounted(size, tools).await?)
}

/// Makes an XFS larger: where it is mounted, with its device's number, or for the moment if nobody has it mounted. Blocks.
///
/// # Errors
/// See [`xfs::grow_mounted`].
pub fn grow_xfs(device: &Path, at: Option<(&Path, u64)>, size: u64) -> Result<(), Error> {
    match at {
        Some((at, number)) => xfs::grow_mounted(at, number, size)?,
        None => xfs::grow_idle(device, size)?,
    }
    Ok(())
}

/// Counts what each user and group has, and keeps counting: an ext4 that nobody has mounted.
///
/// # Errors
/// See [`ext4::Filesystem::keep_user_quota`].
pub async fn keep_user_quota(device: &Path, tools: &Tools) -> Result<(), Error> {
    let tools = tools.ext4().await?;
    Ok(ext4::Filesystem::at(device).keep_user_quota(tools).await?)
}

/// The bytes of a file system that its journal left behind and nobody reads again. The log of an XFS is a ring in which
/// the next mount looks for its place: all of it stays.
///
/// # Errors
/// If it cannot be read, or is none.
pub fn spent_journal(
    file: &std::fs::File,
    start: u64,
    path: &Path,
) -> Result<Vec<ByteRange>, Error> {
    match Kind::read_at(file, start, path)? {
        Kind::Ext4 => Ok(ext4::spent_journal(file, start, path)?),
        Kind::Xfs => Ok(Vec::new()),
    }
}
