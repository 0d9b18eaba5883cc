//! `virtuoso report`: what is in a machine, as one page or one JSON object.

use std::path::PathBuf;

use clap::Args;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::guest_tree::TreeArgs;
use crate::inventory::{Sources, page};
use crate::{files, output};

/// Write a report of what is in the guest: one HTML page, or JSON
///
/// Which machine it is, its processes as a tree with users, start, command lines and the SHA-256 of
/// their executables, sockets with their processes, deleted files that are still open, modules,
/// mounts, and whether the kernel was changed; what to look at first is at the top, with its
/// evidence, and what could not be read is listed. The page needs no network, and no script to be
/// read. The exit code is that of `tampering`, where that has an alarm; 24 where a process is
/// hidden from /proc; else that of the first thing that could not be read.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  virtuoso report guest.elf -o report.html
  virtuoso report qmp:/run/guest.qmp --no-hashes -o report.html
  virtuoso report guest.elf --json | jq '.findings'")]
pub struct ReportArgs {
    #[command(flatten)]
    tree: TreeArgs,
    /// Where the page goes
    #[arg(short, long, value_name = "FILE", required_unless_present = "json")]
    output: Option<PathBuf>,
    /// Print one JSON object, with or without a page
    #[arg(long)]
    json: bool,
    /// Do not read executables: for a live guest a shorter pause
    #[arg(long)]
    no_hashes: bool,
}

impl ReportArgs {
    /// Runs the verb.
    pub fn run(&self, context: Context) -> Result<(), Failure> {
        let (mut found, departures) = self.tree.ask_more(context, |tree, target, (member, run)| {
            let target = (self.tree.target.as_path(), target);
            Sources { target, member, run, hashes: !self.no_hashes }.ask(tree, context)
        })?;
        found.depart(&departures);
        if let Some(file) = &self.output {
            files::write(file, page::page(&found.json).as_bytes())?;
        }
        if self.json {
            output::json(&found.json)?;
        } else if let Some(file) = self.output.as_ref().filter(|_| !context.quiet) {
            let findings = found.json["findings"].as_array().map_or(0, Vec::len);
            output::note(&format!("{}: {}", file.display(), crate::format::counted(findings, "finding")));
        }
        let alarm = |exit: Exit| Failure::new(exit, "see the findings at the top of the report");
        found.alarm.map_or(Ok(()), |exit| Err(alarm(exit)))
    }
}
