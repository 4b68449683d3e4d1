//! Prepare and view: a new snapshot over a sealed chain.
//!
//! The key is reserved first, so that the parent stays and a second caller is told; then file and disk
//! are made; then the record is ready, durably, and only then somebody hears of it. Whatever fails on
//! the way is taken apart again before the caller is told.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::device::file_system;
use super::mounts::decide;
use super::paths::golden_kind;
use super::root::sync_dir;
use super::shared::{Shared, blocking};
use super::words::{check_key, check_labels};
use super::{Caller, Error, Kind, Labels, Mount, NameOptions, Snapshotter, golden, sizes};
use crate::filesystem::Kind as FileSystem;
use crate::image;
use crate::io::{Direct, now};
use crate::link::Disk;
use crate::store::{Id, New, Origin, Record, Store};
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
        Caller::still_waits(key)?;
        let shared = self.shared();
        let space = self.space().to_owned();
        let (origin, fitted) = match kind {
            Kind::Active => {
                shared.spare_room().await?;
                self.ground(key, parent, &labels).await?
            }
            // Nothing is written to a view: its parent's size is right.
            _ => (self.origin().clone(), None),
        };
        let (wanted, parent, now) = (key.to_owned(), parent.to_owned(), shared.now());
        let record = shared
            .store(move |store| {
                store.reserve(New {
                    space: &space,
                    key: &wanted,
                    kind,
                    parent: &parent,
                    origin,
                    fitted,
                    labels,
                    now,
                })
            })
            .await?;
        shared.steps.pass("reserved").await;
        let user_quota = self.options().file_system.user_quota();
        match build(shared, &record, user_quota).await {
            // Nobody can have mounted it yet.
            Ok((disk, kind)) => Ok(decide(&disk, &[], kind, user_quota)),
            Err(error) => {
                shared.undo(record).await;
                Err(error)
            }
        }
    }
}

impl Snapshotter {
    /// What a new active snapshot stands on, at the size that it should have: a golden file if it has no
    /// parent, or what is fitted to its parent if that has another size.
    async fn ground(
        &self,
        key: &str,
        parent: &str,
        labels: &Labels,
    ) -> Result<(Origin, Option<Id>), Error> {
        let (shared, name) = (self.shared(), self.options());
        let of_image = sizes::of_image(labels);
        let asked = match sizes::asked(key, labels) {
            // A wrong label of an image says nothing.
            Err(_) if of_image => None,
            asked => asked?,
        };
        let own = self.origin().clone();
        if parent.is_empty() {
            let Some(asked) = asked else {
                return Ok((own, None));
            };
            let asked = if of_image {
                sizes::wished(key, asked, own.cluster, name)
            } else {
                asked
            };
            let size = sizes::bounded(key, asked, own.cluster, name)?;
            return Ok((shared.golden_of(name, size).await?, None));
        }
        let found = match self.find(parent).await {
            Ok(found) if found.kind == Kind::Committed => found,
            // The reservation says what is wrong with it, by its own rules.
            _ => return Ok((own, None)),
        };
        let size = match asked {
            Some(asked) if !of_image => sizes::bounded(key, asked, found.cluster, name)?,
            wish => shared.unasked(key, wish, &found, name).await?,
        };
        if size == found.size {
            return Ok((own, None));
        }
        Ok((own, Some(shared.fitted(key, &found, size).await?)))
    }
}

impl Shared {
    /// The size of a snapshot for which nobody asked for one: what an image wishes that is being unpacked into it, else
    /// the nearest label of its chain, else the name's.
    ///
    /// Nobody who makes a container can change an image's label or the size at which it was unpacked, so neither is
    /// refused: a size outside the limits becomes the limit, and an XFS, which cannot shrink, stays as large as it is.
    async fn unasked(
        &self,
        key: &str,
        wish: Option<u64>,
        parent: &Record,
        name: &NameOptions,
    ) -> Result<u64, Error> {
        let id = parent.id;
        let chain = self.store(move |store| store.chain(id)).await?;
        let mut labels = chain.iter().rev().map(|below| (&below.key, &below.labels));
        // A wrong label says nothing.
        let inherited =
            || labels.find_map(|(key, labels)| sizes::asked(key, labels).ok().flatten());
        let wish = wish.or_else(inherited);
        let wished = |asked| sizes::wished(key, asked, parent.cluster, name);
        let size = wish.map_or(name.size, wished);
        let size = size - size % parent.cluster;
        let golden = chain.iter().find_map(|below| below.golden.as_deref());
        if golden.and_then(golden_kind) == Some(FileSystem::Xfs) {
            return Ok(size.max(parent.size));
        }
        Ok(size)
    }

    /// An empty file system of this size, made if it is the first.
    async fn golden_of(&self, name: &NameOptions, size: u64) -> Result<Origin, Error> {
        let _turn = self.turns.turn(&format!("golden-{size}")).await;
        let records = self.store(Store::all).await?;
        let options = NameOptions {
            size,
            ..name.clone()
        };
        golden::ensure(&self.paths, &options, &records).await
    }

    /// Refuses a new container while the host has less left than is kept back.
    async fn spare_room(&self) -> Result<(), Error> {
        let (root, reserve) = (self.paths.root().to_owned(), self.options.reserve);
        if reserve == 0 {
            return Ok(());
        }
        let asked = root.clone();
        let found = blocking("looking at the host's disk", move || {
            rustix::fs::statvfs(&asked).map_err(std::io::Error::from)
        });
        let found = found.await?.map_err(Error::file("look at", &root))?;
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        if free >= reserve {
            return Ok(());
        }
        Err(Error::Reserve {
            root,
            free,
            reserve,
        })
    }
}

/// Makes what a reserved record promises, and says that it is ready.
async fn build(
    shared: &Shared,
    record: &Record,
    user_quota: bool,
) -> Result<(Disk, FileSystem), Error> {
    if record.kind == Kind::Active {
        let path = shared.paths.delta(record.id);
        let (size, cluster) = (record.size, record.cluster);
        blocking("making a delta", move || make_delta(&path, size, cluster)).await??;
        shared.steps.pass("delta made").await;
    }
    let disk = shared.serve(record).await?;
    shared.steps.pass("attached").await;
    if user_quota && record.kind == Kind::Active {
        shared.keep_user_quota(&record.key, &disk).await?;
    }
    let kind = file_system(&disk, shared.options.flush_limit).await?;
    Caller::decide(&record.key)?;
    let id = record.id;
    shared.store(move |store| store.ready(id)).await?;
    shared.steps.pass("ready").await;
    Ok((disk, kind))
}

/// A new, empty delta: durable, and its name too.
pub(super) fn make_delta(path: &Path, size: u64, cluster: u64) -> Result<(), Error> {
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
