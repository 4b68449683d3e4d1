use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prost::Message;

use super::{Answer, Code, Failure, Heard, Plugin, SERVICE, limit};
use crate::nri::{Containers, Place, Sizes};
use crate::proto::nri::{
    ConfigureRequest, ConfigureResponse, Container, Event, PodEvent, PodSandbox, StateChangeEvent,
    SynchronizeRequest, SynchronizeResponse,
};
use crate::proto::ttrpc::Request;

/// Has the disks of containers whose id begins with "ours".
#[derive(Default)]
struct Disks {
    sized: Mutex<Vec<(String, u64)>>,
}

impl Sizes for Disks {
    async fn find(&self, namespace: &str, container: &str) -> Result<Option<Place>, String> {
        assert_eq!(namespace, "k8s.io");
        Ok(container.starts_with("ours").then(|| Place {
            snapshotter: "ploop".to_owned(),
            key: format!("k8s.io/1/{container}"),
            size: 2 << 30,
        }))
    }

    async fn resize(&self, place: &Place, size: u64) -> Result<u64, String> {
        match size >> 20 {
            666 => Err("the host has no room for it".to_owned()),
            777 => std::future::pending().await,
            _ => {
                self.sized.lock().unwrap().push((place.key.clone(), size));
                Ok(size)
            }
        }
    }
}

fn plugin() -> Plugin<Disks> {
    Plugin {
        sizes: Disks::default(),
        containers: Arc::default(),
    }
}

fn pod(annotations: &[(&str, &str)]) -> PodSandbox {
    PodSandbox {
        id: "p1".to_owned(),
        name: "cart-0".to_owned(),
        namespace: "shop".to_owned(),
        annotations: annotations
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
    }
}

fn container(id: &str) -> Container {
    Container {
        id: id.to_owned(),
        pod_sandbox_id: "p1".to_owned(),
        name: "db".to_owned(),
    }
}

fn call(method: &str, message: &impl Message) -> Request {
    Request {
        service: SERVICE.to_owned(),
        method: method.to_owned(),
        payload: message.encode_to_vec(),
        timeout_nano: 0,
    }
}

fn now(plugin: &Plugin<Disks>, heard: &mut Heard, request: &Request) -> Result<Vec<u8>, Failure> {
    match plugin.answer(heard, request) {
        Answer::Now(answer) => answer,
        Answer::Later(_) => panic!("{} was put off", request.method),
    }
}

async fn create(
    plugin: &Plugin<Disks>,
    id: &str,
    annotations: &[(&str, &str)],
) -> Result<Vec<u8>, Failure> {
    let event = PodEvent {
        pod: Some(pod(annotations)),
        container: Some(container(id)),
    };
    let request = call("CreateContainer", &event);
    match plugin.answer(&mut Heard::default(), &request) {
        Answer::Later(creation) => plugin.create(creation).await,
        Answer::Now(answer) => answer,
    }
}

const KEY: &str = "ploop-snapshotter/max-size";

#[tokio::test]
async fn a_container_gets_the_size_its_pod_asks_for() {
    let plugin = plugin();
    assert_eq!(
        create(&plugin, "ours-1", &[(KEY, "5Gi")]).await,
        Ok(Vec::new())
    );
    assert_eq!(create(&plugin, "ours-2", &[]).await, Ok(Vec::new()));
    let sized = plugin.sizes.sized.lock().unwrap().clone();
    assert_eq!(sized, [("k8s.io/1/ours-1".to_owned(), 5 << 30)]);
    let known = plugin.containers.of_key("k8s.io/1/ours-2").unwrap();
    assert_eq!(
        (&*known.namespace, &*known.pod, &*known.name),
        ("shop", "cart-0", "db")
    );
}

