//! The tree of verbs, and the exit codes.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use super::output::{self, Style};
use super::verdict::Verdict;
use super::{
    check, check_root, end_containers, export, info, init, listing, node, preflight, release,
};
use crate::config::{Config, DEFAULT_PATH};
use crate::units::{Bytes, ClusterSize};

/// Makes, describes, checks, mends and exports ploop images.
#[derive(Debug, Parser)]
#[command(
    name = "ploop",
    version,
    after_help = "Exit codes:\n  \
        0  clean, or done\n  \
        1  wrong usage, or a file cannot be read or written\n  \
        2  corrupt, or not closed in order\n  \
        3  nothing is lost, but there is something to say"
)]
struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a new, empty image.
    Init(Init),
    /// Say what images are: sizes, state, seal.
    Info(Info),
    /// Find what is wrong with an image, with a chain, the lowest delta first, or with a whole root.
    ///
    /// Header and index are held against each other and against the file; the contents of the disk
    /// are not looked at (that is fsck's affair). Of a root, the directory that `root` in the configuration
    /// names, the store is held against the files, each snapshot against its parents and its seal, and the
    /// file system's superblock is looked at. No ploop-snapshotter may run there meanwhile; containers and
    /// their ploopd may.
    Check(Check),
    /// Write the disk of a chain, the lowest delta first, into a new plain file.
    Export(Export),
    /// Say what this machine offers, and what is lost without what it does not.
    ///
    /// Ends with 0 if disks can reach the kernel, 1 if not.
    Preflight(Preflight),
    /// List every snapshot of the node: what it may hold, what it holds, what that costs the host.
    ///
    /// SIZE is the disk's, USED what the file system on it uses (of those that are mounted), OWN what the host
    /// holds for it alone, SHARED what the host holds for all that it stands on.
    Ls(List),
    /// Show every container as its own `df` does, and what all of them were promised beside what there is.
    Df(List),
    /// Draw which snapshot stands on which.
    Tree(Tree),
    /// Give a container another size, while it runs or not.
    ///
    /// Larger at any time; smaller only while it is not mounted, and never below what is used.
    Resize(Resize),
    /// Fail the requests that wait for a disk server that will not come back, and remove its devices.
    ///
    /// Only ublk devices outlive their server. Those of a living one are left to it.
    ReleaseDevices(Release),
    /// End every container that has its disk here, and unmount the disks: for a machine that goes down.
    ///
    /// Tells the processes whose root is on a disk of this node to end (SIGTERM), kills those that have not when the
    /// grace is over, and unmounts what the host has mounted of the disks. Ends with 0 when no disk is mounted in any mount namespace, 1 if that is not so within the limit.
    EndContainers(EndContainers),
}

#[derive(Debug, Args)]
struct Init {
    /// The disk's size, such as 10Gi; rounded up to whole clusters.
    size: Bytes,
    /// The file to make; it must not exist.
    file: PathBuf,
    /// The size of a cluster: a power of two from 32Ki to 64Mi.
    #[arg(long, value_name = "SIZE", default_value = "64Ki", value_parser = cluster)]
    cluster: ClusterSize,
}

#[derive(Debug, Args)]
struct Info {
    /// The images.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Answer as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Check {
    #[command(flatten)]
    chain: Chain,
    /// Mend what loses nothing: clear the in-use mark of a sound image, cut off an unused tail.
    ///
    /// Refused for a disk of which a disk server that died had answered for more than the image names: start that
    /// again, and it recovers the rest. The file must not be open elsewhere. Of a root: also what indexes the store's
    /// records, and files that no snapshot names are set aside; what is changed or moved is kept as it was
    /// in the root's folder `kept`.
    #[arg(long)]
    repair: bool,
    /// The configuration: in its run_dir lies what a disk server that died had answered for.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// Answer as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Export {
    #[command(flatten)]
    chain: Chain,
    /// The plain file to make; it must not exist. Zeros become holes.
    out: PathBuf,
}

