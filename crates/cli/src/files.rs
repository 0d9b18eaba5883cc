//! Files: reading with limits, writing so that nothing half-written is ever left behind.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use ir::{Objects, Program, System};
use slicer::Recording;
use trace::Trace;

use crate::failure::Failure;

/// Bytes of the largest program, companion, symbol or executable file that is read.
const MAX_BYTES: u64 = 2 << 30;

/// Refuses what is no regular file before it is opened: opening a pipe would wait for a writer.
fn regular(path: &Path, what: &str) -> Result<(), Failure> {
    let meta = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if meta.is_dir() {
        return Err(Failure::file(path, format!("it is a directory; give the path of a {what}")));
    }
    if !meta.is_file() {
        return Err(Failure::file(path, format!("it is no regular file; give the path of a {what}")));
    }
    if meta.len() == 0 {
        return Err(Failure::file(path, format!("the file is empty; give the path of a {what}")));
    }
    Ok(())
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    let next = match error.kind() {
        io::ErrorKind::NotFound => "check the path",
        io::ErrorKind::PermissionDenied => "make the file readable for this user",
        _ => "check the file and the disk it is on",
    };
    Failure::file(path, format!("cannot read it: {error}; {next}"))
}

/// That a file is there for another program to read; `what` is what it should be.
pub fn readable(path: &Path, what: &str) -> Result<(), Failure> {
    regular(path, what)?;
    File::open(path).map(drop).map_err(|error| unreadable(path, &error))
}

/// The bytes of a file; `what` is what it should be.
pub fn read(path: &Path, what: &str) -> Result<Vec<u8>, Failure> {
    regular(path, what)?;
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(|error| unreadable(path, &error))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Failure::file(path, format!("it is larger than any {what}; check the path")));
    }
    Ok(bytes)
}

/// Reads a program file and verifies the program.
pub fn program(path: &Path) -> Result<Program, Failure> {
    let bytes = read(path, "program (.prog, made by `virtuoso build`)")?;
    Program::from_bytes(&bytes).map_err(|error| match error {
        ir::FileError::Foreign { .. } => {
            Failure::file(path, format!("{error}; give a file made by `virtuoso build`"))
        }
        error => Failure::file(path, error),
    })
}

/// Opens a companion file: the code of a training system. Most of it is read when it is used, so
/// that whoever uses all of it asks [`System::check`] first.
pub fn system(path: &Path) -> Result<System, Failure> {
    let what = "companion file (.system, made by `virtuoso build`)";
    regular(path, what)?;
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    let length = file.metadata().map_err(|error| unreadable(path, &error))?.len();
    if length > MAX_BYTES {
        return Err(Failure::file(path, format!("it is larger than any {what}; check the path")));
    }
    System::open(file).map_err(|error| match error {
        ir::FileError::Foreign { .. } => {
            Failure::file(path, format!("{error}; `virtuoso build` writes it next to the program"))
        }
        error => Failure::file(path, error),
    })
}

/// Opens a file of modules: what the system that is named so may load. It is read when it is used.
///
/// # Errors
/// It cannot be read, or is of another version.
pub fn modules(path: &Path, system: [u8; 32]) -> Result<Objects, Failure> {
    let what = "file of modules (.modules, made by `virtuoso train --modules`)";
    regular(path, what)?;
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    Objects::open(file, system).map_err(|error| {
        let text = format!("{error}; `virtuoso modules` makes it from the kernel's package alone");
        Failure::file(path, text)
    })
}

/// Whether a file is a trace, complete or not.
#[must_use]
pub fn is_trace(path: &Path) -> bool {
    let mut begin = [0; trace::MAGIC.len()];
    path.is_file()
        && File::open(path).and_then(|mut file| file.read_exact(&mut begin)).is_ok()
        && begin == trace::MAGIC
}

/// Opens a trace file; its events are read later.
pub fn trace(path: &Path) -> Result<Trace, Failure> {
    regular(path, "trace (made by `virtuoso record`)")?;
    Trace::open(path).map_err(|error| trace_failure(path, &error))
}

/// Opens a trace file, reads its events and lifts its instructions.
pub fn recording(path: &Path) -> Result<Recording, Failure> {
    let trace = trace(path)?;
    Recording::load(&name(path), trace).map_err(|error| match error {
        slicer::Error::Trace(error) => trace_failure(path, &error),
        error => Failure::file(path, error),
    })
}

/// The trace crate names the next step where there is a special one.
pub fn trace_failure(path: &Path, error: &trace::TraceError) -> Failure {
    let next = match error {
        trace::TraceError::Damaged { .. } => "; copy it again or record it again",
        trace::TraceError::Io { .. } => "; check the file and the disk it is on",
        _ => "",
    };
    Failure::file(path, format!("{error}{next}"))
}

/// The last part of a path, as it stands in messages and in a program's provenance.
#[must_use]
pub fn name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// Writes a whole file or nothing: to a temporary file beside it, which is then renamed.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |error: io::Error| {
        let next = match error.kind() {
            io::ErrorKind::NotFound => "create its folder first",
            io::ErrorKind::PermissionDenied => "choose a folder this user may write to",
            _ => "check the folder and the space on its disk",
        };
        Failure::file(path, format!("cannot write it: {error}; {next}"))
    };
    if path.is_dir() {
        return Err(Failure::file(path, "it is a directory; give the path of a file to write"));
    }
    let mut temporary = OsString::from(path);
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let written = File::create_new(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    });
    written.map_err(|error| {
        if error.kind() != io::ErrorKind::AlreadyExists {
            // The cause is reported; a file that cannot be removed either adds nothing to it.
            let _ = fs::remove_file(&temporary);
        }
        failed(error)
    })
}

/// Refuses an output path that is one of the inputs.
pub fn not_an_input<'p>(output: &Path, inputs: impl IntoIterator<Item = &'p Path>) -> Result<(), Failure> {
    let Ok(output) = fs::canonicalize(output) else { return Ok(()) };
    match inputs.into_iter().find(|input| fs::canonicalize(input).is_ok_and(|input| input == output)) {
        Some(input) => {
            Err(Failure::file(input, "it is an input and would be overwritten; write to another file"))
        }
        None => Ok(()),
    }
}
