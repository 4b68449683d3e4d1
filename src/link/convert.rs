//! Words of the wire to ours and back.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::disk::{Delta, Disk, DiskStats, Format, Hello, Latency, Seal};
use super::error::{Error, Kind};
use crate::proto::v1;

/// A delta for the wire.
///
/// # Errors
/// A path that is not UTF-8 cannot be sent.
pub(super) fn delta_out(call: &'static str, delta: &Delta) -> Result<v1::Delta, Error> {
    let path =
        std::str::from_utf8(delta.path.as_os_str().as_bytes()).map_err(|_| Error::Refused {
            call,
            kind: Kind::Invalid,
            message: format!("the path {} is not UTF-8", delta.path.display()),
        })?;
    let format = match delta.format {
        Format::Ploop => v1::Format::Ploop,
        Format::Raw => v1::Format::Raw,
    };
    Ok(v1::Delta {
        path: path.to_owned(),
        format: format.into(),
        seal: delta.seal.map(|seal| v1::Seal {
            length: seal.length,
            digest: seal.digest,
            allocated: seal.allocated,
        }),
    })
}

/// A seal from the wire.
pub(super) fn seal_in(seal: &v1::Seal) -> Seal {
    Seal {
        length: seal.length,
        digest: seal.digest,
        allocated: seal.allocated,
    }
}

fn delta_in(call: &'static str, delta: v1::Delta) -> Result<Delta, Error> {
    let format = match delta.format() {
        v1::Format::Ploop => Format::Ploop,
        v1::Format::Raw => Format::Raw,
        v1::Format::Unspecified => {
            return Err(Error::Answer {
                call,
                what: format!("{} has no format", delta.path),
            });
        }
    };
    Ok(Delta {
        seal: delta.seal.as_ref().map(seal_in),
        path: delta.path.into(),
        format,
    })
}

/// A disk from the wire.
pub(super) fn disk_in(call: &'static str, disk: v1::Disk) -> Result<Disk, Error> {
    if !Path::new(&disk.device).is_absolute() {
        return Err(Error::Answer {
            call,
            what: format!("the device of {} is \"{}\"", disk.id, disk.device),
        });
    }
    let deltas: Result<_, _> = disk
        .deltas
        .into_iter()
        .map(|delta| delta_in(call, delta))
        .collect();
    Ok(Disk {
        id: disk.id,
        device: disk.device.into(),
        alias: said(disk.alias).map(PathBuf::from),
        major: disk.major,
        minor: disk.minor,
        size: disk.size,
        cluster: disk.cluster,
        read_only: disk.read_only,
        deltas: deltas?,
        failed: said(disk.failed),
    })
}

/// A server's greeting from the wire.
pub(super) fn hello_in(hello: v1::HelloReply) -> Hello {
    Hello {
        version: hello.version,
        protocol: hello.protocol,
        pid: hello.pid,
        transport: hello.transport,
        survives_restart: hello.survives_restart,
        draining: hello.draining,
        revision: hello.revision,
        build: hello.build,
    }
}

/// A disk's counters from the wire.
pub(super) fn stats_in(stats: v1::DiskStats) -> DiskStats {
    DiskStats {
        id: stats.id,
        allocated: stats.allocated,
        reads: stats.reads,
        read_bytes: stats.read_bytes,
        writes: stats.writes,
        written_bytes: stats.written_bytes,
        flushes: stats.flushes,
        discards: stats.discards,
        discarded_bytes: stats.discarded_bytes,
        copied_up_clusters: stats.copied_up_clusters,
        copied_up_bytes: stats.copied_up_bytes,
        placed_clusters: stats.placed_clusters,
        pending_clusters: stats.pending_clusters,
        held_requests: stats.held_requests,
        errors: stats.errors,
        no_space: stats.no_space,
        depth: stats.depth,
        failed: said(stats.failed),
        latencies: [
            ("read", stats.read_latency),
            ("write", stats.write_latency),
            ("flush", stats.flush_latency),
            ("discard", stats.discard_latency),
        ]
        .into_iter()
        .filter_map(|(op, latency)| Some(latency_in(op, latency?)))
        .collect(),
    }
}

fn latency_in(op: &'static str, latency: v1::Latency) -> Latency {
    let mut counts = latency.counts.into_iter();
    Latency {
        op,
        steps: latency.bounds.into_iter().zip(counts.by_ref()).collect(),
        longer: counts.next().unwrap_or(0),
        nanoseconds: latency.nanoseconds,
    }
}

/// An empty string on the wire is nothing.
fn said(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}
