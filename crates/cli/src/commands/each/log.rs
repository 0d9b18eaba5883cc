//! The file that answers go to, and what an earlier command left in it.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::Answer;
use super::question::{Question, named};
use crate::failure::Failure;
use crate::output;

/// Where lines go.
pub struct Log {
    /// The file, if it is not standard output.
    file: Option<(PathBuf, Mutex<File>)>,
    /// Targets that need not be asked, as the file names them.
    known: HashSet<String>,
}

/// What is looked at of a line.
#[derive(Deserialize)]
struct Line {
    question: Option<Value>,
    target: Option<Value>,
    rows: Option<u64>,
    code: Option<u64>,
}

impl Log {
    /// The file, or standard output. Lines of a target that is not there to its end are cut off;
    /// `again`: a target that had another exit code than 0 is asked again.
    ///
    /// # Errors
    /// The file cannot be used, or has the answers to another question.
    pub fn open(path: Option<&Path>, question: &Question, again: bool) -> Result<Self, Failure> {
        let Some(path) = path else { return Ok(Self { file: None, known: HashSet::new() }) };
        let failed = |error: std::io::Error| Failure::file(path, format!("cannot use it: {error}"));
        let mut options = File::options();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let text = "another command writes to it; wait for it, or give another file";
                return Err(Failure::file(path, text));
            }
            Err(error) => return Err(failed(error.into())),
        }
        let first = json!({ "question": question.words() });
        let mut known = HashSet::new();
        let (mut at, mut end) = (0u64, 0u64);
        let mut reader = BufReader::new(&file);
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let count = reader.read_until(b'\n', &mut bytes).map_err(failed)? as u64;
            // The last line of an interrupted command may lack its end.
            if count == 0 || at > 0 && bytes.last() != Some(&b'\n') {
                break;
            }
            let line: Option<Line> = serde_json::from_slice(&bytes).ok();
            let Some(line) = line.filter(|line| at > 0 || line.question.is_some()) else {
                let text = "it has lines that are no answers of `each`; give another file";
                return Err(Failure::file(path, text));
            };
            at += count;
            if let Some(asked) = line.question {
                if asked != first["question"] {
                    let text = format!("it has the answers to {asked}; give another file");
                    return Err(Failure::file(path, text));
                }
                end = at;
            }
            if let (Some(target), Some(_)) = (line.target, line.rows) {
                end = at;
                if !again || line.code == Some(0) {
                    known.insert(target.to_string());
                }
            }
        }
        file.set_len(end).map_err(failed)?;
        file.seek(SeekFrom::Start(end)).map_err(failed)?;
        if end == 0 {
            file.write_all(&output::line(&first)?).map_err(failed)?;
        }
        Ok(Self { file: Some((path.to_owned(), Mutex::new(file))), known })
    }

    /// Whether a target need not be asked.
    pub fn has(&self, target: &OsStr) -> bool {
        self.known.contains(&named(target).to_string())
    }

    /// Adds a target's lines, all at once.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn add(&self, answer: &Answer) -> Result<(), Failure> {
        let mut lines = Vec::new();
        for line in answer.rows.iter().chain([&answer.end]) {
            lines.extend(output::line(line)?);
        }
        match &self.file {
            None => {
                let mut out = std::io::stdout().lock();
                out.write_all(&lines)?;
                Ok(out.flush()?)
            }
            Some((path, file)) => {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.write_all(&lines)
                    .map_err(|error| Failure::file(path, format!("cannot write to it: {error}")))
            }
        }
    }
}
