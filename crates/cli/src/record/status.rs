//! The status lines that the recorder writes (`crates/recorder/src/status.rs`).

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A complete recording, in the numbers that the recorder reports.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TraceReport {
    /// The name of the trace file in the output directory.
    pub file: PathBuf,
    /// The name that the trainer's begin mark gives the program.
    pub program: String,
    /// The number of executed instructions.
    pub instructions: u64,
    /// The number of accesses to data.
    pub accesses: u64,
    /// The number of distinct instructions.
    pub static_insns: u64,
    /// Bytes of events and static instructions before compression.
    pub raw_bytes: u64,
    /// Bytes that the same take in the file, compressed.
    pub stored_bytes: u64,
    /// Bytes that the start snapshot takes in the file, compressed.
    pub snapshot_bytes: u64,
    /// Bytes of the whole file.
    pub file_bytes: u64,
    /// Seconds from the begin mark until the file was complete.
    pub seconds: f64,
}

/// A line of the status file.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Line {
    /// QEMU has loaded the plugin.
    Loaded {
        /// The version of the plugin.
        version: String,
    },
    /// A trainer passed its begin mark, and a recording begins.
    Begin {
        /// The name that the trainer's begin mark gives the program.
        program: String,
        /// The name of the file that the recording becomes when it is complete.
        file: Option<PathBuf>,
    },
    /// A recording is complete and has its file.
    Saved(TraceReport),
    /// A mark was refused or a recording given up.
    Error {
        /// The recorder's word for what is wrong, such as `unmatched_end`.
        kind: String,
        /// What is wrong, for people.
        message: String,
    },
    /// QEMU ended in order.
    Exit,
}

/// Reads the status file as it grows.
pub struct StatusReader {
    path: PathBuf,
    offset: u64,
    rest: Vec<u8>,
}

impl StatusReader {
    /// Begins at the start of the file, which need not be there yet.
    pub const fn new(path: PathBuf) -> Self {
        Self { path, offset: 0, rest: Vec::new() }
    }

    /// The lines that are new and complete. A file that is not there yet has none; lines nobody
    /// knows are left out.
    pub fn read(&mut self) -> Vec<Line> {
        let mut more = Vec::new();
        if let Ok(mut file) = File::open(&self.path)
            && file.seek(SeekFrom::Start(self.offset)).is_ok()
            && let Ok(count) = file.read_to_end(&mut more)
        {
            self.offset += count as u64;
            self.rest.append(&mut more);
        }
        let end = self.rest.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let complete: Vec<u8> = self.rest.drain(..end).collect();
        complete.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn lines_come_when_they_are_complete() {
        let path = std::env::temp_dir().join(format!("virtuoso-status-test-{}", std::process::id()));
        let mut reader = StatusReader::new(path.clone());
        assert!(reader.read().is_empty());
        let mut file = File::create(&path).unwrap();
        file.write_all(b"{\"event\":\"loaded\",\"version\":\"1\"}\n{\"event\":\"ex").unwrap();
        assert_eq!(reader.read(), [Line::Loaded { version: "1".to_owned() }]);
        file.write_all(b"it\"}\nnonsense\n").unwrap();
        assert_eq!(reader.read(), [Line::Exit]);
        assert!(reader.read().is_empty());
        std::fs::remove_file(path).unwrap();
    }
}
