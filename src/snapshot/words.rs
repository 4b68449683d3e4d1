//! The words of the door: what is asked and answered, without the wire.

use std::time::SystemTime;

pub use crate::store::{Kind, Labels, Usage};

use super::Error;
use crate::store::Record;

/// containerd's limit for a label's key and value together.
const LABEL_LIMIT: usize = 4096;
/// Our limit for a key or a name; containerd's are a few hundred bytes.
const KEY_LIMIT: usize = 4096;

/// A snapshot as containerd sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Its key, or its name once committed.
    pub name: String,
    /// Its parent's name; empty for none.
    pub parent: String,
    /// What it is.
    pub kind: Kind,
    /// Its labels, word for word.
    pub labels: Labels,
    /// When it was made; for a committed one, when it was committed.
    pub created: SystemTime,
    /// When its labels last changed.
    pub updated: SystemTime,
}

impl From<Record> for Info {
    fn from(record: Record) -> Self {
        Self {
            name: record.key,
            parent: record.parent.map(|parent| parent.name).unwrap_or_default(),
            kind: record.kind,
            labels: record.labels,
            created: record.created.into(),
            updated: record.updated.into(),
        }
    }
}

/// What to mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// `ext4`, `xfs` or `bind`.
    pub kind: String,
    /// A device, or a directory that is mounted already.
    pub source: String,
    /// Mount options.
    pub options: Vec<String>,
}

/// Refuses a key or a name that nobody can mean.
pub(super) fn check_key(key: &str) -> Result<(), Error> {
    if key.is_empty() {
        return Err(Error::EmptyKey);
    }
    if key.len() > KEY_LIMIT {
        return Err(Error::LongKey {
            length: key.len(),
            limit: KEY_LIMIT,
        });
    }
    Ok(())
}

/// Refuses labels over containerd's limit, and drops empty ones as containerd's own store does.
pub(super) fn check_labels(mut labels: Labels) -> Result<Labels, Error> {
    labels.retain(|_, value| !value.is_empty());
    for (key, value) in &labels {
        let length = key.len() + value.len();
        if length > LABEL_LIMIT {
            // The key alone may be megabytes; its beginning says which it is.
            return Err(Error::LongLabel {
                key: key.chars().take(64).collect(),
                length,
                limit: LABEL_LIMIT,
            });
        }
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::{Error, Labels, check_key, check_labels};

    #[test]
    fn keys_are_anything_but_empty_or_huge() {
        for key in ["a", "k8s.io/1/extract-2 sha256:x", "/tmp/a b", "\u{1f4a9}"] {
            check_key(key).unwrap();
        }
        check_key(&"k".repeat(4096)).unwrap();
        assert!(matches!(check_key(""), Err(Error::EmptyKey)));
        assert!(matches!(
            check_key(&"k".repeat(4097)),
            Err(Error::LongKey { length: 4097, .. })
        ));
    }

    #[test]
    fn a_label_is_limited_with_its_key() {
        let label = |key: usize, value: usize| {
            check_labels(Labels::from([("k".repeat(key), "v".repeat(value))]))
        };
        assert_eq!(label(96, 4000).unwrap().len(), 1);
        let error = label(97, 4000).unwrap_err();
        assert!(matches!(error, Error::LongLabel { length: 4097, .. }));
        assert!(error.to_string().len() < 300, "{error}");
    }

    #[test]
    fn an_empty_value_is_no_label() {
        let labels = Labels::from([("a".into(), String::new()), ("b".into(), "x".into())]);
        assert_eq!(check_labels(labels).unwrap().keys().count(), 1);
    }
}
