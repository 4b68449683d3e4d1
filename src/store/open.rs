//! Opening the store: its layout is ours, its numbers are fresh, and an I/O error is not for ever.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use redb::{Database, ReadableTable};

use super::Error;
use super::tables::{LAYOUT, META, Writable};

/// Memory for the store's pages; a record is a few hundred bytes.
const CACHE: usize = 16 << 20;
/// Numbers that are set aside at once, so that a number lost with its transaction is not given again.
const IDS: u64 = 1024;

/// A broken database is in use until the last thread has let it go; wait for that so often, ...
const TRIES: u32 = 100;
/// ... and so long each time.
const AGAIN: Duration = Duration::from_millis(10);

/// The store: one file.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// None after an I/O error, until it can be opened again.
    ///
    /// Held only to look at the pointer or to open the file. Lock order: `ids`, `database`.
    database: Mutex<Option<Arc<Database>>>,
    /// Numbers that are ours to give: durably set aside, not yet given.
    ids: Mutex<Range<u64>>,
}

impl Store {
    /// Opens the store, or makes an empty one.
    ///
    /// # Errors
    /// [`Error::Open`] if the file is no store or in use, [`Error::StoreVersion`] if it is another
    /// version's.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let database = if fs::metadata(path).is_ok_and(|file| file.len() > 0) {
            let database = open(path)?;
            check_layout(&database, path)?;
            database
        } else {
            make(path)?
        };
        let ids = set_ids_aside(&database)?;
        Ok(Self {
            path: path.to_owned(),
            database: Mutex::new(Some(Arc::new(database))),
            ids: Mutex::new(ids),
        })
    }

    /// Makes everything before durable, as any other durable step would.
    #[cfg(test)]
    pub(crate) fn flush(&self) {
        set_ids_aside(&self.database().unwrap()).unwrap();
    }

    pub(super) fn ids(&self) -> &Mutex<Range<u64>> {
        &self.ids
    }

    /// The database; a fresh one if the last met an I/O error.
    pub(super) fn database(&self) -> Result<Arc<Database>, Error> {
        let mut slot = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(database) = &*slot {
            return Ok(Arc::clone(database));
        }
        let mut tries = 0;
        let database = loop {
            match open(&self.path) {
                // Somebody is just finding out that the old one is broken.
                Err(error) if error.in_use() && tries < TRIES => {
                    tries += 1;
                    thread::sleep(AGAIN);
                }
                done => break Arc::new(done?),
            }
        };
        tracing::warn!(store = %self.path.display(), "opened the store again after an I/O error");
        *slot = Some(Arc::clone(&database));
        Ok(database)
    }

    /// Gives a database up that met an I/O error; passes everything else on.
    ///
    /// After a failed write (the host's disk was full for a moment) redb refuses everything until it is
    /// opened again. That must not need a restart of ours.
    pub(super) fn mend<T>(
        &self,
        database: &Arc<Database>,
        done: Result<T, Error>,
    ) -> Result<T, Error> {
        if done.as_ref().is_err_and(Error::broke_the_store) {
            let mut slot = self.database.lock().unwrap_or_else(PoisonError::into_inner);
            // Not the fresh one that another thread has put there since.
            slot.take_if(|current| Arc::ptr_eq(current, database));
        }
        done
    }
}

fn open(path: &Path) -> Result<Database, Error> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE);
    #[cfg(test)]
    if let Some(watched) = super::witness::backend(path) {
        let database = builder.create_with_backend(watched);
        return database.map_err(|error| Error::Open {
            path: path.to_owned(),
            source: Box::new(error.into()),
        });
    }
    builder.create(path).map_err(|error| Error::Open {
        path: path.to_owned(),
        source: Box::new(error.into()),
    })
}

/// Makes an empty store, under another name first.
///
/// A first start that is cut short would else leave a file that is neither empty nor a store, and every
/// later one would refuse it. Whoever opened the store makes its name durable.
fn make(path: &Path) -> Result<Database, Error> {
    let unfinished = path.with_extension("redb.tmp");
    let failed = |error| Error::Open {
        path: unfinished.clone(),
        source: Box::new(redb::Error::Io(error)),
    };
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let database = open(&unfinished)?;
    // Durable, so that all of it is there before it has its name.
    check_layout(&database, path)?;
    fs::rename(&unfinished, path).map_err(failed)?;
    Ok(database)
}

/// Checks the layout of an old store; makes the tables of a new one.
fn check_layout(database: &Database, path: &Path) -> Result<(), Error> {
    let txn = database.begin_write()?;
    let mut meta = txn.open_table(META)?;
    let found = meta.get("layout")?.map(|layout| layout.value());
    match found {
        Some(LAYOUT) => {}
        Some(found) => {
            return Err(Error::StoreVersion {
                path: path.to_owned(),
                found,
                known: LAYOUT,
            });
        }
        None => {
            meta.insert("layout", LAYOUT)?;
        }
    }
    drop(meta);
    drop(Writable::write(&txn)?);
    txn.commit()?;
    Ok(())
}

/// Sets numbers aside, durably.
pub(super) fn set_ids_aside(database: &Database) -> Result<Range<u64>, Error> {
    let txn = database.begin_write()?;
    let mut meta = txn.open_table(META)?;
    let first = meta.get("ids")?.map_or(1, |next| next.value());
    let end = first + IDS;
    meta.insert("ids", end)?;
    drop(meta);
    txn.commit()?;
    Ok(first..end)
}

#[cfg(test)]
#[path = "open_tests.rs"]
mod tests;
