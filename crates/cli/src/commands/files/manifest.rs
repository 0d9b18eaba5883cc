//! The manifest of a copy: a line for each file of the guest, what became of it, and why where
//! nothing did.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use engine::Text;
use filetree::{Attributes, Error};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::guest_tree;

/// A manifest that is being written: JSON, one object a line.
pub struct Manifest {
    path: PathBuf,
    out: BufWriter<File>,
}

impl Manifest {
    /// A new one; a file that is there already is replaced only with `force`.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(path: PathBuf, force: bool) -> Result<Self, Failure> {
        let mut options = OpenOptions::new();
        options.write(true);
        let options = if force { options.create(true).truncate(true) } else { options.create_new(true) };
        let file = options.open(&path).map_err(|error| {
            Failure::file(&path, format!("cannot write the manifest: {error}; remove it, or give --force"))
        })?;
        Ok(Self { path, out: BufWriter::new(file) })
    }

    /// A file, directory or link was copied; `more` says what there is to say of its kind.
    pub fn copied(&mut self, path: &[u8], about: &Attributes, more: Value) -> Result<(), Failure> {
        let mut object = super::stat::json(about);
        object["path"] = json!(Text(path.to_vec()));
        object["copied"] = json!(true);
        if let (Value::Object(object), Value::Object(more)) = (&mut object, more) {
            object.extend(more);
        }
        self.line(&object)
    }

    /// Something was not copied, because of what the guest says or does not say.
    pub fn missing(&mut self, path: &[u8], error: &Error) -> Result<(), Failure> {
        self.line(&json!({
            "path": Text(path.to_vec()), "copied": false, "why": error.to_string(),
            "code": guest_tree::exit(error).code(), "errno": error.errno(),
        }))
    }

    /// Something was left out, for a reason of ours.
    pub fn left(&mut self, path: &[u8], why: &str) -> Result<(), Failure> {
        self.line(&json!({ "path": Text(path.to_vec()), "copied": false, "why": why }))
    }

    /// All is written.
    pub fn finish(mut self) -> Result<(), Failure> {
        self.out.flush().map_err(|error| failed(&self.path, &error))
    }

    fn line(&mut self, object: &Value) -> Result<(), Failure> {
        writeln!(self.out, "{object}").map_err(|error| failed(&self.path, &error))
    }
}

fn failed(path: &Path, error: &std::io::Error) -> Failure {
    Failure::file(path, format!("cannot write the manifest: {error}; check the disk"))
}
