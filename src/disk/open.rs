//! From a chain's files to a disk that is ready to live on a shard. Blocks; runs on a thread of its own.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::Error;
use super::flush::Rounds;
use super::gate::Gate;
use super::handle::Spec;
use super::pending::{Identity, Pending, void_left};
use super::place::Writable;
use super::serve::Disk;
use super::shard::Build;
use super::shared::Shared;
use crate::causes::in_full;
use crate::chain::{self, Chains, OpenTop, Top};
use crate::image::{self, Header, ploop};
use crate::io::{Bug, Direct, File, Uring, now, sabotaged};
use crate::units::{Cluster, Place};

/// A disk about to live.
pub(super) struct Opened {
    pub(super) shared: Arc<Shared>,
    /// Size of its copy-up buffers: a cluster.
    pub(super) buffer: usize,
    pub(super) build: Build,
}

/// Opens a chain; for a writable one, finds out what an earlier process left and cuts the tail off.
pub(super) fn open(
    chains: &Chains,
    spec: &Spec,
    boot: [u8; 16],
    patience: Duration,
) -> Result<Opened, Error> {
    let opened = chains.open(&spec.deltas, !spec.read_only);
    if let Err(chain::Error::Image {
        source: image::Error::Unsynced(_),
        ..
    }) = &opened
    {
        // It was to cover what an earlier process has written and its pending file names.
        let path = &spec.pending;
        void_left(path).map_err(|source| Error::Pending {
            path: path.clone(),
            source,
        })?;
    }
    let (base, top) = opened?;
    let size = top
        .as_ref()
        .map_or(base.size(), |top| top.image.header.size());
    let cluster = base.cluster();
    let depth = base.depth() + usize::from(top.is_some());
    let shared = Arc::new(Shared::new(
        spec.id.clone(),
        size,
        cluster,
        depth,
        spec.read_only,
    ));
    let ready = top.map(|top| ReadyTop::new(top, spec, boot)).transpose()?;
    if let Some(ready) = &ready {
        // It is not sealed, whichever process serves it.
        shared.counters.lost_writes.set(ready.pending.lost());
    }
    let buffer = usize::try_from(cluster.bytes()).unwrap_or(usize::MAX);
    let for_disk = Arc::clone(&shared);
    let build: Build = Box::new(move |pool| Disk {
        base,
        writable: ready.map(ReadyTop::into_writable),
        shared: for_disk,
        pool,
        patience,
    });
    Ok(Opened {
        shared,
        buffer,
        build,
    })
}

/// A top that may travel to its thread.
pub(super) struct ReadyTop<F> {
    file: F,
    header: Header,
    top: Top,
    pending: Pending,
    length: u64,
}

impl ReadyTop<Uring> {
    fn new(open: OpenTop, spec: &Spec, boot: [u8; 16]) -> Result<Self, Error> {
        let OpenTop { file, image, .. } = open;
        let header = image.header;
        let io = |source| Error::Io {
            id: spec.id.clone(),
            source,
        };
        let identity =
            Identity::new(file.as_file(), boot, header.entries(), header.cluster()).map_err(io)?;
        // This thread has no ring.
        let direct = file.as_file().try_clone().and_then(Direct::new);
        let direct = direct.map_err(io)?;
        Self::recover(file, &direct, image, &identity, (&spec.id, &spec.pending))
    }
}

