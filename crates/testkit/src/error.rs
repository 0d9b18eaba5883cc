//! What can go wrong while building, booting or capturing a guest.
//!
//! Each message names the cause and, where there is one, the next step: these errors are read by
//! people who have just cloned the repository.

use std::path::{Path, PathBuf};

/// The result of a testkit function.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure to build, boot, question or capture a guest.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something that set-up installs or fetches is not there.
    #[error("{what} is missing: run `cargo xtask setup`")]
    Missing {
        /// What is missing.
        what: String,
    },
    /// Something that only some verbs need, and that set-up does not fetch.
    #[error("{what} is missing: {next}")]
    Needed {
        /// What is missing.
        what: String,
        /// What to do about it.
        next: String,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A kernel module cannot be used.
    #[error(transparent)]
    Module(#[from] linux::Error),
    /// A program that we started failed.
    #[error("`{program}` failed ({status}): {output}")]
    Command {
        /// The command line.
        program: String,
        /// How it ended.
        status: String,
        /// What it printed.
        output: String,
    },
    /// The guest did not print what was awaited in time.
    #[error("the guest did not print `{marker}` within {seconds} s; its console ended with:\n{tail}")]
    Timeout {
        /// The awaited text.
        marker: String,
        /// How long we waited.
        seconds: u64,
        /// The end of the console output.
        tail: String,
    },
    /// QEMU ended although the guest was still needed.
    #[error("QEMU ended before the guest printed `{marker}`; it had printed:\n{tail}")]
    Ended {
        /// The awaited text.
        marker: String,
        /// The end of the console output and of QEMU's messages.
        tail: String,
    },
    /// QEMU's monitor refused a command or said something unexpected.
    #[error("QEMU monitor: {0}")]
    Qmp(String),
    /// Console output that is not a ground truth.
    #[error("ground truth: {0}")]
    Truth(String),
    /// A memory dump without a usable CPU state.
    #[error("{}: {reason}", path.display())]
    Dump {
        /// The dump.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The guest's processes or modules kept changing while it was captured.
    #[error("the guest's processes or modules changed during each of {attempts} captures: {difference}")]
    Unsteady {
        /// How often a capture was tried.
        attempts: u32,
        /// What differed the last time.
        difference: String,
    },
    /// The command under test failed.
    #[error("virtuoso {command} ended with {code}: {messages}")]
    Tool {
        /// The first words of its command line.
        command: String,
        /// Its exit code.
        code: i32,
        /// What it said.
        messages: String,
    },
}

impl Error {
    /// For `map_err`: an I/O error about `path`.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { path, source }
    }
}
