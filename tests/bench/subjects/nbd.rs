//! QEMU's QCOW2 through its network block device, without the host's cache.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{Fresh, Subject};
use crate::host::{read, run, until};

/// The cluster size of every QCOW2 image here: ours, so that all copy up alike.
const CLUSTER: &str = "cluster_size=64k";

#[derive(Default)]
pub(crate) struct QemuNbd {
    file: PathBuf,
    layer: PathBuf,
    device: Option<PathBuf>,
}

/// A new QCOW2 image.
pub(super) fn image(file: &Path, size: u64) -> Result<()> {
    let (file, size) = (file.display().to_string(), size.to_string());
    run(
        "qemu-img",
        &["create", "-q", "-f", "qcow2", "-o", CLUSTER, &file, &size],
    )
    .map(drop)
}

/// A new QCOW2 image over another.
pub(super) fn overlay(below: &Path, file: &Path) -> Result<()> {
    let (below, file) = (below.display().to_string(), file.display().to_string());
    let mut arguments = vec!["create", "-q", "-f", "qcow2", "-o", CLUSTER];
    arguments.extend(["-F", "qcow2", "-b", &below, &file]);
    run("qemu-img", &arguments).map(drop)
}

/// Bytes of a block device, 0 when it is not there.
fn size_of(device: &str) -> u64 {
    let sectors = read(format!("/sys/class/block/{device}/size"));
    sectors.map_or(0, |text| text.trim().parse().unwrap_or(0))
}

impl QemuNbd {
    fn start(&mut self, file: &Path) -> Result<PathBuf> {
        if !Path::new("/dev/nbd0").exists() {
            run("modprobe", &["nbd", "max_part=0"])?;
        }
        let file = file.display().to_string();
        let mut arguments = vec!["--connect=/dev/nbd0", "--format=qcow2", "--cache=none"];
        arguments.extend(["--aio=io_uring", "--discard=unmap", &file]);
        run("qemu-nbd", &arguments)?;
        // Its parent ends when the child answers; the kernel may take a moment longer.
        until("qemu-nbd's device", || size_of("nbd0") > 0)?;
        let device = PathBuf::from("/dev/nbd0");
        self.device = Some(device.clone());
        Ok(device)
    }

    fn stop(&mut self) -> Result<()> {
        if self.device.take().is_none() {
            return Ok(());
        }
        run("qemu-nbd", &["--disconnect", "/dev/nbd0"])?;
        // It writes its tables after it has answered.
        until("qemu-nbd's end", || {
            !Path::new("/sys/class/block/nbd0/pid").exists()
        })
    }
}

impl Subject for QemuNbd {
    fn name(&self) -> &'static str {
        "qemu-nbd qcow2"
    }

    fn up(&mut self, folder: &Path, size: u64) -> Result<PathBuf> {
        self.file = folder.join("nbd.qcow2");
        image(&self.file, size)?;
        let file = self.file.clone();
        self.start(&file)
    }

    fn down(&mut self) -> Result<()> {
        self.stop()
    }
}

impl Fresh for QemuNbd {
    fn freeze(&mut self) -> Result<()> {
        self.stop()
    }

    fn layer(&mut self) -> Result<PathBuf> {
        self.layer = self.file.with_extension("layer");
        overlay(&self.file, &self.layer)?;
        let layer = self.layer.clone();
        self.start(&layer)
    }

    fn drop_layer(&mut self) -> Result<()> {
        self.stop()?;
        fs::remove_file(&self.layer).context("cannot remove the layer")
    }
}
