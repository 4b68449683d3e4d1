//! The door with a double behind it: codes, limits, clients that go away, the orderly stop.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ploop_snapshotter::service::{Doors, Method, Name, Observer, Options};
use tempfile::TempDir;
use tonic::Code;
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::client::{Client, code, connect};
use super::double::{Double, info};

/// Calls as they were counted: what, and how it ended.
type Counted = Arc<Mutex<Vec<(Method, &'static str)>>>;

struct Fixture {
    root: TempDir,
    doors: Doors,
    double: Arc<Double>,
    counted: Counted,
}

const LIMITS: Options = Options {
    call_limit: Duration::from_millis(800),
    commit_limit: Duration::from_millis(200),
    stop_limit: Duration::from_millis(1500),
};

impl Fixture {
    async fn new(double: Double) -> Self {
        let root = tempfile::tempdir().unwrap();
        let double = Arc::new(double);
        let counted = Counted::default();
        let names = vec![Name {
            name: "ploop".to_owned(),
            socket: root.path().join("ploop.sock"),
            acts: Arc::clone(&double),
        }];
        let ledger = Arc::clone(&counted);
        let observer = Observer::new(move |ended| {
            assert_eq!(ended.snapshotter, "ploop");
            ledger.lock().unwrap().push((ended.method, ended.code));
        });
        let doors = Doors::open(names, None, LIMITS, observer).await.unwrap();
        Self {
            root,
            doors,
            double,
            counted,
        }
    }

    fn socket(&self) -> PathBuf {
        self.root.path().join("ploop.sock")
    }

    async fn client(&self) -> Client {
        Client::new(&self.socket()).await
    }

    fn counted(&self) -> Vec<(Method, &'static str)> {
        self.counted.lock().unwrap().clone()
    }
}

/// Waits for what other tasks bring about; fails after a while.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn every_failure_has_its_code() {
    let fixture = Fixture::new(Double::default()).await;
    let client = fixture.client().await;
    for (failure, code, words) in [
        ("not found", Code::NotFound, "does not exist"),
        ("parent not found", Code::NotFound, "does not exist"),
        ("exists", Code::AlreadyExists, "already exists"),
        (
            "parent not committed",
            Code::InvalidArgument,
            "not committed",
        ),
        ("not active", Code::FailedPrecondition, "not active"),
        (
            "has children",
            Code::FailedPrecondition,
            "cannot remove snapshot with child",
        ),
        ("empty", Code::InvalidArgument, "must not be empty"),
        ("full", Code::ResourceExhausted, "/root/deltas/s1.hds: no"),
        ("broken file", Code::Internal, "cannot write"),
        ("missing", Code::DataLoss, "is missing"),
        ("no server", Code::Unavailable, "no disk server answers"),
        (
            "server hangs",
            Code::DeadlineExceeded,
            "did not answer Attach within 20s",
        ),
    ] {
        let key = format!("fail {failure}");
        for status in [
            client.stat(&key).await.unwrap_err(),
            client.remove(&key).await.unwrap_err(),
            client.prepare(&key, "").await.unwrap_err(),
            client.commit("name", &key, &[]).await.unwrap_err(),
        ] {
            assert_eq!(status.code(), code, "{failure}: {status}");
            assert!(status.message().contains(words), "{failure}: {status}");
        }
    }
    assert_eq!(client.usage("k").await.unwrap(), (4096, 1));
    let mount = &client.mounts("k").await.unwrap()[0];
    assert_eq!(
        (mount.r#type.as_str(), mount.source.as_str()),
        ("ext4", "/dev/loop7")
    );
    assert_eq!((mount.target.as_str(), mount.options.len()), ("", 2));
    assert_eq!(fixture.counted()[0], (Method::Stat, "NOT_FOUND"));
    assert_eq!(fixture.counted().last(), Some(&(Method::Mounts, "OK")));
}

#[tokio::test]
async fn a_time_keeps_its_nanoseconds_also_before_1970() {
    let fixture = Fixture::new(Double::default()).await;
    let info = fixture.client().await.stat("k").await.unwrap();
    let created = info.created_at.unwrap();
    assert_eq!(
        (created.seconds, created.nanos),
        (1_700_000_000, 123_456_789)
    );
    let updated = info.updated_at.unwrap();
    assert_eq!((updated.seconds, updated.nanos), (-6, 999_999_999));
    assert_eq!((info.kind, info.parent.as_str()), (2, "a parent"));
}

#[tokio::test]
async fn keys_and_masks_arrive_as_they_were_sent() {
    let fixture = Fixture::new(Double::default()).await;
    let client = fixture.client().await;
    let long = "k".repeat(4096);
    let keys = [
        "k8s.io/40/extract-118223344-x7Yz sha256:ab",
        "/tmp/with space/../x",
        "牛 \u{1f4a9}\n\t\"'",
        &long,
    ];
    for key in keys {
        client.stat(key).await.unwrap();
    }
    assert_eq!(*fixture.double.keys.lock().unwrap(), keys);
    client.update("k", &[("a", "b")], None).await.unwrap();
    client.update("k", &[], Some(&[])).await.unwrap();
    let paths = ["labels.a.b/c", "labels"];
    client.update("k", &[], Some(&paths)).await.unwrap();
    let updates = fixture.double.updates.lock().unwrap().clone();
    assert_eq!(updates[0].1.get("a").map(String::as_str), Some("b"));
    assert_eq!(updates[0].2, None);
    assert_eq!(updates[1].2, Some(Vec::new()));
    assert_eq!(updates[2].2.as_deref(), Some(&paths.map(String::from)[..]));
}

/// containerd sets no limit of its own: a call that never ended would wedge the node. What it was told has failed must
/// not be done afterwards: it has taken everything back on its side.
#[tokio::test]
async fn an_act_that_hangs_is_reported_in_time_and_undone() {
    let fixture = Fixture::new(Double::default()).await;
    let client = fixture.client().await;
    let begun = Instant::now();
    let status = client.commit("name", "hang 1", &[]).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(
        begun.elapsed() < LIMITS.call_limit,
        "Commit has its own limit"
    );
    for words in ["Commit", "\"hang 1\"", "200ms", "in the background"] {
        assert!(status.message().contains(words), "{status}");
    }
    let (hangs, works) = tokio::join!(client.prepare("hang 2", ""), client.prepare("other", ""));
    assert_eq!(code(hangs), Code::DeadlineExceeded);
    assert_eq!(code(works), Code::Ok);
    assert_eq!(fixture.double.ended.load(Ordering::SeqCst), 1);
    fixture.double.gate.add_permits(2);
    until("both acts end", || {
        fixture.double.ended.load(Ordering::SeqCst) == 3
    })
    .await;
    let done = fixture.double.done.load(Ordering::SeqCst);
    assert_eq!(done, 1, "what nobody waits for is not decided");
    // Each call once, as its caller saw it: the late ends are not counted again.
    assert_eq!(
        fixture.counted(),
        [
            (Method::Commit, "DEADLINE_EXCEEDED"),
            (Method::Prepare, "OK"),
            (Method::Prepare, "DEADLINE_EXCEEDED"),
        ]
    );
}

/// The last transaction is under way: "too late" would be as wrong as "done".
#[tokio::test]
async fn an_act_that_is_decided_is_waited_for() {
    let fixture = Fixture::new(Double::default()).await;
    let client = fixture.client().await;
    let begun = Instant::now();
    let call = tokio::spawn(async move { client.commit("name", "decided", &[]).await });
    tokio::time::sleep(LIMITS.commit_limit * 2).await;
    assert!(!call.is_finished());
    fixture.double.gate.add_permits(1);
    call.await.unwrap().unwrap();
    assert!(begun.elapsed() > LIMITS.commit_limit);
    assert_eq!(fixture.counted(), [(Method::Commit, "OK")]);
}

/// containerd may die, or its client cancel, in the middle of an act: half an act must not remain, and of a whole one
/// nobody would know.
#[tokio::test]
async fn an_act_goes_on_when_its_caller_is_gone_and_is_undone() {
    let fixture = Fixture::new(Double::default()).await;
    let client = fixture.client().await;
    let call = tokio::spawn(async move { client.prepare("hang", "").await });
    until("the act begins", || {
        fixture.double.begun.load(Ordering::SeqCst) == 1
    })
    .await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    // The door has to hear of it.
    tokio::time::sleep(LIMITS.call_limit / 2).await;
    fixture.double.gate.add_permits(1);
    until("the act ends", || {
        fixture.counted() == [(Method::Prepare, "DEADLINE_EXCEEDED")]
    })
    .await;
    assert_eq!(fixture.double.done.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_panic_costs_one_call() {
    let fixture = Fixture::new(Double::default()).await;
    let client = fixture.client().await;
    let status = client.remove("panic").await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().contains("defect"), "{status}");
    client.remove("well").await.unwrap();
    assert_eq!(
        fixture.counted(),
        [(Method::Remove, "INTERNAL"), (Method::Remove, "OK")]
    );
    // The act that panicked does not count as running either.
    let begun = Instant::now();
    assert_eq!(fixture.doors.close().await, 0);
    assert!(begun.elapsed() < LIMITS.stop_limit);
}

fn many(count: usize, label: &str) -> Double {
    let infos = (0..count).map(|n| info(&format!("key {n}"), &[("l", label)]));
    Double {
        infos: infos.collect(),
        ..Double::default()
    }
}

#[tokio::test]
async fn a_list_comes_in_batches_filtered() {
    let fixture = Fixture::new(many(250, "x")).await;
    let client = fixture.client().await;
    let (infos, messages) = client.list(&[]).await.unwrap();
    assert_eq!((infos.len(), messages), (250, 3));
    assert_eq!(client.list(&["labels.l==x"]).await.unwrap().0.len(), 250);
    assert_eq!(
        client
            .names(&["name==\"key 7\"", "name==\"key 77\",kind==active"])
            .await,
        ["key 7", "key 77"]
    );
    assert_eq!(client.list(&["kind==view"]).await.unwrap(), (Vec::new(), 0));
    let status = client.list(&["name==x", "name=x"]).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("wrong at byte 4"), "{status}");
}

/// The rest of the list is far more than the connection takes, so the stream stands still in the middle.
#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_a_list_hurts_nobody() {
    let fixture = Fixture::new(many(20_000, &"v".repeat(1000))).await;
    let other = fixture.client().await;
    for _ in 0..3 {
        let mut client = fixture.client().await;
        let mut stream = client.raw.list(ploop_list()).await.unwrap().into_inner();
        let first = stream.message().await.unwrap().unwrap();
        assert_eq!(first.info.len(), 100);
        // Questions in between are answered: nothing is locked while a list is sent.
        client.stat(&first.info[0].name).await.unwrap();
        other.stat("k").await.unwrap();
        drop((stream, client));
    }
    assert_eq!(
        other.list(&["name==\"key 19999\""]).await.unwrap().0.len(),
        1
    );
    // Nor does one that neither reads nor leaves.
    let mut client = fixture.client().await;
    let stream = client.raw.list(ploop_list()).await.unwrap();
    drop(other);
    let begun = Instant::now();
    assert_eq!(fixture.doors.close().await, 0);
    assert!(begun.elapsed() < LIMITS.stop_limit + Duration::from_secs(1));
    drop(stream);
}

