//! Opening a target: a dump or a live guest, and the options that say how to look at it.
//!
//! Every verb that reads a target takes it from here, with its processors: as the target names
//! them, as a side file does, or found in its memory. What is asked of it then is not known here.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use engine::locate::{Hints, LocateError, locate};
use ir::Program;
use machine::{Target, TargetOptions};

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::live::{Name, Opened};
use crate::{format, output};

/// The options that say how to look at a target.
#[derive(Args, Clone, Debug)]
pub struct TargetArgs {
    /// The processor whose view is taken, counted from 0
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub cpu: usize,
    /// Processor state as JSON; default: the dump's own, TARGET.cpu.json where it has none, or what
    /// is found in memory
    #[arg(long, value_name = "FILE")]
    pub cpu_file: Option<PathBuf>,
    /// Root of page tables that map the kernel, for a dump without processor state; default: found
    /// in memory
    #[arg(long, value_name = "ADDR", value_parser = format::parse_number)]
    pub cr3: Option<u64>,
    /// The kernel's GS base, for a dump without processor state; default: found in memory
    #[arg(long, value_name = "ADDR", value_parser = format::parse_number)]
    pub gs: Option<u64>,
    /// The target's time stamp counter at the pause, where it is known
    #[arg(long, value_name = "N", value_parser = format::parse_number)]
    pub tsc: Option<u64>,
    /// Operations a run may execute
    #[arg(long, value_name = "N", value_parser = format::parse_number)]
    pub fuel: Option<u64>,
    /// Milliseconds that a live guest may be paused; then it is resumed, and there is no answer
    #[arg(long, value_name = "MS", value_parser = format::parse_number, default_value_t = 10_000)]
    pub max_pause: u64,
    /// The training system's companion file; default: the one beside the program that it names by
    /// hash
    #[arg(long, value_name = "FILE")]
    pub system: Option<PathBuf>,
}

impl TargetArgs {
    /// Opens a target for a program, by which the processors are found where the target does not
    /// say; a live guest is paused from here on.
    pub fn open(&self, path: &Path, program: &Program, context: Context) -> Result<Opened, Failure> {
        let hints = Hints { cr3: self.cr3, gs_base: self.gs };
        let hinted = hints.cr3.is_some() || hints.gs_base.is_some();
        if hinted && Name::parse(path).is_some() {
            return Err(Failure::file(
                path,
                "a live guest has its own processor state; leave --cr3 and --gs out",
            ));
        }
        let mut opened = open(path, self.cpu_file.as_deref(), self.max_pause(), context)?;
        if !opened.cpus.is_empty() && !hinted {
            return Ok(opened);
        }
        let found =
            context.progress.during("finding the processors", || locate(program, &*opened.mem, hints));
        let found = found.map_err(|error| {
            let taken =
                if opened.format == "raw" { " (a file of no known format is taken for raw RAM)" } else { "" };
            let text = format!(
                "{}: {error}{taken}; give the processors' state with --cpu-file, or --cr3 and --gs",
                path.display()
            );
            match error {
                LocateError::Gates | LocateError::Tables => Failure::new(Exit::OtherKernel, text),
                _ => Failure::input(text),
            }
        })?;
        if !context.quiet {
            output::note(&format!("{}: {}", path.display(), format::located(&found)));
        }
        opened.found(found);
        Ok(opened)
    }

    /// How long a live guest may be paused (`--max-pause`).
    pub const fn max_pause(&self) -> Duration {
        Duration::from_millis(self.max_pause)
    }
}

/// Opens a target: a dump, which may hold no processors, with or without a file of processor state,
/// or a live guest, which is paused for `limit` at most.
pub fn open(
    path: &Path,
    cpu_file: Option<&Path>,
    limit: Duration,
    context: Context,
) -> Result<Opened, Failure> {
    match Name::parse(path) {
        Some(_) if cpu_file.is_some() => {
            Err(Failure::file(path, "a live guest has its own processor state; leave --cpu-file out"))
        }
        Some(name) => Opened::live(&name, path, limit, context),
        None => {
            let options = TargetOptions { cpu_file: cpu_file.map(Path::to_owned), without_cpus: true };
            Target::open(path, &options).map(Opened::dump).map_err(Failure::input)
        }
    }
}
