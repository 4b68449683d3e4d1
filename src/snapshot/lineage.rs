//! Records held against each other: does each stand on what it says, and could it ever have come to be?

use std::collections::{BTreeMap, BTreeSet};

use super::Kind;
use super::finding::{Fault, Finding, Named};
use super::paths::{Found, found};
use crate::store::{Id, Record, Stage};
use crate::units::ClusterSize;

/// Everything that is wrong between records. Of the `unreadable` ones nothing can be said.
pub(super) fn check(records: &[Record], unreadable: &BTreeSet<Id>) -> Vec<Finding> {
    let by_id: BTreeMap<Id, &Record> = records.iter().map(|it| (it.id, it)).collect();
    let mut findings = Vec::new();
    for record in records {
        let mut faults = alone(record);
        // What is removed has let go of its parent, which may be gone before it.
        if record.stage != Stage::Removing {
            faults.extend(on_parent(record, &by_id, unreadable));
            faults.extend(cycle(record, &by_id));
        }
        findings.extend(faults.into_iter().map(|fault| Finding {
            file: None,
            snapshot: Some(Named::from(record)),
            fault,
        }));
    }
    findings
}

/// What a record says of itself.
fn alone(record: &Record) -> Vec<Fault> {
    let mut faults = Vec::new();
    let possible = match record.stage {
        Stage::Preparing => record.kind != Kind::Committed,
        Stage::Committing { .. } => record.kind == Kind::Active,
        Stage::Ready | Stage::Removing => true,
    };
    if !possible {
        faults.push(Fault::WrongStage {
            stage: record.stage.clone(),
            kind: match record.kind {
                Kind::View => "view",
                Kind::Active => "active",
                Kind::Committed => "committed",
                Kind::Fitted => "fitted",
            },
        });
    } else if record.stage != Stage::Ready {
        faults.push(Fault::Interrupted(record.stage.clone()));
    }
    match (record.kind, record.seal) {
        (Kind::Fitted, None) if record.stage == Stage::Ready => faults.push(Fault::WrongSeal(
            "it is fitted to a size, but its record does not say what its file must be",
        )),
        (Kind::Committed, None) => faults.push(Fault::WrongSeal(
            "it is committed, but its record does not say what its file must be",
        )),
        (Kind::Active | Kind::View, Some(_)) => faults.push(Fault::WrongSeal(
            "its record says that it is sealed, but it is not committed",
        )),
        _ => {}
    }
    match (&record.parent, &record.golden) {
        (None, None) => faults.push(Fault::WrongOrigin("nothing")),
        (Some(_), Some(_)) => faults.push(Fault::WrongOrigin("both")),
        (None, Some(name)) if name.contains('/') || found(name) != Found::Golden => {
            faults.push(Fault::WrongOrigin("a file that cannot be one of ours"));
        }
        _ => {}
    }
    if ClusterSize::new(record.cluster).is_err() {
        faults.push(Fault::WrongCluster(record.cluster));
    }
    faults
}

fn on_parent(
    record: &Record,
    by_id: &BTreeMap<Id, &Record>,
    unreadable: &BTreeSet<Id>,
) -> Vec<Fault> {
    let Some(named) = &record.parent else {
        return Vec::new();
    };
    let (id, name) = (named.id, named.name.clone());
    let Some(parent) = by_id.get(&id) else {
        // Told already if it is there and cannot be read.
        return if unreadable.contains(&id) {
            Vec::new()
        } else {
            vec![Fault::ParentMissing { id, name }]
        };
    };
    let mut faults = Vec::new();
    if !matches!(parent.kind, Kind::Committed | Kind::Fitted) || parent.stage != Stage::Ready {
        faults.push(Fault::ParentNotCommitted { id, name });
    } else if parent.key != name || parent.space != record.space {
        faults.push(Fault::ParentOther {
            id,
            meant: name,
            found: parent.key.clone(),
            space: parent.space.clone(),
        });
    }
    // Its disk may have any size: somebody asked for it.
    if record.cluster != parent.cluster {
        faults.push(Fault::ParentShape {
            own: (record.size, record.cluster),
            parent: (parent.size, parent.cluster),
        });
    }
    faults
}

/// Told of one of its members: the lowest number.
fn cycle(record: &Record, by_id: &BTreeMap<Id, &Record>) -> Option<Fault> {
    let mut ring = vec![record.id];
    let mut next = record.parent.as_ref().map(|parent| parent.id);
    while let Some(id) = next {
        if id == record.id {
            let words: Vec<_> = ring.iter().map(Id::to_string).collect();
            return Some(Fault::Cycle(words.join(" on ")));
        }
        // A ring in which a lower one tells, or that this one is no part of. Parents are older than their
        // children, so with an ordinary chain this is the first step already.
        if id < record.id || ring.contains(&id) {
            return None;
        }
        ring.push(id);
        next = by_id
            .get(&id)
            .and_then(|found| found.parent.as_ref())
            .map(|parent| parent.id);
    }
    None
}
