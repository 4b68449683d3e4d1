//! Kubernetes' sizes, brought to the snapshots they are meant for.

use std::sync::Arc;

use crate::causes::in_full;
use crate::nri::{Place, Sizes, container_of};
use crate::snapshot::{Kind, Snapshotters};

/// Every snapshotter of this daemon, as NRI's plugin sees them.
#[derive(Debug)]
pub(super) struct Everywhere(pub(super) Arc<Snapshotters>);

impl Sizes for Everywhere {
    /// Any of the names may have it: a pod's runtime class says which, and NRI does not tell.
    async fn find(&self, namespace: &str, container: &str) -> Result<Option<Place>, String> {
        let names: Vec<String> = self.0.names().map(str::to_owned).collect();
        for name in names {
            let Some(snapshotter) = self.0.named(&name) else {
                continue;
            };
            let infos = snapshotter.list().await.map_err(|error| in_full(&error))?;
            let found = infos.into_iter().find(|info| {
                info.kind == Kind::Active
                    && container_of(&info.name) == Some((namespace, container))
            });
            if let Some(info) = found {
                return Ok(Some(Place {
                    snapshotter: name,
                    key: info.name,
                }));
            }
        }
        Ok(None)
    }

    async fn resize(&self, place: &Place, size: u64) -> Result<(), String> {
        let snapshotter = self.0.named(&place.snapshotter);
        let snapshotter =
            snapshotter.ok_or_else(|| format!("snapshotter {} is gone", place.snapshotter))?;
        let key = place.key.clone();
        // An act is not undone when nobody waits for it any more: it runs to its end by itself.
        let act = tokio::spawn(async move { snapshotter.resize(&key, size).await });
        match act.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(in_full(&error)),
            Err(error) => Err(format!(
                "the disk was not sized: this is a defect ({error})"
            )),
        }
    }
}
