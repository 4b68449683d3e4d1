//! Which disk uses which file: a file that one disk writes is used by no other.
//!
//! Files are told apart by device and inode, so a second name for the same file does not help.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::error::Error;

/// A file, whatever it is called.
type Identity = (u64, u64);

#[derive(Debug)]
enum Claim {
    Written(String),
    Read(BTreeSet<String>),
}

/// The files of all disks that are attached or about to be.
///
/// The lock is held for a look-up or a change only.
#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<HashMap<Identity, Claim>>);

impl Claims {
    /// Claims the files of a chain, lowest first, for a disk: all of them or none. Looks at the
    /// files, so it may block.
    pub(super) fn take(&self, id: &str, paths: &[PathBuf], read_only: bool) -> Result<(), Error> {
        let mut files = Vec::with_capacity(paths.len());
        for path in paths {
            let identity = identify(path)?;
            if files.iter().any(|(known, _)| *known == identity) {
                return Err(Error::Invalid(format!(
                    "{} is named twice in one chain",
                    path.display()
                )));
            }
            files.push((identity, path));
        }
        let written = (!read_only).then(|| files.len().saturating_sub(1));
        let mut claims = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (at, (identity, path)) in files.iter().enumerate() {
            let (role, by) = match claims.get(identity) {
                Some(Claim::Written(by)) => ("written", by),
                Some(Claim::Read(by)) if Some(at) == written => match by.first() {
                    Some(by) => ("read", by),
                    None => continue,
                },
                _ => continue,
            };
            return Err(Error::Claimed {
                path: (*path).clone(),
                role,
                by: by.clone(),
            });
        }
        for (at, (identity, _)) in files.into_iter().enumerate() {
            if Some(at) == written {
                claims.insert(identity, Claim::Written(id.to_owned()));
            } else if let Claim::Read(by) = claims
                .entry(identity)
                .or_insert_with(|| Claim::Read(BTreeSet::new()))
            {
                by.insert(id.to_owned());
            }
        }
        Ok(())
    }

    /// Gives up everything that a disk claimed.
    pub(super) fn release(&self, id: &str) {
        let mut claims = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        claims.retain(|_, claim| match claim {
            Claim::Written(by) => by != id,
            Claim::Read(by) => {
                by.remove(id);
                !by.is_empty()
            }
        });
    }
}

fn identify(path: &Path) -> Result<Identity, Error> {
    let meta = fs::metadata(path).map_err(|source| Error::Missing {
        path: path.to_owned(),
        source,
    })?;
    if !meta.is_file() {
        return Err(Error::Invalid(format!(
            "{} is not a regular file",
            path.display()
        )));
    }
    Ok((meta.dev(), meta.ino()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::Claims;
    use crate::server::Error;

    #[test]
    fn a_written_file_belongs_to_one_disk_whatever_it_is_called() {
        let root = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = root.path().join(name);
            fs::write(&path, name).unwrap();
            path
        };
        let (base, top, other) = (file("base"), file("top"), file("other"));
        let alias = root.path().join("alias");
        fs::hard_link(&top, &alias).unwrap();

        let claims = Claims::default();
        claims
            .take("a", &[base.clone(), top.clone()], false)
            .unwrap();
        claims
            .take("b", &[base.clone(), other.clone()], false)
            .unwrap();
        for (paths, read_only) in [
            (vec![base.clone(), alias.clone()], false),
            (vec![base.clone(), alias.clone()], true),
            (vec![alias.clone(), file("x")], false),
        ] {
            let error = claims.take("c", &paths, read_only).unwrap_err();
            assert!(
                matches!(&error, Error::Claimed { by, .. } if by == "a"),
                "{error}"
            );
        }
        let error = claims
            .take("c", std::slice::from_ref(&base), false)
            .unwrap_err();
        assert!(error.to_string().contains("read by disk a"), "{error}");

        claims.release("a");
        claims.take("c", &[base.clone(), alias], true).unwrap();
        claims.release("b");
        claims.release("c");
        claims.take("d", &[base], false).unwrap();
        assert_eq!(claims.0.lock().unwrap().len(), 1);
    }

    #[test]
    fn a_refused_chain_claims_nothing() {
        let root = tempfile::tempdir().unwrap();
        let (one, two) = (root.path().join("one"), root.path().join("two"));
        fs::write(&one, "").unwrap();
        let claims = Claims::default();
        let error = claims.take("a", &[one.clone(), two], false).unwrap_err();
        assert!(matches!(error, Error::Missing { .. }), "{error}");
        let error = claims
            .take("a", &[one.clone(), one.clone()], true)
            .unwrap_err();
        assert!(error.to_string().contains("twice"), "{error}");
        let folder = root.path().to_owned();
        assert!(claims.take("a", &[folder], true).is_err());
        assert!(claims.0.lock().unwrap().is_empty());
    }
}
