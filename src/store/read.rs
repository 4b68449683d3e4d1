//! What can be asked of the store. Each question sees one state of it.

use super::tables::NOBODY;
use super::{Error, Id, Kind, Record, Stage, Store};

impl Store {
    /// The snapshot that answers to this key.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn find(&self, space: &str, key: &str) -> Result<Record, Error> {
        self.read(|tables| tables.find(space, key))
    }

    /// The record with this number, whatever its stage.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn record(&self, id: Id) -> Result<Option<Record>, Error> {
        self.read(|tables| tables.record(id))
    }

    /// Every snapshot of a space that containerd may know of.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn list(&self, space: &str) -> Result<Vec<Record>, Error> {
        let mut records = self.all()?;
        records.retain(|record| record.space == space && record.visible());
        Ok(records)
    }

    /// Every record of every space at every stage.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn all(&self) -> Result<Vec<Record>, Error> {
        self.read(super::tables::Tables::all)
    }

    /// A snapshot and all that it stands on, lowest first.
    ///
    /// # Errors
    /// [`Error::MissingRecord`] if one of them is unknown.
    pub fn chain(&self, id: Id) -> Result<Vec<Record>, Error> {
        self.read(|tables| {
            let mut chain = Vec::new();
            let mut next = Some(id);
            while let Some(id) = next {
                let record = tables.known(id)?;
                next = record.parent.as_ref().map(|parent| parent.id);
                chain.push(record);
            }
            chain.reverse();
            Ok(chain)
        })
    }

    /// The snapshot that is fitted to `parent` with this size, if there is one.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn fitted_to(&self, parent: Id, size: u64) -> Result<Option<Record>, Error> {
        self.read(|tables| {
            for id in tables.children_of(parent.0)? {
                let child = tables.known(id)?;
                if child.kind == Kind::Fitted && child.size == size && child.stage == Stage::Ready {
                    return Ok(Some(child));
                }
            }
            Ok(None)
        })
    }

    /// Does a view stand on this committed snapshot?
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn viewed(&self, parent: Id) -> Result<bool, Error> {
        self.any_child(parent.0, |child| child.kind == Kind::View)
    }

    /// Does a view stand on this golden file system, with nothing between?
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn golden_viewed(&self, golden: &str) -> Result<bool, Error> {
        self.any_child(NOBODY, |child| {
            child.kind == Kind::View && child.golden.as_deref() == Some(golden)
        })
    }

    fn any_child(&self, parent: u64, is: impl Fn(&Record) -> bool) -> Result<bool, Error> {
        self.read(|tables| {
            for id in tables.children_of(parent)? {
                if is(&tables.known(id)?) {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }
}
