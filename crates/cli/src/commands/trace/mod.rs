//! `virtuoso trace`: looks into recordings.

mod check;
mod dump;
mod info;

use clap::Subcommand;

use crate::context::Context;
use crate::failure::Failure;

/// Look into recordings
#[derive(Subcommand, Debug)]
pub enum Verb {
    Info(info::InfoArgs),
    Dump(dump::DumpArgs),
    Check(check::CheckArgs),
}

impl Verb {
    /// Runs the verb.
    pub fn run(&self, context: Context) -> Result<(), Failure> {
        match self {
            Verb::Info(args) => args.run(),
            Verb::Dump(args) => args.run(),
            Verb::Check(args) => args.run(context),
        }
    }
}
