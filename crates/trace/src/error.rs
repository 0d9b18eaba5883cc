//! What can be wrong with a trace file.

use std::path::PathBuf;

/// Why a trace could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The operating system refused.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was being done: "opening", "writing", ...
        action: &'static str,
        /// The file, or an empty path for a trace in memory.
        path: PathBuf,
        /// The system's own reason.
        source: std::io::Error,
    },
    /// The file does not begin with the magic of a trace.
    #[error("not a Virtuoso trace (wrong magic at the beginning); expected a file made by `virtuoso record`")]
    NotATrace,
    /// The file has another format version.
    #[error(
        "trace format version {found} is not supported (this build reads version {supported}); record it \
         again"
    )]
    Version {
        /// Version in the file.
        found: u32,
        /// Version this crate reads and writes.
        supported: u32,
    },
    /// The end of the file is missing: the recording was cut off, or the file was.
    #[error("the trace is truncated: {missing}; copy or record it again")]
    Truncated {
        /// Which part is not there.
        missing: &'static str,
    },
    /// The file is a trace, but a part of it is damaged.
    #[error("the trace is damaged at byte {offset}: {what}")]
    Damaged {
        /// Offset in the file of the damaged part.
        offset: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The caller handed something to the writer that the format cannot hold.
    #[error("cannot be recorded: {0}")]
    Unrecordable(String),
}

impl TraceError {
    /// Attaches the action and the path to a system error.
    pub(crate) fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }

    /// A damaged part at this offset.
    pub(crate) const fn damaged(offset: u64, what: &'static str) -> Self {
        Self::Damaged { offset, what }
    }
}
