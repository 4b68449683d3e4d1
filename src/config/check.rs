//! What no single value can tell: options that contradict each other.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Config;
use super::words::Size;
use crate::ext4;
use crate::filesystem::Kind;
use crate::observe::Address;
use crate::seat::{Name, Seat};
use crate::socket::LONGEST_PATH;
use crate::xfs;

/// Two options that do not go together, and the one to change.
pub(super) struct Contradiction {
    /// The way to the option, section by section.
    pub(super) keys: Vec<String>,
    pub(super) reason: String,
}

fn contradiction_at(keys: &[&str], reason: String) -> Contradiction {
    Contradiction {
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        reason,
    }
}

/// The first contradiction, if there is one.
pub(super) fn contradiction(config: &Config) -> Option<Contradiction> {
    if config.names.is_empty() {
        let reason = "no snapshotter is named: add a section such as [names.ploop]".to_owned();
        return Some(contradiction_at(&["names"], reason));
    }
    if config.root == config.run_dir {
        let reason = "run_dir must not be the root: the root lasts, run_dir must not".to_owned();
        return Some(contradiction_at(&["run_dir"], reason));
    }
    sizes(config)
        .or_else(|| file_systems(config))
        .or_else(|| sockets(config))
}

/// Both ext4 and XFS end there. A larger `max_size` lets nobody ask for more.
pub(super) const LARGEST: Size = Size(8 << 40);

/// What nobody asks for must be what everybody may ask for.
fn sizes(config: &Config) -> Option<Contradiction> {
    let cluster = config.snapshots.cluster;
    for (name, section) in &config.names {
        let [size, smallest, largest] = config.sizes_of(section);
        let reason = if size < smallest || size > largest {
            format!("the size {size} is not between min_size {smallest} and max_size {largest}")
        } else if size > LARGEST {
            format!("the size {size} is too large: a file system is made of {LARGEST} at most")
        } else if !size.0.is_multiple_of(cluster.bytes()) {
            format!(
                "the size {size} is not a multiple of the cluster size, {}",
                Size(cluster.bytes())
            )
        } else {
            continue;
        };
        return Some(match section.size {
            Some(_) => contradiction_at(&["names", name.as_str(), "size"], reason),
            None => contradiction_at(&["snapshots", "size"], reason),
        });
    }
    None
}

/// What is chosen of an ext4 means nothing to an XFS: better refused than not done.
fn file_systems(config: &Config) -> Option<Contradiction> {
    for (name, section) in &config.names {
        if config.kind_of(section) != Kind::Xfs {
            continue;
        }
        let (chosen, plain) = (config.ext4_of(section), ext4::Choices::default());
        let ours = [
            (
                "bytes_per_inode",
                chosen.bytes_per_inode == plain.bytes_per_inode,
                section.bytes_per_inode.is_some(),
                "an XFS makes its inodes as they are needed",
            ),
            (
                "user_quota",
                !chosen.user_quota,
                section.user_quota.is_some(),
                "users' quota is for ext4",
            ),
            (
                "mkfs_options",
                chosen.mkfs == plain.mkfs,
                section.mkfs_options.is_some(),
                "they are words for mkfs.ext4",
            ),
        ];
        for (option, as_ever, own, why) in ours {
            if !as_ever {
                let reason = format!(
                    "{option} does not go with the filesystem \"xfs\" of [names.{}]: {why}",
                    name.as_str()
                );
                return Some(match own {
                    true => contradiction_at(&["names", name.as_str(), option], reason),
                    false => contradiction_at(&["snapshots", option], reason),
                });
            }
        }
        let [size, ..] = config.sizes_of(section);
        if size.0 < xfs::Layout::SMALLEST {
            let reason = format!("the size {size} is too small for an XFS: the smallest is 300Mi");
            return Some(match section.size {
                Some(_) => contradiction_at(&["names", name.as_str(), "size"], reason),
                None => contradiction_at(&["snapshots", "size"], reason),
            });
        }
    }
    None
}

/// Every socket needs a path of its own, short enough for the kernel.
fn sockets(config: &Config) -> Option<Contradiction> {
    let mut taken: BTreeMap<PathBuf, String> =
        BTreeMap::from([(disks(config, Name::PLAIN), "the disk server".to_owned())]);
    // The thousandth upgrade should not be the one that fails.
    let longest = Name {
        generation: 1000,
        number: config.disk_server.servers.into(),
    };
    let longest = disks(config, longest);
    if longest.as_os_str().len() > LONGEST_PATH {
        return Some(too_long(&["run_dir"], &longest));
    }
    let nri = &config.nri.socket;
    if nri.as_os_str().len() > LONGEST_PATH {
        return Some(too_long(&["nri", "socket"], nri));
    }
    if let Some(Address::Unix(path)) = &config.metrics.address
        && let Some(other) = taken.insert(path.clone(), "[metrics]".to_owned())
    {
        let reason = format!("the socket {} is already that of {other}", path.display());
        return Some(contradiction_at(&["metrics", "address"], reason));
    }
    for (name, section) in &config.names {
        let keys = ["names", name.as_str(), "socket"];
        let path = config.socket_of(name, section);
        if path.as_os_str().len() > LONGEST_PATH {
            let keys: &[&str] = match section.socket {
                Some(_) => &keys,
                None => &["run_dir"],
            };
            return Some(too_long(keys, &path));
        }
        let who = format!("[names.{}]", name.as_str());
        if let Some(other) = taken.insert(path.clone(), who) {
            let reason = format!("the socket {} is already that of {other}", path.display());
            return Some(contradiction_at(&keys, reason));
        }
    }
    None
}

/// The socket of a disk server.
fn disks(config: &Config, name: Name) -> PathBuf {
    Seat::new(&config.run_dir, name).socket()
}

fn too_long(keys: &[&str], path: &std::path::Path) -> Contradiction {
    let reason = format!(
        "the socket {} would have more than {LONGEST_PATH} bytes: choose a shorter path",
        path.display()
    );
    contradiction_at(keys, reason)
}
