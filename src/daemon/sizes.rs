//! Kubernetes' sizes, brought to the snapshots they are meant for.

use std::sync::Arc;

use tokio::sync::RwLock;

use crate::causes::in_full;
use crate::nri::{Place, Sizes, container_of};
use crate::snapshot::Snapshotters;

/// Every snapshotter of this daemon, as NRI's plugin sees them.
#[derive(Debug)]
pub(super) struct Everywhere {
    pub(super) snapshotters: Arc<Snapshotters>,
    /// Shared by every act; who stops has it alone when none is under way any more.
    pub(super) acts: Arc<RwLock<()>>,
}

impl Sizes for Everywhere {
    /// Any of the names may have it: a pod's runtime class says which, and NRI does not tell.
    async fn find(&self, namespace: &str, container: &str) -> Result<Option<Place>, String> {
        let (namespace, container) = (namespace.to_owned(), container.to_owned());
        let is = move |key: &str| {
            container_of(key).is_some_and(|found| found == (&namespace, &container))
        };
        let found = self
            .snapshotters
            .find_active(is)
            .await
            .map_err(|error| in_full(&error))?;
        Ok(found.map(|found| Place {
            snapshotter: found.snapshotter,
            key: found.key,
            size: found.size,
        }))
    }

    async fn resize(&self, place: &Place, size: u64) -> Result<u64, String> {
        let snapshotter = self.snapshotters.named(&place.snapshotter);
        let snapshotter =
            snapshotter.ok_or_else(|| format!("snapshotter {} is gone", place.snapshotter))?;
        let key = place.key.clone();
        // An act is not undone when nobody waits for it any more: it runs to its end by itself.
        let under_way = Arc::clone(&self.acts).read_owned().await;
        let act = tokio::spawn(async move {
            let _under_way = under_way;
            snapshotter.resize(&key, size).await
        });
        match act.await {
            Ok(Ok(size)) => Ok(size),
            Ok(Err(error)) => Err(in_full(&error)),
            Err(error) => Err(format!(
                "the disk was not sized: this is a defect ({error})"
            )),
        }
    }
}
