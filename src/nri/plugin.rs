//! What we answer: each of containerd's calls, by its name.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;

use super::annotations::{Wish, wish};
use super::containers::{Container, Containers, NAMESPACE};
use super::missed::{self, Missed};
use super::sizes::Sizes;
use super::ttrpc::{Code, Failure};
use crate::proto::nri::{
    self, ConfigureRequest, ConfigureResponse, Event, PodEvent, PodSandbox, StateChangeEvent,
    SynchronizeRequest, SynchronizeResponse,
};
use crate::proto::ttrpc::Request;

/// The service that we are.
const SERVICE: &str = "nri.pkg.api.v1alpha1.Plugin";

/// How long an answer may take where containerd does not say: its default.
const USUAL_LIMIT: Duration = Duration::from_secs(2);

/// More pods or containers than a node can have: a peer that goes on and on is none of ours.
const MOST: usize = 1 << 17;

/// What we want to hear of.
const EVENTS: [Event; 3] = [
    Event::CreateContainer,
    Event::RemoveContainer,
    Event::RemovePodSandbox,
];

/// What there is besides the connections, which come and go.
#[derive(Debug)]
pub(super) struct Plugin<S> {
    pub(super) sizes: S,
    pub(super) containers: Arc<Containers>,
}

/// What a connection has brought so far.
#[derive(Debug, Default)]
pub(super) struct Heard {
    limit: Option<Duration>,
    pods: HashMap<String, PodSandbox>,
    containers: Vec<nri::Container>,
    /// Those of them whose pods have wishes; to be taken.
    pub(super) missed: Vec<Missed>,
    /// Everything was told: from here on we know.
    pub(super) synchronized: bool,
}

/// An answer, or the work that leads to one.
pub(super) enum Answer {
    Now(Result<Vec<u8>, Failure>),
    /// A container waits for it: no other call should.
    Later(Creation),
}

/// A container that is being created, on whose way we stand.
#[derive(Debug)]
pub(super) struct Creation {
    pod: PodSandbox,
    container: nri::Container,
    limit: Duration,
}

type Done = Result<Vec<u8>, Failure>;

impl<S: Sizes> Plugin<S> {
    pub(super) fn answer(&self, heard: &mut Heard, request: &Request) -> Answer {
        match self.heed(heard, request) {
            Ok(answer) => answer,
            Err(failure) => Answer::Now(Err(failure)),
        }
    }

    fn heed(&self, heard: &mut Heard, request: &Request) -> Result<Answer, Failure> {
        if request.service != SERVICE {
            let words = format!("no service {}", request.service);
            return Err(Failure::new(Code::Unimplemented, words));
        }
        let payload = request.payload.as_slice();
        let done = match request.method.as_str() {
            "Configure" => configure(heard, read(payload)?),
            "Synchronize" => self.synchronize(heard, read(payload)?)?,
            "CreateContainer" => {
                let event: PodEvent = read(payload)?;
                let limit = limit(heard, request.timeout_nano);
                return Ok(Answer::Later(creation(event, limit)));
            }
            "RemoveContainer" => {
                self.forget_container(read(payload)?);
                Vec::new()
            }
            "RemovePodSandbox" => {
                self.forget_pod(read(payload)?);
                Vec::new()
            }
            "StateChange" => {
                self.state_change(read(payload)?);
                Vec::new()
            }
            // It closes the connection next.
            "Shutdown" => Vec::new(),
            // Every other event: we did not ask for it.
            method => {
                let words = format!("no method {method}");
                return Err(Failure::new(Code::Unimplemented, words));
            }
        };
        Ok(Answer::Now(Ok(done)))
    }

    fn synchronize(&self, heard: &mut Heard, part: SynchronizeRequest) -> Result<Vec<u8>, Failure> {
        let many = heard.pods.len() + heard.containers.len();
        if many + part.pods.len() + part.containers.len() > MOST {
            let words = format!("more than {MOST} pods and containers");
            return Err(Failure::new(Code::InvalidArgument, words));
        }
        heard
            .pods
            .extend(part.pods.into_iter().map(|pod| (pod.id.clone(), pod)));
        heard.containers.extend(part.containers);
        if !part.more {
            let pods = std::mem::take(&mut heard.pods);
            let containers = std::mem::take(&mut heard.containers);
            let wishes = containers.iter().filter_map(|container| {
                missed::of(pods.get(&container.pod_sandbox_id)?, container)
            });
            heard.missed = wishes.collect();
            let known: HashMap<_, _> = containers
                .into_iter()
                .filter_map(|container| {
                    let pod = pods.get(&container.pod_sandbox_id)?;
                    Some((container.id, named(pod, container.name)))
                })
                .collect();
            tracing::debug!(containers = known.len(), "told of every container");
            self.containers.replace(known);
            heard.synchronized = true;
        }
        Ok(SynchronizeResponse { more: part.more }.encode_to_vec())
    }

