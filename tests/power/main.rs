//! Power cuts: who writes and says what was acknowledged, who rebuilds the disk as a cut may leave it, and
//! who compares.
//!
//! The virtual machine's disk is logged by QEMU (`log`), and what was acknowledged is logged with it
//! (`marks`): so there is one order of both, and of any moment it is known which writes the disk had promised
//! to keep and what had been acknowledged by then. `tests/power/run` says how it goes.
#![expect(clippy::print_stdout, reason = "a program of the terminal")]

mod chance;
mod cut;
mod files;
mod log;
mod marks;
mod sectors;
mod state;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

#[derive(Debug, Parser)]
#[command(about = "Power cuts; run by tests/power/run")]
enum Verb {
    /// Write down that something is acknowledged.
    Mark {
        #[command(flatten)]
        place: marks::Place,
        /// What: the last value of a key counts.
        key: String,
        /// How far it is.
        value: String,
    },
    /// Write sectors of one file in place, for ever.
    WriteSectors {
        #[command(flatten)]
        work: Work,
        /// Past the page cache.
        #[arg(long)]
        direct: bool,
    },
    /// Replace whole files by others, for ever.
    WriteFiles {
        #[command(flatten)]
        work: Work,
    },
    /// Rebuild the disk as one cut may leave it.
    Cut(cut::Arguments),
    /// Compare the file of `write-sectors` with what was acknowledged.
    CheckSectors(Compare),
    /// Compare the files of `write-files` with what was acknowledged.
    CheckFiles(Compare),
}

/// What a writer is told.
#[derive(Debug, clap::Args)]
struct Work {
    #[command(flatten)]
    place: marks::Place,
    /// The folder that is its own.
    folder: PathBuf,
    /// The key of its marks.
    key: String,
    /// What it writes follows from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Say "acknowledged" without a flush: what comparing must find out.
    #[arg(long)]
    careless: bool,
}

/// What is compared.
#[derive(Debug, clap::Args)]
struct Compare {
    /// The folder of the writer.
    folder: PathBuf,
    /// The key of its marks.
    key: String,
    /// What was acknowledged at the cut.
    state: PathBuf,
    /// The writer's.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    match run(Verb::parse()) {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<String> {
    match verb {
        Verb::Mark { place, key, value } => {
            place.open()?.say(&key, &value)?;
            Ok(format!("{key} {value}"))
        }
        Verb::WriteSectors { work, direct } => {
            sectors::write(&work, direct).map(|never| match never {})
        }
        Verb::WriteFiles { work } => files::write(&work).map(|never| match never {}),
        Verb::Cut(arguments) => cut::cut(&arguments),
        Verb::CheckSectors(compare) => sectors::check(&compare),
        Verb::CheckFiles(compare) => files::check(&compare),
    }
}
