//! The bodies of deliberate bugs that take more than a line.

use crate::disk::place::Writable;
use crate::disk::serve::Disk;
use crate::io::File;
use crate::units::{ByteRange, Cluster, Place};

impl<F: File> Disk<F> {
    /// The top does not own the clusters any more that lie wholly inside.
    pub(in crate::disk) fn forget(&self, writable: &Writable<F>, range: ByteRange) {
        let size = self.base.cluster();
        for piece in size.split(range).filter(|it| it.len == size.bytes()) {
            if let Some(cluster) = size.cluster_of(piece.start) {
                self.say(writable, cluster, Place(0));
            }
        }
    }

    /// The top owns the clusters of a run whose bytes are about to be written at `offset`.
    pub(in crate::disk) fn publish_early(
        &self,
        writable: &Writable<F>,
        run: ByteRange,
        offset: u64,
    ) {
        let size = self.base.cluster();
        let first = u32::try_from(offset / size.bytes()).map(Place);
        if let (Some(clusters), Ok(first)) = (size.clusters(run), first) {
            for (place, cluster) in (first.0..).zip(clusters) {
                self.say(writable, Cluster(cluster), Place(place));
            }
        }
    }

    fn say(&self, writable: &Writable<F>, cluster: Cluster, place: Place) {
        writable.top.borrow_mut().publish(cluster, place);
        if let Some(pending) = writable.pending.borrow_mut().as_mut() {
            pending.keep(cluster, place);
        }
    }
}