    fn state_change(&self, change: StateChangeEvent) {
        let event = change.event();
        let both = PodEvent {
            pod: change.pod,
            container: change.container,
        };
        match event {
            Event::RemoveContainer => self.forget_container(both),
            Event::RemovePodSandbox => self.forget_pod(both),
            Event::Unknown | Event::CreateContainer => {}
        }
    }

    fn forget_container(&self, event: PodEvent) {
        if let Some(container) = event.container {
            self.containers.remove(&container.id);
        }
    }

    fn forget_pod(&self, event: PodEvent) {
        if let Some(pod) = event.pod {
            self.containers.remove_pod(&pod.id);
        }
    }

    /// Sizes a container that is being created, if its pod asks for that and it is ours.
    pub(super) async fn create(&self, creation: Creation) -> Done {
        let Creation {
            pod,
            container,
            limit,
        } = creation;
        if let Some(wish) = wish(&pod.annotations, &container.name) {
            let late = || {
                Err(format!(
                    "its disk has not got its size within {}: it is tried again with the next container",
                    humantime::format_duration(limit)
                ))
            };
            let granted = tokio::time::timeout(limit, self.grant(&container.id, &wish))
                .await
                .unwrap_or_else(|_| late().map_err(|words| Failure::new(Code::Unavailable, words)));
            if let Err(mut failure) = granted {
                failure.words = format!(
                    "annotation {} of pod {}/{}, for container {}: {}",
                    wish.key, pod.namespace, pod.name, container.name, failure.words
                );
                tracing::warn!(
                    container = container.id,
                    reason = failure.words,
                    "a container is not created"
                );
                return Err(failure);
            }
        }
        self.containers
            .add(container.id, named(&pod, container.name));
        // Nothing of the container is to be changed.
        Ok(Vec::new())
    }

    async fn grant(&self, container: &str, wish: &Wish) -> Result<(), Failure> {
        let refused = |words| Failure::new(Code::FailedPrecondition, words);
        let found = self.sizes.find(NAMESPACE, container).await;
        let Some(place) = found.map_err(refused)? else {
            tracing::debug!(
                container,
                key = wish.key,
                "an annotation for a disk that is not ours"
            );
            return Ok(());
        };
        let size = wish
            .size
            .clone()
            .map_err(|words| Failure::new(Code::InvalidArgument, words))?;
        self.sizes.resize(&place, size).await.map_err(refused)?;
        tracing::info!(
            snapshotter = place.snapshotter,
            key = place.key,
            size,
            "a disk got the size that its pod asks for"
        );
        Ok(())
    }
}

fn read<M: prost::Message + Default>(payload: &[u8]) -> Result<M, Failure> {
    M::decode(payload)
        .map_err(|error| Failure::new(Code::InvalidArgument, format!("cannot read it: {error}")))
}

fn configure(heard: &mut Heard, request: ConfigureRequest) -> Vec<u8> {
    let limit = u64::try_from(request.request_timeout).unwrap_or(0);
    heard.limit = (limit > 0).then(|| Duration::from_millis(limit));
    tracing::info!(
        runtime = request.runtime_name,
        version = request.runtime_version,
        "connected to NRI: pods' annotations set the sizes of their disks"
    );
    let events = EVENTS
        .iter()
        .fold(0, |mask, event| mask | 1 << (*event as i32 - 1));
    ConfigureResponse { events }.encode_to_vec()
}

fn creation(event: PodEvent, limit: Duration) -> Creation {
    Creation {
        pod: event.pod.unwrap_or_default(),
        container: event.container.unwrap_or_default(),
        limit,
    }
}

/// How long we may take. A quarter less than containerd waits: of who is late it takes leave, and goes on
/// without the size.
fn limit(heard: &Heard, timeout_nano: i64) -> Duration {
    let limit = heard.limit.unwrap_or(USUAL_LIMIT);
    let asked = match u64::try_from(timeout_nano) {
        Ok(nanos @ 1..) => Duration::from_nanos(nanos),
        _ => limit,
    };
    limit.min(asked) * 3 / 4
}

fn named(pod: &PodSandbox, name: String) -> Container {
    Container {
        namespace: pod.namespace.clone(),
        pod: pod.name.clone(),
        name,
        sandbox: pod.id.clone(),
    }
}

#[cfg(test)]
#[path = "plugin_tests.rs"]
mod tests;
