//! Questions, and what changes a snapshot's labels: stat, list, usage, update.

use super::sizes;
use super::words::{check_key, check_labels};
use super::{Error, Info, Kind, Labels, Snapshotter, Usage};
use crate::store::{self, Record};

impl Snapshotter {
    /// What is known of a snapshot.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn stat(&self, key: &str) -> Result<Info, Error> {
        Ok(self.find(key).await?.into())
    }

    /// Every snapshot of this snapshotter, at one moment.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn list(&self) -> Result<Vec<Info>, Error> {
        let space = self.space().to_owned();
        let records = self.shared().store(move |store| store.list(&space)).await?;
        Ok(records.into_iter().map(Info::from).collect())
    }

    /// What a snapshot costs on the host, without its parents.
    ///
    /// One question to the store and one to the host, however big the snapshot: CRI asks for every
    /// active snapshot every ten seconds.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn usage(&self, key: &str) -> Result<Usage, Error> {
        let record = self.find(key).await?;
        self.usage_of(&record).await
    }

    async fn usage_of(&self, record: &Record) -> Result<Usage, Error> {
        match record.kind {
            Kind::Committed | Kind::Fitted => Ok(record.usage.unwrap_or_default()),
            Kind::View => Ok(Usage::default()),
            Kind::Active => match self.shared().cost(&record.key, record.id).await {
                // Nobody has the key's turn: it may have been removed since, and its file with it.
                Err(error @ Error::Missing { .. }) => {
                    let id = record.id;
                    match self.shared().store(move |store| store.record(id)).await? {
                        Some(found) if found.visible() => Err(error),
                        _ => Err(store::Error::NotFound {
                            key: record.key.clone(),
                        }
                        .into()),
                    }
                }
                cost => cost,
            },
        }
    }

    /// Changes labels: all of them without `paths`, else only those that they name. An active snapshot whose
    /// labels ask for another size gets it, see [`Snapshotter::resize`].
    ///
    /// # Errors
    /// `NotFound`, or `InvalidArgument` for a path that is no label; those of a resize, and then no label is
    /// changed.
    pub async fn update(
        &self,
        key: &str,
        labels: Labels,
        paths: Option<Vec<String>>,
    ) -> Result<Info, Error> {
        check_key(key)?;
        let change = Change::new(key, check_labels(labels)?, paths)?;
        let _turn = self.turn(key).await;
        let record = self.find(key).await?;
        let mut after = record.labels.clone();
        change.apply(&mut after);
        if record.kind == Kind::Active
            && let Some(size) = sizes::asked(key, &after)?
            && sizes::asked(key, &record.labels).ok().flatten() != Some(size)
        {
            self.resize_record(&record, size).await?;
        }
        let (space, key, now) = (self.space().to_owned(), key.to_owned(), self.shared().now());
        let record = self
            .shared()
            .store(move |store| store.update(&space, &key, now, |labels| change.apply(labels)))
            .await?;
        Ok(record.into())
    }
}

/// What an update does to labels.
enum Change {
    /// Forget the old ones.
    All(Labels),
    /// Set these, and delete those without a value.
    Some(Vec<(String, Option<String>)>),
}

impl Change {
    /// Reads the mask: `labels`, or `labels.` and a key, which may have dots and slashes of its own.
    fn new(key: &str, labels: Labels, paths: Option<Vec<String>>) -> Result<Self, Error> {
        let paths = paths.unwrap_or_default();
        // Go's client always sends a mask: an empty one means everything that can be changed.
        if paths.is_empty() {
            return Ok(Self::All(labels));
        }
        let mut some = Vec::new();
        let mut all = false;
        for path in paths {
            if path == "labels" {
                all = true;
            } else if let Some(label) = path.strip_prefix("labels.") {
                some.push((label.to_owned(), labels.get(label).cloned()));
            } else {
                let key = key.to_owned();
                return Err(Error::Immutable { key, path });
            }
        }
        if !all {
            return Ok(Self::Some(some));
        }
        // "labels" beside single ones already says everything.
        Ok(Self::All(labels))
    }

    fn apply(&self, labels: &mut Labels) {
        match self {
            Self::All(new) => labels.clone_from(new),
            Self::Some(some) => {
                for (label, value) in some {
                    match value {
                        Some(value) => labels.insert(label.clone(), value.clone()),
                        None => labels.remove(label),
                    };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ErrorKind;
    use super::super::fixture::{House, kind};
    use super::{Change, Error, Labels};

    /// CRI asks for every active snapshot's usage while others are removed: it heard of lost data, and was told to put
    /// the file back.
    #[tokio::test]
    async fn what_is_removed_while_it_is_looked_at_is_gone_and_not_lost() {
        let house = House::new().await;
        house.prepare("a", "").await;
        let found = house.ploop.find("a").await.unwrap();
        house.ploop.remove("a").await.unwrap();
        house.ploop.cleanup().await.unwrap();
        let gone = house.ploop.usage_of(&found).await;
        assert_eq!(kind(gone), ErrorKind::NotFound);
        // One that is there and has lost its file has lost it.
        house.prepare("a", "").await;
        let found = house.ploop.find("a").await.unwrap();
        std::fs::remove_file(house.delta(found.id.0)).unwrap();
        assert_eq!(kind(house.ploop.usage("a").await), ErrorKind::DataLoss);
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    /// Applies a mask to `l1=a l2=b l3=c`.
    fn apply(new: &[(&str, &str)], paths: Option<&[&str]>) -> Result<Labels, Error> {
        let mut have = labels(&[("l1", "a"), ("l2", "b"), ("l3", "c")]);
        let paths = paths.map(|paths| paths.iter().map(|path| (*path).to_owned()).collect());
        Change::new("key", labels(new), paths)?.apply(&mut have);
        Ok(have)
    }

    #[test]
    fn without_paths_everything_is_replaced() {
        let new = [("l1", "x"), ("n", "y")];
        for paths in [None, Some(&[][..]), Some(&["labels"][..])] {
            assert_eq!(apply(&new, paths).unwrap(), labels(&new));
        }
        assert_eq!(apply(&[], None).unwrap(), Labels::new());
    }

    #[test]
    fn a_path_sets_its_label_or_deletes_it() {
        let done = apply(
            &[("l1", "x"), ("l4", "no")],
            Some(&["labels.l1", "labels.l2"]),
        );
        assert_eq!(done.unwrap(), labels(&[("l1", "x"), ("l3", "c")]));
    }

    #[test]
    fn a_labels_key_is_everything_after_the_first_dot() {
        let key = "containerd.io/snapshot/a.b/c";
        let path = format!("labels.{key}");
        let done = apply(&[(key, "v")], Some(&[&path])).unwrap();
        assert_eq!(done.get(key).map(String::as_str), Some("v"));
        assert_eq!(done.len(), 4);
    }

    #[test]
    fn nothing_but_labels_can_be_changed() {
        for path in ["parent", "kind", "label", "labelsx.y", ""] {
            let error = apply(&[], Some(&["labels.l1", path])).unwrap_err();
            assert!(matches!(error, Error::Immutable { .. }), "{path}: {error}");
        }
    }
}
