//! Making an empty file system in a file.

use std::path::Path;

use super::{Error, Layout, Tools};
use crate::ext4;
use crate::xfs;

/// Makes an empty one in a new sparse file: root 0755 and nothing in it.
///
/// The file is durable when this returns; its name is not, that is the caller's.
///
/// # Errors
/// If the host has no room, or a program fails.
pub async fn make(path: &Path, layout: &Layout, tools: &Tools) -> Result<(), Error> {
    match layout {
        Layout::Ext4(layout) => {
            ext4::Filesystem::make(path, layout, tools.ext4().await?).await?;
        }
        Layout::Xfs(layout) => xfs::make(path, layout, tools.xfs().await?).await?,
    }
    Ok(())
}