impl<F: File> ReadyTop<F> {
    /// Takes over what an earlier process has answered for, and cuts off and out what it has not. `direct`:
    /// the same file, which answers at once. Names: the disk's, and its pending file's.
    ///
    /// Nobody else writes to the file: a dead process' own writes hold the lock until they are done.
    pub(super) fn recover(
        file: F,
        direct: &impl File,
        image: ploop::Opened,
        identity: &Identity,
        (id, path): (&str, &Path),
    ) -> Result<Self, Error> {
        let io = |source| Error::Io {
            id: id.to_owned(),
            source,
        };
        let header = image.header;
        let cluster = header.cluster();
        let (mut pending, left) =
            Pending::open(path, identity).map_err(|source| Error::Pending {
                path: path.to_owned(),
                source,
            })?;

        let length = file.len().map_err(io)?;
        let Reconciled {
            news: left,
            known,
            mut end,
        } = reconcile(&image, &left, length / cluster.bytes(), path)?;
        if !sabotaged(Bug::KnownStays) {
            // Durable since the image was marked as in use. Kept on, such an entry would contradict the index as soon
            // as growth moves its cluster.
            known
                .into_iter()
                .for_each(|cluster| pending.settle(cluster));
        }
        if sabotaged(Bug::TailCutTooShort) {
            end = image.end;
        }
        if !left.is_empty() {
            tracing::info!(
                disk = id,
                clusters = left.len(),
                "took over map entries that an earlier process had answered for"
            );
        }
        let mut used: Vec<_> = image.entries.iter().map(|(_, place)| *place).collect();
        if !sabotaged(Bug::UnusedTooMuch) {
            used.extend(left.iter().map(|(_, place)| *place));
        }
        let mut top = Top::new(&image.entries, end);
        for (cluster, place) in left {
            top.publish(cluster, place);
        }
        // Whatever lies behind the last place was never answered for. Fresh space must read as zeros.
        let length = cluster.start_of_place(end);
        if !sabotaged(Bug::TailStays) {
            now(direct.set_len(length)).map_err(io)?;
        }
        if image.was_in_use && !sabotaged(Bug::UnusedStays) {
            free_unused(direct, &header, used, id);
        }
        Ok(Self {
            file,
            header,
            top,
            pending,
            length,
        })
    }

    pub(super) fn into_writable(self) -> Writable<F> {
        Writable {
            file: self.file,
            header: self.header.into(),
            top: self.top.into(),
            pending: Some(self.pending).into(),
            length: self.length.into(),
            growing: false.into(),
            copying: 0.into(),
            // An earlier process may have left data that no sync has covered.
            dirty: (!sabotaged(Bug::CleanAtOpen)).into(),
            unkept: 0.into(),
            changed: Gate::default(),
            rounds: Rounds::default(),
        }
    }
}

/// Gives back what an earlier process has placed and not answered for, before something that it has. A power cut
/// leaves much of it: all that was written since the last flush, if one page of the index came through.
///
/// The index is durable since the image was marked as in use: no older one can come back. These places are
/// never given out again.
fn free_unused(file: &impl File, header: &Header, used: Vec<Place>, id: &str) {
    match now(image::free(file, header, used)) {
        Ok(0) => {}
        Ok(bytes) => tracing::info!(
            disk = id,
            bytes,
            "gave back what an earlier process had written and never answered for"
        ),
        // It is only space; the next one tries again.
        Err(error) => tracing::warn!(
            disk = id,
            error = in_full(&error),
            "cannot give back what an earlier process had written and never answered for"
        ),
    }
}

/// Pending entries, held against the index.
struct Reconciled {
    /// What the index has not.
    news: Vec<(Cluster, Place)>,
    /// Clusters of which it has the same: a process died between the index and the word that it is there.
    known: Vec<Cluster>,
    /// Where fresh space begins.
    end: Place,
}

/// Holds what an earlier process left pending against the index.
fn reconcile(
    image: &ploop::Opened,
    left: &[(Cluster, Place)],
    places: u64,
    path: &Path,
) -> Result<Reconciled, Error> {
    let index: HashMap<Cluster, Place> = image.entries.iter().copied().collect();
    let mut owners: HashMap<Place, Cluster> = image
        .entries
        .iter()
        .map(|(cluster, place)| (*place, *cluster))
        .collect();
    let (mut news, mut known) = (Vec::new(), Vec::new());
    let mut end = image.end;
    for (cluster, place) in left.iter().copied() {
        let wrong = |why| Error::Contradiction {
            path: path.to_owned(),
            cluster,
            place,
            why,
        };
        match index.get(&cluster) {
            Some(same) if *same == place => {
                known.push(cluster);
                continue;
            }
            Some(_) => return Err(wrong("the index puts elsewhere")),
            None => {}
        }
        if place.0 < image.header.first_data().0 {
            return Err(wrong("lies inside the index"));
        }
        if u64::from(place.0) >= places {
            return Err(wrong("lies beyond the end of the file"));
        }
        if owners.insert(place, cluster).is_some() {
            return Err(wrong("belongs to another cluster"));
        }
        // `place` is below `places`, so one more is a number.
        end = end.max(Place(place.0.saturating_add(1)));
        news.push((cluster, place));
    }
    Ok(Reconciled { news, known, end })
}
