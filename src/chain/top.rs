//! The writable level: which clusters it owns, who is getting a place, what is still pending.
//!
//! A cluster, once placed, keeps its place, and a place is given out once. So there is no free list,
//! and a place that was reserved in vain is left as a gap: its bytes may have been written, and fresh
//! space must read as zeros.

use super::map::TopMap;
use crate::io::{Bug, sabotaged};
use crate::units::{Cluster, Place};

/// What the top owns and is about to own.
#[derive(Debug)]
pub struct Top {
    map: TopMap,
    /// Every place from here on is fresh: never written, reads as zeros.
    next: Place,
    /// Clusters whose entries are not in the index, in the order they were published.
    pending: Vec<Cluster>,
    /// The vector of the last round, empty: the next one collects there.
    spare: Vec<Cluster>,
}

/// The most entries for which an empty vector keeps its memory, 16 KiB: a disk that is idle is small.
const SPARE: usize = 4096;

impl Top {
    /// A top with these entries in its index, whose fresh space begins at `next`.
    #[must_use]
    pub fn new(entries: &[(Cluster, Place)], next: Place) -> Self {
        Self {
            map: TopMap::new(entries),
            next,
            pending: Vec::new(),
            spare: Vec::new(),
        }
    }

    /// What it owns.
    #[must_use]
    pub fn map(&self) -> &TopMap {
        &self.map
    }

    /// The place after the last one that was given out.
    #[must_use]
    pub fn end(&self) -> Place {
        self.next
    }

    /// Places up to here are used up, whatever became of them.
    pub fn skip_to(&mut self, end: Place) {
        self.next = self.next.max(end);
    }

    /// Clusters have other places now, and the index says so. Nothing may be pending.
    pub fn moved(&mut self, clusters: &[(Cluster, Place)]) {
        for (cluster, place) in clusters {
            self.map.publish(*cluster, *place);
            self.map.settle(*cluster);
        }
    }

    /// Is a request placing this cluster?
    #[must_use]
    pub fn is_busy(&self, cluster: Cluster) -> bool {
        self.map.is_busy(cluster)
    }

    /// Fresh places side by side, one for each cluster; the first is returned. `None`: the file is as
    /// large as a map can name.
    pub fn reserve(&mut self, clusters: impl Iterator<Item = Cluster> + Clone) -> Option<Place> {
        let count = u32::try_from(clusters.clone().count()).ok()?;
        let first = self.next;
        self.next = Place(first.0.checked_add(count)?);
        if sabotaged(Bug::PlaceReused) && count > 1 {
            self.next = Place(self.next.0 - 1);
        }
        clusters.for_each(|cluster| self.map.reserve(cluster));
        Some(first)
    }

    /// A reservation is completed: the top owns the cluster from now on.
    pub fn publish(&mut self, cluster: Cluster, place: Place) {
        self.map.publish(cluster, place);
        self.pending.push(cluster);
    }

    /// A reservation is dropped: the cluster stays where it was.
    pub fn release(&mut self, cluster: Cluster) {
        self.map.release(cluster);
    }

    /// How many entries are pending?
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The entries that are pending now, to be written into the index. What is published from here
    /// on belongs to the next round.
    pub fn take_pending(&mut self) -> Vec<Cluster> {
        let spare = std::mem::take(&mut self.spare);
        let round = std::mem::replace(&mut self.pending, spare);
        for cluster in &round {
            self.map.settle(*cluster);
        }
        round
    }

    /// A round could not be written: its entries are pending as before.
    pub fn put_back(&mut self, mut round: Vec<Cluster>) {
        for cluster in &round {
            self.map.unsettle(*cluster);
        }
        round.append(&mut self.pending);
        let later = std::mem::replace(&mut self.pending, round);
        self.reuse(later);
    }

    /// Gives the vector of a finished round back, to be filled again.
    pub fn reuse(&mut self, mut round: Vec<Cluster>) {
        round.clear();
        if round.capacity() <= SPARE {
            self.spare = round;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Top;
    use crate::units::{Cluster, Place};

    #[test]
    fn a_place_is_given_out_once_even_if_its_reservation_is_dropped() {
        let mut top = Top::new(&[(Cluster(1), Place(3))], Place(4));
        let two = [Cluster(7), Cluster(8)];
        assert_eq!(top.reserve(two.into_iter()), Some(Place(4)));
        assert!(top.is_busy(Cluster(7)) && top.is_busy(Cluster(8)) && !top.is_busy(Cluster(1)));
        top.release(Cluster(7));
        top.publish(Cluster(8), Place(5));
        assert!(!top.is_busy(Cluster(7)) && !top.is_busy(Cluster(8)));
        assert_eq!(
            (top.map().find(Cluster(7)), top.map().find(Cluster(8))),
            (None, Some(Place(5)))
        );
        assert_eq!(top.reserve([Cluster(7)].into_iter()), Some(Place(6)));
        assert_eq!(top.end(), Place(7));
    }

    #[test]
    fn what_is_published_during_a_round_belongs_to_the_next() {
        let mut top = Top::new(&[], Place(1));
        top.publish(Cluster(1), Place(1));
        let round = top.take_pending();
        top.publish(Cluster(2), Place(2));
        assert_eq!(round, [Cluster(1)]);
        assert_eq!(
            (top.map().settled(Cluster(1)), top.map().settled(Cluster(2))),
            (1, 0)
        );
        top.reuse(round);
        assert_eq!(top.take_pending(), [Cluster(2)]);
    }

    #[test]
    fn a_round_that_was_put_back_is_taken_again() {
        let mut top = Top::new(&[], Place(1));
        top.publish(Cluster(1), Place(1));
        let round = top.take_pending();
        top.publish(Cluster(2), Place(2));
        top.put_back(round);
        assert_eq!(
            (top.map().settled(Cluster(1)), top.map().find(Cluster(1))),
            (0, Some(Place(1)))
        );
        assert_eq!(top.take_pending(), [Cluster(1), Cluster(2)]);
        assert_eq!(top.map().settled(Cluster(1)), 1);
    }

    #[test]
    fn a_file_ends_where_a_map_can_name_no_more() {
        let mut top = Top::new(&[], Place(u32::MAX - 1));
        assert_eq!(top.reserve([Cluster(0), Cluster(1)].into_iter()), None);
        assert_eq!(
            top.reserve([Cluster(0)].into_iter()),
            Some(Place(u32::MAX - 1))
        );
    }
}
