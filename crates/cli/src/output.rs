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
    quiet: bool,
}

impl Progress {
    /// Visible when standard error is a terminal and the user did not ask for quiet.
    #[must_use]
    pub fn new(quiet: bool) -> Self {
        Self { visible: !quiet && io::stderr().is_terminal(), quiet }
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

    /// Begins work of `total` steps, with a bar on a terminal.
    #[must_use]
    pub fn steps(self, total: u64) -> Steps {
        let bar = self.visible.then(|| {
            let bar = ProgressBar::new(total);
            if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent}% {msg} ({elapsed})") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Steps { bar, quiet: self.quiet }
    }
}

/// Work of many steps: a bar on a terminal, elsewhere a line for each stage.
pub struct Steps {
    bar: Option<ProgressBar>,
    quiet: bool,
}

impl Steps {
    /// Says what comes next, after `done` more of the steps.
    pub fn next(&mut self, what: &str, done: u64) {
        match &self.bar {
            Some(bar) => {
                bar.inc(done);
                bar.set_message(what.to_owned());
            }
            None if self.quiet => {}
            None => note(what),
        }
    }

    /// Moves the bar, if there is one, to `done` steps in all; no line is printed elsewhere.
    pub fn reached(&self, done: u64, what: impl FnOnce() -> String) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(what());
        }
    }

    /// Prints a line on standard error, above the bar if there is one.
    pub fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| note(text)),
            None => note(text),
        }
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
