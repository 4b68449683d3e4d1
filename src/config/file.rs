//! The sections of the file, each option with its default.
//!
//! `deploy/config.toml` says what they are for; a test holds that file against these defaults.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::words::{
    MkfsWords, Name, Size, absolute, cluster, disk_size, inode_ratio, optional_disk_size,
    optional_inode_ratio, optional_path, optional_text, servers, text, time,
};
use crate::ext4::Choices;
use crate::filesystem::Kind;
use crate::nri;
use crate::observe::{Address, LogFilter, LogFormat};
use crate::units::ClusterSize;

/// The whole file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where everything is kept that must last.
    #[serde(with = "absolute")]
    pub root: PathBuf,
    /// Where everything is that must not outlive the machine's power.
    #[serde(with = "absolute")]
    pub run_dir: PathBuf,
    /// What is said.
    pub log: Log,
    /// What is counted.
    pub metrics: Metrics,
    /// `ploopd`.
    pub disk_server: DiskServer,
    /// The gRPC door.
    pub service: Service,
    /// What Kubernetes asks for.
    pub nri: Nri,
    /// What every snapshotter name starts from.
    pub snapshots: Snapshots,
    /// The snapshotters, by name.
    pub names: BTreeMap<Name, NameSection>,
}

impl Default for Config {
    fn default() -> Self {
        let name = Name::try_from("ploop".to_owned()).expect("it is made of letters");
        Self {
            root: PathBuf::from("/var/lib/ploop-snapshotter"),
            run_dir: PathBuf::from("/run/ploop-snapshotter"),
            log: Log::default(),
            metrics: Metrics::default(),
            disk_server: DiskServer::default(),
            service: Service::default(),
            nri: Nri::default(),
            snapshots: Snapshots::default(),
            names: BTreeMap::from([(name, NameSection::default())]),
        }
    }
}

/// `[log]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// What is worth a line.
    #[serde(with = "text")]
    pub filter: LogFilter,
    /// How a line looks.
    #[serde(with = "text")]
    pub format: LogFormat,
}

/// `[metrics]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Where they are shown; nowhere if absent.
    #[serde(with = "optional_text", skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
}

/// Which way a disk reaches the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// The best that this kernel has.
    #[default]
    Auto,
    /// The kernel's own user space block device, or nothing.
    Ublk,
    /// A FUSE file and a loop device over it.
    Fuse,
}

/// `[disk_server]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiskServer {
    /// Start one if none runs.
    pub start: bool,
    /// The program; beside ours if absent.
    #[serde(
        deserialize_with = "optional_path",
        skip_serializing_if = "Option::is_none"
    )]
    pub binary: Option<PathBuf>,
    /// How many work side by side.
    #[serde(deserialize_with = "servers")]
    pub servers: u8,
    /// Which way its disks reach the kernel.
    pub transport: Transport,
    /// Use requests' pages where they are, where the kernel can.
    pub zero_copy: bool,
    /// Threads that serve disks; 0 is one a processor.
    pub shards: u16,
    /// How long an attach may take.
    #[serde(with = "time")]
    pub attach_limit: Duration,
    /// How long a detach may take.
    #[serde(with = "time")]
    pub detach_limit: Duration,
    /// How long any other call may take.
    #[serde(with = "time")]
    pub call_limit: Duration,
    /// How long a server that was just started may take until it answers.
    #[serde(with = "time")]
    pub start_limit: Duration,
    /// How long a call waits for a server that is being started again.
    #[serde(with = "time")]
    pub absent_limit: Duration,
    /// How long a write waits for space on the host.
    #[serde(with = "time")]
    pub space_wait: Duration,
}

impl Default for DiskServer {
    fn default() -> Self {
        Self {
            start: true,
            binary: None,
            servers: 4,
            transport: Transport::Auto,
            zero_copy: true,
            shards: 0,
            attach_limit: Duration::from_secs(20),
            detach_limit: Duration::from_secs(30),
            call_limit: Duration::from_secs(5),
            start_limit: Duration::from_secs(20),
            absent_limit: Duration::from_secs(10),
            space_wait: Duration::from_secs(60),
        }
    }
}

