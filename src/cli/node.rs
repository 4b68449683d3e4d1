//! Asks the `ploop-snapshotter` that runs here.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use super::output;
use super::verdict::Verdict;
use crate::config::Config;
use crate::proto::v1::node_client::NodeClient;
use crate::proto::v1::{ResizeRequest, Snapshot, SnapshotKind, SurveyReply, SurveyRequest};
use crate::units::Bytes;

/// How long a survey may take: longer than the disk servers may.
const PATIENCE: Duration = Duration::from_secs(30);
/// A resize goes on when nobody waits for it any more; the other side gives up first.
const RESIZE: Duration = Duration::from_secs(600);
/// The largest answer: some hundred thousand snapshots.
const LARGEST: usize = 128 << 20;

/// Everything that the daemon of this configuration knows.
pub(super) fn survey(config: &Config) -> Result<SurveyReply> {
    runtime()?.block_on(async {
        let mut node = connect(config).await?;
        let answer = tokio::time::timeout(PATIENCE, node.survey(SurveyRequest {})).await;
        let answer = answer.with_context(|| format!("no answer within {PATIENCE:?}"))?;
        answer.map(tonic::Response::into_inner).map_err(said)
    })
}

/// Gives a container another size. `who` is what `ls` and `df` show of it: see [`choose`].
pub(super) fn resize(config: &Config, who: &str, size: Bytes) -> Result<Verdict> {
    let survey = survey(config)?;
    let found = choose(&survey.snapshots, who)?;
    let request = ResizeRequest {
        snapshotter: found.snapshotter.clone(),
        key: found.key.clone(),
        size: size.0,
    };
    let now = runtime()?.block_on(async {
        let mut node = connect(config).await?;
        let answer = tokio::time::timeout(RESIZE, node.resize(request)).await;
        let answer = answer.with_context(|| format!("no answer within {RESIZE:?}"))?;
        answer.map(|answer| answer.into_inner().size).map_err(said)
    })?;
    let (key, was, now) = (&found.key, Bytes(found.size), Bytes(now));
    output::line(&if was == now {
        format!("{key}: has {now} already")
    } else {
        format!("{key}: {was} -> {now}")
    });
    Ok(Verdict::Clean)
}

/// The one active snapshot that is meant: by its key, its container's id (as kubectl writes it too) or its pod's words
/// (namespace/pod/container); or by the beginning of a key or an id that only it has.
fn choose<'a>(all: &'a [Snapshot], who: &str) -> Result<&'a Snapshot> {
    let active: Vec<&Snapshot> = all
        .iter()
        .filter(|seen| seen.kind() == SnapshotKind::Active)
        .collect();
    let of = |is: &dyn Fn(&Snapshot) -> bool| -> Vec<&'a Snapshot> {
        active.iter().copied().filter(|seen| is(seen)).collect()
    };
    let who = who.strip_prefix("containerd://").unwrap_or(who);
    let id = |seen: &Snapshot| seen.key.rsplit('/').next().unwrap_or_default().to_owned();
    let pods = |seen: &Snapshot| {
        let container = seen.container.as_ref();
        container.is_some_and(|it| format!("{}/{}/{}", it.namespace, it.pod, it.name) == who)
    };
    let mut found = of(&|seen| seen.key == who);
    if found.is_empty() {
        found = of(&|seen| id(seen) == who || pods(seen));
    }
    if found.is_empty() && !who.is_empty() {
        found = of(&|seen| id(seen).starts_with(who) || seen.key.starts_with(who));
    }
    match found.as_slice() {
        [one] => Ok(one),
        [] if all.iter().any(|seen| seen.key == who) => {
            bail!("{who:?} is no container's: only what is written on has a size that can change")
        }
        [] => bail!("no container has the key or the id {who:?}: `ploop ls` lists them"),
        several => {
            let keys: Vec<&str> = several.iter().map(|seen| seen.key.as_str()).collect();
            bail!("{who:?} may mean any of: {}", keys.join(", "))
        }
    }
}

