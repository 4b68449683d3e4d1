//! Sealed levels, one upon the other: their files and their merged map. Never changes.

use std::path::Path;
use std::sync::Arc;

use super::Error;
use super::map::{Level, MAX_LEVELS, Map};
use crate::image::{Format, Image};
use crate::io::File;
use crate::units::ClusterSize;

/// The sealed levels of a chain. Shared by every disk that stands on them.
#[derive(Debug)]
pub struct Base<F> {
    cluster: ClusterSize,
    size: u64,
    map: Map,
    files: Vec<Arc<F>>,
}

impl<F: File> Base<F> {
    /// No level: everything reads as zeros.
    #[must_use]
    pub fn empty(cluster: ClusterSize) -> Self {
        Self {
            cluster,
            size: 0,
            map: Map::default(),
            files: Vec::new(),
        }
    }

    /// These levels with one more on top.
    ///
    /// # Errors
    /// If the image does not fit on the levels below it: another cluster size, a raw file that is not
    /// the base, or one level too many. `path` is for the message.
    pub fn with(&self, image: &Image, file: Arc<F>, path: &Path) -> Result<Self, Error> {
        let depth = self.files.len();
        let level = u16::try_from(depth)
            .ok()
            .filter(|level| usize::from(*level) < MAX_LEVELS)
            .ok_or(Error::TooDeep(depth + 1))?;
        if image.format() == Format::Raw && depth > 0 {
            return Err(Error::RawAboveBase {
                path: path.to_owned(),
            });
        }
        fits(path, image.cluster(), self.cluster)?;
        let mut files = self.files.clone();
        files.push(file);
        Ok(Self {
            cluster: self.cluster,
            size: image.size(),
            map: self.map.with(Level(level), image.entries()),
            files,
        })
    }

    /// Cluster size of the whole chain.
    #[must_use]
    pub fn cluster(&self) -> ClusterSize {
        self.cluster
    }

    /// Size of the disk in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Number of levels.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.files.len()
    }

    /// The merged map.
    #[must_use]
    pub fn map(&self) -> &Map {
        &self.map
    }

    /// The file of a level that the map named.
    #[must_use]
    pub fn file(&self, level: Level) -> Option<&F> {
        self.files.get(usize::from(level.0)).map(Arc::as_ref)
    }
}

/// May an image with these clusters stand on levels with those?
///
/// Its disk may have any size. A smaller one shows a part of what lies below, and the rest again when it grows:
/// whoever makes it larger zeroes what comes into sight.
pub(super) fn fits(path: &Path, found: ClusterSize, expected: ClusterSize) -> Result<(), Error> {
    if found != expected {
        return Err(Error::ClusterSize {
            path: path.to_owned(),
            found,
            expected,
        });
    }
    Ok(())
}