/// `[service]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Service {
    /// How long containerd waits for any call.
    #[serde(with = "time")]
    pub call_limit: Duration,
    /// How long it waits for Commit and Update, which run inside its write transaction.
    #[serde(with = "time")]
    pub commit_limit: Duration,
    /// How long running calls may go on after the order to stop.
    #[serde(with = "time")]
    pub stop_limit: Duration,
    /// Detach everything that is not mounted when stopping.
    pub detach_on_stop: bool,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            call_limit: Duration::from_secs(60),
            commit_limit: Duration::from_secs(20),
            stop_limit: Duration::from_secs(10),
            detach_on_stop: false,
        }
    }
}

/// `[nri]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Nri {
    /// Let pods' annotations set the sizes of their disks.
    pub enabled: bool,
    /// Where containerd asks its plugins.
    #[serde(with = "absolute")]
    pub socket: PathBuf,
}

impl Default for Nri {
    fn default() -> Self {
        Self {
            enabled: true,
            socket: PathBuf::from(nri::Options::USUAL_SOCKET),
        }
    }
}

/// `[snapshots]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Snapshots {
    /// The disk of a container whose image starts from nothing.
    #[serde(deserialize_with = "disk_size")]
    pub size: Size,
    /// The smallest disk that may be asked for.
    #[serde(deserialize_with = "disk_size")]
    pub min_size: Size,
    /// The largest disk that may be asked for.
    #[serde(deserialize_with = "disk_size")]
    pub max_size: Size,
    /// What the host's disk must have free for a new container.
    pub reserve: Size,
    /// Cluster size of new chains.
    #[serde(with = "cluster")]
    pub cluster: ClusterSize,
    /// The kind of file system of new chains.
    #[serde(with = "text")]
    pub filesystem: Kind,
    /// One inode for so many bytes of a new disk.
    #[serde(deserialize_with = "inode_ratio")]
    pub bytes_per_inode: Size,
    /// Users' quota inside a container.
    pub user_quota: bool,
    /// More words for mkfs.ext4.
    pub mkfs_options: MkfsWords,
    /// How long a commit waits for a device that is still mounted.
    #[serde(with = "time")]
    pub busy_wait: Duration,
    /// How long flushing one device may take.
    #[serde(with = "time")]
    pub flush_limit: Duration,
    /// How long Cleanup waits for removals that are under way.
    #[serde(with = "time")]
    pub cleanup_wait: Duration,
}

impl Default for Snapshots {
    fn default() -> Self {
        Self {
            size: Size(10 << 30),
            min_size: Size(64 << 20),
            max_size: Size(8 << 40),
            reserve: Size(0),
            cluster: ClusterSize::DEFAULT,
            filesystem: Kind::default(),
            bytes_per_inode: Size(Choices::default().bytes_per_inode),
            user_quota: false,
            mkfs_options: MkfsWords::default(),
            busy_wait: Duration::from_secs(2),
            flush_limit: Duration::from_secs(60),
            cleanup_wait: Duration::from_secs(10),
        }
    }
}

/// `[names.<name>]`: what differs from the defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct NameSection {
    /// Where containerd finds it; `<run_dir>/<name>.sock` if absent.
    #[serde(
        deserialize_with = "optional_path",
        skip_serializing_if = "Option::is_none"
    )]
    pub socket: Option<PathBuf>,
    /// Instead of `[snapshots] size`.
    #[serde(
        deserialize_with = "optional_disk_size",
        skip_serializing_if = "Option::is_none"
    )]
    pub size: Option<Size>,
    /// Instead of `[snapshots] min_size`.
    #[serde(
        deserialize_with = "optional_disk_size",
        skip_serializing_if = "Option::is_none"
    )]
    pub min_size: Option<Size>,
    /// Instead of `[snapshots] max_size`.
    #[serde(
        deserialize_with = "optional_disk_size",
        skip_serializing_if = "Option::is_none"
    )]
    pub max_size: Option<Size>,
    /// Instead of `[snapshots] filesystem`.
    #[serde(with = "optional_text", skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<Kind>,
    /// Instead of `[snapshots] bytes_per_inode`.
    #[serde(
        deserialize_with = "optional_inode_ratio",
        skip_serializing_if = "Option::is_none"
    )]
    pub bytes_per_inode: Option<Size>,
    /// Instead of `[snapshots] user_quota`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_quota: Option<bool>,
    /// Instead of `[snapshots] mkfs_options`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mkfs_options: Option<MkfsWords>,
}
