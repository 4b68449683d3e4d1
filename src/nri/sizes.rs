//! Who can give a container another size.

use std::future::Future;

/// The snapshot that a container writes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The snapshotter's name.
    pub snapshotter: String,
    /// The snapshot's key there.
    pub key: String,
    /// Bytes that it has.
    pub size: u64,
}

/// Finds containers' snapshots and sizes them.
///
/// A trait, because this room knows what Kubernetes says, and nothing of disks.
pub trait Sizes: Send + Sync + 'static {
    /// Where a container writes; nothing if it is not on a disk of ours.
    ///
    /// The error is for the pod's events.
    fn find(
        &self,
        namespace: &str,
        container: &str,
    ) -> impl Future<Output = Result<Option<Place>, String>> + Send;

    /// Gives a snapshot this many bytes, in whole clusters, and answers what it has then. What was begun goes on when
    /// nobody waits any more.
    ///
    /// The error is for the pod's events.
    fn resize(&self, place: &Place, size: u64) -> impl Future<Output = Result<u64, String>> + Send;
}
