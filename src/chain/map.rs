//! Where each cluster is: `cluster -> (level, place)` for the sealed levels, `cluster -> place` for
//! the top.
//!
//! Both are arrays of pages, so that a lookup is two loads at any depth and an empty region costs one
//! pointer. The pages of a base map are shared: the map of a chain with one more level copies only the
//! pages that the new level touches.

use std::sync::Arc;

use crate::units::{Cluster, Place};

/// Clusters in a page.
const PAGE: usize = 1024;

/// A level's number, base = 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(pub u16);

/// No level holds the cluster.
const NOWHERE: u16 = u16::MAX;

/// The most levels that a map can name.
pub const MAX_LEVELS: usize = NOWHERE as usize;

/// Where a cluster's bytes are: which level, which cluster of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    /// The level that owns it.
    pub level: Level,
    /// Its place in that level's file.
    pub place: Place,
}

#[derive(Clone, Debug)]
struct BasePage {
    levels: [u16; PAGE],
    places: [u32; PAGE],
}

/// The merged map of sealed levels. Never changes.
#[derive(Clone, Debug, Default)]
pub struct Map {
    pages: Vec<Option<Arc<BasePage>>>,
}

impl Map {
    /// This map with a level on top.
    #[must_use]
    pub fn with(&self, level: Level, entries: &[(Cluster, Place)]) -> Self {
        let mut pages = self.pages.clone();
        for (cluster, place) in entries {
            let (page, slot) = split(*cluster);
            if pages.len() <= page {
                pages.resize(page + 1, None);
            }
            let page = pages[page].get_or_insert_with(|| {
                Arc::new(BasePage {
                    levels: [NOWHERE; PAGE],
                    places: [0; PAGE],
                })
            });
            // Copies the page once if a map below shares it.
            let page = Arc::make_mut(page);
            page.levels[slot] = level.0;
            page.places[slot] = place.0;
        }
        Self { pages }
    }

    /// Who owns this cluster?
    #[must_use]
    pub fn find(&self, cluster: Cluster) -> Option<Spot> {
        let (page, slot) = split(cluster);
        let page = self.pages.get(page)?.as_deref()?;
        let level = page.levels[slot];
        (level != NOWHERE).then(|| Spot {
            level: Level(level),
            place: Place(page.places[slot]),
        })
    }

    /// Bytes of memory that this map and those it shares pages with hold.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.pages.iter().flatten().count() * size_of::<BasePage>()
            + self.pages.len() * size_of::<Option<Arc<BasePage>>>()
    }
}

#[derive(Clone, Debug)]
struct TopPage {
    /// 0: the top does not own it.
    places: [u32; PAGE],
    /// One bit a cluster: the entry is not in the image's index yet.
    pending: [u64; PAGE / 64],
    /// One bit a cluster: a request is placing it.
    busy: [u64; PAGE / 64],
}

/// The map of the top: which clusters it owns, and which of these entries are only pending.
#[derive(Debug, Default)]
pub struct TopMap {
    pages: Vec<Option<Box<TopPage>>>,
}

impl TopMap {
    /// A map with these entries, all of them in the image's index.
    #[must_use]
    pub fn new(entries: &[(Cluster, Place)]) -> Self {
        let mut map = Self::default();
        for (cluster, place) in entries {
            map.slot(*cluster, |page, slot| page.places[slot] = place.0);
        }
        map
    }

    /// Does the top own this cluster, and where?
    #[must_use]
    pub fn find(&self, cluster: Cluster) -> Option<Place> {
        let (page, slot) = split(cluster);
        let place = self.pages.get(page)?.as_deref()?.places[slot];
        (place != 0).then_some(Place(place))
    }

    /// Is a request placing this cluster?
    #[must_use]
    pub fn is_busy(&self, cluster: Cluster) -> bool {
        let (page, slot) = split(cluster);
        let page = self.pages.get(page).and_then(Option::as_deref);
        page.is_some_and(|page| page.busy[slot / 64] >> (slot % 64) & 1 == 1)
    }

    /// A request is placing the cluster from now on.
    pub fn reserve(&mut self, cluster: Cluster) {
        self.slot(cluster, |page, slot| {
            page.busy[slot / 64] |= 1 << (slot % 64);
        });
    }

    /// No request is placing the cluster any more.
    pub fn release(&mut self, cluster: Cluster) {
        self.slot(cluster, |page, slot| {
            page.busy[slot / 64] &= !(1 << (slot % 64));
        });
    }

