//! What is asked of other rooms when somebody looks at the metrics.

use std::sync::Arc;
use std::time::Duration;

use crate::link::{DiskStats, Latency, Seen, Servers};
use crate::nri::Containers;
use crate::observe::{Family, Kind, Sample, Spread, Value};
use crate::snapshot;
use crate::snapshot::Snapshotters;

/// Snapshots by name and kind.
pub(super) async fn of_snapshots(snapshotters: Arc<Snapshotters>) -> Vec<Family> {
    let mut samples = Vec::new();
    let names: Vec<String> = snapshotters.names().map(str::to_owned).collect();
    for name in names {
        let Some(snapshotter) = snapshotters.named(&name) else {
            continue;
        };
        match snapshotter.list().await {
            Ok(infos) => samples.extend(by_kind(&name, &infos)),
            Err(error) => tracing::warn!(name, %error, "cannot count snapshots"),
        }
    }
    vec![Family {
        name: "ploop_snapshots",
        help: "Snapshots that containerd knows of, by kind.",
        kind: Kind::Gauge,
        labels: &["snapshotter", "kind"],
        samples,
    }]
}

fn by_kind(name: &str, infos: &[snapshot::Info]) -> impl Iterator<Item = Sample> {
    let kinds = [
        ("active", snapshot::Kind::Active),
        ("view", snapshot::Kind::View),
        ("committed", snapshot::Kind::Committed),
    ];
    let counted = kinds.map(|(word, kind)| {
        let count = infos.iter().filter(|info| info.kind == kind).count();
        Sample {
            labels: vec![name.to_owned(), word.to_owned()],
            value: number(count as u64),
        }
    });
    counted.into_iter()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "Prometheus has no other numbers"
)]
pub(super) fn number(count: u64) -> Value {
    Value::Number(count as f64)
}

/// The disk servers. Nobody is asked for it: what is known of one that hangs must not wait for its answer.
pub(super) async fn of_servers(servers: Arc<Servers>) -> Vec<Family> {
    let seen = servers.seen();
    vec![
        per_server(
            "ploop_disk_server_up",
            "1 if the disk server gave its last sign of life in time.",
            Kind::Gauge,
            &seen,
            |server| u64::from(server.alive),
        ),
        per_server(
            "ploop_disk_server_starts_total",
            "Processes of this disk server seen since ploop-snapshotter started.",
            Kind::Counter,
            &seen,
            |server| server.starts,
        ),
        per_server(
            "ploop_disk_server_retiring",
            "1 if the disk server takes no new disks and ends with its last one.",
            Kind::Gauge,
            &seen,
            |server| u64::from(server.retiring || server.hello.draining),
        ),
    ]
}

/// Every disk of those servers that answer.
///
/// A disk's counters begin anew when it is attached again, as Prometheus expects of a restart.
pub(super) async fn of_disks(servers: Arc<Servers>) -> Vec<Family> {
    match servers.stats(None).await {
        Ok(disks) => per_disk(&disks).chain([times(&disks)]).collect(),
        Err(error) => {
            tracing::warn!(%error, "the disk servers' counters are missing");
            Vec::new()
        }
    }
}

fn per_server(
    name: &'static str,
    help: &'static str,
    kind: Kind,
    seen: &[Seen],
    read: fn(&Seen) -> u64,
) -> Family {
    Family {
        name,
        help,
        kind,
        labels: &["server"],
        samples: seen
            .iter()
            .map(|server| Sample {
                labels: vec![server.name.to_string()],
                value: number(read(server)),
            })
            .collect(),
    }
}

/// One figure of the whole node.
pub(super) fn gauge(name: &'static str, help: &'static str, value: u64) -> Family {
    Family {
        name,
        help,
        kind: Kind::Gauge,
        labels: &[],
        samples: vec![Sample {
            labels: Vec::new(),
            value: number(value),
        }],
    }
}

/// Whether Kubernetes' wishes reach us.
pub(super) async fn of_nri(containers: Arc<Containers>) -> Vec<Family> {
    vec![
        gauge(
            "ploop_nri_connected",
            "1 if containerd asks us about its containers: without it pods' annotations set no sizes.",
            containers.are_current().into(),
        ),
        gauge(
            "ploop_nri_containers",
            "Containers of pods that containerd has told of, whatever they lie on.",
            containers.count() as u64,
        ),
    ]
}

type Column = (&'static str, &'static str, Kind, fn(&DiskStats) -> u64);

