//! Why a command fails: a cause and a next step for the user, and an exit code for scripts.

use std::fmt;
use std::io;
use std::path::Path;

use crate::exit::Exit;

/// Why a command failed, for its user and for scripts.
#[derive(Debug)]
pub struct Failure {
    /// The exit code that the process ends with.
    pub exit: Exit,
    /// What is wrong and what to do; empty where everything is printed already.
    text: String,
}

impl Failure {
    /// Bad input; `text` names the cause and, after a semicolon, the next step.
    #[must_use]
    pub fn input(text: impl fmt::Display) -> Self {
        Self::new(Exit::Input, text)
    }

    /// Bad input in a file, which the message names first.
    #[must_use]
    pub fn file(path: &Path, text: impl fmt::Display) -> Self {
        Self::input(format!("{}: {text}", path.display()))
    }

    /// A failure with its own exit code.
    #[must_use]
    pub fn new(exit: Exit, text: impl fmt::Display) -> Self {
        Self { exit, text: text.to_string() }
    }

    /// An exit code other than 0 after everything was printed.
    #[must_use]
    pub const fn quiet(exit: Exit) -> Self {
        Self { exit, text: String::new() }
    }

    /// The same failure, followed by lines that may tell why.
    #[must_use]
    pub fn because(mut self, lines: &str) -> Self {
        self.text = format!("{}\n{lines}", self.text);
        self
    }

    /// Whether all is printed already and nothing is left to say.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.text.is_empty()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Only writing to standard output gives a bare system error; files name themselves
/// ([`Failure::file`]).
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::quiet(Exit::BrokenPipe)
        } else {
            Self::input(format!("cannot write the output: {error}; check the disk or the pipe it goes to"))
        }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        match error.io_error_kind() {
            Some(kind) => Self::from(io::Error::from(kind)),
            None => Self::new(Exit::Internal, format!("internal error: {error}; please report it")),
        }
    }
}