#[tokio::test]
async fn anothers_container_is_left_alone_whatever_is_written_there() {
    let plugin = plugin();
    for value in ["5Gi", "ten apples", "666Mi"] {
        assert_eq!(
            create(&plugin, "theirs", &[(KEY, value)]).await,
            Ok(Vec::new())
        );
    }
    assert!(plugin.sizes.sized.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_container_whose_size_cannot_be_is_not_created() {
    let plugin = plugin();
    let table = [
        (
            "ten apples",
            Code::InvalidArgument,
            "write a number with a unit",
        ),
        (
            "666Mi",
            Code::FailedPrecondition,
            "the host has no room for it",
        ),
    ];
    for (value, code, words) in table {
        let failure = create(&plugin, "ours", &[(KEY, value)]).await.unwrap_err();
        assert_eq!(failure.code, code, "{value}");
        for part in [words, KEY, "shop/cart-0", "container db"] {
            assert!(failure.words.contains(part), "{value}: {}", failure.words);
        }
    }
    assert_eq!(plugin.containers.count(), 0);
}

/// containerd would go on without us, and the container with a disk of another size.
#[tokio::test]
async fn who_is_late_refuses_while_containerd_still_listens() {
    let begun = std::time::Instant::now();
    let failure = create(&plugin(), "ours", &[(KEY, "777Mi")])
        .await
        .unwrap_err();
    assert_eq!(failure.code, Code::Unavailable);
    assert!(
        failure.words.contains("within 1s 500ms"),
        "{}",
        failure.words
    );
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[test]
fn the_shorter_limit_counts_less_a_quarter() {
    let mut heard = Heard::default();
    let seconds = Duration::from_secs;
    assert_eq!(limit(&heard, 0), Duration::from_millis(1500));
    assert_eq!(limit(&heard, -5), Duration::from_millis(1500));
    heard.limit = Some(seconds(8));
    assert_eq!(limit(&heard, 0), seconds(6));
    assert_eq!(limit(&heard, 4_000_000_000), seconds(3));
    assert_eq!(limit(&heard, i64::MAX), seconds(6));
}

#[test]
fn containerd_hears_which_events_we_want() {
    let mut heard = Heard::default();
    let request = ConfigureRequest {
        request_timeout: 5000,
        ..ConfigureRequest::default()
    };
    let answer = now(&plugin(), &mut heard, &call("Configure", &request)).unwrap();
    // CreateContainer is event 4, RemoveContainer 11, RemovePodSandbox 3.
    let events = 1 << 3 | 1 << 10 | 1 << 2;
    assert_eq!(ConfigureResponse::decode(&*answer).unwrap().events, events);
    assert_eq!(heard.limit, Some(Duration::from_secs(5)));
}

#[test]
fn what_is_told_in_parts_is_known_as_a_whole_and_replaces_what_was() {
    let plugin = plugin();
    plugin.containers.replace(HashMap::from([(
        "old".to_owned(),
        super::named(&pod(&[]), "old".to_owned()),
    )]));
    let mut heard = Heard::default();
    let mut told = Vec::new();
    for (pods, containers, more) in [
        (vec![], vec![container("a")], true),
        (vec![pod(&[])], vec![], true),
        (vec![], vec![container("b")], false),
    ] {
        let part = SynchronizeRequest {
            pods,
            containers,
            more,
        };
        let answer = now(&plugin, &mut heard, &call("Synchronize", &part)).unwrap();
        told.push(SynchronizeResponse::decode(&*answer).unwrap().more);
    }
    assert_eq!(told, [true, true, false]);
    assert!(heard.synchronized);
    let known = |id| plugin.containers.get(id).map(|container| container.pod);
    assert_eq!(known("a").as_deref(), Some("cart-0"));
    assert_eq!(known("b").as_deref(), Some("cart-0"));
    assert_eq!(known("old"), None);
}

/// What was asked for while we were away: larger is made up for, smaller and what cannot be is not.
#[tokio::test]
async fn who_was_not_heard_gets_a_larger_disk_afterwards() {
    let table = [
        ("5Gi", &[("k8s.io/1/ours-1".to_owned(), 5 << 30)][..]),
        ("2Gi", &[]),
        ("1Gi", &[]),
        ("ten apples", &[]),
    ];
    for (size, expected) in table {
        let plugin = plugin();
        let mut heard = Heard::default();
        let all = SynchronizeRequest {
            pods: vec![pod(&[(KEY, size)])],
            containers: vec![container("theirs"), container("ours-1")],
            more: false,
        };
        now(&plugin, &mut heard, &call("Synchronize", &all)).unwrap();
        let missed = std::mem::take(&mut heard.missed);
        assert_eq!(missed.len(), 2, "each of them has a wish");
        plugin.catch_up(missed).await;
        assert_eq!(*plugin.sizes.sized.lock().unwrap(), expected, "{size}");
    }
}

#[tokio::test]
async fn what_is_removed_is_forgotten_in_either_way_of_telling() {
    let change = |event: Event, id: &str| StateChangeEvent {
        event: event.into(),
        pod: Some(pod(&[])),
        container: Some(container(id)),
    };
    let event = PodEvent {
        pod: Some(pod(&[])),
        container: Some(container("ours")),
    };
    let ways = [
        call("RemoveContainer", &event),
        call("RemovePodSandbox", &event),
        call("StateChange", &change(Event::RemoveContainer, "ours")),
        call("StateChange", &change(Event::RemovePodSandbox, "")),
    ];
    for way in ways {
        let plugin = plugin();
        create(&plugin, "ours", &[]).await.unwrap();
        assert_eq!(plugin.containers.count(), 1);
        now(&plugin, &mut Heard::default(), &way).unwrap();
        assert_eq!(plugin.containers.count(), 0, "{way:?}");
    }
}

#[test]
fn what_we_do_not_know_is_said_so() {
    let heard = &mut Heard::default();
    let plugin = plugin();
    let empty = Container::default();
    assert_eq!(
        now(&plugin, heard, &call("Shutdown", &empty)),
        Ok(Vec::new())
    );
    let mut strange = call("Configure", &empty);
    strange.service = "nri.pkg.api.v2.Plugin".to_owned();
    let mut broken = call("Synchronize", &empty);
    broken.payload = vec![0xff; 3];
    for (request, code) in [
        (
            call("ValidateContainerAdjustment", &empty),
            Code::Unimplemented,
        ),
        (strange, Code::Unimplemented),
        (broken, Code::InvalidArgument),
    ] {
        let failure = now(&plugin, heard, &request).unwrap_err();
        assert_eq!(failure.code, code, "{}", request.method);
    }
}

/// Somebody who sends the same again and again must not fill our memory.
#[test]
fn a_list_without_an_end_is_refused() {
    let plugin = plugin();
    let mut heard = Heard::default();
    let part = SynchronizeRequest {
        pods: Vec::new(),
        containers: vec![Container::default(); super::MOST / 4 + 1],
        more: true,
    };
    let request = call("Synchronize", &part);
    let answers: Vec<_> = (0..4)
        .map(|_| now(&plugin, &mut heard, &request).is_ok())
        .collect();
    assert_eq!(answers, [true, true, true, false]);
}

proptest::proptest! {
    /// Whatever the bytes are, they are an answer or an error.
    #[test]
    fn no_payload_breaks_us(
        which in 0..METHODS.len(),
        payload in proptest::collection::vec(0_u8.., 0..300),
    ) {
        let request = Request {
            service: SERVICE.to_owned(),
            method: METHODS[which].to_owned(),
            payload,
            timeout_nano: 0,
        };
        plugin().answer(&mut Heard::default(), &request);
    }
}

const METHODS: [&str; 6] = [
    "Configure",
    "Synchronize",
    "CreateContainer",
    "RemoveContainer",
    "RemovePodSandbox",
    "StateChange",
];

/// The registry is shared with whoever shows it.
#[test]
fn containers_are_shared() {
    let containers = Arc::new(Containers::default());
    let plugin = Plugin {
        sizes: Disks::default(),
        containers: Arc::clone(&containers),
    };
    let part = SynchronizeRequest {
        pods: vec![pod(&[])],
        containers: vec![container("a")],
        more: false,
    };
    now(&plugin, &mut Heard::default(), &call("Synchronize", &part)).unwrap();
    assert_eq!(containers.of_key("k8s.io/9/a").unwrap().pod, "cart-0");
}
