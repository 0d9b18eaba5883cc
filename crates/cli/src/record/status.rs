//! The status lines that the recorder writes (`crates/recorder/src/status.rs`).

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One complete recording.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TraceReport {
    /// The file.
    pub file: PathBuf,
    /// The trainer's program name.
    pub program: String,
    /// Executed instructions.
    pub instructions: u64,
    /// Data accesses.
    pub accesses: u64,
    /// Different instructions.
    pub static_insns: u64,
    /// Bytes of events and static instructions before compression.
    pub raw_bytes: u64,
    /// The same in the file.
    pub stored_bytes: u64,
    /// Bytes of the compressed snapshot.
    pub snapshot_bytes: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Seconds from the begin mark until the file was complete.
    pub seconds: f64,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Line {
    /// The plugin is loaded.
    Loaded {
        /// Its version.
        version: String,
    },
    /// A recording begins.
    Begin {
        /// The trainer's program name.
        program: String,
        /// Name of the file it will become.
        file: Option<PathBuf>,
    },
    /// A recording is complete.
    Saved(TraceReport),
    /// A mark was refused or a recording given up.
    Error {
        /// For programs.
        kind: String,
        /// For people.
        message: String,
    },
    /// QEMU ended in order.
    Exit,
}

/// Reads the file as it grows.
pub struct StatusReader {
    path: PathBuf,
    offset: u64,
    rest: Vec<u8>,
}

impl StatusReader {
    /// From the beginning.
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
