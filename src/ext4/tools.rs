//! The programs of e2fsprogs that we use.

use super::Error;
use crate::tool::{Tool, Version};

const PACKAGE: &str = "e2fsprogs";
/// The first with every option that we use.
const OLDEST: Version = (1, 43);

/// The programs of e2fsprogs that we use.
#[derive(Clone, Debug)]
pub struct Tools {
    pub(super) mkfs: Tool,
    pub(super) debugfs: Tool,
    pub(super) e2fsck: Tool,
    pub(super) resize: Tool,
    pub(super) tune: Tool,
}

impl Tools {
    /// Finds the programs and asks how old they are.
    ///
    /// # Errors
    /// [`Error::Tool`].
    pub async fn find() -> Result<Self, Error> {
        let tools = Self {
            mkfs: Tool::find("mkfs.ext4", PACKAGE)?,
            debugfs: Tool::find("debugfs", PACKAGE)?,
            e2fsck: Tool::find("e2fsck", PACKAGE)?,
            resize: Tool::find("resize2fs", PACKAGE)?,
            tune: Tool::find("tune2fs", PACKAGE)?,
        };
        tools.mkfs.version(OLDEST).await?;
        Ok(tools)
    }
}

#[cfg(test)]
mod tests {
    use super::Tools;

    #[tokio::test]
    async fn the_systems_programs_are_found() {
        Tools::find().await.unwrap();
    }
}
