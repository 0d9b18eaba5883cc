//! What the plugin tells `virtuoso record`: one JSON object per line.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use serde::Serialize;

/// One line. `crates/cli/src/record.rs` reads them.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Status<'a> {
    /// The plugin is loaded.
    Loaded { version: &'a str },
    /// A trainer was begun.
    Begin { program: &'a str, file: &'a str },
    /// A trace is complete.
    Saved {
        file: &'a str,
        program: &'a str,
        instructions: u64,
        accesses: u64,
        static_insns: u64,
        raw_bytes: u64,
        stored_bytes: u64,
        snapshot_bytes: u64,
        file_bytes: u64,
        seconds: f64,
    },
    /// A recording could not be made; `kind` is for programs, `message` for people.
    Error { kind: &'a str, program: Option<&'a str>, message: &'a str },
    /// QEMU ends.
    Exit,
}

/// Where the lines go.
pub struct StatusFile {
    file: Option<File>,
}

impl StatusFile {
    /// Appends to this file; problems are silent, the reader sees that lines are missing.
    pub fn open(path: &Path) -> Self {
        Self { file: OpenOptions::new().create(true).append(true).open(path).ok() }
    }

    /// Appends one line.
    pub fn put(&mut self, status: &Status<'_>) {
        if let (Some(file), Ok(mut line)) = (&mut self.file, serde_json::to_vec(status)) {
            line.push(b'\n');
            // The reader notices a missing line; there is nobody else to tell.
            drop(file.write_all(&line));
        }
        if let Status::Error { message, .. } = status {
            eprintln!("virtuoso recorder: {message}");
        }
    }
}
