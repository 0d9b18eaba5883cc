//! `cargo xtask test`: set up, then unit and file tests, then the tests that boot real guests.
//!
//! The latter are built for release: the end-to-end test slices and runs whole traces. Each of
//! them has a directory of its own for captures and traces, gigabytes of some, which goes when the
//! test has passed; what a failed one left stays for a look. Those that depend on how fast a guest
//! runs go alone; the long ones at the end, which mostly wait for one processor, beside each other.

use crate::outcome::Outcome;
use crate::{setup, shell};
use std::process::Command;

/// Guest tests, one after the other: the package's part and the test.
const ALONE: [(&str, &str); 8] = [
    ("testkit", "guests"),
    ("cli", "e2e"),
    ("cli", "tiny"),
    ("cli", "mach"),
    ("cli", "limits"),
    ("cli", "live"),
    ("cli", "live_pauses"),
    ("cli", "libvirt"),
];
/// Guest tests of which each list goes beside the other.
const TOGETHER: [&[(&str, &str)]; 2] =
    [&[("cli", "kernels")], &[("cli", "files"), ("cli", "mount"), ("cli", "formats"), ("cli", "hidden")]];

/// Runs the verb.
pub fn run() -> Outcome {
    setup::run()?;
    let runner = if shell::exists("cargo-nextest") { "nextest run" } else { "test" };
    shell::show(&mut cargo(&format!("{runner} --workspace")))?;
    // Guest tests run the command, which needs the recorder's library beside it, and the Python
    // module's.
    shell::show(&mut cargo("build --release -p virtuoso-cli -p virtuoso-recorder -p virtuoso-python"))?;
    guest_tests(&ALONE)?;
    std::thread::scope(|scope| {
        let started: Vec<_> = TOGETHER.iter().map(|list| scope.spawn(|| guest_tests(list))).collect();
        // The scope ends with all of them, whichever fails first.
        started.into_iter().try_for_each(|it| it.join().map_err(|_| "a thread of the tests ended")?)
    })?;
    Ok(())
}

fn cargo(arguments: &str) -> Command {
    println!("test: cargo {arguments}");
    let mut command = Command::new("cargo");
    command.args(arguments.split_whitespace()).current_dir(testkit::layout::root());
    command
}

fn guest_tests(tests: &[(&str, &str)]) -> Result<(), String> {
    for (part, test) in tests {
        let left = testkit::layout::cache().join("run").join(format!("test-{test}"));
        let mut command = cargo(&format!("test --release -p virtuoso-{part} --test {test}"));
        shell::show(command.env("VIRTUOSO_E2E", "1").env(testkit::layout::RUN, &left))?;
        if left.exists() {
            std::fs::remove_dir_all(&left).map_err(|error| format!("{}: {error}", left.display()))?;
        }
    }
    Ok(())
}
