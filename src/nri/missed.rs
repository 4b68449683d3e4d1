//! Containers that were made while nobody heard of their pods' wishes.
//!
//! containerd goes on without a plugin that is not there. When we are back it tells of every container there is, and a disk that
//! is smaller than its pod asks for is made larger: that does no container any harm. Smaller is left alone: who made it
//! larger since had a reason, and nothing shrinks under a container.

use std::time::Duration;

use super::annotations::{Wish, wish};
use super::containers::NAMESPACE;
use super::plugin::Plugin;
use super::sizes::Sizes;
use crate::proto::nri::{Container, PodSandbox};

/// How long one disk may take before the next has its turn: its own goes on.
const LIMIT: Duration = Duration::from_secs(30);

/// A container with a wish.
#[derive(Debug)]
pub(super) struct Missed {
    container: String,
    pod: String,
    wish: Wish,
}

/// What a container's pod asks for it, if anything.
pub(super) fn of(pod: &PodSandbox, container: &Container) -> Option<Missed> {
    Some(Missed {
        container: container.id.clone(),
        pod: format!("{}/{}", pod.namespace, pod.name),
        wish: wish(&pod.annotations, &container.name)?,
    })
}

impl<S: Sizes> Plugin<S> {
    /// Makes the disks larger that are smaller than their pods ask for, one after the other.
    pub(super) async fn catch_up(&self, all: Vec<Missed>) {
        for missed in all {
            let Missed {
                container,
                pod,
                wish,
            } = &missed;
            let caught = tokio::time::timeout(LIMIT, self.enlarge(container, wish)).await;
            let late = || Err(format!("not within {}", humantime::format_duration(LIMIT)));
            if let Err(reason) = caught.unwrap_or_else(|_| late()) {
                tracing::warn!(
                    pod,
                    container,
                    annotation = wish.key,
                    reason,
                    "a disk has not got the size that its pod asks for"
                );
            }
        }
    }

    async fn enlarge(&self, container: &str, wish: &Wish) -> Result<(), String> {
        let Some(place) = self.sizes.find(NAMESPACE, container).await? else {
            return Ok(());
        };
        let size = wish.size.clone()?;
        if place.size >= size {
            return Ok(());
        }
        let size = self.sizes.resize(&place, size).await?;
        if size == place.size {
            // In whole clusters it had it.
            return Ok(());
        }
        tracing::info!(
            snapshotter = place.snapshotter,
            key = place.key,
            size,
            "a disk got the size that its pod asked for while nobody heard it"
        );
        Ok(())
    }
}
