//! What the common options ask of every verb.

use crate::output::Progress;

/// What the options that all verbs have in common ask for.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// Whether remarks on standard error are left out (`--quiet`).
    pub quiet: bool,
    /// Shows on a terminal what is being done; shows nothing under `--quiet`.
    pub progress: Progress,
}

impl Context {
    /// A context in which neither remarks nor progress are shown.
    pub fn silent() -> Self {
        Self { quiet: true, progress: Progress::new(true) }
    }
}
