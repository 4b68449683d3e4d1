//! The rooms of the house, from the ground up, and the arrows between them.

/// One room: its name under `src/`, and the rooms that it may use.
pub(super) struct Room {
    pub(super) name: &'static str,
    pub(super) uses: &'static [&'static str],
}

const fn room(name: &'static str, uses: &'static [&'static str]) -> Room {
    Room { name, uses }
}

/// A row may name only earlier rows: so the graph has no circle.
pub(super) const ROOMS: &[Room] = &[
    // An error and what lies under it: daemons, doors and tools say it alike.
    room("causes", &[]),
    // Where a test may kill a process: nothing at all in a release build.
    room("failpoint", &[]),
    // Who has a lock file, and whether that one is ending: daemons, clients and tools must agree on it.
    room("lock", &[]),
    // How the kernel writes paths in a table of mounts: whoever looks for a mount must read them alike.
    room("mountinfo", &[]),
    // A device's number and node, whichever driver's.
    room("node", &[]),
    room("proto", &[]),
    // Which build a file holds: who runs a disk server and who starts one must mean the same.
    room("program", &[]),
    // Where a disk server sits: the server, its client and the tools look at the same files.
    room("seat", &["lock"]),
    // How a unix socket is made and guarded: every daemon and every door needs the same care.
    room("socket", &[]),
    // What a child may inherit: whoever starts programs and whoever asks for a device must agree on it.
    room("spawn", &[]),
    // A program of the system, found and run: each kind of file system has programs of its own.
    room("tool", &["spawn"]),
    room("units", &[]),
    room("ext4", &["tool", "units"]),
    room("format", &["units"]),
    room("xfs", &["tool", "units"]),
    room("io", &["units"]),
    // What Kubernetes asks for, over containerd's NRI: it knows sizes and keys, and nothing of disks.
    room("nri", &["causes", "proto", "units"]),
    room("store", &["units"]),
    room("observe", &["socket", "units"]),
    // Both kinds alike: who keeps disks need not know which one has what.
    room("filesystem", &["tool", "units", "ext4", "xfs"]),
    room("image", &["units", "format", "io"]),
    // `units`: a request's range.
    room("ublk", &["node", "units", "io"]),
    room("chain", &["units", "io", "image"]),
    // `image`: a disk writes its top's index pages, and hands back the seal of its image.
    room(
        "disk",
        &["causes", "failpoint", "units", "io", "image", "chain"],
    ),
    // `units`, `io`: a request carries a piece of memory and a range.
    room(
        "device",
        &[
            "failpoint",
            "mountinfo",
            "node",
            "units",
            "io",
            "ublk",
            "disk",
        ],
    ),
    // `image`: the words for a delta's format and seal, which the wire carries.
    room(
        "server",
        &[
            "causes",
            "failpoint",
            "lock",
            "proto",
            "program",
            "seat",
            "socket",
            "units",
            "observe",
            "image",
            "chain",
            "disk",
            "device",
        ],
    ),
    room(
        "link",
        &["lock", "proto", "program", "seat", "spawn", "units"],
    ),
    // `io`: an image is made on an open file, and somebody has to open it. `seat`: what a disk server left of a delta
    // goes with it.
    room(
        "snapshot",
        &[
            "causes",
            "failpoint",
            "lock",
            "mountinfo",
            "seat",
            "spawn",
            "units",
            "filesystem",
            "store",
            "io",
            "image",
            "link",
        ],
    ),
    room(
        "service",
        &["causes", "proto", "socket", "units", "store", "snapshot"],
    ),
    // `device`: the word for the transport that is asked for. `filesystem`, `ext4`, `xfs`: what may be chosen about a
    // file system, and what not.
    room(
        "config",
        &[
            "seat",
            "socket",
            "units",
            "ext4",
            "xfs",
            "nri",
            "observe",
            "filesystem",
            "device",
            "server",
            "link",
            "snapshot",
            "service",
        ],
    ),
    // `config`: which root and run directory the tool means. `seat`, `ublk`: what this kernel offers is for a
    // person to see, and devices without a server are for a person to release. `snapshot`: what lies in a root, and
    // what may be mended there, is that room's to know; the tool only says it. `disk`: what a server that died left for
    // an image is known where it is written.
    room(
        "cli",
        &[
            "lock",
            "mountinfo",
            "proto",
            "seat",
            "units",
            "ext4",
            "xfs",
            "format",
            "io",
            "filesystem",
            "image",
            "ublk",
            "chain",
            "disk",
            "link",
            "snapshot",
            "config",
        ],
    ),
    room(
        "daemon",
        &[
            "causes", "units", "nri", "store", "observe", "link", "snapshot", "service", "config",
        ],
    ),
];

/// What each binary's `main` may use.
pub(super) const BINARIES: &[Room] = &[
    room("ploop-snapshotter", &["causes", "config", "daemon"]),
    room("ploopd", &["config", "observe", "seat", "server"]),
    room("ploop", &["cli"]),
];

/// Names that say nothing about what is inside.
pub(super) const FORBIDDEN_NAMES: &[&str] = &[
    "util", "utils", "common", "helper", "helpers", "manager", "managers", "core", "misc",
];

/// The only files that write to the terminal: the tool's output, the log, and each binary's `main`,
/// which says why it cannot go on.
pub(super) fn may_print(path: &str) -> bool {
    ["cli/output.rs", "observe/log.rs"].contains(&path) || path.starts_with("bin/")
}

/// No file grows over this many lines.
pub(super) const LONGEST_FILE: usize = 500;
