//! The disk server: reads the configuration, prepares the process, runs the server.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use ploop_snapshotter::config::{Config, DEFAULT_PATH};
use ploop_snapshotter::observe;
use ploop_snapshotter::seat::Name;
use ploop_snapshotter::server::{self, Left};

/// As sysexits.h has it: a restart will not help.
const WRONG_CONFIGURATION: u8 = 78;
/// As sysexits.h has it, "try again": devices wait for the next server.
const DEVICES_WAIT: u8 = 75;

/// Serves chains of ploop images as block devices.
///
/// On ublk SIGTERM ends it: its devices wait for the next one. On FUSE, where they end with it, SIGTERM makes it take no
/// new disks and end with its last one; a second SIGTERM ends it at once.
#[derive(Debug, Parser)]
#[command(
    name = "ploopd",
    version,
    after_help = "Exit status: 0 ended in order, 1 something failed, 2 wrong arguments, 75 ended in order and devices \
                  wait for the next one, 78 wrong configuration."
)]
struct Arguments {
    /// The configuration, shared with ploop-snapshotter.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// The run directory, instead of the configuration's.
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// Its name among several servers of one run directory: generation and number, such as 1-2.
    #[arg(long, value_name = "NAME")]
    server: Option<Name>,
    /// Threads that serve disks, instead of the configuration's.
    #[arg(long, value_name = "N")]
    shards: Option<u16>,
    /// Leave the caller's session: used by ploop-snapshotter when it starts a server.
    #[arg(long)]
    detached: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let config = match Config::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("ploopd: {:#}", anyhow::Error::new(error));
            return ExitCode::from(WRONG_CONFIGURATION);
        }
    };
    match run(arguments, config) {
        Ok(Left::Nothing) => ExitCode::SUCCESS,
        Ok(Left::Devices) => ExitCode::from(DEVICES_WAIT),
        Err(error) => {
            eprintln!("ploopd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments, mut config: Config) -> anyhow::Result<Left> {
    let name = arguments.server.unwrap_or(Name::PLAIN);
    if let Some(run) = arguments.run_dir {
        config.run_dir = std::path::absolute(run).context("--run-dir")?;
    }
    if let Some(shards) = arguments.shards {
        config.disk_server.shards = shards;
    }
    observe::start_log(&config.log_options())?;
    if arguments.detached {
        server::detach();
    }
    server::prepare();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let ended = runtime.block_on(server::run(config.server_options(name)));
    // A blocked thread must not keep a process whose disks are closed.
    runtime.shutdown_background();
    Ok(ended?)
}
