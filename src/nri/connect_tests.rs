//! Against a socket behind which this test is containerd.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::{Connected, Options, connect};
use crate::nri::mux::{self, PLUGIN, RUNTIME};
use crate::nri::ttrpc::{self, Code, Failure, Message, Messages};
use crate::nri::{Containers, Place, Sizes};
use crate::proto::nri::{
    ConfigureRequest, Container, PodEvent, PodSandbox, RegisterPluginRequest, SynchronizeRequest,
};
use crate::proto::ttrpc::{Request, Response};

const PATIENCE: Duration = Duration::from_secs(20);

/// Every container is ours; of two sizes, one takes for ever.
struct Everything;

impl Sizes for Everything {
    async fn find(&self, _namespace: &str, container: &str) -> Result<Option<Place>, String> {
        Ok(Some(Place {
            snapshotter: "ploop".to_owned(),
            key: format!("k8s.io/1/{container}"),
            size: 1 << 30,
        }))
    }

    async fn resize(&self, _place: &Place, size: u64) -> Result<u64, String> {
        match size >> 30 {
            7 => std::future::pending().await,
            _ => Ok(size),
        }
    }
}

/// The socket, and what is connected to it.
struct House {
    dir: TempDir,
    containers: Arc<Containers>,
}

impl House {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            containers: Arc::default(),
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("nri.sock")
    }

    fn listen(&self) -> UnixListener {
        let _ = std::fs::remove_file(self.socket());
        UnixListener::bind(self.socket()).unwrap()
    }

    fn connect(&self) -> Connected {
        let options = Options::new(self.socket());
        connect(options, Everything, Arc::clone(&self.containers))
    }
}

async fn soon<T>(what: &str, act: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, act)
        .await
        .unwrap_or_else(|_| panic!("{what}: not in time"))
}

/// containerd's end of one connection.
struct Runtime {
    trunk: UnixStream,
    heard: [Messages; 2],
    stream: u32,
}

impl Runtime {
    async fn accept(listener: &UnixListener) -> Self {
        let (trunk, _) = soon("the plugin comes", listener.accept()).await.unwrap();
        Self {
            trunk,
            heard: [Messages::default(), Messages::default()],
            stream: 1,
        }
    }

    async fn next(&mut self, conversation: u32) -> Message {
        loop {
            if let Some(message) = self.heard[conversation as usize - 1].next().unwrap() {
                return message;
            }
            let frame = soon("the plugin speaks", mux::read(&mut self.trunk))
                .await
                .unwrap();
            self.heard[frame.conversation as usize - 1].feed(&frame.bytes);
        }
    }

    async fn take(&mut self, answer: Result<Vec<u8>, Failure>) -> RegisterPluginRequest {
        let Message::Request(stream, request) = self.next(RUNTIME).await else {
            panic!("it does not introduce itself");
        };
        assert_eq!(request.service, "nri.pkg.api.v1alpha1.Runtime");
        assert_eq!(request.method, "RegisterPlugin");
        let bytes = ttrpc::response(stream, answer);
        mux::write(&mut self.trunk, RUNTIME, &bytes).await.unwrap();
        RegisterPluginRequest::decode(&*request.payload).unwrap()
    }

    async fn ask(&mut self, method: &str, message: &impl prost::Message) -> u32 {
        let request = Request {
            service: "nri.pkg.api.v1alpha1.Plugin".to_owned(),
            method: method.to_owned(),
            payload: message.encode_to_vec(),
            timeout_nano: 0,
        };
        self.stream += 2;
        let bytes = ttrpc::request(self.stream, &request);
        mux::write(&mut self.trunk, PLUGIN, &bytes).await.unwrap();
        self.stream
    }

    async fn answer(&mut self) -> (u32, Response) {
        match self.next(PLUGIN).await {
            Message::Response(stream, response) => (stream, response),
            Message::Request(..) => panic!("a call where an answer should be"),
        }
    }

    async fn call(&mut self, method: &str, message: &impl prost::Message) -> Response {
        let stream = self.ask(method, message).await;
        let (answered, response) = self.answer().await;
        assert_eq!(answered, stream);
        response
    }

    /// All that comes before the first event.
    async fn welcome(&mut self, containers: &[&str]) {
        self.take(Ok(Vec::new())).await;
        let configured = self.call("Configure", &ConfigureRequest::default()).await;
        assert_eq!(configured.status, None);
        let all = SynchronizeRequest {
            pods: vec![pod("")],
            containers: containers.iter().map(|id| container(id)).collect(),
            more: false,
        };
        assert_eq!(self.call("Synchronize", &all).await.status, None);
    }
}

fn pod(size: &str) -> PodSandbox {
    let annotation = ("ploop-snapshotter/max-size".to_owned(), size.to_owned());
    PodSandbox {
        id: "p1".to_owned(),
        name: "cart-0".to_owned(),
        namespace: "shop".to_owned(),
        annotations: [annotation].into(),
    }
}

fn container(id: &str) -> Container {
    Container {
        id: id.to_owned(),
        pod_sandbox_id: "p1".to_owned(),
        name: "db".to_owned(),
    }
}

fn creation(id: &str, size: &str) -> PodEvent {
    PodEvent {
        pod: Some(pod(size)),
        container: Some(container(id)),
    }
}

