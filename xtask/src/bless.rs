//! `cargo xtask bless`: accepts what the text tests print now as what they expect. Read the
//! difference before committing it.

use crate::outcome::Outcome;
use crate::shell;
use std::process::Command;

/// Runs the verb.
pub fn run() -> Outcome {
    let mut command = Command::new("cargo");
    command.args(["test", "--workspace"]).env("VIRTUOSO_BLESS", "1").current_dir(testkit::layout::root());
    shell::show(&mut command)?;
    let mut difference = Command::new("git");
    difference.args(["diff", "--stat", "--", "crates"]).current_dir(testkit::layout::root());
    Ok(shell::show(&mut difference)?)
}
