//! Typed calls to one disk server, each with a time limit.
//!
//! The connection is made when first needed and made again after it broke, so a server that was
//! started anew is found by the next call. A server that is stopped or stuck costs a caller its
//! limit and no more.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Response, Status};

use super::convert::{delta_out, disk_in, hello_in, seal_in, stats_in};
use super::disk::{Access, Delta, Detached, Disk, DiskStats, Hello};
use super::error::Error;
use crate::proto::{PROTOCOL, REVISION, v1};

/// How long who only looks waits for a server: the metrics leave out what does not come within two seconds, and one that
/// hangs must not take the others' figures with it.
const GLANCE: Duration = Duration::from_millis(1500);

/// The longest answer: a list of hundreds of thousands of deltas. The library's own 4 MiB end at some sixty thousand, and
/// who cannot hear of a server's disks cannot start.
const LARGEST: usize = 128 << 20;

const LIST: &str = "List";

/// How long a call may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For attach.
    pub attach: Duration,
    /// For detach: everything dirty is written first.
    pub detach: Duration,
    /// For every other call.
    pub other: Duration,
    /// For a server that was just started, until it answers.
    pub start: Duration,
    /// How long a call waits for a server that is gone and being started again.
    pub absent: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            attach: Duration::from_secs(20),
            detach: Duration::from_secs(30),
            other: Duration::from_secs(5),
            start: Duration::from_secs(20),
            absent: Duration::from_secs(10),
        }
    }
}

/// Calls to the server at one socket.
#[derive(Clone, Debug)]
pub(super) struct Client {
    socket: PathBuf,
    limits: Limits,
    channel: Channel,
}

impl Client {
    /// A client of whoever listens at `socket`, now or later. Must be called inside a runtime.
    pub(super) fn new(socket: &Path, limits: Limits) -> Self {
        let path = socket.to_owned();
        // The address is never resolved: the connector below goes to the socket.
        let channel = Endpoint::from_static("http://ploopd").connect_with_connector_lazy(
            tower::service_fn(move |_: Uri| UnixStream::connect(path.clone())),
        );
        Self {
            socket: socket.to_owned(),
            limits,
            channel,
        }
    }

    fn stub(&self) -> v1::disks_client::DisksClient<Channel> {
        v1::disks_client::DisksClient::new(self.channel.clone()).max_decoding_message_size(LARGEST)
    }

    async fn call<T>(
        &self,
        call: &'static str,
        limit: Duration,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(Error::from_status(call, &self.socket, &status)),
            Err(_) => Err(Error::Timeout {
                socket: self.socket.clone(),
                call,
                limit,
            }),
        }
    }

    pub(super) async fn hello(&self) -> Result<Hello, Error> {
        let mut stub = self.stub();
        let request = v1::HelloRequest {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: REVISION,
        };
        let answer = self
            .call("Hello", self.limits.other, stub.hello(request))
            .await?;
        Ok(hello_in(answer))
    }

    pub(super) async fn attach(
        &self,
        id: &str,
        deltas: &[Delta],
        access: Access,
    ) -> Result<Disk, Error> {
        let call = "Attach";
        let deltas: Result<_, _> = deltas.iter().map(|delta| delta_out(call, delta)).collect();
        let request = v1::AttachRequest {
            id: id.to_owned(),
            deltas: deltas?,
            read_only: access == Access::Read,
            will_grow: access == Access::Grow,
        };
        let mut stub = self.stub();
        let answer = self
            .call(call, self.limits.attach, stub.attach(request))
            .await?;
        disk_in(call, answer)
    }

    pub(super) async fn detach(&self, id: &str, seal: bool) -> Result<Detached, Error> {
        let call = "Detach";
        let request = v1::DetachRequest {
            id: id.to_owned(),
            seal,
        };
        let mut stub = self.stub();
        let answer = self
            .call(call, self.limits.detach, stub.detach(request))
            .await?;
        if seal && answer.existed && answer.seal.is_none() {
            return Err(Error::Answer {
                call,
                what: format!("{id} was to be sealed, and there is no seal"),
            });
        }
        Ok(Detached {
            existed: answer.existed,
            seal: answer.seal.as_ref().map(seal_in),
        })
    }

    pub(super) async fn grow(&self, id: &str, size: u64) -> Result<Disk, Error> {
        let call = "Grow";
        let request = v1::GrowRequest {
            id: id.to_owned(),
            size,
        };
        let mut stub = self.stub();
        // What is pending is written first, as for a detach.
        let answer = self
            .call(call, self.limits.detach, stub.grow(request))
            .await?;
        disk_in(call, answer)
    }

    pub(super) async fn sync(&self, id: &str) -> Result<(), Error> {
        let request = v1::SyncRequest { id: id.to_owned() };
        let mut stub = self.stub();
        // A sync may have as much to write as a detach.
        self.call("Sync", self.limits.detach, stub.sync(request))
            .await?;
        Ok(())
    }

    /// Every disk, for who only looks.
    pub(super) async fn glance(&self) -> Result<Vec<Disk>, Error> {
        self.list_within(self.limits.other.min(GLANCE), None).await
    }

    /// Every disk, or the one of this id if it is served.
    pub(super) async fn list(&self, id: Option<&str>) -> Result<Vec<Disk>, Error> {
        self.list_within(self.limits.other, id).await
    }

    /// The ids of all disks that nobody else may be asked for: those that are served, and those that wait.
    pub(super) async fn held(&self) -> Result<Vec<String>, Error> {
        let answer = self.ask_for_list(self.limits.other, None).await?;
        let served = answer.disks.into_iter().map(|disk| disk.id);
        Ok(served.chain(answer.waiting).collect())
    }

    async fn ask_for_list(
        &self,
        limit: Duration,
        id: Option<&str>,
    ) -> Result<v1::ListReply, Error> {
        let request = v1::ListRequest {
            id: id.unwrap_or_default().to_owned(),
        };
        let mut stub = self.stub();
        self.call(LIST, limit, stub.list(request)).await
    }

    async fn list_within(&self, limit: Duration, id: Option<&str>) -> Result<Vec<Disk>, Error> {
        let answer = self.ask_for_list(limit, id).await?;
        answer
            .disks
            .into_iter()
            .filter(|disk| id.is_none_or(|id| disk.id == id))
            .map(|disk| disk_in(LIST, disk))
            .collect()
    }

    pub(super) async fn stats(&self, id: Option<&str>) -> Result<Vec<DiskStats>, Error> {
        let limit = match id {
            Some(_) => self.limits.other,
            None => self.limits.other.min(GLANCE),
        };
        let request = v1::StatsRequest {
            id: id.unwrap_or_default().to_owned(),
        };
        let mut stub = self.stub();
        let answer = self.call("Stats", limit, stub.stats(request)).await?;
        Ok(answer.disks.into_iter().map(stats_in).collect())
    }

    pub(super) async fn drain(&self) -> Result<u64, Error> {
        let mut stub = self.stub();
        let answer = self
            .call("Drain", self.limits.other, stub.drain(v1::DrainRequest {}))
            .await?;
        Ok(answer.disks)
    }
}
