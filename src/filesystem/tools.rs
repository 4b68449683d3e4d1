//! The programs of each kind, looked for when they are needed first.

use tokio::sync::OnceCell;

use super::Error;
use crate::ext4;
use crate::xfs;

/// The programs of each kind: who has no XFS needs none of its.
#[derive(Debug, Default)]
pub struct Tools {
    ext4: OnceCell<ext4::Tools>,
    xfs: OnceCell<xfs::Tools>,
}

impl Tools {
    pub(super) async fn ext4(&self) -> Result<&ext4::Tools, Error> {
        Ok(self.ext4.get_or_try_init(ext4::Tools::find).await?)
    }

    pub(super) async fn xfs(&self) -> Result<&xfs::Tools, Error> {
        Ok(self.xfs.get_or_try_init(xfs::Tools::find).await?)
    }
}
