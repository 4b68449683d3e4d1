//! `make bench`: ours beside its peers, on the same virtual disk, in one run.
//!
//! A reading that cannot be had fails the run and says why. A goal that is missed does not: it is
//! printed as not met.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program of the terminal"
)]

mod chains;
mod clusters;
mod density;
mod fio;
mod fresh;
mod goals;
mod host;
#[expect(
    dead_code,
    clippy::unwrap_used,
    reason = "the tests' own, which use more of it and may panic"
)]
#[path = "../support/images.rs"]
mod images;
mod instructions;
mod measure;
mod plan;
mod ploopd;
mod prepare;
mod report;
mod requests;
mod samples;
mod subjects;
mod table;
mod throughput;
mod trace;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

#[derive(Debug, Parser)]
#[command(about = "Measures ploopd beside its peers; run by tests/bench/run")]
enum Verb {
    /// Measure everything that needs devices; inside the virtual machine.
    Measure(measure::Arguments),
    /// Count instructions a request by chain depth; anywhere with valgrind.
    Instructions {
        /// Where chains may be made.
        folder: PathBuf,
        /// patient.c, made.
        preload: PathBuf,
        /// The file to write.
        out: PathBuf,
    },
    /// The work whose instructions are counted.
    Engine {
        folder: PathBuf,
        depth: u32,
        requests: u32,
    },
    /// What cargo says to a bench that it runs itself.
    #[command(name = "--bench")]
    Cargo,
}

fn main() -> ExitCode {
    let done = match Verb::parse() {
        Verb::Measure(arguments) => measure::run(&arguments),
        Verb::Instructions {
            folder,
            preload,
            out,
        } => instructions::count(&folder, &preload)
            .and_then(|counted| host::write(out, &format!("{counted:#}\n"))),
        Verb::Engine {
            folder,
            depth,
            requests,
        } => instructions::engine(&folder, depth, requests),
        Verb::Cargo => Err(anyhow::anyhow!("please use: make bench")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
