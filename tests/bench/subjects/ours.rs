//! Ours: a chain of ploop images, served by a `ploopd`.

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result};
use ploop_snapshotter::proto::v1;
use ploop_snapshotter::units::ClusterSize;

use super::{Fresh, Subject};
use crate::ploopd::{Ploopd, delta};

pub(crate) struct Ours {
    name: &'static str,
    server: Rc<Ploopd>,
    cluster: ClusterSize,
    size: u64,
    id: String,
    folder: PathBuf,
    chain: Vec<v1::Delta>,
    attached: bool,
}

impl Ours {
    /// Served by `server`. `id` is what ploopd and the file system know it by.
    pub(crate) fn new(
        name: &'static str,
        id: &str,
        server: &Rc<Ploopd>,
        cluster: ClusterSize,
    ) -> Self {
        Self {
            name,
            server: Rc::clone(server),
            cluster,
            size: 0,
            id: id.to_owned(),
            folder: PathBuf::new(),
            chain: Vec::new(),
            attached: false,
        }
    }

    fn push(&mut self, file: &str) -> Result<PathBuf> {
        let path = self.folder.join(format!("{}.{file}", self.id));
        self.chain.push(delta(&path, self.size, self.cluster)?);
        let device = self.server.attach(&self.id, &self.chain)?;
        self.attached = true;
        Ok(device)
    }

    /// What ploopd counted since the last attach.
    pub(crate) fn stats(&self) -> Result<v1::DiskStats> {
        self.server.stats(&self.id)
    }
}

impl Subject for Ours {
    fn name(&self) -> &'static str {
        self.name
    }

    fn process(&self) -> Option<u32> {
        Some(self.server.process().0)
    }

    fn up(&mut self, folder: &Path, size: u64) -> Result<PathBuf> {
        folder.clone_into(&mut self.folder);
        self.size = size;
        self.push("full")
    }

    fn down(&mut self) -> Result<()> {
        if std::mem::take(&mut self.attached) {
            self.server.detach(&self.id, false)?;
        }
        for delta in self.chain.drain(..) {
            fs::remove_file(&delta.path).context("cannot remove a delta")?;
        }
        Ok(())
    }
}

impl Fresh for Ours {
    fn freeze(&mut self) -> Result<()> {
        let seal = self.server.detach(&self.id, true)?;
        self.attached = false;
        let top = self.chain.last_mut().context("there is a top")?;
        top.seal = seal;
        Ok(())
    }

    fn layer(&mut self) -> Result<PathBuf> {
        self.push("top")
    }

    fn drop_layer(&mut self) -> Result<()> {
        self.server.detach(&self.id, false)?;
        self.attached = false;
        let top = self.chain.pop().context("there is a top")?;
        fs::remove_file(&top.path).context("cannot remove a top")
    }
}
