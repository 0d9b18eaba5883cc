//! Development tasks: `cargo xtask VERB`.
//!
//! One file per verb. This file only parses the command line and prints errors; it keeps no logic,
//! so that every verb can be read alone.

#![forbid(unsafe_code)]

mod apt;
mod bench;
mod bless;
mod check;
mod demo;
mod demo_files;
mod files;
mod fleet;
mod foreign;
mod foreign_packages;
mod kernels;
mod matrix;
mod outcome;
mod peers;
mod processor;
mod search;
mod setup;
mod shell;
mod test;
mod tidy;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Virtuoso's development tasks")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what is missing, fetch the guest kernel and build the guests
    Setup,
    /// Record, build and run all six programs and compare their answers with the truth in another
    /// guest
    Demo(demo::Arguments),
    /// Measure what the project promises and write it to benches/runs/
    Bench,
    /// Ask about targets in many states, compare with the truth in them, and write what came out to
    /// benches/runs/
    Matrix(matrix::Arguments),
    /// Compare what guests say of all their files with what file programs say of their dumps
    Files(files::Arguments),
    /// Ask Volatility 3 and drgn the same about the same dump, compare answers and times
    Peers(peers::Arguments),
    /// Ask two hundred dumps on a Dask cluster of which a worker is killed, and check all answers
    Fleet(fleet::Arguments),
    /// Change the targets that the demonstration left, and look for changes about which slice and
    /// whole run of its six programs give different answers; two hours by default
    Search(search::Arguments),
    /// The six programs on a system of which you have an image: record, build, ask at many pauses
    Foreign(foreign::Arguments),
    /// Accept what the text tests print now
    Bless,
    /// Check formatting, lints, documentation and the layout of the workspace
    Check,
    /// Check the layout of the workspace only
    Tidy,
    /// Set up, then run all tests, including the one that boots real guests
    Test,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().verb {
        Verb::Setup => setup::run(),
        Verb::Demo(arguments) => demo::run(&arguments),
        Verb::Bench => bench::run(),
        Verb::Matrix(arguments) => matrix::run(&arguments),
        Verb::Files(arguments) => files::run(&arguments),
        Verb::Peers(arguments) => peers::run(&arguments),
        Verb::Fleet(arguments) => fleet::run(&arguments),
        Verb::Search(arguments) => search::run(&arguments),
        Verb::Foreign(arguments) => foreign::run(&arguments),
        Verb::Bless => bless::run(),
        Verb::Check => check::run(),
        Verb::Tidy => tidy::run(),
        Verb::Test => test::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
