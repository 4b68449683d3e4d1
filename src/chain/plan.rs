//! Resolve, then do: what a request means in terms of files. Touches no payload and no file.
//!
//! A read becomes [`Run`]s; neighbours that lie next to each other in one file become one. A write
//! becomes [`Step`]s, one at a time, since each may wait: while it waits the map may change.

use super::map::{Level, Map, TopMap};
use crate::units::{ByteRange, Cluster, ClusterSize};

/// Where the bytes of a run are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// In the top's file, from this offset on.
    Top(u64),
    /// In a sealed level's file, from this offset on.
    Below(Level, u64),
    /// Nowhere: they read as zeros.
    Nowhere,
}

/// Bytes of the disk that lie together somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Which bytes of the disk.
    pub range: ByteRange,
    /// Where they are.
    pub source: Source,
}

/// What the next bytes of a write need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The top owns them, side by side from this offset of its file.
    InPlace(ByteRange, u64),
    /// Whole clusters, or clusters that nobody has: give them fresh places side by side, write the
    /// bytes, publish. Ends with its last cluster.
    Fresh(ByteRange),
    /// Part of one cluster that a level below has: give it a fresh place, copy the rest up, publish.
    CopyUp(ByteRange),
    /// One cluster that another request is placing at the moment: wait for it, then ask again.
    Wait(Cluster),
}

/// Both maps of a chain, as one request sees them.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// Cluster size of the whole chain.
    pub size: ClusterSize,
    /// The top's map, if there is a writable top.
    pub top: Option<&'a TopMap>,
    /// The merged map of the levels below.
    pub base: &'a Map,
}

impl View<'_> {
    fn source(&self, piece: ByteRange) -> Source {
        let Some(cluster) = self.size.cluster_of(piece.start) else {
            return Source::Nowhere;
        };
        let within = self.size.offset_in(piece.start);
        if let Some(place) = self.top.and_then(|top| top.find(cluster)) {
            return Source::Top(self.size.start_of_place(place) + within);
        }
        match self.base.find(cluster) {
            Some(spot) => Source::Below(spot.level, self.size.start_of_place(spot.place) + within),
            None => Source::Nowhere,
        }
    }

    /// The first run of a range that is not empty: as long as its bytes lie together.
    #[must_use]
    pub fn run(&self, range: ByteRange) -> Run {
        let mut pieces = self.size.split(range);
        let Some(first) = pieces.next() else {
            return Run {
                range,
                source: Source::Nowhere,
            };
        };
        let source = self.source(first);
        let mut len = first.len;
        for piece in pieces {
            let follows = match (source, self.source(piece)) {
                (Source::Nowhere, Source::Nowhere) => true,
                (Source::Top(start), Source::Top(next)) => next == start + len,
                (Source::Below(level, start), Source::Below(other, next)) => {
                    other == level && next == start + len
                }
                _ => false,
            };
            if !follows {
                break;
            }
            len += piece.len;
        }
        Run {
            range: ByteRange::new(range.start, len),
            source,
        }
    }

    /// The first step of a write to a range that is not empty. `busy` says which clusters another
    /// request is placing.
    #[must_use]
    pub fn step(&self, range: ByteRange, busy: impl Fn(Cluster) -> bool) -> Step {
        let run = self.run(range);
        if let Source::Top(offset) = run.source {
            return Step::InPlace(run.range, offset);
        }
        let mut fresh = 0;
        for piece in self.size.split(range) {
            let Some(cluster) = self.size.cluster_of(piece.start) else {
                break;
            };
            let kind = self.source(piece);
            let step = if matches!(kind, Source::Top(_)) {
                break;
            } else if busy(cluster) {
                Step::Wait(cluster)
            } else if kind == Source::Nowhere || piece.len == self.size.bytes() {
                fresh += piece.len;
                continue;
            } else {
                Step::CopyUp(piece)
            };
            if fresh == 0 {
                return step;
            }
            break;
        }
        Step::Fresh(ByteRange::new(range.start, fresh))
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