    /// The top owns this cluster from now on, and nobody places it; the index does not say so yet.
    pub fn publish(&mut self, cluster: Cluster, place: Place) {
        self.slot(cluster, |page, slot| {
            page.places[slot] = place.0;
            page.pending[slot / 64] |= 1 << (slot % 64);
            page.busy[slot / 64] &= !(1 << (slot % 64));
        });
    }

    /// The entry did not get into the index after all.
    pub fn unsettle(&mut self, cluster: Cluster) {
        self.slot(cluster, |page, slot| {
            page.pending[slot / 64] |= 1 << (slot % 64);
        });
    }

    /// The entry goes into the index.
    pub fn settle(&mut self, cluster: Cluster) {
        self.slot(cluster, |page, slot| {
            page.pending[slot / 64] &= !(1 << (slot % 64))
        });
    }

    /// What the index says, or is about to say: 0 for what is not owned or still pending.
    #[must_use]
    pub fn settled(&self, cluster: Cluster) -> u32 {
        let (page, slot) = split(cluster);
        self.pages
            .get(page)
            .and_then(Option::as_deref)
            .map_or(0, |page| {
                let pending = page.pending[slot / 64] >> (slot % 64) & 1 == 1;
                if pending { 0 } else { page.places[slot] }
            })
    }

    fn slot(&mut self, cluster: Cluster, act: impl FnOnce(&mut TopPage, usize)) {
        let (page, slot) = split(cluster);
        if self.pages.len() <= page {
            self.pages.resize(page + 1, None);
        }
        let page = self.pages[page].get_or_insert_with(|| {
            Box::new(TopPage {
                places: [0; PAGE],
                pending: [0; PAGE / 64],
                busy: [0; PAGE / 64],
            })
        });
        act(page, slot);
    }
}

const fn split(cluster: Cluster) -> (usize, usize) {
    (cluster.0 as usize / PAGE, cluster.0 as usize % PAGE)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Level, Map, Spot, TopMap};
    use crate::units::{Cluster, Place};

    fn spot(level: u16, place: u32) -> Option<Spot> {
        Some(Spot {
            level: Level(level),
            place: Place(place),
        })
    }

    #[test]
    fn the_highest_level_wins_and_lower_maps_stay_as_they_were() {
        let base = Map::default().with(
            Level(0),
            &[(Cluster(0), Place(0)), (Cluster(5000), Place(9))],
        );
        let upper = base.with(
            Level(1),
            &[(Cluster(5000), Place(1)), (Cluster(1024), Place(2))],
        );
        assert_eq!(
            base.find(Cluster(0)),
            spot(0, 0),
            "place 0 is a place in a raw base"
        );
        assert_eq!(base.find(Cluster(5000)), spot(0, 9));
        assert_eq!(base.find(Cluster(1024)), None);
        assert_eq!(base.find(Cluster(u32::MAX)), None);
        assert_eq!(upper.find(Cluster(0)), spot(0, 0));
        assert_eq!(upper.find(Cluster(5000)), spot(1, 1));
        assert_eq!(upper.find(Cluster(1024)), spot(1, 2));
    }

    #[test]
    fn a_level_copies_only_the_pages_it_touches() {
        let base = Map::default().with(
            Level(0),
            &[(Cluster(0), Place(1)), (Cluster(1024), Place(2))],
        );
        let upper = base.with(Level(1), &[(Cluster(1024), Place(1))]);
        let shared = |page: usize| {
            Arc::ptr_eq(
                base.pages[page].as_ref().unwrap(),
                upper.pages[page].as_ref().unwrap(),
            )
        };
        assert!(shared(0) && !shared(1));
    }

    #[test]
    fn an_entry_reaches_the_index_only_when_it_is_settled() {
        let mut top = TopMap::new(&[(Cluster(3), Place(7))]);
        assert_eq!(
            (top.find(Cluster(3)), top.settled(Cluster(3))),
            (Some(Place(7)), 7)
        );
        top.publish(Cluster(70), Place(8));
        assert_eq!(
            (top.find(Cluster(70)), top.settled(Cluster(70))),
            (Some(Place(8)), 0)
        );
        top.settle(Cluster(70));
        assert_eq!(top.settled(Cluster(70)), 8);
        assert_eq!(
            (top.find(Cluster(4)), top.settled(Cluster(4000))),
            (None, 0)
        );
    }
}
