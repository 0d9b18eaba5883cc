//! `virtuoso record`: the module [`crate::record`] with its messages and exit codes.

use std::io::Write;

use clap::Args;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::record::{self, Progress, RecordArgs, RecordError, RecordReport};
use crate::{format, output};

/// Record trainers running in a QEMU guest
///
/// The guest is started by the given QEMU command line (9.2 or newer), to which a memory file and
/// the recorder are added. Each time a trainer in the guest passes its begin and end marks, a file
/// NAME-0001.trace appears in the output directory.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  virtuoso record -o traces -- qemu-system-x86_64 -m 192 -kernel vmlinuz -initrd train.cpio -append nokaslr \
  -nographic
  virtuoso record -o traces --timeout 600 --json -- qemu-system-x86_64 -m 512 -drive file=train.qcow2")]
pub struct RecordVerb {
    #[command(flatten)]
    args: RecordArgs,
    /// Print the result as JSON; hides the guest's console
    #[arg(long)]
    json: bool,
}

impl RecordVerb {
    /// Runs the verb.
    pub fn run(mut self, context: Context) -> Result<(), Failure> {
        self.args.quiet = context.quiet || self.json;
        let mut progress = |event: &Progress<'_>| match event {
            _ if context.quiet => {}
            Progress::Begin(program) => output::note(&format!("recording {program}")),
            Progress::Saved(trace) => output::note(&format!(
                "recorded {}: {} instructions, {}",
                trace.program,
                trace.instructions,
                format::size(trace.file_bytes)
            )),
            Progress::Message(line) => output::note(&format!("QEMU: {line}")),
        };
        let report = record::run(&self.args, &mut progress).map_err(|error| failure(&error))?;
        if self.json { output::json(&report) } else { print(&report) }
    }
}

fn print(report: &RecordReport) -> Result<(), Failure> {
    let mut out = output::stdout();
    for trace in &report.traces {
        writeln!(
            out,
            "{}: {} instructions, {} accesses, {} ({} of it the start snapshot)",
            trace.file.display(),
            trace.instructions,
            trace.accesses,
            format::size(trace.file_bytes),
            format::size(trace.snapshot_bytes)
        )?;
    }
    Ok(out.flush()?)
}

/// The failure of a recording, with the exit code of its kind.
pub fn failure(error: &RecordError) -> Failure {
    Failure::new(exit(error), error)
}

/// The exit code of a kind of failure.
const fn exit(error: &RecordError) -> Exit {
    match error {
        RecordError::NoMarks | RecordError::Marks { .. } => Exit::Marks,
        RecordError::Timeout { .. } => Exit::Timeout,
        RecordError::QemuMissing { .. }
        | RecordError::NotQemu { .. }
        | RecordError::QemuTooOld { .. }
        | RecordError::QemuFailed { .. } => Exit::Qemu,
        RecordError::PluginMissing { .. } | RecordError::CommandLine(_) | RecordError::Io { .. } => {
            Exit::Input
        }
    }
}
