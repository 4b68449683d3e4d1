//! How long containerd waits for Prepare, over a shallow and over a deep image; beside it, what a
//! snapshot costs dm-thin.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use containerd_snapshots::api::snapshots::v1::snapshots_client::SnapshotsClient;
use containerd_snapshots::api::snapshots::v1::{
    CommitSnapshotRequest, PrepareSnapshotRequest, RemoveSnapshotRequest,
};
use ploop_snapshotter::seat::Seat;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::host::until;
use crate::plan::Plan;
use crate::report::Report;

const DEPTHS: [usize; 2] = [1, 100];

/// A `ploop-snapshotter` and, through it, a `ploopd`. Both end when this is dropped.
struct Snapshotter {
    child: Child,
    run: PathBuf,
}

impl Snapshotter {
    fn start(binaries: &Path, root: &Path) -> Result<Self> {
        let run = PathBuf::from(format!("/run/bench-{}-prepare", std::process::id()));
        fs::create_dir(&run).context("cannot make a run folder")?;
        let config = run.join("config.toml");
        let text = format!(
            "run_dir = {run:?}\nroot = {root:?}\n[service]\ndetach_on_stop = true\n\
             [snapshots]\nsize = \"1Gi\"\n[names.ploop]\n"
        );
        fs::write(&config, text).context("cannot write a configuration")?;
        let log = fs::File::create(run.join("log")).context("cannot make a log")?;
        let child = Command::new(binaries.join("ploop-snapshotter"))
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot start ploop-snapshotter")?;
        let started = Self { child, run };
        let socket = started.run.join("ploop.sock");
        if let Err(error) = until("ploop-snapshotter's socket", || socket.exists()) {
            let log = fs::read_to_string(started.run.join("log")).unwrap_or_default();
            bail!("{error}; its log: {log}");
        }
        Ok(started)
    }
}

impl Drop for Snapshotter {
    fn drop(&mut self) {
        // It detaches every disk; its servers outlive it and are told one by one.
        let mut pids = vec![self.child.id().to_string()];
        for seat in Seat::all(&self.run).unwrap_or_default() {
            pids.extend(fs::read_to_string(seat.lock()).ok());
        }
        for pid in pids {
            // One may have gone by itself.
            let _ = Command::new("kill")
                .arg(pid.trim())
                .stderr(Stdio::null())
                .status();
            let _ = self.child.wait();
        }
        let _ = fs::remove_dir_all(&self.run);
    }
}

/// The calls, as containerd's proxy makes them.
struct Door(SnapshotsClient<Channel>);

impl Door {
    async fn prepare(&mut self, key: &str, parent: &str) -> Result<()> {
        let request = PrepareSnapshotRequest {
            snapshotter: "ploop".to_owned(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            ..PrepareSnapshotRequest::default()
        };
        let answer = self.0.prepare(request).await;
        answer.with_context(|| format!("prepare {key}")).map(drop)
    }

    async fn commit(&mut self, name: &str, key: &str) -> Result<()> {
        let request = CommitSnapshotRequest {
            snapshotter: "ploop".to_owned(),
            name: name.to_owned(),
            key: key.to_owned(),
            ..CommitSnapshotRequest::default()
        };
        let answer = self.0.commit(request).await;
        answer.with_context(|| format!("commit {name}")).map(drop)
    }

    async fn remove(&mut self, key: &str) -> Result<()> {
        let request = RemoveSnapshotRequest {
            snapshotter: "ploop".to_owned(),
            key: key.to_owned(),
        };
        let answer = self.0.remove(request).await;
        answer.with_context(|| format!("remove {key}")).map(drop)
    }
}

/// Builds a chain of empty layers and times Prepare on it, the depths in turns.
pub(crate) fn measure(
    report: &mut Report,
    plan: &Plan,
    binaries: &Path,
    folder: &Path,
) -> Result<()> {
    let root = folder.join("prepare");
    let snapshotter = Snapshotter::start(binaries, &root)?;
    let socket = snapshotter.run.join("ploop.sock");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut times = [Vec::new(), Vec::new()];
    runtime.block_on(async {
        let channel = Endpoint::from_static("http://snapshotter").connect_with_connector_lazy(
            tower::service_fn(move |_: Uri| UnixStream::connect(socket.clone())),
        );
        let mut door = Door(SnapshotsClient::new(channel));
        let mut parent = String::new();
        for layer in 1..=DEPTHS[1] {
            let (key, name) = (format!("key{layer}"), format!("layer{layer}"));
            door.prepare(&key, &parent).await?;
            door.commit(&name, &key).await?;
            parent = name;
        }
        for round in 0..plan.calls {
            for (depth, times) in DEPTHS.iter().zip(&mut times) {
                let key = format!("try{round}-{depth}");
                let begun = Instant::now();
                door.prepare(&key, &format!("layer{depth}")).await?;
                times.push(begun.elapsed().as_secs_f64() * 1000.0);
                door.remove(&key).await?;
            }
        }
        anyhow::Ok(())
    })?;
    drop(snapshotter);
    fs::remove_dir_all(&root).context("cannot remove the snapshotter's root")?;
    for (depth, times) in DEPTHS.iter().zip(&times) {
        report.row(&format!("Prepare over {depth} layers"), "ours", "ms", times)?;
    }
    eprintln!("bench: Prepare done");
    Ok(())
}
