//! A door for `fuzz/`: a pending file without a disk.

use std::fs::File;
use std::io;
use std::path::Path;

use super::pending::{self, Identity, Kept};
use crate::units::{Cluster, ClusterSize, Place};

/// The pending file of an image.
#[derive(Debug)]
pub struct Pending(pending::Pending);

impl Pending {
    /// Opens it for a disk of so many clusters, on a kernel that was booted as `boot`; answers what was left in it.
    ///
    /// # Errors
    /// What the host says.
    pub fn open(
        path: &Path,
        image: &File,
        boot: [u8; 16],
        clusters: u32,
        cluster: ClusterSize,
    ) -> io::Result<(Self, Vec<(Cluster, Place)>)> {
        let identity = Identity::new(image, boot, clusters, cluster)?;
        let (pending, left) = pending::Pending::open(path, &identity)?;
        Ok((Self(pending), left))
    }

    /// Keeps an entry; was there room?
    pub fn keep(&mut self, cluster: Cluster, place: Place) -> bool {
        self.0.keep(cluster, place) == Kept::Yes
    }

    /// Forgets an entry.
    pub fn settle(&mut self, cluster: Cluster) {
        self.0.settle(cluster);
    }
}
