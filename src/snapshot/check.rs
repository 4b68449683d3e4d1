//! Says everything that is wrong with a whole root at rest: store against files, chains, leftovers.
//!
//! The rule it guards: a look changes no byte. No daemon may have the root meanwhile, for what it does
//! between two looks would be taken for damage; disk servers may, and what they write to is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::finding::{Fault, Finding, Named};
use super::paths::{Found, OURS, Paths, found, golden_size};
use super::root::{hold, names};
use super::{Error, Kind, layers, lineage};
use crate::causes::in_full;
use crate::image::Severity;
use crate::store::{self, Id, Ledger, Record, Stage};

/// What was found in a root.
#[derive(Debug)]
pub struct Report {
    /// Snapshots in the store.
    pub snapshots: usize,
    /// Deltas and empty file systems that were looked into.
    pub files: usize,
    /// Deltas that a disk server writes to now: not looked into.
    pub served: Vec<PathBuf>,
    /// All that is wrong, or worth saying.
    pub findings: Vec<Finding>,
}

impl Report {
    /// How bad it is; `None` is clean.
    #[must_use]
    pub fn worst(&self) -> Option<Severity> {
        self.findings
            .iter()
            .map(|finding| finding.fault.severity())
            .max()
    }
}

/// Looks at everything in a root but the contents of its disks.
///
/// # Errors
/// [`Error::RootBusy`] if a daemon has it, [`Error::NoRoot`] if it is none, and what the host says; what
/// is wrong with the root is in the report.
pub fn check(root: &Path) -> Result<Report, Error> {
    let paths = Paths::new(root);
    refuse_other(&paths)?;
    let _lock = hold(&paths)?;
    look(&paths)
}

/// Refuses a directory that is no root.
pub(super) fn refuse_other(paths: &Paths) -> Result<(), Error> {
    if paths.store().exists() || paths.deltas().is_dir() {
        return Ok(());
    }
    Err(Error::NoRoot {
        path: paths.root().to_owned(),
    })
}

/// Looks at a root that nobody else has.
pub(super) fn look(paths: &Paths) -> Result<Report, Error> {
    let mut report = Report {
        snapshots: 0,
        files: 0,
        served: Vec::new(),
        findings: Vec::new(),
    };
    let ledger = report.store(paths)?;
    if let Some(ledger) = &ledger {
        report.snapshots = ledger.records.len();
        let unreadable: BTreeSet<Id> = ledger.unreadable.iter().map(|(id, _)| *id).collect();
        report
            .findings
            .extend(lineage::check(&ledger.records, &unreadable));
        for record in &ledger.records {
            report.delta(paths, record)?;
        }
        report.goldens(paths, &ledger.records)?;
    }
    report.strangers(paths, ledger.as_ref())?;
    Ok(report)
}

/// Must this record's file be there?
fn has_delta(record: &Record) -> bool {
    record.kind != Kind::View && matches!(record.stage, Stage::Ready | Stage::Committing { .. })
}

impl Report {
    fn add(&mut self, file: &Path, snapshot: Option<&Record>, fault: Fault) {
        self.findings.push(Finding {
            file: Some(file.to_owned()),
            snapshot: snapshot.map(Named::from),
            fault,
        });
    }

    /// Reads the store; none if there is nothing that could be read.
    fn store(&mut self, paths: &Paths) -> Result<Option<Ledger>, Error> {
        let path = paths.store();
        // What a daemon would make a new store of, without a word.
        if fs::metadata(&path).map_or(true, |file| file.len() == 0) {
            let deltas = list(&paths.deltas())?;
            if deltas
                .iter()
                .any(|(name, _)| matches!(found(name), Found::Delta(_)))
            {
                self.add(&path, None, Fault::StoreLost);
                return Ok(None);
            }
            return Ok(Some(Ledger::default()));
        }
        match Ledger::read(&path) {
            Ok(ledger) => {
                for (_, error) in &ledger.unreadable {
                    self.add(&path, None, Fault::RecordUnreadable(in_full(error)));
                }
                for flaw in &ledger.flaws {
                    self.add(&path, None, Fault::Store(flaw.clone()));
                }
                Ok(Some(ledger))
            }
            Err(error @ store::Error::StoreVersion { .. }) => Err(error.into()),
            Err(error) => {
                self.add(&path, None, Fault::StoreUnreadable(in_full(&error)));
                Ok(None)
            }
        }
    }

