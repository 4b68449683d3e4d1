//! Transactions that change something, in the words of snapshots.
//!
//! Two strengths, and the rule for them: *what was answered for is durable*. A step that somebody
//! outside learns of is on the platter before the method returns; a step that only says what we are
//! about to do (`reserve`, `committing`, and the ways back) is kept in memory until the next durable
//! one. If the power or the process dies first, it is as if the step had never been: recovery finds a
//! file or a disk without a record and sweeps it, or an active snapshot whose top happens to be sealed,
//! which is as good as any other. So an intent costs microseconds and not a sync.

use std::sync::PoisonError;
use std::time::SystemTime;

use redb::{Durability, ReadableDatabase};

use super::open::set_ids_aside;
use super::tables::{Readable, Writable, parent_number};
use super::{Error, Id, Kind, Labels, Parent, Record, Seal, Stage, Store, Usage};

/// What a chain without a parent stands on.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Name of the golden file.
    pub golden: String,
    /// Bytes of its disk.
    pub size: u64,
    /// Bytes of a cluster of the deltas above it.
    pub cluster: u64,
}

/// A snapshot to be made.
#[derive(Clone, Debug)]
pub struct New<'a> {
    /// The snapshotter's name.
    pub space: &'a str,
    /// Its key.
    pub key: &'a str,
    /// View or active.
    pub kind: Kind,
    /// The name of its parent; empty for none.
    pub parent: &'a str,
    /// What it stands on if it has no parent.
    pub origin: Origin,
    /// The fitted snapshot that it stands on, instead of its parent itself.
    pub fitted: Option<Id>,
    /// Its labels.
    pub labels: Labels,
    /// The time.
    pub now: SystemTime,
}

impl Store {
    /// Reserves a key and a number for a snapshot that is about to be made.
    ///
    /// From now on its parent cannot be removed. Not durable.
    ///
    /// # Errors
    /// [`Error::ParentNotFound`], [`Error::ParentNotCommitted`], [`Error::Exists`].
    pub fn reserve(&self, new: New<'_>) -> Result<Record, Error> {
        self.numbered(|tables, id| {
            let mut record = Record {
                id,
                space: new.space.to_owned(),
                key: new.key.to_owned(),
                kind: new.kind,
                stage: Stage::Preparing,
                parent: None,
                golden: None,
                size: new.origin.size,
                cluster: new.origin.cluster,
                labels: new.labels.clone(),
                created: new.now.into(),
                updated: new.now.into(),
                seal: None,
                usage: None,
            };
            if new.parent.is_empty() {
                record.golden = Some(new.origin.golden.clone());
            } else {
                let name = new.parent.to_owned();
                let Some(parent) = tables.visible(new.space, new.parent)? else {
                    return Err(Error::ParentNotFound { name });
                };
                if parent.kind != Kind::Committed {
                    return Err(Error::ParentNotCommitted { name });
                }
                record.size = parent.size;
                record.cluster = parent.cluster;
                let mut id = parent.id;
                if let Some(fitted) = new.fitted {
                    let fitted = tables.begun(fitted)?;
                    if fitted.stage != Stage::Ready {
                        return Err(wrong_stage(&fitted));
                    }
                    record.size = fitted.size;
                    id = fitted.id;
                }
                record.parent = Some(Parent { id, name });
            }
            if tables.taken(new.space, new.key)? {
                return Err(Error::Exists {
                    key: new.key.to_owned(),
                });
            }
            tables.name(new.space, new.key, id)?;
            tables.children.insert((parent_number(&record), id.0), ())?;
            tables.put(&record)?;
            Ok(record)
        })
    }

    /// Reserves a number for a committed snapshot at another size, which is about to be made. Not durable.
    ///
    /// # Errors
    /// [`Error::ParentNotFound`] if it is gone.
    pub fn fit(&self, parent: &Record, size: u64, now: SystemTime) -> Result<Record, Error> {
        self.numbered(|tables, id| {
            let found = tables.visible(&parent.space, &parent.key)?;
            if found.is_none_or(|found| found.id != parent.id) {
                let name = parent.key.clone();
                return Err(Error::ParentNotFound { name });
            }
            let record = Record {
                id,
                kind: Kind::Fitted,
                stage: Stage::Preparing,
                parent: Some(Parent {
                    id: parent.id,
                    name: parent.key.clone(),
                }),
                golden: None,
                size,
                labels: Labels::new(),
                created: now.into(),
                updated: now.into(),
                seal: None,
                usage: None,
                ..parent.clone()
            };
            tables.children.insert((parent.id.0, id.0), ())?;
            tables.put(&record)?;
            Ok(record)
        })
    }

