//! A program that was just made: writing it, saying what it is, and what stops the making.

use std::io::Write;
use std::path::{Path, PathBuf};

use ir::{Program, System};
use serde_json::json;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::statistics::{Counts, companion_name, source_line, sources_json};
use crate::training::{self, ExecutionContext};
use crate::{evidence, files, format, output};

/// The most companion files beside a program that are looked at.
const MOST_COMPANIONS: usize = 16;

/// The companion files that lie where a program is to be written, by their names: that of another
/// program of the same boot may serve this one as well. What cannot be read is none.
#[must_use]
pub fn companions_beside(program: &Path) -> Vec<System> {
    let folder = program.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut paths: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|it| it == "system")).collect();
    paths.sort();
    paths.iter().take(MOST_COMPANIONS).filter_map(|path| files::system(path).ok()).collect()
}

/// Writes the companion file where it is not there yet, then the program, which needs it.
pub fn write(
    path: &Path,
    program: &Program,
    system: &System,
    bytes: &[u8],
    context: Context,
) -> Result<PathBuf, Failure> {
    let companion = path.with_file_name(companion_name(&program.system));
    if files::name(&companion) == files::name(path) {
        return Err(Failure::file(path, "the companion file has this name; choose another for the program"));
    }
    let present = std::fs::read(&companion)
        .is_ok_and(|bytes| System::from_bytes(&bytes).is_ok_and(|there| there.hash() == program.system));
    if !present {
        let bytes =
            context.progress.during("packing the system's code", || system.to_bytes()).map_err(internal)?;
        files::write(&companion, &bytes)?;
    }
    if let Err(failure) = files::write(path, bytes) {
        if !present {
            // Best effort: the failure that is reported is the program's.
            let _ = std::fs::remove_file(&companion);
        }
        return Err(failure);
    }
    Ok(companion)
}

/// The failure of a build, with the trace's name where there is only one.
pub fn failure(traces: &[PathBuf], error: training::Error) -> Failure {
    let constant = matches!(error, training::Error::Constant { .. });
    let next = match error {
        training::Error::Slicer(slicer::Error::Malformed(_)) => return internal(error),
        training::Error::Slicer(slicer::Error::Paging(_)) => "; record it again with `virtuoso record`",
        training::Error::Slicer(slicer::Error::NothingToDo(_)) => {
            "; check the trainer's marks and declared outputs, and record it again"
        }
        _ => "",
    };
    let failure = match traces {
        [only] => {
            let text = format!("{error}{next}");
            let name = format!("{}: ", files::name(only));
            Failure::file(only, text.strip_prefix(&name).unwrap_or(&text))
        }
        _ => Failure::input(format!("{error}{next}")),
    };
    if constant { Failure::new(Exit::Constant, failure) } else { failure }
}

/// The failure of a build that must not happen, whatever the traces are.
pub fn internal(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Internal, format!("{error}; please report it with the traces"))
}

/// A program file that was just written.
pub struct Built<'b> {
    /// The path of the program file.
    pub file: &'b Path,
    /// The program that the file holds.
    pub program: &'b Program,
    /// The size of the program file in bytes.
    pub bytes: usize,
    /// The path of the companion file, which the program names by hash.
    pub companion: &'b Path,
    /// In whose context the program runs, and why.
    pub execution_context: ExecutionContext,
    /// Why recordings that were given had no part in it.
    pub left_out: Vec<String>,
}

impl Built<'_> {
    /// Prints for people what was built, from what, and how large it is.
    pub fn print(&self) -> Result<(), Failure> {
        let (program, from) = (self.program, &self.program.provenance);
        let counts = Counts::total(program);
        let mut out = output::stdout();
        writeln!(
            out,
            "{}: program {} ({} bytes), companion {}",
            self.file.display(),
            format::plain(&program.name),
            self.bytes,
            self.companion.display()
        )?;
        for source in &from.sources {
            writeln!(out, "  {}", source_line(source))?;
        }
        for why in &self.left_out {
            writeln!(out, "  left out: {}", format::plain(why))?;
        }
        writeln!(
            out,
            "  distinct instructions: {} executed, {} in the slice",
            from.static_instructions, from.static_in_slice
        )?;
        writeln!(
            out,
            "  {} functions, {} blocks, {} operations, {} guards, {} unexplored sides (policy {})",
            program.functions.len(),
            counts.blocks,
            counts.operations,
            counts.guards,
            counts.unexplored,
            from.policy
        )?;
        match self.execution_context {
            ExecutionContext::Idle => {
                writeln!(out, "  view of an idle processor ({} cells)", program.overrides.len())?
            }
            ExecutionContext::Paused(why) => {
                writeln!(out, "  view of the paused processor ({} levels): {why}", program.overrides.len())?
            }
        }
        if let Some(remark) = evidence::remark(program) {
            writeln!(out, "  {remark}")?;
        }
        if let Some(why) = &from.unrepeated {
            writeln!(
                out,
                "  only its slice can answer: a whole run over the training system's own memory stopped \
                 ({why})"
            )?;
        }
        Ok(out.flush()?)
    }

    /// Prints the same as one JSON object.
    pub fn print_json(&self) -> Result<(), Failure> {
        let (program, from) = (self.program, &self.program.provenance);
        let (view, reason) = match self.execution_context {
            ExecutionContext::Idle => ("idle", None),
            ExecutionContext::Paused(why) => ("paused", Some(why)),
        };
        output::json(&json!({
            "program": program.name,
            "file": engine::Text::of_path(self.file),
            "companion": engine::Text::of_path(self.companion),
            "bytes": self.bytes,
            "policy": from.policy,
            "view": view,
            "view_reason": reason,
            "unrepeated": from.unrepeated,
            "sources": sources_json(program),
            "left_out": self.left_out,
            "constant": evidence::constant(program),
            "depends_on": evidence::json(program),
            "instructions": from.sources.iter().map(|it| it.instructions).sum::<u64>(),
            "kept": from.sources.iter().map(|it| it.retained).sum::<u64>(),
            "in_slice": from.sources.iter().map(|it| it.in_slice).sum::<u64>(),
            "static_instructions": from.static_instructions,
            "static_in_slice": from.static_in_slice,
            "functions": program.functions.len(),
            "counts": Counts::total(program),
        }))
    }
}
