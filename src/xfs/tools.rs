//! The programs of xfsprogs that we use.

use super::Error;
use crate::tool::{Tool, Version};

const PACKAGE: &str = "xfsprogs";
/// The first that knows every feature that is named in a layout.
const OLDEST: Version = (5, 19);

/// The programs of xfsprogs that we use.
#[derive(Clone, Debug)]
pub struct Tools {
    pub(super) mkfs: Tool,
    pub(super) repair: Tool,
    pub(super) version: Version,
}

impl Tools {
    /// Finds the programs and asks how old they are.
    ///
    /// # Errors
    /// [`Error::Tool`].
    pub async fn find() -> Result<Self, Error> {
        let mkfs = Tool::find("mkfs.xfs", PACKAGE)?;
        Ok(Self {
            version: mkfs.version(OLDEST).await?,
            repair: Tool::find("xfs_repair", PACKAGE)?,
            mkfs,
        })
    }
}
