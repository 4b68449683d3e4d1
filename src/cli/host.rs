//! What `preflight` looks at, one thing after another.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, OFlags, StatxFlags, fallocate, statfs, statvfs, statx,
};
use rustix::process::{Resource, getrlimit};

use super::preflight::{Row, State, standing};
use crate::ext4;
use crate::ublk;
use crate::xfs;

/// As linux/capability.h has them.
const CAP_IPC_LOCK: u32 = 14;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_SYS_RESOURCE: u32 = 24;
/// As linux/magic.h has it.
const TMPFS: u64 = 0x0102_1994;
/// Descriptors that a node with a few hundred containers needs.
const MANY_FILES: u64 = 65_536;

fn read(path: impl AsRef<Path>) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

fn release() -> String {
    read("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned())
}

/// Which kernel.
pub(super) fn kernel() -> Row {
    Row::new("kernel", "").good(release())
}

/// Whether it lets us use io_uring: asked for, because a container's seccomp profile may say no too.
pub(super) fn io_uring() -> Row {
    let row = Row::new("io_uring", "nothing works: every byte goes through it");
    let setting = read("/proc/sys/kernel/io_uring_disabled");
    match io_uring::IoUring::new(2) {
        Ok(_) => row.good("allowed"),
        Err(error) => match setting.as_deref() {
            Some(number @ ("1" | "2")) => row.bad(
                State::Missing,
                format!("kernel.io_uring_disabled = {number}"),
                "sysctl -w kernel.io_uring_disabled=0 (in /etc/sysctl.d to keep it)",
            ),
            _ => row.bad(
                State::Missing,
                error.to_string(),
                "allow io_uring_setup, io_uring_enter and io_uring_register in this container's seccomp profile",
            ),
        },
    }
}

/// The capabilities of this process.
fn can(capability: u32) -> bool {
    let status = read("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> capability & 1 == 1)
}

/// Whether we may make and mount devices.
pub(super) fn admin() -> Row {
    let row = Row::new("CAP_SYS_ADMIN", "no device can be made or mounted");
    if can(CAP_SYS_ADMIN) {
        row.good("yes")
    } else {
        row.bad(
            State::Missing,
            "no",
            "run as root, or in a privileged container",
        )
    }
}

/// Why the driver cannot be used, and what to do.
pub(super) fn why_no_ublk(error: &ublk::Error) -> (String, String) {
    if !matches!(error, ublk::Error::NoDriver) {
        let found = if Path::new("/dev/ublk-control").exists() {
            "present, and not usable"
        } else {
            "not usable"
        };
        return (found.to_owned(), error.to_string());
    }
    let folder = PathBuf::from("/lib/modules").join(release());
    let listed =
        |file: &str| read(folder.join(file)).is_some_and(|list| list.contains("/ublk_drv.ko"));
    if listed("modules.dep") || listed("modules.builtin") {
        let advice = "modprobe ublk_drv (deploy/modules-load.conf does it at boot)";
        return (
            "the module is there and not loaded".to_owned(),
            advice.to_owned(),
        );
    }
    let advice = "install a kernel that has it: Debian 13, Ubuntu 24.04 (linux-modules-extra), RHEL 10, or any from \
                  6.8 on with CONFIG_BLK_DEV_UBLK";
    ("this kernel has none".to_owned(), advice.to_owned())
}

/// How many devices the driver allows, whoever makes them: on some kernels up to 6.14.
pub(super) fn ublks_max() -> Row {
    let row = Row::new(
        "ublks_max",
        "on some kernels up to 6.14, Prepare fails with that many disks",
    );
    match ublk::limit() {
        Some(number) if number < ublk::ENOUGH => {
            let writable = File::options().write(true).open(ublk::LIMIT).is_ok();
            let advice = if writable {
                "nothing: ploopd raises it at its start"
            } else {
                "load ublk_drv with a higher one: deploy/modprobe.conf (Linux 6.7 lets ploopd raise it)"
            };
            row.bad(State::Less, number.to_string(), advice)
        }
        Some(number) => row.good(number.to_string()),
        None => row.good("no such limit"),
    }
}

fn openable(path: &str) -> io::Result<File> {
    File::options().read(true).write(true).open(path)
}

/// Whether there is FUSE.
pub(super) fn fuse() -> Row {
    let row = Row::new("FUSE", "no disk without ublk");
    match openable("/dev/fuse") {
        Ok(_) => row.good("/dev/fuse"),
        Err(error) => row.bad(State::Missing, error.to_string(), "modprobe fuse, as root"),
    }
}

/// Whether there are loop devices.
pub(super) fn loops() -> Row {
    let row = Row::new("loop devices", "no disk without ublk");
    if let Err(error) = openable("/dev/loop-control") {
        let advice = "modprobe loop, as root; show /dev/loop-control to the container";
        return row.bad(State::Missing, error.to_string(), advice);
    }
    let (mut used, mut free) = (0, 0);
    for entry in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("loop") {
            if entry.path().join("loop/backing_file").exists() {
                used += 1;
            } else {
                free += 1;
            }
        }
    }
    row.good(format!(
        "{used} in use, {free} free; more are made as they are asked for"
    ))
}

/// Whether a process that serves disks may say so to the kernel.
pub(super) fn io_flusher() -> Row {
    let row = Row::new(
        "CAP_SYS_RESOURCE",
        "under extreme memory pressure ploopd may wait for the write-back of its own disks (PR_SET_IO_FLUSHER)",
    );
    if can(CAP_SYS_RESOURCE) {
        row.good("yes")
    } else {
        row.bad(State::Less, "no", "give the capability to ploopd")
    }
}

/// How much memory may be locked.
pub(super) fn locked_memory() -> Row {
    let row = Row::new(
        "locked memory",
        "ploopd may be swapped out, perhaps to a disk that it serves",
    );
    let limit = getrlimit(Resource::Memlock).maximum;
    match limit {
        None => row.good("no limit"),
        Some(_) if can(CAP_IPC_LOCK) => row.good("no limit for CAP_IPC_LOCK"),
        Some(bytes) => row.bad(
            State::Less,
            format!("{bytes} bytes"),
            "LimitMEMLOCK=infinity in the unit, ulimit -l unlimited in a shell",
        ),
    }
}

/// How many files may be open: one for each layer in use and a few for each disk.
pub(super) fn open_files() -> Row {
    let row = Row::new(
        "open files",
        "with many layers Prepare fails with RESOURCE_EXHAUSTED",
    );
    match getrlimit(Resource::Nofile).maximum {
        Some(files) if files < MANY_FILES => row.bad(
            State::Less,
            files.to_string(),
            "LimitNOFILE=1048576 in the unit, ulimit -n in a shell",
        ),
        Some(files) => row.good(files.to_string()),
        None => row.good("no limit"),
    }
}

/// Whether the run directory forgets with the power, and nothing before.
pub(super) fn run_folder(run: &Path) -> Row {
    let row = Row::new(
        "run_dir on tmpfs",
        "each write to a new cluster waits for a disk; nothing is lost",
    );
    let folder = standing(run);
    let found = format!("{} (for {})", folder.display(), run.display());
    match statfs(folder) {
        Ok(stat) if u64::try_from(stat.f_type).is_ok_and(|kind| kind == TMPFS) => row.good(found),
        Ok(_) => row.bad(
            State::Less,
            format!("{found}: no tmpfs"),
            "put run_dir on a tmpfs, as /run usually is",
        ),
        Err(error) => row.bad(
            State::Less,
            format!("{found}: {error}"),
            "put run_dir on a tmpfs, as /run usually is",
        ),
    }
}

/// What the root's file system can do, tried with a file that is removed again.
pub(super) fn root(root: &Path) -> Vec<Row> {
    let folder = standing(root);
    let direct = Row::new("root: direct I/O", "refused at the start");
    let holes = Row::new("root: holes", "refused at the start");
    let advice = "put the root on ext4 or XFS";
    let path = folder.join(format!(".ploop-preflight-{}", std::process::id()));
    let made = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .custom_flags(OFlags::DIRECT.bits().cast_signed())
        .open(&path);
    let file = match made {
        Ok(file) => file,
        Err(error) => {
            // Also left by a file system that made the file before it refused.
            let _ = fs::remove_file(&path);
            let found = format!("{}: {error}", folder.display());
            return vec![direct.bad(State::Missing, found, advice)];
        }
    };
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let punched = file
        .set_len(1 << 20)
        .and_then(|()| Ok(fallocate(&file, punch, 0, 1 << 16)?));
    let alignment = statx(CWD, &path, AtFlags::empty(), StatxFlags::DIOALIGN);
    let _ = fs::remove_file(&path);
    let direct = match alignment {
        Ok(stat) if stat.stx_dio_offset_align > 0 => direct.good(format!(
            "{}: aligned to {} bytes",
            folder.display(),
            stat.stx_dio_offset_align
        )),
        _ => direct.good(format!("{}: yes", folder.display())),
    };
    let holes = match punched {
        Ok(()) => holes.good("yes"),
        Err(error) => holes.bad(State::Missing, error.to_string(), advice),
    };
    let mut rows = vec![direct, holes];
    if let Ok(stat) = statvfs(folder) {
        let free = crate::units::Bytes(stat.f_bavail.saturating_mul(stat.f_frsize));
        rows.push(Row::new("root: space", "").good(format!("{free} free")));
    }
    rows
}

/// Whether the programs are there that make a file system.
pub(super) fn e2fsprogs() -> Result<Row> {
    let row = Row::new("e2fsprogs", "no golden file system can be made");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    Ok(match runtime.block_on(ext4::Tools::find()) {
        Ok(_) => row.good("mkfs.ext4, debugfs, e2fsck, 1.43 or newer"),
        Err(error) => row.bad(State::Missing, error.to_string(), "install e2fsprogs"),
    })
}

/// Do the lists of this kernel's modules, built in or not, name this one? None if there are no lists.
fn is_listed(module: &str) -> Option<bool> {
    let folder = Path::new("/lib/modules").join(release());
    let file = format!("/{module}.ko");
    ["modules.builtin", "modules.dep"]
        .iter()
        .filter_map(|list| read(folder.join(list)))
        .map(|list| list.contains(&file))
        .reduce(|one, other| one || other)
}

/// Whether limits for users can be kept inside a disk, as `user_quota` asks for.
pub(super) fn user_quota() -> Row {
    let row = Row::new(
        "quota for users",
        "no disk of a name with user_quota can be mounted",
    );
    let advice = "take a kernel with CONFIG_QUOTA and CONFIG_QFMT_V2, or leave user_quota out";
    if !Path::new("/proc/sys/fs/quota").exists() {
        return row.bad(State::Missing, "this kernel has none", advice);
    }
    if Path::new("/sys/module/quota_v2").exists() {
        return row.good("quota_v2 is loaded");
    }
    match is_listed("quota_v2") {
        Some(true) => row.good("quota_v2 is among this kernel's modules"),
        Some(false) => row.bad(State::Missing, "no module quota_v2", advice),
        None => row.bad(
            State::Less,
            "cannot be told: no list of this kernel's modules",
            "try: modprobe quota_v2",
        ),
    }
}

/// Whether file systems of the kind "xfs" can be made and mounted.
pub(super) fn xfs() -> Result<[Row; 2]> {
    let row = Row::new(
        "xfsprogs",
        "no golden file system can be made of a name with filesystem = \"xfs\"",
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let programs = match runtime.block_on(xfs::Tools::find()) {
        Ok(_) => row.good("mkfs.xfs, xfs_repair, 5.19 or newer"),
        Err(error) => row.bad(State::Missing, error.to_string(), "install xfsprogs"),
    };
    let row = Row::new(
        "kernel: XFS",
        "no disk of a name with filesystem = \"xfs\" can be mounted",
    );
    let known = read("/proc/filesystems").unwrap_or_default();
    let kernel = if known.lines().any(|line| line.trim() == "xfs") {
        row.good("yes")
    } else if is_listed("xfs") == Some(true) {
        row.good("among this kernel's modules")
    } else {
        row.bad(
            State::Missing,
            "not loaded, and no module is known",
            "modprobe xfs, or choose filesystem = \"ext4\"",
        )
    };
    Ok([programs, kernel])
}
