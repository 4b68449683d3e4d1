//! Which server has which disk.
//!
//! A place is noted before its server is asked, and kept whenever the answer leaves it open whether the
//! disk is there. So a place may be noted that holds no disk any more (its server died, on FUSE), which
//! is harmless: whoever asks there is told so. What may never happen is a disk at a place that is not
//! noted: a second server would then be asked for the same files.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::seat::Name;

/// The table. The lock is held for a look-up or a change.
#[derive(Debug, Default)]
pub(super) struct Places(Mutex<HashMap<String, Name>>);

impl Places {
    /// Where a disk is.
    pub(super) fn of(&self, id: &str) -> Option<Name> {
        self.lock().get(id).copied()
    }

    /// Where a disk is; if it is nowhere, it is now at the one of `takers` that has the fewest. The
    /// flag says whether it is a new place.
    pub(super) fn of_or_new(&self, id: &str, takers: &[Name]) -> Option<(Name, bool)> {
        let mut places = self.lock();
        if let Some(name) = places.get(id) {
            return Some((*name, false));
        }
        let count = |taker: &Name| places.values().filter(|name| *name == taker).count();
        let name = *takers.iter().min_by_key(|taker| (count(taker), **taker))?;
        places.insert(id.to_owned(), name);
        Some((name, true))
    }

    /// A disk is there.
    pub(super) fn note(&self, id: &str, name: Name) {
        if let Some(other) = self.lock().insert(id.to_owned(), name)
            && other != name
        {
            tracing::error!(disk = id, first = %other, second = %name, "two servers have one disk");
        }
    }

    /// A disk is not there.
    pub(super) fn forget(&self, id: &str, name: Name) {
        let mut places = self.lock();
        if places.get(id) == Some(&name) {
            places.remove(id);
        }
    }

    /// No disk is there any more.
    pub(super) fn forget_all(&self, name: Name) {
        self.lock().retain(|_, place| *place != name);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Name>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::Places;
    use crate::seat::Name;

    fn name(number: u32) -> Name {
        Name {
            generation: 1,
            number,
        }
    }

    #[test]
    fn a_new_disk_goes_where_the_fewest_are_and_stays() {
        let places = Places::default();
        let takers = [name(1), name(2), name(3)];
        let put = |id: &str| places.of_or_new(id, &takers).unwrap();
        for (id, expected) in [("a", 1), ("b", 2), ("c", 3), ("d", 1)] {
            assert_eq!(put(id), (name(expected), true));
        }
        assert_eq!(put("b"), (name(2), false));
        places.forget("b", name(1));
        assert_eq!(places.of("b"), Some(name(2)), "only at that place");
        places.forget("b", name(2));
        assert_eq!(put("e"), (name(2), true));
        assert_eq!(places.of_or_new("a", &[name(3)]), Some((name(1), false)));
        assert_eq!(places.of_or_new("f", &[]), None);
        assert_eq!(places.of("f"), None);
        places.forget_all(name(1));
        assert_eq!((places.of("a"), places.of("d")), (None, None));
        assert_eq!(put("g"), (name(1), true));
    }
}
