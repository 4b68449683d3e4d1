//! The size that a pod's annotations ask for.
//!
//! Kubernetes allows one slash in a key, so containerd's own label (`containerd.io/snapshot/max-size`)
//! cannot stand there. The keys are those that NRI's own plugins have: a name in the domain's place, and
//! behind the slash which container is meant. The more particular one counts:
//!
//! ```text
//! max-size.ploop-snapshotter/container.NAME    one container
//! max-size.ploop-snapshotter/pod               every container of the pod
//! max-size.ploop-snapshotter                   the same, as short as NRI allows it
//! ploop-snapshotter/max-size                   the same, as Kubernetes' own keys look
//! ```

use std::collections::HashMap;

use crate::units::Bytes;

const OURS: &str = "max-size.ploop-snapshotter";
const PLAIN: &str = "ploop-snapshotter/max-size";

/// The most of a value that is repeated in an error.
const LONGEST_ECHO: usize = 60;

/// What an annotation asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    /// Its key.
    pub(super) key: String,
    /// How many bytes; or what is wrong with it, in words for the pod's author.
    pub(super) size: Result<u64, String>,
}

/// What is asked for a container, if anything is.
///
/// A key of ours that means nothing is a wish, too, and a bad one: whoever wrote it should hear of it
/// before a disk of another size is full.
pub(super) fn wish(annotations: &HashMap<String, String>, container: &str) -> Option<Wish> {
    let mut strange: Vec<_> = annotations.keys().filter(|key| is_strange(key)).collect();
    strange.sort();
    if let Some(key) = strange.first() {
        let key = echo(key);
        let size = Err(format!(
            "it means nothing: write {OURS}/pod or {OURS}/container.NAME"
        ));
        return Some(Wish { key, size });
    }
    let one = format!("{OURS}/container.{container}");
    let pod = format!("{OURS}/pod");
    let keys = [one.as_str(), pod.as_str(), OURS, PLAIN];
    let (key, value) = keys
        .into_iter()
        .find_map(|key| Some((key, annotations.get(key)?)))?;
    Some(Wish {
        key: key.to_owned(),
        size: size(value),
    })
}

/// Is it ours, and yet none that there is?
fn is_strange(key: &str) -> bool {
    match key
        .strip_prefix(OURS)
        .and_then(|rest| rest.strip_prefix('/'))
    {
        Some("pod") => false,
        Some(which) => which.strip_prefix("container.").is_none_or(str::is_empty),
        None => key.starts_with("ploop-snapshotter/") && key != PLAIN,
    }
}

fn size(value: &str) -> Result<u64, String> {
    match value.parse::<Bytes>() {
        Ok(Bytes(0)) => Err("no disk has no size: write one such as 10Gi".to_owned()),
        Ok(Bytes(bytes)) => Ok(bytes),
        Err(_) => Err(format!(
            "\"{}\" is not a size: write a number with a unit, such as 10Gi or 512Mi",
            echo(value)
        )),
    }
}

/// Not more of it than an error has room for.
fn echo(text: &str) -> String {
    match text.char_indices().nth(LONGEST_ECHO) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::{LONGEST_ECHO, wish};

    fn of(pairs: &[(&str, &str)], container: &str) -> Option<(String, Result<u64, String>)> {
        let annotations: HashMap<_, _> = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let wish = wish(&annotations, container)?;
        Some((wish.key, wish.size))
    }

    #[test]
    fn the_more_particular_one_counts() {
        const ONE: (&str, &str) = ("max-size.ploop-snapshotter/container.db", "4Gi");
        const POD: (&str, &str) = ("max-size.ploop-snapshotter/pod", "3Gi");
        const SHORT: (&str, &str) = ("max-size.ploop-snapshotter", "2Gi");
        const PLAIN: (&str, &str) = ("ploop-snapshotter/max-size", "1Gi");
        const OTHER: (&str, &str) = ("prometheus.io/scrape", "true");
        let table = [
            (&[OTHER][..], None, None),
            (&[], None, None),
            (&[OTHER, PLAIN], Some(1), Some(1)),
            (&[SHORT], Some(2), Some(2)),
            (&[POD], Some(3), Some(3)),
            (&[ONE], Some(4), None),
            (&[SHORT, PLAIN], Some(2), Some(2)),
            (&[POD, SHORT, PLAIN], Some(3), Some(3)),
            (&[PLAIN, SHORT, POD, ONE], Some(4), Some(3)),
            (&[ONE, PLAIN], Some(4), Some(1)),
        ];
        for (annotations, db, web) in table {
            for (container, expected) in [("db", db), ("web", web)] {
                let size = of(annotations, container).map(|(_, size)| size.unwrap() >> 30);
                assert_eq!(size, expected, "{container} of {annotations:?}");
            }
        }
    }

    #[test]
    fn the_key_that_counted_is_told() {
        let (key, _) = of(&[("max-size.ploop-snapshotter/container.db", "x")], "db").unwrap();
        assert_eq!(key, "max-size.ploop-snapshotter/container.db");
    }

    #[test]
    fn a_bad_value_says_what_a_good_one_is() {
        for value in ["", "ten", "10Qi", "-1", "0", "0Gi", "1e9", &"9".repeat(500)] {
            let (_, size) = of(&[("ploop-snapshotter/max-size", value)], "db").unwrap();
            let words = size.unwrap_err();
            assert!(words.contains("10Gi"), "{value}: {words}");
            assert!(words.len() < LONGEST_ECHO + 100, "{words}");
        }
    }

    /// A slip of the pen must not become a disk of the default size.
    #[test]
    fn a_key_of_ours_that_is_none_is_a_bad_wish() {
        for key in [
            "max-size.ploop-snapshotter/containers.db",
            "max-size.ploop-snapshotter/container.",
            "max-size.ploop-snapshotter/",
            "ploop-snapshotter/maxsize",
        ] {
            let good = ("max-size.ploop-snapshotter/pod", "3Gi");
            let (told, size) = of(&[good, (key, "1Gi")], "db").unwrap();
            assert_eq!(told, key);
            assert!(size.unwrap_err().contains("means nothing"), "{key}");
        }
        for key in ["max-size.ploop-snapshotter.example/x", "max-size.ploop"] {
            assert_eq!(of(&[(key, "1Gi")], "db"), None, "{key}");
        }
    }
}
