//! Which size a snapshot should have, from everything that may say so.
//!
//! The first that says something decides:
//!
//! 1. the label `containerd.io/snapshot/ploop.size` of the request, as people write sizes: `20Gi`
//! 2. its label `containerd.io/snapshot/max-size`, decimal bytes, as containerd defines it
//! 3. either label of the nearest snapshot below that has one: an image's annotation is a label of its layers
//! 4. the size of the snapshotter's name
//!
//! What an image asks for (3, or the labels of a request that unpacks it) is a wish: outside the limits of the name it
//! becomes the nearer of them, for nobody who pulls it can change it.
//!
//! A size is rounded down to whole clusters: it is a limit. containerd's own label is ignored, with a warning,
//! if it is no number; ours is refused, because whoever wrote it meant something.

use super::{Error, Labels, NameOptions};
use crate::units::Bytes;

/// Our label.
const OURS: &str = "containerd.io/snapshot/ploop.size";
/// containerd's label.
const THEIRS: &str = "containerd.io/snapshot/max-size";

/// What containerd's unpacker gives a snapshot that a layer is unpacked into, beside the layer's annotations.
const UNPACKED: &str = "containerd.io/snapshot.ref";

/// Is it an image that asks? Nobody who pulls it can change what it asks for.
pub(super) fn of_image(labels: &Labels) -> bool {
    labels.contains_key(UNPACKED)
}

/// What an image gets that asks for so many bytes: outside the limits of the name, the nearer of them that is whole
/// clusters.
pub(super) fn wished(key: &str, asked: u64, cluster: u64, name: &NameOptions) -> u64 {
    let smallest = name.smallest.max(name.file_system.smallest());
    // Rounded down afterwards it would be outside again.
    let smallest = smallest.next_multiple_of(cluster.max(4096));
    let size = asked.max(smallest).min(name.largest);
    if size != asked {
        tracing::warn!(
            key,
            asked,
            size,
            "the image asks for a size outside the limits"
        );
    }
    size
}

/// The bytes that labels ask for; `None` if they say nothing.
pub(super) fn asked(key: &str, labels: &Labels) -> Result<Option<u64>, Error> {
    if let Some(text) = labels.get(OURS) {
        return match text.parse::<Bytes>() {
            Ok(Bytes(bytes)) if bytes > 0 => Ok(Some(bytes)),
            _ => Err(Error::NoSize {
                key: key.to_owned(),
                label: OURS,
                text: text.chars().take(64).collect(),
            }),
        };
    }
    let Some(text) = labels.get(THEIRS) else {
        return Ok(None);
    };
    match text.parse::<i64>().map(u64::try_from) {
        Ok(Ok(bytes)) if bytes > 0 => Ok(Some(bytes)),
        _ => {
            let text: String = text.chars().take(64).collect();
            tracing::warn!(
                key,
                label = THEIRS,
                text,
                "no positive number of bytes: ignored"
            );
            Ok(None)
        }
    }
}

/// A size that somebody asked for, in whole clusters and within the limits of the name.
pub(super) fn bounded(
    key: &str,
    bytes: u64,
    cluster: u64,
    name: &NameOptions,
) -> Result<u64, Error> {
    let size = bytes - bytes % cluster.max(4096);
    if size < name.smallest || size > name.largest {
        return Err(Error::SizeLimits {
            key: key.to_owned(),
            size: bytes,
            smallest: name.smallest,
            largest: name.largest,
        });
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::labels;
    use super::{Error, NameOptions, OURS, THEIRS, asked, bounded, wished};

    #[test]
    fn ours_comes_first_and_is_refused_if_it_is_no_size() {
        for (pairs, expected) in [
            (&[][..], Some(None)),
            (&[(OURS, "20Gi")], Some(Some(20 << 30))),
            (&[(THEIRS, "4096")], Some(Some(4096))),
            (&[(OURS, "1Mi"), (THEIRS, "4096")], Some(Some(1 << 20))),
            (&[(OURS, "much"), (THEIRS, "4096")], None),
            (&[(OURS, "0")], None),
            (&[(OURS, "-1Gi")], None),
            (&[("other", "5Gi")], Some(None)),
        ] {
            let found = asked("key", &labels(pairs));
            assert_eq!(
                found.as_ref().ok(),
                expected.as_ref(),
                "{pairs:?}: {found:?}"
            );
        }
    }

    /// As upstream defines it.
    #[test]
    fn theirs_is_ignored_if_it_is_no_positive_number() {
        for text in ["5Gi", "", "0", "-5", "1e9", " 4096", "99999999999999999999"] {
            assert_eq!(
                asked("key", &labels(&[(THEIRS, text)])).unwrap(),
                None,
                "{text:?}"
            );
        }
    }

    /// An image could not be pulled whose wish became a limit that is no multiple of a cluster.
    #[test]
    fn what_an_image_wishes_is_never_refused() {
        const MIB: u64 = 1 << 20;
        let mut name = NameOptions::new("ploop");
        (name.smallest, name.largest) = (200 * MIB, 1000 * MIB);
        for (wish, cluster, expected) in [
            (MIB, 64 * MIB, 256 * MIB),
            (300 * MIB, 64 * MIB, 256 * MIB),
            (4000 * MIB, 64 * MIB, 960 * MIB),
            (MIB, 65_536, 200 * MIB),
        ] {
            let size = wished("key", wish, cluster, &name);
            assert_eq!(bounded("key", size, cluster, &name).unwrap(), expected);
        }
    }

    #[test]
    fn a_size_is_a_limit_in_whole_clusters() {
        let mut name = NameOptions::new("ploop");
        (name.smallest, name.largest) = (1 << 30, 4 << 30);
        let at = |bytes| bounded("key", bytes, 65_536, &name);
        assert_eq!(at((1 << 30) + 65_535).unwrap(), 1 << 30);
        assert_eq!(at(5_000_000_000 - (1 << 30)).unwrap() % 65_536, 0);
        for bytes in [0, (1 << 30) - 1, (4 << 30) + 65_536, u64::MAX] {
            let error = at(bytes).unwrap_err();
            assert!(matches!(error, Error::SizeLimits { .. }));
            assert!(
                error.to_string().contains("from 1.00 GiB to 4.00 GiB"),
                "{error}"
            );
        }
    }
}
