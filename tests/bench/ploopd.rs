//! A `ploopd` of our own, asked through its socket; and the images that it serves.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ploop_snapshotter::image::ploop;
use ploop_snapshotter::io::{Direct, now};
use ploop_snapshotter::proto::{PROTOCOL, v1};
use ploop_snapshotter::units::ClusterSize;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::host::Process;

type Stub = v1::disks_client::DisksClient<Channel>;

/// A running server. It ends when this is dropped.
pub(crate) struct Ploopd {
    child: Child,
    runtime: tokio::runtime::Runtime,
    stub: Stub,
    pub(crate) hello: v1::HelloReply,
    run: PathBuf,
}

impl Ploopd {
    /// Starts `ploopd` from the folder `binaries`, with `options` in its section of the configuration.
    /// `name` keeps its files apart from another one's.
    pub(crate) fn start(binaries: &Path, name: &str, options: &str) -> Result<Self> {
        // On tmpfs, as on a node.
        let run = PathBuf::from(format!("/run/bench-{}-{name}", std::process::id()));
        fs::create_dir(&run).with_context(|| format!("cannot make {}", run.display()))?;
        let config = run.join("config.toml");
        let root = run.join("root");
        let text = format!("run_dir = {run:?}\nroot = {root:?}\n[disk_server]\n{options}\n");
        fs::write(&config, text).context("cannot write ploopd's configuration")?;
        let log = fs::File::create(run.join("log")).context("cannot make ploopd's log")?;
        let child = Command::new(binaries.join("ploopd"))
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start ploopd from {}", binaries.display()))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot make a runtime")?;
        let socket = run.join("ploopd.sock");
        let stub = runtime.block_on(async {
            let channel = Endpoint::from_static("http://ploopd").connect_with_connector_lazy(
                tower::service_fn(move |_: Uri| UnixStream::connect(socket.clone())),
            );
            Stub::new(channel)
        });
        let mut server = Self {
            child,
            runtime,
            stub,
            hello: v1::HelloReply::default(),
            run,
        };
        server.greet()?;
        Ok(server)
    }

    /// Asks until it answers, or has ended.
    fn greet(&mut self) -> Result<()> {
        let begun = Instant::now();
        loop {
            let request = v1::HelloRequest {
                protocol: PROTOCOL,
                ..v1::HelloRequest::default()
            };
            match self.runtime.block_on(self.stub.hello(request)) {
                Ok(answer) => {
                    self.hello = answer.into_inner();
                    return Ok(());
                }
                Err(error) => {
                    let ended = self.child.try_wait().context("cannot look after ploopd")?;
                    if ended.is_some() || begun.elapsed() > Duration::from_secs(30) {
                        bail!("ploopd does not answer ({error}); its log: {}", self.log());
                    }
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.run.join("log")).unwrap_or_default()
    }

    pub(crate) fn process(&self) -> Process {
        Process(self.child.id())
    }

    /// Serves a chain, lowest first; the device.
    pub(crate) fn attach(&self, id: &str, deltas: &[v1::Delta]) -> Result<PathBuf> {
        let request = v1::AttachRequest {
            id: id.to_owned(),
            deltas: deltas.to_vec(),
            ..v1::AttachRequest::default()
        };
        let answer = self.runtime.block_on(self.stub.clone().attach(request));
        let answer = answer.map_err(|error| self.trouble("attach", id, &error))?;
        Ok(answer.into_inner().device.into())
    }

    pub(crate) fn detach(&self, id: &str, seal: bool) -> Result<Option<v1::Seal>> {
        let request = v1::DetachRequest {
            id: id.to_owned(),
            seal,
        };
        let answer = self.runtime.block_on(self.stub.clone().detach(request));
        let answer = answer.map_err(|error| self.trouble("detach", id, &error))?;
        Ok(answer.into_inner().seal)
    }

    /// The counters of one disk.
    pub(crate) fn stats(&self, id: &str) -> Result<v1::DiskStats> {
        let request = v1::StatsRequest { id: id.to_owned() };
        let answer = self.runtime.block_on(self.stub.clone().stats(request));
        let answer = answer.map_err(|error| self.trouble("stats", id, &error))?;
        let disk = answer.into_inner().disks.into_iter().next();
        disk.with_context(|| format!("ploopd has no counters of {id}"))
    }

    fn trouble(&self, call: &str, id: &str, status: &tonic::Status) -> anyhow::Error {
        let log = self.log();
        let from = log.len().saturating_sub(2000);
        let end = log.get(from..).unwrap_or_default();
        anyhow::anyhow!("ploopd: {call} {id}: {status}; its log ends with: {end}")
    }
}

impl Drop for Ploopd {
    fn drop(&mut self) {
        // The second signal ends it even when disks are left, as after an error.
        for _ in 0..2 {
            let _ = Command::new("kill")
                .arg(self.child.id().to_string())
                .status();
            for _ in 0..250 {
                if let Ok(Some(_)) | Err(_) = self.child.try_wait() {
                    let _ = fs::remove_dir_all(&self.run);
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A new, empty delta.
pub(crate) fn delta(path: &Path, size: u64, cluster: ClusterSize) -> Result<v1::Delta> {
    let cannot = || format!("cannot make {}", path.display());
    fs::File::create_new(path).with_context(cannot)?;
    let file = Direct::open_write(path).with_context(cannot)?;
    now(ploop::create(&file, size, cluster)).with_context(cannot)?;
    Ok(v1::Delta {
        path: path.display().to_string(),
        format: v1::Format::Ploop.into(),
        ..v1::Delta::default()
    })
}
