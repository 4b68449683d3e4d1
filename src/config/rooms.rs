//! From the file to the options of each room.

use std::path::{Path, PathBuf};

use super::check::LARGEST;
use super::words::Size;
use super::{Config, Name, NameSection, Transport};
use crate::device;
use crate::ext4;
use crate::filesystem::{Choices, Kind};
use crate::link;
use crate::nri;
use crate::observe::LogOptions;
use crate::seat::{self, Seat};
use crate::server;
use crate::service;
use crate::snapshot;

impl Config {
    /// What the log is like.
    #[must_use]
    pub fn log_options(&self) -> LogOptions {
        LogOptions {
            filter: self.log.filter.clone(),
            format: self.log.format,
        }
    }

    /// The socket of a snapshotter name.
    #[must_use]
    pub fn socket_of(&self, name: &Name, section: &NameSection) -> PathBuf {
        match &section.socket {
            Some(path) => path.clone(),
            None => self.run_dir.join(format!("{}.sock", name.as_str())),
        }
    }

    /// The size of a snapshotter name, and the smallest and the largest that may be asked of it.
    pub(super) fn sizes_of(&self, section: &NameSection) -> [Size; 3] {
        let all = &self.snapshots;
        [
            section.size.unwrap_or(all.size),
            section.min_size.unwrap_or(all.min_size),
            section.max_size.unwrap_or(all.max_size),
        ]
    }

    /// The kind of file system that a snapshotter name makes.
    pub(super) fn kind_of(&self, section: &NameSection) -> Kind {
        section.filesystem.unwrap_or(self.snapshots.filesystem)
    }

    /// How a snapshotter name makes its file systems.
    fn file_system_of(&self, section: &NameSection) -> Choices {
        match self.kind_of(section) {
            Kind::Ext4 => Choices::Ext4(self.ext4_of(section)),
            Kind::Xfs => Choices::Xfs,
        }
    }

    /// Does any name make file systems of this kind?
    #[must_use]
    pub fn makes(&self, kind: Kind) -> bool {
        let mut names = self.names.values();
        names.any(|section| self.kind_of(section) == kind)
    }

    /// What is chosen of a name's ext4, whether it makes any or not.
    pub(super) fn ext4_of(&self, section: &NameSection) -> ext4::Choices {
        let all = &self.snapshots;
        let Size(bytes_per_inode) = section.bytes_per_inode.unwrap_or(all.bytes_per_inode);
        let words = section.mkfs_options.as_ref().unwrap_or(&all.mkfs_options);
        ext4::Choices {
            bytes_per_inode,
            mkfs: words.0.clone(),
            user_quota: section.user_quota.unwrap_or(all.user_quota),
        }
    }

    /// Is there a name whose disks keep limits for users inside?
    #[must_use]
    pub fn wants_user_quota(&self) -> bool {
        let mut names = self.names.values();
        names.any(|section| self.file_system_of(section).user_quota())
    }

    /// How to reach a disk server; `path` is this configuration's file, which a server that we start
    /// reads too, and `beside` the folder of our own program.
    #[must_use]
    pub fn link_options(&self, path: &Path, beside: &Path) -> link::Options {
        let server = &self.disk_server;
        let installed = server.binary.clone().unwrap_or(beside.join("ploopd"));
        link::Options {
            run: self.run_dir.clone(),
            servers: server.servers.into(),
            installed: installed.clone(),
            start: server.start.then(|| link::StartOptions {
                binary: installed,
                config_path: path.to_owned(),
                arguments: Vec::new(),
            }),
            limits: link::Limits {
                attach: server.attach_limit,
                detach: server.detach_limit,
                other: server.call_limit,
                start: server.start_limit,
                absent: server.absent_limit,
            },
        }
    }

    /// How the disk server of this name is run.
    #[must_use]
    pub fn server_options(&self, name: seat::Name) -> server::Options {
        let mut options = server::Options::new(Seat::new(&self.run_dir, name));
        options.transport = match self.disk_server.transport {
            Transport::Auto => device::Wish::Auto,
            Transport::Ublk => device::Wish::Ublk,
            Transport::Fuse => device::Wish::Fuse,
        };
        options.zero_copy = self.disk_server.zero_copy;
        options.disk.patience = self.disk_server.space_wait;
        // The processors are shared out among the servers that work side by side.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let own = cores / usize::from(self.disk_server.servers);
        options.disk.shards = match self.disk_server.shards {
            0 => own.clamp(1, 4),
            shards => usize::from(shards),
        };
        options.fuse_threads = own.clamp(2, 4);
        options
    }

    /// The gRPC door's limits.
    #[must_use]
    pub fn service_options(&self) -> service::Options {
        service::Options {
            call_limit: self.service.call_limit,
            commit_limit: self.service.commit_limit,
            stop_limit: self.service.stop_limit,
        }
    }

    /// Where containerd asks its plugins, if we are to be one.
    #[must_use]
    pub fn nri_options(&self) -> Option<nri::Options> {
        let socket = || self.nri.socket.clone();
        self.nri.enabled.then(|| nri::Options::new(socket()))
    }

    /// The snapshotters and their root.
    #[must_use]
    pub fn snapshot_options(&self) -> snapshot::Options {
        let names = self.names.iter().map(|(name, section)| {
            let mut options = snapshot::NameOptions::new(name.as_str());
            let sizes = self.sizes_of(section).map(|Size(bytes)| bytes);
            [options.size, options.smallest, options.largest] = sizes;
            options.largest = options.largest.min(LARGEST.0);
            options.cluster = self.snapshots.cluster;
            options.file_system = self.file_system_of(section);
            options
        });
        let mut options = snapshot::Options::new(self.root.clone());
        options.run = Some(self.run_dir.clone());
        options.names = names.collect();
        options.reserve = self.snapshots.reserve.0;
        options.busy_wait = self.snapshots.busy_wait;
        options.flush_limit = self.snapshots.flush_limit;
        options.cleanup_wait = self.snapshots.cleanup_wait;
        options
    }
}
