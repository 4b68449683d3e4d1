//! Every container by name, for the metrics and for who asks the node: what it has, and what it uses.

use std::sync::Arc;

use super::numbers::{gauge, number};
use crate::nri::{Containers, container_of};
use crate::observe::{Family, Kind, Sample};
use crate::service::{Node, Owner};
use crate::snapshot::{self, Seen, Snapshotters, Survey};

/// The whole node, with the names that Kubernetes gave.
pub(super) fn node(all: Arc<Snapshotters>, containers: Arc<Containers>) -> Node {
    Node {
        all,
        owner_of: Arc::new(move |key| owner_of(&containers, key)),
    }
}

fn owner_of(containers: &Containers, key: &str) -> Option<Owner> {
    let container = containers.of_key(key)?;
    Some(Owner {
        namespace: container.namespace,
        pod: container.pod,
        container: container.name,
    })
}

/// What a gauge shows of one container; nothing where it cannot be known.
type Column = (&'static str, &'static str, fn(&Seen) -> Option<u64>);

const COLUMNS: [Column; 7] = [
    (
        "ploop_container_size_bytes",
        "Bytes of a container's disk: its quota.",
        |seen| Some(seen.size),
    ),
    (
        "ploop_container_allocated_bytes",
        "Bytes that the host holds for a container alone.",
        |seen| Some(seen.own),
    ),
    (
        "ploop_container_filesystem_size_bytes",
        "Bytes of a container's file system, as df inside says.",
        |seen| Some(seen.inside.as_ref()?.size),
    ),
    (
        "ploop_container_filesystem_used_bytes",
        "Bytes in use in a container, its image's among them, as df inside says.",
        |seen| Some(seen.inside.as_ref()?.used),
    ),
    (
        "ploop_container_filesystem_available_bytes",
        "Bytes that a container's ordinary user may still write.",
        |seen| Some(seen.inside.as_ref()?.available),
    ),
    (
        "ploop_container_inodes",
        "Inodes of a container's file system.",
        |seen| Some(seen.inside.as_ref()?.inodes),
    ),
    (
        "ploop_container_inodes_free",
        "Inodes that are free in a container's file system.",
        |seen| Some(seen.inside.as_ref()?.free_inodes),
    ),
];

/// Each container's figures, and what all of them were promised beside what the host has.
///
/// A container is an active snapshot. `disk` is what `ploop_disk_*` call it while it is attached.
pub(super) async fn of_containers(all: Arc<Snapshotters>, names: Arc<Containers>) -> Vec<Family> {
    match all.survey().await {
        Ok(survey) => families(&survey, &names),
        Err(error) => {
            tracing::warn!(%error, "the containers' figures are missing");
            Vec::new()
        }
    }
}

fn families(survey: &Survey, names: &Containers) -> Vec<Family> {
    let active = survey.snapshots.iter();
    let active: Vec<(&Seen, Vec<String>)> = active
        .filter(|seen| seen.kind == snapshot::Kind::Active)
        .map(|seen| (seen, labels(seen, names)))
        .collect();
    let promised = active.iter().map(|(seen, _)| seen.size).sum();
    let mut families: Vec<Family> = COLUMNS
        .iter()
        .map(|(name, help, read)| Family {
            name,
            help,
            kind: Kind::Gauge,
            labels: &[
                "snapshotter",
                "key",
                "disk",
                "namespace",
                "pod",
                "container",
            ],
            samples: active
                .iter()
                .filter_map(|(seen, labels)| {
                    Some(Sample {
                        labels: labels.clone(),
                        value: number(read(seen)?),
                    })
                })
                .collect(),
        })
        .collect();
    families.extend([
        gauge(
            "ploop_host_size_bytes",
            "Bytes of the host's file system that holds our root.",
            survey.host_size,
        ),
        gauge(
            "ploop_host_free_bytes",
            "Bytes of it that are free to us.",
            survey.host_free,
        ),
        gauge(
            "ploop_host_reserve_bytes",
            "Bytes that new containers leave free; 0: nothing is kept back.",
            survey.reserve,
        ),
        gauge(
            "ploop_promised_bytes",
            "The sum of all containers' sizes: it may be more than the host has.",
            promised,
        ),
    ]);
    families
}

fn labels(seen: &Seen, names: &Containers) -> Vec<String> {
    let owner = owner_of(names, &seen.key);
    let (namespace, pod, container) = match owner {
        Some(owner) => (owner.namespace, owner.pod, owner.container),
        // Without Kubernetes: containerd's namespace and its container.
        None => match container_of(&seen.key) {
            Some((namespace, id)) => (namespace.to_owned(), String::new(), id.to_owned()),
            None => Default::default(),
        },
    };
    vec![
        seen.snapshotter.clone(),
        seen.key.clone(),
        seen.disk.clone().unwrap_or_default(),
        namespace,
        pod,
        container,
    ]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use super::families;
    use crate::nri::Containers;
    use crate::observe::Metrics;
    use crate::snapshot::{Inside, Kind, Seen, Survey};

    fn seen(key: &str, kind: Kind, inside: Option<Inside>) -> Seen {
        Seen {
            snapshotter: "ploop".to_owned(),
            key: key.to_owned(),
            parent: String::new(),
            kind,
            size: 1 << 30,
            own: 4096,
            shared: 0,
            depth: 2,
            created: SystemTime::UNIX_EPOCH,
            disk: Some("s1".to_owned()),
            device: None,
            inside,
        }
    }

    #[tokio::test]
    async fn each_container_has_its_lines_and_what_is_not_known_has_none() {
        let inside = Inside {
            at: "/x".into(),
            size: 1000,
            used: 600,
            available: 350,
            inodes: 64,
            free_inodes: 9,
        };
        let survey = Survey {
            root: "/r".into(),
            host_size: 7,
            host_free: 3,
            reserve: 0,
            snapshots: vec![
                seen("k8s.io/9/layer", Kind::Committed, None),
                seen("default/2/web", Kind::Active, Some(inside)),
                seen("odd", Kind::Active, None),
            ],
        };
        let metrics = Metrics::new("test", "1").unwrap();
        let survey = Arc::new(survey);
        metrics.source(move || {
            let survey = Arc::clone(&survey);
            async move { families(&survey, &Containers::default()) }
        });
        let text = metrics.text().await.unwrap();
        let web = "{container=\"web\",disk=\"s1\",key=\"default/2/web\",namespace=\"default\",pod=\"\",snapshotter=\"ploop\"}";
        for line in [
            format!("ploop_container_size_bytes{web} 1073741824"),
            format!("ploop_container_filesystem_used_bytes{web} 600"),
            format!("ploop_container_inodes_free{web} 9"),
            "ploop_promised_bytes 2147483648".to_owned(),
            "ploop_host_free_bytes 3".to_owned(),
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        let of_odd = |line: &&str| line.contains("key=\"odd\"");
        assert_eq!(text.lines().filter(of_odd).count(), 2, "{text}");
        assert!(!text.contains("layer"), "no container: {text}");
    }
}