#[derive(Debug, Args)]
struct Preflight {
    /// The configuration: its root and run_dir are looked at.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// Answer as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct List {
    /// The configuration: its ploop-snapshotter is asked.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// Do not cut digests and ids.
    #[arg(long)]
    no_trunc: bool,
    /// Answer as JSON: every figure, exactly.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Tree {
    /// The configuration: its ploop-snapshotter is asked.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// Do not cut digests and ids.
    #[arg(long)]
    no_trunc: bool,
}

#[derive(Debug, Args)]
struct Resize {
    /// A snapshot's key, a container's id, its pod's NAMESPACE/POD/CONTAINER, or the beginning of a key or an id that only
    /// it has.
    container: String,
    /// The size, such as 20Gi.
    size: Bytes,
    /// The configuration: its ploop-snapshotter is asked.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
}

#[derive(Debug, Args)]
struct Release {
    /// The configuration: the disk servers of its run_dir are meant.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// Also this device, such as /dev/ublkb3, of a ploopd whose run directory is gone; one that is served is left alone.
    #[arg(long, value_name = "DEVICE")]
    device: Vec<PathBuf>,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
struct EndContainers {
    /// The configuration: the disk servers of its run_dir are meant.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// How long they may take to end by themselves.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    grace: u32,
    /// How long all of it may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    limit: u32,
}

/// The deltas of a chain.
#[derive(Debug, Args)]
pub(super) struct Chain {
    /// The deltas, the lowest first.
    #[arg(required = true, value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
    /// The lowest delta is a plain disk image; so it is anyway if it ends in .raw or .img.
    #[arg(long)]
    pub(super) raw_base: bool,
}

/// Runs the tool with these arguments, the program's name first.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let command = match Command::try_parse_from(arguments) {
        Ok(command) => command,
        // Also how clap answers `--help` and `--version`, which go to stdout and are no failure.
        Err(answer) => {
            output::usage(&answer);
            let failed = if answer.use_stderr() {
                Verdict::Failed
            } else {
                Verdict::Clean
            };
            return failed.code().into();
        }
    };
    let verdict = match command.verb {
        Verb::Init(init) => init::init(init.size, &init.file, init.cluster),
        Verb::Info(info) => info::info(&info.files, Style::of(info.json)),
        Verb::Check(check) => match check.chain.files.as_slice() {
            [root] if root.is_dir() => check_root::check(root, check.repair, Style::of(check.json)),
            _ if check.repair => load(&check.config)
                .and_then(|config| check::mend(&check.chain, &config, Style::of(check.json))),
            _ => check::check(&check.chain, Style::of(check.json)),
        },
        Verb::Export(export) => export::export(&export.chain, &export.out),
        Verb::Preflight(asked) => load(&asked.config)
            .and_then(|config| preflight::preflight(&config, Style::of(asked.json))),
        Verb::Ls(asked) => load(&asked.config)
            .and_then(|config| listing::ls(&config, asked.no_trunc, Style::of(asked.json))),
        Verb::Df(asked) => load(&asked.config)
            .and_then(|config| listing::df(&config, asked.no_trunc, Style::of(asked.json))),
        Verb::Tree(asked) => {
            load(&asked.config).and_then(|config| listing::tree(&config, asked.no_trunc))
        }
        Verb::Resize(asked) => load(&asked.config)
            .and_then(|config| node::resize(&config, &asked.container, asked.size)),
        Verb::ReleaseDevices(asked) => load(&asked.config)
            .and_then(|config| release::release(&config, &asked.device, asked.dry_run)),
        Verb::EndContainers(asked) => load(&asked.config).and_then(|config| {
            let seconds = |count: u32| Duration::from_secs(count.into());
            end_containers::end_containers(&config, seconds(asked.grace), seconds(asked.limit))
        }),
    };
    let verdict = verdict.unwrap_or_else(|error| {
        output::error(&error);
        Verdict::Failed
    });
    verdict.code().into()
}

fn load(path: &Path) -> Result<Config, anyhow::Error> {
    Ok(Config::load(path)?)
}

fn cluster(text: &str) -> Result<ClusterSize, anyhow::Error> {
    Ok(ClusterSize::new(text.parse::<Bytes>()?.0)?)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Command;

    #[test]
    fn the_tree_of_verbs_is_sound() {
        Command::command().debug_assert();
    }
}
