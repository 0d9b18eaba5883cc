//! The `virtuoso` command: parses the command line, runs one verb, turns failures into text and exit codes.
//!
//! A library only so that its own tests and examples can use [`training`].

#![forbid(unsafe_code)]

mod built;
mod changes;
mod commands;
mod exit;
mod failure;
mod files;
mod format;
mod live;
mod output;
mod record;
mod report;
mod statistics;
mod symbols;
mod trainer;
pub mod training;

use std::process::ExitCode;

use clap::Parser;

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = commands::Cli::parse();
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_quiet() {
                output::note(&failure.to_string());
            }
            ExitCode::from(failure.exit.code())
        }
    }
}
