//! The four tables, opened together, and how a record is found in them.

use redb::{ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction};

use super::{Error, Id, Record};

/// Our layout of the tables. Raise it when a table changes its meaning.
pub(super) const LAYOUT: u64 = 1;
/// The parent's number of those who stand on a golden file system. Real numbers begin at 1.
pub(super) const NOBODY: u64 = 0;

type MetaTable = TableDefinition<'static, &'static str, u64>;
type KeyTable = TableDefinition<'static, (&'static str, &'static str), u64>;
type RecordTable = TableDefinition<'static, u64, &'static [u8]>;
type ChildTable = TableDefinition<'static, (u64, u64), ()>;

pub(super) const META: MetaTable = TableDefinition::new("meta");
const KEYS: KeyTable = TableDefinition::new("keys");
const RECORDS: RecordTable = TableDefinition::new("records");
const CHILDREN: ChildTable = TableDefinition::new("children");

/// What a transaction can look up.
pub(super) struct Tables<K, R, C> {
    pub(super) keys: K,
    pub(super) records: R,
    pub(super) children: C,
}

/// The tables for reading.
pub(super) type Readable = Tables<
    redb::ReadOnlyTable<(&'static str, &'static str), u64>,
    redb::ReadOnlyTable<u64, &'static [u8]>,
    redb::ReadOnlyTable<(u64, u64), ()>,
>;

/// The tables for writing.
pub(super) type Writable<'t> = Tables<
    Table<'t, (&'static str, &'static str), u64>,
    Table<'t, u64, &'static [u8]>,
    Table<'t, (u64, u64), ()>,
>;

impl Readable {
    pub(super) fn read(txn: &ReadTransaction) -> Result<Self, Error> {
        Ok(Self {
            keys: txn.open_table(KEYS)?,
            records: txn.open_table(RECORDS)?,
            children: txn.open_table(CHILDREN)?,
        })
    }
}

impl<'t> Writable<'t> {
    pub(super) fn write(txn: &'t WriteTransaction) -> Result<Self, Error> {
        Ok(Self {
            keys: txn.open_table(KEYS)?,
            records: txn.open_table(RECORDS)?,
            children: txn.open_table(CHILDREN)?,
        })
    }

    /// Stores a record over what was there.
    pub(super) fn put(&mut self, record: &Record) -> Result<(), Error> {
        self.records
            .insert(record.id.0, record.encode().as_slice())?;
        Ok(())
    }

    /// Makes a key answer for a record.
    pub(super) fn name(&mut self, space: &str, key: &str, id: Id) -> Result<(), Error> {
        self.keys.insert((space, key), id.0)?;
        Ok(())
    }

    /// Makes a key free.
    pub(super) fn unname(&mut self, space: &str, key: &str) -> Result<(), Error> {
        self.keys.remove((space, key))?;
        Ok(())
    }

    /// Takes a record away from its parent.
    pub(super) fn orphan(&mut self, record: &Record) -> Result<(), Error> {
        self.children.remove((parent_number(record), record.id.0))?;
        Ok(())
    }
}

/// A parent's number in the table of children.
pub(super) fn parent_number(record: &Record) -> u64 {
    record.parent.as_ref().map_or(NOBODY, |parent| parent.id.0)
}

impl<K, R, C> Tables<K, R, C>
where
    K: ReadableTable<(&'static str, &'static str), u64>,
    R: ReadableTable<u64, &'static [u8]>,
    C: ReadableTable<(u64, u64), ()>,
{
    /// Does anything hold this key, be it only reserved?
    pub(super) fn taken(&self, space: &str, key: &str) -> Result<bool, Error> {
        Ok(self.keys.get((space, key))?.is_some())
    }

    /// The record with this number.
    pub(super) fn record(&self, id: Id) -> Result<Option<Record>, Error> {
        self.records
            .get(id.0)?
            .map(|bytes| Record::decode(id, bytes.value()))
            .transpose()
    }

    /// The record with this number, which another record names.
    pub(super) fn known(&self, id: Id) -> Result<Record, Error> {
        self.record(id)?.ok_or(Error::MissingRecord { id })
    }

    /// The record with this number, whose last step need not be durable.
    pub(super) fn begun(&self, id: Id) -> Result<Record, Error> {
        self.record(id)?.ok_or(Error::Lost { id })
    }

    /// The record that answers to this key, if containerd may know of it.
    ///
    /// A name that is reserved for a snapshot being committed leads to a record with another key.
    pub(super) fn visible(&self, space: &str, key: &str) -> Result<Option<Record>, Error> {
        let Some(id) = self.keys.get((space, key))?.map(|id| Id(id.value())) else {
            return Ok(None);
        };
        let record = self.known(id)?;
        Ok((record.key == key && record.visible()).then_some(record))
    }

    /// Like [`Tables::visible`], and an error for nobody.
    pub(super) fn find(&self, space: &str, key: &str) -> Result<Record, Error> {
        self.visible(space, key)?.ok_or_else(|| Error::NotFound {
            key: key.to_owned(),
        })
    }

    /// The numbers of those who stand on `parent`.
    pub(super) fn children_of(&self, parent: u64) -> Result<impl Iterator<Item = Id>, Error> {
        let mut numbers = Vec::new();
        for entry in self.children.range((parent, 0)..=(parent, u64::MAX))? {
            numbers.push(Id(entry?.0.value().1));
        }
        Ok(numbers.into_iter())
    }

    /// One of those who stand on `parent`.
    pub(super) fn child_of(&self, parent: Id) -> Result<Option<Id>, Error> {
        let mut range = self.children.range((parent.0, 0)..=(parent.0, u64::MAX))?;
        Ok(range.next().transpose()?.map(|entry| Id(entry.0.value().1)))
    }

    /// Every record.
    pub(super) fn all(&self) -> Result<Vec<Record>, Error> {
        let mut records = Vec::new();
        for entry in self.records.iter()? {
            let (id, bytes) = entry?;
            records.push(Record::decode(Id(id.value()), bytes.value())?);
        }
        Ok(records)
    }
}
