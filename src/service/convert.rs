//! Words of the wire, and ours.

use std::collections::HashMap;

use containerd_snapshots as wire;

use super::filter::Field;
use crate::snapshot::{Info, Kind, Labels, Mount, Usage};

pub(super) fn labels_in(labels: HashMap<String, String>) -> Labels {
    labels.into_iter().collect()
}

pub(super) fn info_out(info: Info) -> wire::Info {
    wire::Info {
        kind: match info.kind {
            Kind::View => wire::Kind::View,
            Kind::Active => wire::Kind::Active,
            // A fitted one is never shown.
            Kind::Committed | Kind::Fitted => wire::Kind::Committed,
        },
        name: info.name,
        parent: info.parent,
        labels: info.labels.into_iter().collect(),
        created_at: info.created,
        updated_at: info.updated,
    }
}

pub(super) fn mounts_out(mounts: Vec<Mount>) -> Vec<wire::api::types::Mount> {
    mounts
        .into_iter()
        .map(|mount| wire::api::types::Mount {
            r#type: mount.kind,
            source: mount.source,
            target: String::new(),
            options: mount.options,
        })
        .collect()
}

pub(super) fn usage_out(usage: Usage) -> wire::Usage {
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    wire::Usage {
        inodes: signed(usage.inodes),
        size: signed(usage.bytes),
    }
}

/// What a filter sees of a snapshot.
pub(super) fn field_of<'a>(info: &'a Info, field: &Field) -> Option<&'a str> {
    match field {
        Field::Name => Some(&info.name),
        Field::Parent => Some(&info.parent),
        Field::Kind => Some(match info.kind {
            Kind::View => "view",
            Kind::Active => "active",
            Kind::Committed | Kind::Fitted => "committed",
        }),
        Field::Label(key) => info.labels.get(key).map(String::as_str),
        Field::Unknown => None,
    }
}

/// containerd's namespace of a key: it calls us with `namespace/number/key`.
pub(super) fn namespace_of(key: &str) -> &str {
    let mut parts = key.splitn(3, '/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(namespace), Some(number), Some(_))
            if !number.is_empty() && number.chars().all(|c| c.is_ascii_digit()) =>
        {
            namespace
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::{namespace_of, usage_out};
    use crate::snapshot::Usage;

    #[test]
    fn a_namespace_is_read_from_containerds_keys_only() {
        for (key, namespace) in [
            ("k8s.io/12/sha256:ab", "k8s.io"),
            ("default/1/extract-5 sha256:ab", "default"),
            ("moby/3/a/b", "moby"),
            ("/tmp/1/x", ""),
            ("a/b/c", ""),
            ("a//c", ""),
            ("a/1", ""),
            ("plain", ""),
            ("", ""),
        ] {
            assert_eq!(namespace_of(key), namespace, "{key}");
        }
    }

    #[test]
    fn a_huge_usage_does_not_turn_negative() {
        let usage = usage_out(Usage {
            bytes: u64::MAX,
            inodes: 1,
        });
        assert_eq!((usage.size, usage.inodes), (i64::MAX, 1));
    }
}
