//! A committed snapshot at another size, made once for all who want it.
//!
//! ```text
//! reserve . make file . attach . resize the file system . flush . seal . FITTED
//! ```
//!
//! It is a delta of half a megabyte over its parent: the layout of our file systems keeps content low, so that
//! either direction moves none. containerd never hears of it. Stopped on the way it is swept.

use std::sync::Arc;

use super::paths::disk_of;
use super::prepare::make_delta;
use super::shared::{Shared, blocking, seal_in};
use super::{Error, Usage};
use crate::link::Detached;
use crate::store::{Id, Record};

impl Shared {
    /// The snapshot fitted to `parent` with this size; makes it if there is none. The caller is `key`.
    pub(super) async fn fitted(
        self: &Arc<Self>,
        key: &str,
        parent: &Record,
        size: u64,
    ) -> Result<Id, Error> {
        // Who comes second waits, and finds what the first one made.
        let _turn = self.turns.turn(&format!("fit-{}-{size}", parent.id)).await;
        let id = parent.id;
        if let Some(found) = self.store(move |store| store.fitted_to(id, size)).await? {
            return Ok(found.id);
        }
        let (of, now) = (parent.clone(), self.now());
        let record = self.store(move |store| store.fit(&of, size, now)).await?;
        self.steps.pass("fitting").await;
        match self.make_fitted(key, parent, &record).await {
            Ok(()) => Ok(record.id),
            Err(error) => {
                self.undo(record).await;
                Err(error)
            }
        }
    }

    async fn make_fitted(&self, key: &str, parent: &Record, record: &Record) -> Result<(), Error> {
        let path = self.paths.delta(record.id);
        // While the file system shrinks it still has its old size.
        let (file, cluster) = (record.size.max(parent.size), record.cluster);
        blocking("making a delta", move || make_delta(&path, file, cluster)).await??;
        let disk = self.serve(record).await?;
        self.steps.pass("fit attached").await;
        self.resize_idle(key, &disk, record.size).await?;
        self.steps.pass("fit resized").await;
        let name = disk_of(record);
        let failed = Error::disk(key, "seal", &name);
        let Detached { seal, .. } = self.disks.detach(&name, true).await.map_err(failed)?;
        let Some(seal) = seal else {
            let (key, disk) = (key.to_owned(), name);
            return Err(Error::NotSealed { key, disk });
        };
        let usage = Usage {
            bytes: seal.allocated,
            inodes: 1,
        };
        let seal = seal_in(&seal);
        let id = record.id;
        self.store(move |store| store.fitted(id, seal, usage))
            .await?;
        self.steps.pass("fitted").await;
        Ok(())
    }
}
