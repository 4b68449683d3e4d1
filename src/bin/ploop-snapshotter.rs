//! containerd's side: reads the configuration and runs the daemon.

use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use ploop_snapshotter::causes::in_full;
use ploop_snapshotter::config::{Config, DEFAULT_PATH};
use ploop_snapshotter::daemon;

/// As sysexits.h has it: a restart will not help.
const WRONG_CONFIGURATION: u8 = 78;

/// A containerd snapshotter that gives every container a disk of its own.
#[derive(Parser)]
#[command(version, after_help = AFTER_HELP)]
struct Arguments {
    /// The configuration file, shared with ploopd. Without one at the default path, the defaults hold.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// Check the configuration, print what holds, and end.
    #[arg(long)]
    check_config: bool,
}

const AFTER_HELP: &str = "\
The variable PLOOP_LOG overrules [log] filter. SIGTERM stops in order; disks stay attached.
Exit status: 0 stopped in order, 1 something failed, 2 wrong arguments, 78 wrong configuration.";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let config = match Config::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => return fail(&error, WRONG_CONFIGURATION),
    };
    if arguments.check_config {
        return match config.print() {
            Ok(text) => match io::stdout().write_all(text.as_bytes()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&error, 1),
            },
            Err(error) => fail(&error, WRONG_CONFIGURATION),
        };
    }
    let setup = daemon::Setup {
        config,
        path: arguments.config,
        beside: own_folder(),
        version: env!("CARGO_PKG_VERSION"),
    };
    match daemon::run(&setup) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, 1),
    }
}

/// Where this program lies; after an upgrade in place the file is another, the folder is the same.
fn own_folder() -> PathBuf {
    std::env::current_exe()
        .ok()
        .and_then(|path| path.parent().map(Path::to_owned))
        .unwrap_or_else(|| PathBuf::from("/usr/local/bin"))
}

/// Says why we cannot go on: the error and its causes, in one line.
fn fail(error: &(dyn Error + 'static), code: u8) -> ExitCode {
    // Nobody is left to tell if this fails.
    let _ = writeln!(io::stderr(), "ploop-snapshotter: {}", in_full(error));
    ExitCode::from(code)
}
