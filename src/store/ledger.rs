//! The store as its file has it, right or wrong: for whoever checks it.
//!
//! [`Store`](super::Store) trusts its tables, and opening it may repair the file and writes to it. Here a
//! copy in memory is opened, so that a look changes nothing, and every page's checksum is looked at. The
//! records are the truth; the tables of keys and of children only index them, so what is wrong in these
//! can be made again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use redb::backends::InMemoryBackend;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, StorageBackend};

use super::tables::{LAYOUT, META, Readable, Tables, Writable, parent_number};
use super::{Error, Flaw, Id, Kind, Record, Stage};

/// What the tables hold.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Every record that can be read.
    pub records: Vec<Record>,
    /// Those that cannot, and why.
    pub unreadable: Vec<(Id, Error)>,
    /// Where the other tables do not agree with the records.
    pub flaws: Vec<Flaw>,
}

impl Ledger {
    /// Reads the store in this file; changes nothing.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Open`] if it is no store or damaged, [`Error::StoreVersion`] if it is
    /// another version's.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let unread = |source| Error::Read {
            path: path.to_owned(),
            source,
        };
        let bytes = fs::read(path).map_err(unread)?;
        let memory = InMemoryBackend::new();
        memory
            .set_len(bytes.len() as u64)
            .and_then(|()| memory.write(0, &bytes))
            .map_err(unread)?;
        let database = Database::builder()
            .set_check_integrity_on_open(true)
            .create_with_backend(memory)
            .map_err(|error| Error::Open {
                path: path.to_owned(),
                source: Box::new(error.into()),
            })?;
        let txn = database.begin_read()?;
        let meta = txn.open_table(META)?;
        let layout = meta.get("layout")?.map_or(0, |layout| layout.value());
        if layout != LAYOUT {
            return Err(Error::StoreVersion {
                path: path.to_owned(),
                found: layout,
                known: LAYOUT,
            });
        }
        let next = meta.get("ids")?.map_or(0, |next| next.value());
        look(&Readable::read(&txn)?, next)
    }

    /// Makes keys and children of the store in this file agree with its records, durably.
    ///
    /// Nobody may have it open. The caller keeps a copy.
    ///
    /// # Errors
    /// If the store cannot be written; nothing is changed then.
    pub fn mend(path: &Path) -> Result<(), Error> {
        let database = Database::open(path).map_err(|error| Error::Open {
            path: path.to_owned(),
            source: Box::new(error.into()),
        })?;
        let mut txn = database.begin_write()?;
        txn.set_durability(Durability::Immediate)?;
        let mut meta = txn.open_table(META)?;
        let next = meta.get("ids")?.map_or(0, |next| next.value());
        let mut tables = Writable::write(&txn)?;
        let flaws = look(&tables, next)?.flaws;
        // What is too much goes first: it may hold the key that a record lacks.
        for flaw in &flaws {
            match flaw {
                Flaw::KeyOfNobody { space, key, .. } | Flaw::KeyOfAnother { space, key, .. } => {
                    tables.unname(space, key)?;
                }
                Flaw::StrayChild { parent, id } => {
                    tables.children.remove((parent.0, id.0))?;
                }
                _ => {}
            }
        }
        for flaw in &flaws {
            match flaw {
                Flaw::NoKey { space, key, id } => tables.name(space, key, *id)?,
                Flaw::NoChild { parent, id } => {
                    tables.children.insert((parent.0, id.0), ())?;
                }
                Flaw::Numbers { highest, .. } => {
                    meta.insert("ids", highest.0 + 1)?;
                }
                _ => {}
            }
        }
        drop((tables, meta));
        txn.commit()?;
        Ok(())
    }
}

