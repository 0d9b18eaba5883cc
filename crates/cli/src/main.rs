//! The `virtuoso` command: parses the command line, runs one verb, turns failures into text and exit codes.

#![forbid(unsafe_code)]

mod commands;
mod exit;
mod failure;
mod files;
mod format;
mod output;
mod record;
mod report;
mod statistics;
mod symbols;
mod trainer;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
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
