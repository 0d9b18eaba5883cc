//! `cargo xtask test`: set up, then unit and file tests, then the tests that boot real guests.
//!
//! The latter are built for release: the end-to-end test slices and runs whole traces. Each of
//! them has a directory of its own for captures and traces, gigabytes of some, which goes when the
//! test has passed; what a failed one left stays for a look.

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
    for (part, test) in [
        ("testkit", "guests"),
        ("cli", "e2e"),
        ("cli", "tiny"),
        ("cli", "mach"),
        ("cli", "hidden"),
        ("cli", "limits"),
        ("cli", "live"),
        ("cli", "live_pauses"),
        ("cli", "libvirt"),
        ("cli", "formats"),
        ("cli", "kernels"),
        ("cli", "files"),
        ("cli", "mount"),
    ] {
        let left = testkit::layout::cache().join("run").join(format!("test-{test}"));
        let mut command = cargo(&format!("test --release -p virtuoso-{part} --test {test}"));
        shell::show(command.env("VIRTUOSO_E2E", "1").env(testkit::layout::RUN, &left))?;
        if left.exists() {
            std::fs::remove_dir_all(&left)?;
        }
    }
    Ok(())
}