/// Holds the tables against each other; `next` is the first number that is not set aside.
fn look<K, R, C>(tables: &Tables<K, R, C>, next: u64) -> Result<Ledger, Error>
where
    K: ReadableTable<(&'static str, &'static str), u64>,
    R: ReadableTable<u64, &'static [u8]>,
    C: ReadableTable<(u64, u64), ()>,
{
    let mut ledger = Ledger::default();
    let mut highest = 0;
    for entry in tables.records.iter()? {
        let (id, bytes) = entry?;
        let id = Id(id.value());
        highest = highest.max(id.0);
        match Record::decode(id, bytes.value()) {
            Ok(record) if record.id == id => ledger.records.push(record),
            Ok(record) => ledger.unreadable.push((
                id,
                Error::OtherRecord {
                    id,
                    found: record.id,
                },
            )),
            Err(error) => ledger.unreadable.push((id, error)),
        }
    }
    // Of a record that cannot be read nobody knows what belongs to it: all of it stays.
    let unknown: BTreeSet<u64> = ledger.unreadable.iter().map(|(id, _)| id.0).collect();
    keys(tables, &mut ledger, &unknown)?;
    children(tables, &mut ledger, &unknown)?;
    if highest >= next {
        ledger.flaws.push(Flaw::Numbers {
            next,
            highest: Id(highest),
        });
    }
    Ok(ledger)
}

/// The keys that should lead to this record.
fn keys_of(record: &Record) -> Vec<&str> {
    match &record.stage {
        _ if record.kind == Kind::Fitted => Vec::new(),
        Stage::Removing => Vec::new(),
        Stage::Committing { name } => vec![&record.key, name],
        Stage::Preparing | Stage::Ready => vec![&record.key],
    }
}

fn keys<K, R, C>(
    tables: &Tables<K, R, C>,
    ledger: &mut Ledger,
    unknown: &BTreeSet<u64>,
) -> Result<(), Error>
where
    K: ReadableTable<(&'static str, &'static str), u64>,
{
    let by_id: BTreeMap<u64, &Record> = ledger.records.iter().map(|it| (it.id.0, it)).collect();
    let mut right: BTreeMap<(String, String), u64> = BTreeMap::new();
    for entry in tables.keys.iter()? {
        let (name, id) = entry?;
        let ((space, key), id) = (name.value(), id.value());
        let (own_space, own_key) = (space.to_owned(), key.to_owned());
        if unknown.contains(&id) {
            right.insert((own_space, own_key), id);
            continue;
        }
        match by_id.get(&id) {
            None => ledger.flaws.push(Flaw::KeyOfNobody {
                space: own_space,
                key: own_key,
                id: Id(id),
            }),
            Some(record) if record.space == space && keys_of(record).contains(&key) => {
                right.insert((own_space, own_key), id);
            }
            Some(record) => ledger.flaws.push(Flaw::KeyOfAnother {
                space: own_space,
                key: own_key,
                id: Id(id),
                answers: record.key.clone(),
            }),
        }
    }
    for record in &ledger.records {
        for key in keys_of(record) {
            let name = (record.space.clone(), key.to_owned());
            match right.get(&name) {
                Some(id) if *id == record.id.0 => {}
                Some(id) => ledger.flaws.push(Flaw::KeyTaken {
                    space: name.0,
                    key: name.1,
                    id: record.id,
                    taken: Id(*id),
                }),
                None => {
                    // Of two records with one key only the first can have it.
                    right.insert(name.clone(), record.id.0);
                    ledger.flaws.push(Flaw::NoKey {
                        space: name.0,
                        key: name.1,
                        id: record.id,
                    });
                }
            }
        }
    }
    Ok(())
}

fn children<K, R, C>(
    tables: &Tables<K, R, C>,
    ledger: &mut Ledger,
    unknown: &BTreeSet<u64>,
) -> Result<(), Error>
where
    C: ReadableTable<(u64, u64), ()>,
{
    let mut wanted: BTreeSet<(u64, u64)> = ledger
        .records
        .iter()
        .filter(|record| record.stage != Stage::Removing)
        .map(|record| (parent_number(record), record.id.0))
        .collect();
    for entry in tables.children.iter()? {
        let pair = entry?.0.value();
        if !wanted.remove(&pair) && !unknown.contains(&pair.1) {
            ledger.flaws.push(Flaw::StrayChild {
                parent: Id(pair.0),
                id: Id(pair.1),
            });
        }
    }
    for (parent, id) in wanted {
        ledger.flaws.push(Flaw::NoChild {
            parent: Id(parent),
            id: Id(id),
        });
    }
    Ok(())
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
