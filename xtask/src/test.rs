//! `cargo xtask test`: set up, then unit and file tests, then the tests that boot real guests.
//!
//! The latter are built for release: the end-to-end test slices and runs whole traces.

use crate::outcome::Outcome;
use crate::{setup, shell};
use std::process::Command;

/// Runs the verb.
pub fn run() -> Outcome {
    setup::run()?;
    let cargo = |arguments: &str| {
        println!("test: cargo {arguments}");
        let mut command = Command::new("cargo");
        command.args(arguments.split_whitespace()).current_dir(testkit::layout::root());
        command
    };
    let runner = if shell::exists("cargo-nextest") { "nextest run" } else { "test" };
    shell::show(&mut cargo(&format!("{runner} --workspace")))?;
    // The end-to-end test runs the command, and the command needs the recorder's library beside it.
    shell::show(&mut cargo("build --release -p virtuoso-cli -p virtuoso-recorder"))?;
    for guests in [
        "-p virtuoso-testkit --test guests",
        "-p virtuoso-cli --test e2e",
        "-p virtuoso-cli --test tiny",
        "-p virtuoso-cli --test mach",
        "-p virtuoso-cli --test hidden",
        "-p virtuoso-cli --test limits",
        "-p virtuoso-cli --test live",
        "-p virtuoso-cli --test live_pauses",
        "-p virtuoso-cli --test formats",
        "-p virtuoso-cli --test kernels",
        "-p virtuoso-cli --test files",
    ] {
        shell::show(cargo(&format!("test --release {guests}")).env("VIRTUOSO_E2E", "1"))?;
    }
    Ok(())
}
