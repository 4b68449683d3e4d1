//! The tool for people: makes, describes, checks, mends and exports image files.

use std::process::ExitCode;

use ploop_snapshotter::cli;

fn main() -> ExitCode {
    cli::run(std::env::args_os())
}
