//! The node as a whole, for who keeps it: `ploop ls`, `df`, `tree` and `resize`.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use containerd_snapshots::tonic::{Request, Response, Status, async_trait};

use super::running::{Call, Running};
use super::{Error, Method, Options};
use crate::proto::v1;
use crate::snapshot::{Inside, Kind, Seen, Snapshotters};

/// Whose container a snapshot is, in Kubernetes' words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The container's name in the pod.
    pub container: String,
}

/// Whose a key is, if anybody told.
pub type OwnerOf = dyn Fn(&str) -> Option<Owner> + Send + Sync;

/// What stands behind this part of a door.
#[derive(Clone)]
pub struct Node {
    /// Every snapshotter.
    pub all: Arc<Snapshotters>,
    /// Whose a key is, where somebody told.
    pub owner_of: Arc<OwnerOf>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({:?})", self.all)
    }
}

/// The service over it.
#[derive(Debug)]
pub(super) struct NodeService {
    node: Node,
    options: Options,
    running: Running,
}

impl NodeService {
    pub(super) fn new(node: Node, options: Options, running: Running) -> Self {
        Self {
            node,
            options,
            running,
        }
    }
}

#[async_trait]
impl v1::node_server::Node for NodeService {
    async fn survey(
        &self,
        _: Request<v1::SurveyRequest>,
    ) -> Result<Response<v1::SurveyReply>, Status> {
        let survey = self.node.all.survey().await.map_err(Error::Act)?;
        let snapshots = survey.snapshots.into_iter();
        Ok(Response::new(v1::SurveyReply {
            root: survey.root.to_string_lossy().into_owned(),
            host_size: survey.host_size,
            host_free: survey.host_free,
            reserve: survey.reserve,
            snapshots: snapshots
                .map(|seen| {
                    let owner = (self.node.owner_of)(&seen.key);
                    seen_out(seen, owner)
                })
                .collect(),
        }))
    }

    async fn resize(
        &self,
        request: Request<v1::ResizeRequest>,
    ) -> Result<Response<v1::ResizeReply>, Status> {
        let v1::ResizeRequest {
            snapshotter: name,
            key,
            size,
        } = request.into_inner();
        let snapshotter = self.node.all.named(&name);
        let snapshotter = snapshotter.ok_or_else(|| Error::NoName { name: name.clone() })?;
        // To the log and the numbers it is what it does: an update of a size.
        let method = Method::Update;
        let call = Call {
            method,
            key: key.clone(),
            limit: method.limit(&self.options),
        };
        let act = async move { snapshotter.resize(&key, size).await };
        let size = self.running.run(&name.into(), call, act).await?;
        Ok(Response::new(v1::ResizeReply { size }))
    }
}

fn seen_out(seen: Seen, owner: Option<Owner>) -> v1::Snapshot {
    let since = seen.created.duration_since(SystemTime::UNIX_EPOCH);
    v1::Snapshot {
        snapshotter: seen.snapshotter,
        key: seen.key,
        parent: seen.parent,
        kind: match seen.kind {
            Kind::View => v1::SnapshotKind::View,
            Kind::Active => v1::SnapshotKind::Active,
            // A fitted one is never shown.
            Kind::Committed | Kind::Fitted => v1::SnapshotKind::Committed,
        }
        .into(),
        size: seen.size,
        own: seen.own,
        shared: seen.shared,
        depth: seen.depth,
        created: since.map_or(0, |since| since.as_secs().try_into().unwrap_or(i64::MAX)),
        device: path(seen.device),
        inside: seen.inside.map(inside_out),
        container: owner.map(|owner| v1::Container {
            namespace: owner.namespace,
            pod: owner.pod,
            name: owner.container,
        }),
    }
}

fn path(path: Option<std::path::PathBuf>) -> String {
    path.map_or_else(String::new, |path| path.to_string_lossy().into_owned())
}

fn inside_out(inside: Inside) -> v1::Inside {
    v1::Inside {
        at: path(Some(inside.at)),
        size: inside.size,
        used: inside.used,
        available: inside.available,
        inodes: inside.inodes,
        free_inodes: inside.free_inodes,
    }
}