fn ploop_list() -> containerd_snapshots::api::snapshots::v1::ListSnapshotsRequest {
    containerd_snapshots::api::snapshots::v1::ListSnapshotsRequest {
        snapshotter: "ploop".to_owned(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_stop_lets_running_acts_end_and_takes_the_sockets_away() {
    let fixture = Fixture::new(Double::default()).await;
    let (socket, double) = (fixture.socket(), Arc::clone(&fixture.double));
    let client = fixture.client().await;
    let call = client.clone();
    let call = tokio::spawn(async move { call.prepare("hang", "").await });
    until("the act begins", || {
        double.begun.load(Ordering::SeqCst) == 1
    })
    .await;
    let stop = tokio::spawn(fixture.doors.close());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!stop.is_finished(), "an act is under way");
    // The connection is closing: this client says "transport error", Go's says Unavailable.
    assert_ne!(code(client.prepare("new", "").await), Code::Ok);
    double.gate.add_permits(1);
    assert_eq!(call.await.unwrap().unwrap().len(), 1);
    assert_eq!(stop.await.unwrap(), 0);
    assert!(!socket.exists());
    assert_eq!(double.begun.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_ever() {
    let fixture = Fixture::new(Double::default()).await;
    let client = fixture.client().await;
    assert_eq!(
        code(client.commit("n", "hang", &[]).await),
        Code::DeadlineExceeded
    );
    let begun = Instant::now();
    assert_eq!(fixture.doors.close().await, 1);
    assert!(begun.elapsed() < LIMITS.stop_limit + Duration::from_secs(1));
}

/// A second daemon would serve snapshots that the first one changes.
#[tokio::test]
async fn a_living_socket_is_refused_and_a_dead_one_replaced() {
    let fixture = Fixture::new(Double::default()).await;
    let free = fixture.root.path().join("free.sock");
    let names = || {
        [free.clone(), fixture.socket()].map(|socket| Name {
            name: socket.file_stem().unwrap().to_str().unwrap().to_owned(),
            socket,
            acts: Arc::new(Double::default()),
        })
    };
    let error = Doors::open(names().into(), None, LIMITS, Observer::default())
        .await
        .unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("another process answers at"), "{cause}");
    assert!(!free.exists(), "all doors open, or none");
    fixture.client().await.stat("k").await.unwrap();
    fixture.doors.close().await;
    drop(std::os::unix::net::UnixListener::bind(fixture.root.path().join("ploop.sock")).unwrap());
    let names = [&free, &fixture.root.path().join("ploop.sock")].map(|socket| Name {
        name: "x".to_owned(),
        socket: socket.clone(),
        acts: Arc::new(Double::default()),
    });
    let doors = Doors::open(names.into(), None, LIMITS, Observer::default())
        .await
        .unwrap();
    Client::new(&free).await.stat("k").await.unwrap();
    doors.close().await;
}

#[tokio::test]
async fn health_is_told_on_the_same_socket() {
    let fixture = Fixture::new(Double::default()).await;
    let mut health = HealthClient::new(connect(&fixture.socket()).await);
    for service in ["", "containerd.services.snapshots.v1.Snapshots"] {
        let service = service.to_owned();
        let answer = health.check(HealthCheckRequest { service }).await.unwrap();
        assert_eq!(answer.into_inner().status, ServingStatus::Serving as i32);
    }
}