/// The words of the other side are for people already.
fn said(status: tonic::Status) -> anyhow::Error {
    match status.code() {
        tonic::Code::Unimplemented => anyhow!(
            "the ploop-snapshotter that runs here is older than this tool and does not know the question: restart it"
        ),
        _ => anyhow!("{}", status.message().to_owned()),
    }
}

/// The first of its sockets at which somebody listens: any of them knows the whole node.
async fn connect(config: &Config) -> Result<NodeClient<Channel>> {
    let sockets = config
        .names
        .iter()
        .map(|(name, section)| config.socket_of(name, section));
    let mut failed = None;
    for socket in sockets {
        let path = socket.clone();
        // The address is never resolved: the connector goes to the socket.
        let connector = tower::service_fn(move |_: Uri| UnixStream::connect(path.clone()));
        let endpoint = Endpoint::from_static("http://ploop-snapshotter").connect_timeout(PATIENCE);
        match endpoint.connect_with_connector(connector).await {
            Ok(channel) => {
                return Ok(NodeClient::new(channel).max_decoding_message_size(LARGEST));
            }
            Err(error) => failed = failed.or(Some((socket, error))),
        }
    }
    Err(nobody(failed))
}

fn nobody(failed: Option<(PathBuf, tonic::transport::Error)>) -> anyhow::Error {
    let Some((socket, error)) = failed else {
        return anyhow!("the configuration names no snapshotter");
    };
    let mut cause: &dyn std::error::Error = &error;
    while let Some(below) = cause.source() {
        cause = below;
    }
    anyhow!(
        "no ploop-snapshotter answers at {}: {cause}; start it, or say --config FILE if it has another configuration",
        socket.display()
    )
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    let built = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    built.context("cannot start")
}

#[cfg(test)]
mod tests {
    use super::{Snapshot, SnapshotKind, choose};
    use crate::proto::v1::Container;

    fn seen(key: &str, kind: SnapshotKind) -> Snapshot {
        Snapshot {
            key: key.to_owned(),
            kind: kind.into(),
            ..Snapshot::default()
        }
    }

    #[test]
    fn a_container_is_found_by_key_id_or_the_beginning_of_one() {
        let all = [
            seen("default/1/web", SnapshotKind::Active),
            seen("default/2/web2", SnapshotKind::Active),
            seen("other/3/web2", SnapshotKind::Active),
            seen("default/4/sha256:ab", SnapshotKind::Committed),
            seen("odd", SnapshotKind::Active),
            Snapshot {
                container: Some(Container {
                    namespace: "prod".to_owned(),
                    pod: "web-1".to_owned(),
                    name: "nginx".to_owned(),
                }),
                ..seen(
                    "k8s.io/37/8f3a12345678deadbeef8f3a12345678",
                    SnapshotKind::Active,
                )
            },
        ];
        for (who, key) in [
            ("default/2/web2", "default/2/web2"),
            // Whole before begun.
            ("web", "default/1/web"),
            ("od", "odd"),
            // What `df`, `ls` and kubectl show of a pod's.
            (
                "prod/web-1/nginx",
                "k8s.io/37/8f3a12345678deadbeef8f3a12345678",
            ),
            (
                "k8s.io/37/8f3a12345678",
                "k8s.io/37/8f3a12345678deadbeef8f3a12345678",
            ),
            (
                "containerd://8f3a12345678deadbeef8f3a12345678",
                "k8s.io/37/8f3a12345678deadbeef8f3a12345678",
            ),
        ] {
            assert_eq!(choose(&all, who).unwrap().key, key);
        }
        for (who, words) in [
            ("web2", "default/2/web2, other/3/web2"),
            ("default/4/sha256:ab", "no container's"),
            ("sha256", "no container has"),
            ("default/", "default/1/web, default/2/web2"),
            ("", "no container has"),
        ] {
            let error = choose(&all, who).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
