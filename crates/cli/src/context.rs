//! What the common options ask of every verb.

use crate::output::Progress;

/// What every verb gets from the common options.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// Whether to leave out remarks.
    pub quiet: bool,
    /// Progress display.
    pub progress: Progress,
}

impl Context {
    /// Nothing is shown.
    pub fn silent() -> Self {
        Self { quiet: true, progress: Progress::new(true) }
    }
}
