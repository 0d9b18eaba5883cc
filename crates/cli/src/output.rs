//! Standard output: text or one JSON object a line, and progress on standard error.

use std::borrow::Cow;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::failure::Failure;
use crate::format;

/// Buffered standard output; call `flush` at the end, so that errors are seen.
#[must_use]
pub fn stdout() -> BufWriter<StdoutLock<'static>> {
    BufWriter::with_capacity(1 << 16, io::stdout().lock())
}

/// Prints one JSON object as a line.
pub fn json(value: &impl Serialize) -> Result<(), Failure> {
    let mut out = stdout();
    serde_json::to_writer(&mut out, value)?;
    writeln!(out)?;
    Ok(out.flush()?)
}

/// A line on standard error; a closed standard error is no reason to fail.
pub fn note(text: &str) {
    let lines: Vec<_> = text.lines().map(format::plain).collect();
    let _ = writeln!(io::stderr(), "virtuoso: {}", lines.join("\n  "));
}

/// Tells on a terminal what is being done; prints nothing elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    visible: bool,
}

impl Progress {
    /// Visible when standard error is a terminal and the user did not ask for quiet.
    #[must_use]
    pub fn new(quiet: bool) -> Self {
        Self { visible: !quiet && io::stderr().is_terminal() }
    }

    /// Shows a spinner while `work` runs.
    pub fn during<T>(self, what: impl Into<Cow<'static, str>>, work: impl FnOnce() -> T) -> T {
        if !self.visible {
            return work();
        }
        let bar = ProgressBar::new_spinner().with_message(what);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        let result = work();
        bar.finish_and_clear();
        result
    }
}