#[tokio::test]
async fn a_container_is_sized_over_the_wire() {
    let house = House::new();
    let listener = house.listen();
    let _plugin = house.connect();
    let mut runtime = Runtime::accept(&listener).await;
    let introduced = runtime.take(Ok(Vec::new())).await;
    assert_eq!(introduced.plugin_name, "ploop-snapshotter");
    assert_eq!(introduced.plugin_idx, "10");
    let good = runtime.call("CreateContainer", &creation("a", "5Gi")).await;
    assert_eq!(good.status, None);
    assert!(house.containers.get("a").is_some());
    let bad = runtime.call("CreateContainer", &creation("b", "x")).await;
    let status = bad.status.unwrap();
    assert_eq!(status.code, Code::InvalidArgument as i32);
    assert!(
        status.message.contains("is not a size"),
        "{}",
        status.message
    );
}

/// A disk that takes its time holds up nobody else's answer.
#[tokio::test]
async fn a_slow_container_does_not_hold_up_another() {
    let house = House::new();
    let listener = house.listen();
    let _plugin = house.connect();
    let mut runtime = Runtime::accept(&listener).await;
    runtime.welcome(&[]).await;
    let slow = runtime
        .ask("CreateContainer", &creation("slow", "7Gi"))
        .await;
    let fast = runtime
        .ask("CreateContainer", &creation("fast", "5Gi"))
        .await;
    let answers = [runtime.answer().await, runtime.answer().await];
    assert_eq!(answers.each_ref().map(|(stream, _)| *stream), [fast, slow]);
    assert_eq!(answers[0].1.status, None);
    assert!(answers[1].1.status.is_some());
}

/// As many as fit into a frame: none is lost, and they do not all run at a time.
#[tokio::test]
async fn very_many_at_once_are_all_answered() {
    const MANY: u32 = 20_000;
    let house = House::new();
    let listener = house.listen();
    let _plugin = house.connect();
    let mut runtime = Runtime::accept(&listener).await;
    runtime.welcome(&[]).await;
    let mut calls = Vec::new();
    for number in 0..MANY {
        let request = Request {
            service: "nri.pkg.api.v1alpha1.Plugin".to_owned(),
            method: "CreateContainer".to_owned(),
            payload: creation(&number.to_string(), "5Gi").encode_to_vec(),
            timeout_nano: 0,
        };
        calls.extend(ttrpc::request(2 * number + 1001, &request));
    }
    let mut trunk = Vec::new();
    for frame in calls.chunks(4 << 20) {
        trunk.extend(PLUGIN.to_be_bytes());
        trunk.extend(u32::try_from(frame.len()).unwrap().to_be_bytes());
        trunk.extend(frame);
    }
    let (mut reader, mut writer) = tokio::io::split(runtime.trunk);
    let sent = tokio::spawn(async move { writer.write_all(&trunk).await.map(|()| writer) });
    let mut messages = Messages::default();
    let mut answered = 0;
    while answered < MANY {
        let frame = soon("an answer", mux::read(&mut reader)).await.unwrap();
        messages.feed(&frame.bytes);
        while let Some(message) = messages.next().unwrap() {
            assert!(matches!(
                message,
                Message::Response(_, Response { status: None, .. })
            ));
            answered += 1;
        }
    }
    let _writer = sent.await.unwrap().unwrap();
    assert_eq!(house.containers.count(), MANY as usize);
}

#[tokio::test]
async fn it_comes_again_when_containerd_does_and_learns_all_anew() {
    let house = House::new();
    // Nobody is there yet, and that is no error.
    let _plugin = house.connect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    for round in ["first", "second", "third"] {
        let listener = house.listen();
        let mut runtime = Runtime::accept(&listener).await;
        runtime.welcome(&[round]).await;
        assert_eq!(house.containers.count(), 1);
        assert!(house.containers.get(round).is_some());
        assert!(house.containers.are_current());
        drop((listener, runtime));
        soon("it notices", async {
            while house.containers.are_current() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn it_comes_again_after_nonsense() {
    let house = House::new();
    let listener = house.listen();
    let _plugin = house.connect();
    let too_long = [&PLUGIN.to_be_bytes()[..], &u32::MAX.to_be_bytes()].concat();
    let mut no_message = Vec::new();
    mux::write(&mut no_message, PLUGIN, &[0xff; 64])
        .await
        .unwrap();
    let mut stray = Vec::new();
    let answer = ttrpc::response(9, Ok(Vec::new()));
    mux::write(&mut stray, RUNTIME, &answer).await.unwrap();
    let http = b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec();
    for nonsense in [too_long, no_message, stray, http, Vec::new()] {
        let mut runtime = Runtime::accept(&listener).await;
        runtime.trunk.write_all(&nonsense).await.unwrap();
        if nonsense.is_empty() {
            continue;
        }
        // It hangs up by itself, whatever it had to say before.
        let mut rest = Vec::new();
        // A reset is an end as well.
        let _ = soon("it hangs up", runtime.trunk.read_to_end(&mut rest)).await;
    }
    let refused = Failure::new(Code::InvalidArgument, "such a name");
    Runtime::accept(&listener).await.take(Err(refused)).await;
    Runtime::accept(&listener).await.welcome(&["a"]).await;
    assert_eq!(house.containers.count(), 1);
}

#[tokio::test]
async fn it_goes_when_it_is_dropped() {
    let house = House::new();
    let listener = house.listen();
    let plugin = house.connect();
    let mut runtime = Runtime::accept(&listener).await;
    runtime.welcome(&[]).await;
    drop(plugin);
    let ended = soon("it hangs up", mux::read(&mut runtime.trunk)).await;
    assert!(ended.is_err());
}
