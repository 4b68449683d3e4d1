//! containerd's side of the wire: the generated client, and shorter ways to say things.

use std::collections::HashMap;
use std::path::Path;

use containerd_snapshots::api::snapshots::v1::snapshots_client::SnapshotsClient;
use containerd_snapshots::api::snapshots::v1::{
    CommitSnapshotRequest, Info, ListSnapshotsRequest, MountsRequest, PrepareSnapshotRequest,
    RemoveSnapshotRequest, StatSnapshotRequest, UpdateSnapshotRequest, UsageRequest,
    ViewSnapshotRequest,
};
use containerd_snapshots::api::types::Mount;
use prost_types::FieldMask;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};

/// A connection to the socket.
pub(super) async fn connect(socket: &Path) -> Channel {
    let path = socket.to_owned();
    let connector = tower::service_fn(move |_: Uri| UnixStream::connect(path.clone()));
    Endpoint::from_static("http://x")
        .connect_with_connector(connector)
        .await
        .unwrap()
}

pub(super) fn labels(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// containerd's proxy, more or less.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) raw: SnapshotsClient<Channel>,
}

impl Client {
    pub(super) async fn new(socket: &Path) -> Self {
        let raw = SnapshotsClient::new(connect(socket).await);
        Self { raw }
    }

    pub(super) async fn prepare(&self, key: &str, parent: &str) -> Result<Vec<Mount>, Status> {
        self.prepare_with(key, parent, &[]).await
    }

    pub(super) async fn prepare_with(
        &self,
        key: &str,
        parent: &str,
        pairs: &[(&str, &str)],
    ) -> Result<Vec<Mount>, Status> {
        let request = PrepareSnapshotRequest {
            snapshotter: "ploop".to_owned(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels: labels(pairs),
        };
        let answer = self.raw.clone().prepare(request).await?;
        Ok(answer.into_inner().mounts)
    }

    pub(super) async fn view(&self, key: &str, parent: &str) -> Result<Vec<Mount>, Status> {
        let request = ViewSnapshotRequest {
            key: key.to_owned(),
            parent: parent.to_owned(),
            ..ViewSnapshotRequest::default()
        };
        Ok(self.raw.clone().view(request).await?.into_inner().mounts)
    }

    pub(super) async fn mounts(&self, key: &str) -> Result<Vec<Mount>, Status> {
        let request = MountsRequest {
            key: key.to_owned(),
            ..MountsRequest::default()
        };
        Ok(self.raw.clone().mounts(request).await?.into_inner().mounts)
    }

    pub(super) async fn commit(
        &self,
        name: &str,
        key: &str,
        pairs: &[(&str, &str)],
    ) -> Result<(), Status> {
        let request = CommitSnapshotRequest {
            name: name.to_owned(),
            key: key.to_owned(),
            labels: labels(pairs),
            ..CommitSnapshotRequest::default()
        };
        self.raw.clone().commit(request).await.map(|_| ())
    }

    pub(super) async fn remove(&self, key: &str) -> Result<(), Status> {
        let request = RemoveSnapshotRequest {
            key: key.to_owned(),
            ..RemoveSnapshotRequest::default()
        };
        self.raw.clone().remove(request).await.map(|_| ())
    }

    pub(super) async fn stat(&self, key: &str) -> Result<Info, Status> {
        let request = StatSnapshotRequest {
            key: key.to_owned(),
            ..StatSnapshotRequest::default()
        };
        let answer = self.raw.clone().stat(request).await?;
        Ok(answer.into_inner().info.unwrap())
    }

    /// As Go's proxy does it: the info is sent whole, the mask always.
    pub(super) async fn update(
        &self,
        key: &str,
        pairs: &[(&str, &str)],
        mask: Option<&[&str]>,
    ) -> Result<Info, Status> {
        let request = UpdateSnapshotRequest {
            info: Some(Info {
                name: key.to_owned(),
                labels: labels(pairs),
                // The zero time of Go, which containerd really sends.
                created_at: Some(prost_types::Timestamp {
                    seconds: -62_135_596_800,
                    nanos: 0,
                }),
                parent: "doesnotexist".to_owned(),
                ..Info::default()
            }),
            update_mask: mask.map(|paths| FieldMask {
                paths: paths.iter().map(|path| (*path).to_owned()).collect(),
            }),
            ..UpdateSnapshotRequest::default()
        };
        let answer = self.raw.clone().update(request).await?;
        Ok(answer.into_inner().info.unwrap())
    }

    pub(super) async fn usage(&self, key: &str) -> Result<(i64, i64), Status> {
        let request = UsageRequest {
            key: key.to_owned(),
            ..UsageRequest::default()
        };
        let answer = self.raw.clone().usage(request).await?.into_inner();
        Ok((answer.size, answer.inodes))
    }

    /// Everything that matches, and how many messages it came in.
    pub(super) async fn list(&self, filters: &[&str]) -> Result<(Vec<Info>, usize), Status> {
        let request = ListSnapshotsRequest {
            filters: filters.iter().map(|f| (*f).to_owned()).collect(),
            ..ListSnapshotsRequest::default()
        };
        let mut stream = self.raw.clone().list(request).await?.into_inner();
        let (mut infos, mut messages) = (Vec::new(), 0);
        while let Some(message) = stream.message().await? {
            infos.extend(message.info);
            messages += 1;
        }
        Ok((infos, messages))
    }

    pub(super) async fn names(&self, filters: &[&str]) -> Vec<String> {
        let (infos, _) = self.list(filters).await.unwrap();
        let mut names: Vec<_> = infos.into_iter().map(|info| info.name).collect();
        names.sort();
        names
    }
}

/// The code of a refusal, for tables.
pub(super) fn code<T>(answer: Result<T, Status>) -> Code {
    answer.map_or_else(|status| status.code(), |_| Code::Ok)
}
