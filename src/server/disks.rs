//! The gRPC service: translate, call, translate.
//!
//! An act that changes something runs in a task of its own: a caller that goes away half-way does not
//! stop it half-way.

use std::future::Future;
use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::error::Error;
use super::registry::Served;
use super::serve::{Sealed, Server};
use super::status::status;
use super::wanted::{Wanted, check_id};
use crate::disk::{BOUNDS, Latency};
use crate::image;
use crate::proto::v1::disks_server::Disks;
use crate::proto::{PROTOCOL, REVISION, v1};

/// The door of a server.
pub(super) struct Door(pub(super) Arc<Server>);

async fn to_its_end<T: Send + 'static>(
    what: &'static str,
    act: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Status> {
    let answer = tokio::spawn(act).await.unwrap_or(Err(Error::Lost(what)));
    answer.map_err(|error| {
        tracing::warn!(%error, "{what} failed");
        status(&error)
    })
}

#[tonic::async_trait]
impl Disks for Door {
    async fn hello(
        &self,
        request: Request<v1::HelloRequest>,
    ) -> Result<Response<v1::HelloReply>, Status> {
        let caller = request.into_inner();
        if caller.protocol != PROTOCOL {
            tracing::warn!(
                version = %caller.version, protocol = caller.protocol, ours = PROTOCOL,
                "a caller of another protocol"
            );
        }
        let transport = self.0.devices().transport();
        Ok(Response::new(v1::HelloReply {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            transport: transport.name().to_owned(),
            survives_restart: transport.survives_restart(),
            draining: self.0.draining(),
            revision: REVISION,
            build: self.0.build.name().await.to_owned(),
            server: self.0.name.to_string(),
        }))
    }

    async fn attach(
        &self,
        request: Request<v1::AttachRequest>,
    ) -> Result<Response<v1::Disk>, Status> {
        let wanted = Wanted::parse(request.into_inner()).map_err(|error| status(&error))?;
        let server = Arc::clone(&self.0);
        let served = to_its_end("attach", async move { server.attach(wanted).await }).await?;
        Ok(Response::new(disk_out(&self.0, &served)))
    }

    async fn detach(
        &self,
        request: Request<v1::DetachRequest>,
    ) -> Result<Response<v1::DetachReply>, Status> {
        let v1::DetachRequest { id, seal } = request.into_inner();
        let id = check_id(id).map_err(|error| status(&error))?;
        let server = Arc::clone(&self.0);
        let found = to_its_end("detach", async move { server.detach(&id, seal).await }).await?;
        Ok(Response::new(v1::DetachReply {
            existed: found.existed,
            seal: found.sealed.map(seal_out),
        }))
    }

    async fn grow(&self, request: Request<v1::GrowRequest>) -> Result<Response<v1::Disk>, Status> {
        let v1::GrowRequest { id, size } = request.into_inner();
        let server = Arc::clone(&self.0);
        let served = to_its_end("grow", async move { server.grow(&id, size).await }).await?;
        Ok(Response::new(disk_out(&self.0, &served)))
    }

    async fn sync(
        &self,
        request: Request<v1::SyncRequest>,
    ) -> Result<Response<v1::SyncReply>, Status> {
        let id = request.into_inner().id;
        let server = Arc::clone(&self.0);
        to_its_end("sync", async move { server.sync(&id).await }).await?;
        Ok(Response::new(v1::SyncReply {}))
    }

    async fn list(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListReply>, Status> {
        let id = request.into_inner().id;
        // First: what is served a moment later is in both then, and never in neither.
        let waiting = self.0.waiting();
        let all = self.0.all();
        let asked = all
            .iter()
            .filter(|served| id.is_empty() || served.wanted.id == id);
        let disks = asked.map(|served| disk_out(&self.0, served)).collect();
        let waiting = waiting.into_iter().filter(|it| id.is_empty() || *it == id);
        Ok(Response::new(v1::ListReply {
            disks,
            waiting: waiting.collect(),
        }))
    }

    async fn stats(
        &self,
        request: Request<v1::StatsRequest>,
    ) -> Result<Response<v1::StatsReply>, Status> {
        let id = request.into_inner().id;
        let disks = self.0.stats(&id).await.map_err(|error| status(&error))?;
        let disks = disks
            .into_iter()
            .map(|(served, allocated)| stats_out(&served, allocated))
            .collect();
        Ok(Response::new(v1::StatsReply { disks }))
    }

    async fn drain(
        &self,
        _: Request<v1::DrainRequest>,
    ) -> Result<Response<v1::DrainReply>, Status> {
        let disks = self.0.drain() as u64;
        Ok(Response::new(v1::DrainReply { disks }))
    }
}

fn disk_out(server: &Server, served: &Served) -> v1::Disk {
    let alias = server.aliases.path(&served.wanted.id);
    let deltas = served.wanted.deltas.iter().map(|delta| v1::Delta {
        path: delta.path.to_string_lossy().into_owned(),
        format: match delta.format {
            // Only the lowest may be raw, and whoever did not say which was answered with a disk.
            None | Some(image::Format::Ploop) => v1::Format::Ploop,
            Some(image::Format::Raw) => v1::Format::Raw,
        }
        .into(),
        seal: delta.seal.map(|seal| {
            seal_out(Sealed {
                seal,
                allocated: delta.allocated,
            })
        }),
    });
    v1::Disk {
        id: served.wanted.id.clone(),
        device: served.device.path.to_string_lossy().into_owned(),
        major: served.device.major,
        minor: served.device.minor,
        size: served.disk.size(),
        cluster: served.disk.cluster().bytes(),
        read_only: served.wanted.read_only,
        deltas: deltas.collect(),
        failed: served.disk.failed().unwrap_or_default(),
        alias: alias.to_string_lossy().into_owned(),
    }
}

fn seal_out(sealed: Sealed) -> v1::Seal {
    v1::Seal {
        length: sealed.seal.length,
        digest: sealed.seal.digest,
        allocated: sealed.allocated,
    }
}

fn stats_out(served: &Served, allocated: u64) -> v1::DiskStats {
    let stats = served.disk.stats();
    let latencies = served.disk.latencies();
    v1::DiskStats {
        id: served.wanted.id.clone(),
        allocated,
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
        held_requests: stats.held_requests,
        errors: stats.errors,
        no_space: stats.no_space,
        depth: u32::try_from(served.disk.depth()).unwrap_or(u32::MAX),
        failed: served.disk.failed().unwrap_or_default(),
        pending_clusters: stats.pending_clusters,
        read_latency: Some(latency_out(&latencies.read)),
        write_latency: Some(latency_out(&latencies.write)),
        flush_latency: Some(latency_out(&latencies.flush)),
        discard_latency: Some(latency_out(&latencies.discard)),
    }
}

fn latency_out(latency: &Latency) -> v1::Latency {
    v1::Latency {
        bounds: BOUNDS.to_vec(),
        counts: latency.counts.to_vec(),
        nanoseconds: latency.nanoseconds,
    }
}