    fn delta(&mut self, paths: &Paths, record: &Record) -> Result<(), Error> {
        if !has_delta(record) {
            return Ok(());
        }
        let path = paths.delta(record.id);
        let looked = layers::delta(record, &path)?;
        self.files += 1;
        if looked.served {
            self.served.push(path.clone());
        }
        for fault in looked.faults {
            self.add(&path, Some(record), fault);
        }
        Ok(())
    }

    /// The empty file systems that snapshots stand on, and those that nobody stands on yet.
    fn goldens(&mut self, paths: &Paths, records: &[Record]) -> Result<(), Error> {
        let mut standing: BTreeMap<String, (usize, u64)> = BTreeMap::new();
        let on_golden = |record: &&Record| record.stage != Stage::Removing;
        for record in records.iter().filter(on_golden) {
            if let Some(name) = record.golden.as_ref().filter(|name| !name.contains('/')) {
                let size = golden_size(name).unwrap_or(record.size);
                let (count, _) = standing.entry(name.clone()).or_insert((0, size));
                *count += 1;
            }
        }
        for (name, path) in list(&paths.goldens())? {
            if found(&name) == Found::Golden {
                let known = standing.remove(&name);
                self.files += 1;
                if let Some(fault) = layers::golden(&path, known.map(|(_, size)| size)) {
                    self.add(&path, None, fault);
                }
            }
        }
        for (name, (standing, _)) in standing {
            if found(&name) == Found::Golden {
                let path = paths.golden(&name);
                self.add(&path, None, Fault::GoldenMissing { standing });
            }
        }
        Ok(())
    }

    /// Files that no record names, and files that are not ours.
    fn strangers(&mut self, paths: &Paths, ledger: Option<&Ledger>) -> Result<(), Error> {
        let named = ledger.map(deltas_of);
        for (name, path) in list(&paths.deltas())? {
            match found(&name) {
                Found::Delta(id) => {
                    // Without the store nobody knows whose it is.
                    if named.as_ref().is_some_and(|named| !named.contains(&id)) {
                        let fault = Fault::Orphan(layers::on_host(&path));
                        self.add(&path, None, fault);
                    }
                }
                Found::Unfinished => {
                    self.add(&path, None, Fault::Unfinished(layers::on_host(&path)));
                }
                Found::Golden | Found::Foreign => self.add(&path, None, Fault::Foreign),
            }
        }
        for (name, path) in list(&paths.goldens())? {
            match found(&name) {
                Found::Golden => {}
                Found::Unfinished => {
                    self.add(&path, None, Fault::Unfinished(layers::on_host(&path)));
                }
                Found::Delta(_) => self.add(&path, None, Fault::Orphan(layers::on_host(&path))),
                Found::Foreign => self.add(&path, None, Fault::Foreign),
            }
        }
        for (name, path) in names(paths.root())? {
            if !OURS.contains(&name.as_str()) {
                self.add(&path, None, Fault::Foreign);
            }
        }
        Ok(())
    }
}

/// The deltas that belong to a record, or may. A view has none; of an unreadable record nobody knows.
fn deltas_of(ledger: &Ledger) -> BTreeSet<Id> {
    let with_delta = ledger.records.iter().filter(|it| it.kind != Kind::View);
    let known = with_delta.map(|record| record.id);
    known
        .chain(ledger.unreadable.iter().map(|(id, _)| *id))
        .collect()
}

/// The names in a directory, in order; none if it is not there.
fn list(dir: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let mut names = names(dir)?;
    names.sort();
    Ok(names)
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
