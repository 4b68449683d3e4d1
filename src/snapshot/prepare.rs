//! Prepare and view: a new snapshot over a sealed chain.
//!
//! The key is reserved first, so that the parent stays and a second caller is told; then file and disk
//! are made; then the record is ready, durably, and only then somebody hears of it. Whatever fails on
//! the way is taken apart again before the caller is told.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::mounts::decide;
use super::root::sync_dir;
use super::shared::{Shared, blocking};
use super::words::{check_key, check_labels};
use super::{Error, Kind, Labels, Mount, Snapshotter};
use crate::image;
use crate::io::{Direct, now};
use crate::link::Disk;
use crate::store::{New, Record};
use crate::units::ClusterSize;

impl Snapshotter {
    /// Makes an active snapshot over `parent`, or over an empty file system if that is empty.
    ///
    /// # Errors
    /// `NotFound`, `AlreadyExists`, `InvalidArgument`, and whatever hinders the host.
    pub async fn prepare(
        &self,
        key: &str,
        parent: &str,
        labels: Labels,
    ) -> Result<Vec<Mount>, Error> {
        self.make(Kind::Active, key, parent, labels).await
    }

    /// Makes a read-only snapshot over `parent`, or over an empty file system if that is empty.
    ///
    /// # Errors
    /// As for [`Snapshotter::prepare`].
    pub async fn view(&self, key: &str, parent: &str, labels: Labels) -> Result<Vec<Mount>, Error> {
        self.make(Kind::View, key, parent, labels).await
    }

    async fn make(
        &self,
        kind: Kind,
        key: &str,
        parent: &str,
        labels: Labels,
    ) -> Result<Vec<Mount>, Error> {
        check_key(key)?;
        let labels = check_labels(labels)?;
        let _turn = self.turn(key).await;
        let shared = self.shared();
        let (space, origin) = (self.space().to_owned(), self.origin().clone());
        let (wanted, parent, now) = (key.to_owned(), parent.to_owned(), shared.now());
        let record = shared
            .store(move |store| {
                store.reserve(New {
                    space: &space,
                    key: &wanted,
                    kind,
                    parent: &parent,
                    origin,
                    labels,
                    now,
                })
            })
            .await?;
        shared.steps.pass("reserved").await;
        match build(shared, &record).await {
            // Nobody can have mounted it yet.
            Ok(disk) => Ok(decide(&disk, &[])),
            Err(error) => {
                shared.undo(record).await;
                Err(error)
            }
        }
    }
}

/// Makes what a reserved record promises, and says that it is ready.
async fn build(shared: &Shared, record: &Record) -> Result<Disk, Error> {
    if record.kind == Kind::Active {
        let path = shared.paths.delta(record.id);
        let (size, cluster) = (record.size, record.cluster);
        blocking("making a delta", move || make_delta(&path, size, cluster)).await??;
        shared.steps.pass("delta made").await;
    }
    let disk = shared.serve(record).await?;
    shared.steps.pass("attached").await;
    let id = record.id;
    shared.store(move |store| store.ready(id)).await?;
    shared.steps.pass("ready").await;
    Ok(disk)
}

/// A new, empty delta: durable, and its name too.
fn make_delta(path: &Path, size: u64, cluster: u64) -> Result<(), Error> {
    let image = |source| Error::Image {
        path: path.to_owned(),
        source: Box::new(source),
    };
    let cluster = ClusterSize::new(cluster).map_err(|source| Error::BadCluster {
        path: path.to_owned(),
        source,
    })?;
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(Direct::new)
        .map_err(Error::file("make", path))?;
    now(image::ploop::create(&file, size, cluster)).map_err(image)?;
    sync_dir(path.parent().unwrap_or(path))
}