    /// A fitted snapshot is sealed: others may stand on it. Not durable: whoever does makes it so.
    ///
    /// # Errors
    /// [`Error::WrongStage`] unless it was being made, [`Error::Lost`].
    pub fn fitted(&self, id: Id, seal: Seal, usage: Usage) -> Result<Record, Error> {
        self.write(Durability::None, |tables| {
            let mut record = tables.begun(id)?;
            if record.kind != Kind::Fitted || record.stage != Stage::Preparing {
                return Err(wrong_stage(&record));
            }
            record.stage = Stage::Ready;
            record.seal = Some(seal);
            record.usage = Some(usage);
            tables.put(&record)?;
            Ok(record)
        })
    }

    /// Makes a record under the next number. A number that was not used is given again.
    fn numbered(
        &self,
        make: impl FnOnce(&mut Writable<'_>, Id) -> Result<Record, Error>,
    ) -> Result<Record, Error> {
        // Held during the transaction: only this method takes it, and writers queue anyway.
        let mut ids = self.ids().lock().unwrap_or_else(PoisonError::into_inner);
        if ids.is_empty() {
            let database = self.database()?;
            *ids = self.mend(&database, set_ids_aside(&database))?;
        }
        let id = Id(ids.start);
        let record = self.write(Durability::None, |tables| make(tables, id))?;
        ids.start += 1;
        Ok(record)
    }

    /// A prepared snapshot is whole: from now on containerd may know of it. Durable.
    ///
    /// # Errors
    /// [`Error::WrongStage`] unless it was being prepared, [`Error::Lost`].
    pub fn ready(&self, id: Id) -> Result<Record, Error> {
        self.write(Durability::Immediate, |tables| {
            let mut record = tables.begun(id)?;
            if record.stage != Stage::Preparing {
                return Err(wrong_stage(&record));
            }
            record.stage = Stage::Ready;
            tables.put(&record)?;
            Ok(record)
        })
    }

    /// Gives up a snapshot that was being prepared: its key is free, its parts may go. Not durable.
    ///
    /// # Errors
    /// [`Error::WrongStage`] if it was whole already, [`Error::Lost`].
    pub fn abandon(&self, id: Id) -> Result<Record, Error> {
        self.write(Durability::None, |tables| {
            let mut record = tables.begun(id)?;
            if record.stage != Stage::Preparing {
                return Err(wrong_stage(&record));
            }
            retire(tables, &mut record)?;
            Ok(record)
        })
    }

    /// Begins to commit an active snapshot, and reserves its name. Not durable.
    ///
    /// # Errors
    /// [`Error::Exists`] for the name, [`Error::NotFound`], [`Error::NotActive`] for the key.
    pub fn committing(&self, space: &str, key: &str, name: &str) -> Result<Record, Error> {
        self.write(Durability::None, |tables| {
            let found = tables.visible(space, key)?;
            // Left by a commit that failed and could not be undone; the caller has the key's turn.
            if let Some(Stage::Committing { name }) = found.as_ref().map(|record| &record.stage) {
                tables.unname(space, name)?;
            }
            if tables.taken(space, name)? {
                return Err(Error::Exists {
                    key: name.to_owned(),
                });
            }
            let mut record = found.ok_or_else(|| Error::NotFound {
                key: key.to_owned(),
            })?;
            if record.kind != Kind::Active {
                return Err(Error::NotActive {
                    key: key.to_owned(),
                });
            }
            record.stage = Stage::Committing {
                name: name.to_owned(),
            };
            tables.name(space, name, record.id)?;
            tables.put(&record)?;
            Ok(record)
        })
    }

    /// The sealed snapshot takes its name; its labels are replaced; its size is the one that it was found to have.
    /// Durable.
    ///
    /// # Errors
    /// [`Error::WrongStage`] unless it was being committed, [`Error::Lost`] if that is not known any more.
    pub fn committed(
        &self,
        id: Id,
        seal: Seal,
        size: u64,
        usage: Usage,
        labels: Labels,
        now: SystemTime,
    ) -> Result<Record, Error> {
        self.write(Durability::Immediate, |tables| {
            let mut record = tables.begun(id)?;
            let name = match &record.stage {
                Stage::Committing { name } => name.clone(),
                Stage::Ready if record.kind == Kind::Active => return Err(Error::Lost { id }),
                _ => return Err(wrong_stage(&record)),
            };
            tables.unname(&record.space, &record.key)?;
            record.key = name;
            record.kind = Kind::Committed;
            record.stage = Stage::Ready;
            record.labels = labels;
            record.created = now.into();
            record.updated = record.created;
            record.seal = Some(seal);
            record.size = size;
            record.usage = Some(usage);
            tables.put(&record)?;
            Ok(record)
        })
    }

    /// A snapshot that was being committed stays active. Not durable; may be repeated.
    ///
    /// # Errors
    /// [`Error::WrongStage`] if it is neither being committed nor an active one.
    pub fn roll_back(&self, id: Id) -> Result<Record, Error> {
        self.write(Durability::None, |tables| {
            let mut record = tables.known(id)?;
            match &record.stage {
                Stage::Committing { name } => tables.unname(&record.space, name)?,
                Stage::Ready if record.kind == Kind::Active => return Ok(record),
                _ => return Err(wrong_stage(&record)),
            }
            record.stage = Stage::Ready;
            tables.put(&record)?;
            Ok(record)
        })
    }

    /// Takes a snapshot out of the key space, and with it those that are fitted to it; their parts may go,
    /// in the order that is answered. Durable.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::HasChildren`].
    pub fn remove(&self, space: &str, key: &str) -> Result<Vec<Record>, Error> {
        self.write(Durability::Immediate, |tables| {
            let mut record = tables.find(space, key)?;
            let refuse = |child: Record| Error::HasChildren {
                key: key.to_owned(),
                child: child.key,
            };
            let mut gone = Vec::new();
            for child in tables.children_of(record.id.0)? {
                let child = tables.known(child)?;
                match tables.child_of(child.id)? {
                    None if child.kind == Kind::Fitted => gone.push(child),
                    None => return Err(refuse(child)),
                    Some(own) if child.kind == Kind::Fitted => {
                        return Err(refuse(tables.known(own)?));
                    }
                    Some(_) => return Err(refuse(child)),
                }
            }
            if let Stage::Committing { name } = &record.stage {
                tables.unname(space, name)?;
            }
            for fitted in &mut gone {
                retire(tables, fitted)?;
            }
            retire(tables, &mut record)?;
            gone.push(record);
            Ok(gone)
        })
    }

    /// A snapshot has another size. Durable.
    ///
    /// # Errors
    /// [`Error::WrongStage`] unless it is whole.
    pub fn resized(&self, id: Id, size: u64) -> Result<Record, Error> {
        self.write(Durability::Immediate, |tables| {
            let mut record = tables.known(id)?;
            match &record.stage {
                Stage::Ready => {}
                // Left by a commit that failed and could not be undone; the caller has the key's turn.
                Stage::Committing { name } => tables.unname(&record.space, name)?,
                _ => return Err(wrong_stage(&record)),
            }
            record.stage = Stage::Ready;
            record.size = size;
            tables.put(&record)?;
            Ok(record)
        })
    }

    /// The parts of a snapshot that was removed or given up are gone: forgets it. Not durable; may be
    /// repeated.
    ///
    /// # Errors
    /// [`Error::WrongStage`] if it is whole.
    pub fn forget(&self, id: Id) -> Result<(), Error> {
        self.forget_as(Durability::None, id)
    }

    /// The same of a snapshot that was never whole. Durable: another one's durable step may have taken its reservation
    /// along, and that would be back, and nobody's, if the store had to be opened again.
    ///
    /// # Errors
    /// As of [`Store::forget`].
    pub fn forget_for_good(&self, id: Id) -> Result<(), Error> {
        self.forget_as(Durability::Immediate, id)
    }

    fn forget_as(&self, durability: Durability, id: Id) -> Result<(), Error> {
        self.write(durability, |tables| {
            let Some(mut record) = tables.record(id)? else {
                return Ok(());
            };
            match record.stage {
                Stage::Removing => {}
                Stage::Preparing => retire(tables, &mut record)?,
                _ => return Err(wrong_stage(&record)),
            }
            tables.records.remove(id.0)?;
            Ok(())
        })
    }

    /// Changes a snapshot's labels. Durable.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn update(
        &self,
        space: &str,
        key: &str,
        now: SystemTime,
        change: impl FnOnce(&mut Labels),
    ) -> Result<Record, Error> {
        self.write(Durability::Immediate, |tables| {
            let mut record = tables.find(space, key)?;
            change(&mut record.labels);
            record.updated = now.into();
            tables.put(&record)?;
            Ok(record)
        })
    }

