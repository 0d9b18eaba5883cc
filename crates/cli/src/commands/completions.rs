//! `virtuoso completions` and `virtuoso man`: what shells and manual readers want, from the same
//! definitions as `--help`.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;

use crate::failure::Failure;
use crate::output;

/// Print a completion script for a shell
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  virtuoso completions bash > /usr/share/bash-completion/completions/virtuoso
  virtuoso completions zsh > ~/.zfunc/_virtuoso
  virtuoso completions fish > ~/.config/fish/completions/virtuoso.fish")]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

impl CompletionsArgs {
    /// Runs the verb, for a command with all its verbs.
    pub fn run(&self, mut all: Command) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut all, "virtuoso", &mut script);
        let mut out = output::stdout();
        out.write_all(&script)?;
        Ok(out.flush()?)
    }
}

/// Write the manual pages, one for each verb, into a directory
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  virtuoso man /usr/local/share/man/man1")]
pub struct ManArgs {
    /// The directory
    directory: PathBuf,
}

impl ManArgs {
    /// Runs the verb, for a command with all its verbs.
    pub fn run(&self, all: Command) -> Result<(), Failure> {
        std::fs::create_dir_all(&self.directory)
            .map_err(|error| Failure::file(&self.directory, format!("cannot make it: {error}")))?;
        clap_mangen::generate_to(all, &self.directory)
            .map_err(|error| Failure::file(&self.directory, format!("cannot write there: {error}")))
    }
}
