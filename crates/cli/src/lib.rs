//! The `virtuoso` command: parses the command line, runs one verb, turns failures into text and
//! exit codes.
//!
//! A library only so that its own tests and examples can use [`training`], [`allocators`],
//! [`Changed`] and [`with_opened_tree`], and other languages' libraries [`Handle`].

#![forbid(unsafe_code)]

pub mod allocators;
mod asked;
mod banner;
mod built;
mod changes;
mod columns;
mod commands;
mod context;
mod departures;
mod evidence;
mod exit;
mod failure;
mod files;
mod format;
mod guest_tree;
mod handle;
#[cfg(test)]
mod hostile;
mod imports;
mod inputs;
mod interrupted;
mod inventory;
mod live;
mod mount;
mod output;
mod pack_info;
mod packs;
mod processes;
mod record;
mod recorded;
mod report;
mod search;
mod statistics;
mod symbols;
mod tampering;
mod target;
mod train;
mod trainer;
pub mod training;
mod ways;

use std::ffi::OsString;
use std::panic::{UnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::Parser;

use exit::Exit;
use failure::Failure;
pub use guest_tree::{outcome, with_opened_tree};
pub use handle::{Failed, Handle};
pub use live::watchdog::started_by;
pub use search::{ChangeError, Changed};

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    run(std::env::args_os()).into()
}

/// Runs a command line, the command's own name first; the exit code.
#[must_use]
pub fn run(words: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match commands::Cli::try_parse_from(words) {
        Ok(cli) => cli,
        Err(asked) if !asked.use_stderr() => asked.exit(),
        // It quotes arguments, which may be names of files.
        Err(usage) => {
            output::usage(&usage.render().to_string());
            return Exit::Usage.code();
        }
    };
    let Err(failure) = guarded(|| cli.run()) else { return Exit::Done.code() };
    if !failure.is_quiet() {
        output::note(&failure.to_string());
    }
    failure.exit.code()
}

/// A panic is a bug of ours and has the exit code of one; Rust has printed where it was.
fn guarded(run: impl FnOnce() -> Result<(), Failure> + UnwindSafe) -> Result<(), Failure> {
    let bug = "internal error: please report it with the lines above and the command line";
    catch_unwind(run).unwrap_or_else(|_| Err(Failure::new(Exit::Internal, bug)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bugs_have_their_exit_code() {
        let code = |ended: Result<(), Failure>| ended.map_err(|failure| failure.exit);
        assert_eq!(code(guarded(|| panic!("a bug"))), Err(Exit::Internal));
        assert_eq!(code(guarded(|| Err(Failure::input("a file")))), Err(Exit::Input));
        assert_eq!(code(guarded(|| Ok(()))), Ok(()));
        let unprintable: Result<serde_json::Value, _> = serde_json::from_str("{");
        assert_eq!(unprintable.map_err(|error| Failure::from(error).exit), Err(Exit::Internal));
        assert_eq!(built::internal("the verifier refused").exit, Exit::Internal);
    }
}