    /// Runs `act` in a transaction; an error undoes all of it.
    fn write<T>(
        &self,
        durability: Durability,
        act: impl FnOnce(&mut Writable<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let database = self.database()?;
        let transact = || {
            let mut txn = database.begin_write()?;
            txn.set_durability(durability)?;
            let mut tables = Writable::write(&txn)?;
            let done = act(&mut tables)?;
            drop(tables);
            txn.commit()?;
            Ok(done)
        };
        self.mend(&database, transact())
    }

    /// Runs `look` on one state of the store.
    pub(super) fn read<T>(
        &self,
        look: impl FnOnce(&Readable) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let database = self.database()?;
        let transact = || look(&Readable::read(&database.begin_read()?)?);
        self.mend(&database, transact())
    }
}

/// Takes a record's key and its place among its parent's children.
fn retire(tables: &mut Writable<'_>, record: &mut Record) -> Result<(), Error> {
    if record.kind != Kind::Fitted {
        tables.unname(&record.space, &record.key)?;
    }
    tables.orphan(record)?;
    record.stage = Stage::Removing;
    tables.put(record)
}

fn wrong_stage(record: &Record) -> Error {
    Error::WrongStage {
        id: record.id,
        stage: format!("{:?}", record.stage),
    }
}

#[cfg(test)]
#[path = "db_tests.rs"]
mod tests;
