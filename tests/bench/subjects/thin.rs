//! dm-thin: a pool over a loop device on the same file system, or over a bare disk.
//!
//! Its unit is 64 KiB, as ours is, and it does not zero what it allocates (as containerd's devmapper
//! snapshotter asks it, too).

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Fresh, Subject, loopback};
use crate::host::{read, run};

/// Sectors of one unit.
const UNIT: u64 = 128;
const POOL: &str = "bench-pool";
const META: u64 = 64 << 20;

/// A pool, a full volume, and one snapshot of it at a time.
#[derive(Default)]
pub(crate) struct Thin {
    data: Option<PathBuf>,
    meta: Option<PathBuf>,
    sectors: u64,
    volumes: Vec<&'static str>,
}

/// Nodes are made by dmsetup itself: in a small machine nobody else does.
fn dmsetup(arguments: &[&str]) -> Result<()> {
    run(
        "env",
        &[&["DM_DISABLE_UDEV=1", "dmsetup"], arguments].concat(),
    )
    .map(drop)
}

fn mapped(name: &str) -> PathBuf {
    Path::new("/dev/mapper").join(name)
}

impl Thin {
    fn activate(&mut self, name: &'static str, id: u32) -> Result<PathBuf> {
        let table = format!("0 {} thin {} {id}", self.sectors, mapped(POOL).display());
        dmsetup(&["create", name, "--table", &table])?;
        self.volumes.push(name);
        Ok(mapped(name))
    }

    fn remove(&mut self, name: &str) -> Result<()> {
        self.volumes.retain(|other| *other != name);
        dmsetup(&["remove", "--retry", name])
    }

    /// Makes one snapshot of the full volume and removes it; how long the making took.
    pub(crate) fn time_snapshot(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        self.layer()?;
        let took = begun.elapsed();
        self.drop_layer()?;
        Ok(took)
    }
}

impl Subject for Thin {
    fn name(&self) -> &'static str {
        "dm-thin"
    }

    fn up(&mut self, folder: &Path, size: u64) -> Result<PathBuf> {
        // Debian's cloud kernels have it as a module.
        let _ = run("modprobe", &["dm-thin-pool"]);
        let meta = loopback::attach(&folder.join("thin.meta"), META)?;
        self.meta = Some(meta.clone());
        // Room for the volume and one whole snapshot.
        let data = loopback::attach(&folder.join("thin.data"), size * 9 / 4)?;
        self.data = Some(data.clone());
        self.sectors = size / 512;
        let whole = read(format!(
            "/sys/class/block/{}/size",
            data.file_name().context("a device has a name")?.display()
        ))?;
        let table = format!(
            "0 {} thin-pool {} {} {UNIT} 0 1 skip_block_zeroing",
            whole.trim().parse::<u64>()? / UNIT * UNIT,
            meta.display(),
            data.display(),
        );
        dmsetup(&["create", POOL, "--table", &table])?;
        dmsetup(&["message", POOL, "0", "create_thin 0"])?;
        self.activate("bench-full", 0)
    }

    fn down(&mut self) -> Result<()> {
        for name in std::mem::take(&mut self.volumes) {
            dmsetup(&["remove", "--retry", name])?;
        }
        if mapped(POOL).exists() {
            dmsetup(&["remove", "--retry", POOL])?;
        }
        for device in [self.data.take(), self.meta.take()].into_iter().flatten() {
            loopback::detach(&device)?;
        }
        Ok(())
    }
}

impl Fresh for Thin {
    /// The full volume is put away, as containerd puts a committed snapshot's away.
    fn freeze(&mut self) -> Result<()> {
        self.remove("bench-full")
    }

    fn layer(&mut self) -> Result<PathBuf> {
        dmsetup(&["message", POOL, "0", "create_snap 1 0"])?;
        self.activate("bench-snap", 1)
    }

    fn drop_layer(&mut self) -> Result<()> {
        self.remove("bench-snap")?;
        dmsetup(&["message", POOL, "0", "delete 1"])
    }
}