const COLUMNS: [Column; 18] = [
    (
        "ploop_disk_allocated_bytes",
        "Bytes that the host holds for a disk's own delta.",
        Kind::Gauge,
        |disk| disk.allocated,
    ),
    ("ploop_disk_reads_total", "Reads.", Kind::Counter, |disk| {
        disk.reads
    }),
    (
        "ploop_disk_read_bytes_total",
        "Bytes read.",
        Kind::Counter,
        |disk| disk.read_bytes,
    ),
    (
        "ploop_disk_writes_total",
        "Writes.",
        Kind::Counter,
        |disk| disk.writes,
    ),
    (
        "ploop_disk_written_bytes_total",
        "Bytes written.",
        Kind::Counter,
        |disk| disk.written_bytes,
    ),
    (
        "ploop_disk_flushes_total",
        "Flushes.",
        Kind::Counter,
        |disk| disk.flushes,
    ),
    (
        "ploop_disk_discards_total",
        "Discards.",
        Kind::Counter,
        |disk| disk.discards,
    ),
    (
        "ploop_disk_discarded_bytes_total",
        "Bytes discarded.",
        Kind::Counter,
        |disk| disk.discarded_bytes,
    ),
    (
        "ploop_disk_copied_up_clusters_total",
        "Clusters copied from a parent because they were written in part.",
        Kind::Counter,
        |disk| disk.copied_up_clusters,
    ),
    (
        "ploop_disk_copied_up_bytes_total",
        "Bytes copied from a parent.",
        Kind::Counter,
        |disk| disk.copied_up_bytes,
    ),
    (
        "ploop_disk_placed_clusters_total",
        "Clusters that got a place in a disk's own delta.",
        Kind::Counter,
        |disk| disk.placed_clusters,
    ),
    (
        "ploop_disk_pending_clusters",
        "Clusters answered for, whose place is not yet in the delta's index.",
        Kind::Gauge,
        |disk| disk.pending_clusters,
    ),
    (
        "ploop_disk_held_requests",
        "Requests that wait for space on the host now.",
        Kind::Gauge,
        |disk| disk.held_requests,
    ),
    (
        "ploop_disk_no_space_total",
        "Requests refused because the host had no space.",
        Kind::Counter,
        |disk| disk.no_space,
    ),
    (
        "ploop_disk_errors_total",
        "Requests answered with an error.",
        Kind::Counter,
        |disk| disk.errors,
    ),
    (
        "ploop_disk_depth",
        "Image files in a disk's chain.",
        Kind::Gauge,
        |disk| disk.depth as u64,
    ),
    (
        "ploop_disk_failed",
        "1 if a disk answers errors only.",
        Kind::Gauge,
        |disk| disk.failed.is_some() as u64,
    ),
    (
        "ploop_disk_attached",
        "Always 1: the disks that are attached.",
        Kind::Gauge,
        |_| 1,
    ),
];

fn per_disk(disks: &[DiskStats]) -> impl Iterator<Item = Family> {
    COLUMNS.iter().map(|(name, help, kind, read)| Family {
        name,
        help,
        kind: *kind,
        labels: &["disk"],
        samples: disks
            .iter()
            .map(|disk| Sample {
                labels: vec![disk.id.clone()],
                value: number(read(disk)),
            })
            .collect(),
    })
}

fn times(disks: &[DiskStats]) -> Family {
    let samples = disks.iter().flat_map(|disk| {
        disk.latencies.iter().map(|latency| Sample {
            labels: vec![disk.id.clone(), latency.op.to_owned()],
            value: Value::Spread(spread(latency)),
        })
    });
    Family {
        name: "ploop_disk_request_seconds",
        help: "How long a disk's requests took, from their coming to its answer.",
        kind: Kind::Histogram,
        labels: &["disk", "op"],
        samples: samples.collect(),
    }
}

fn spread(latency: &Latency) -> Spread {
    let seconds = |nanoseconds| Duration::from_nanos(nanoseconds).as_secs_f64();
    let steps = latency.steps.iter();
    Spread {
        steps: steps
            .map(|(bound, count)| (seconds(*bound), *count))
            .collect(),
        more: latency.longer,
        sum: seconds(latency.nanoseconds),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use super::{by_kind, of_nri, per_disk};
    use crate::link::DiskStats;
    use crate::observe::Metrics;
    use crate::snapshot::{Info, Kind, Labels};

    #[test]
    fn snapshots_are_counted_by_kind() {
        let info = |kind| Info {
            name: String::new(),
            parent: String::new(),
            kind,
            labels: Labels::new(),
            created: SystemTime::UNIX_EPOCH,
            updated: SystemTime::UNIX_EPOCH,
        };
        let infos = [info(Kind::Active), info(Kind::View), info(Kind::Active)];
        let counts: Vec<_> = by_kind("p", &infos)
            .map(|sample| (sample.labels[1].clone(), sample.value))
            .collect();
        assert_eq!(
            counts,
            [
                ("active".to_owned(), 2.0.into()),
                ("view".to_owned(), 1.0.into()),
                ("committed".to_owned(), 0.0.into())
            ]
        );
    }

    #[tokio::test]
    async fn nobody_connected_is_a_zero() {
        let metrics = Metrics::new("test", "1").unwrap();
        metrics.source(|| of_nri(Arc::default()));
        let text = metrics.text().await.unwrap();
        for line in ["ploop_nri_connected 0", "ploop_nri_containers 0"] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }

    /// Every name must be one that Prometheus takes, and none may come twice.
    #[tokio::test]
    async fn every_column_becomes_a_line_for_each_disk() {
        let disk = |id: &str, failed: Option<&str>| DiskStats {
            id: id.to_owned(),
            reads: 7,
            failed: failed.map(str::to_owned),
            ..DiskStats::default()
        };
        let disks = Arc::new([disk("s1", None), disk("s2", Some("gone"))]);
        let metrics = Metrics::new("test", "1").unwrap();
        metrics.source(move || {
            let disks = Arc::clone(&disks);
            async move { per_disk(&*disks).collect() }
        });
        let text = metrics.text().await.unwrap();
        for line in [
            "ploop_disk_reads_total{disk=\"s1\"} 7",
            "ploop_disk_failed{disk=\"s1\"} 0",
            "ploop_disk_failed{disk=\"s2\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        let lines = text.lines().filter(|line| line.contains("disk=\"s1\""));
        assert_eq!(lines.count(), super::COLUMNS.len());
    }
}
