//! Standard output: text or one JSON object a line, and progress on standard error.

use std::borrow::Cow;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::failure::Failure;
use crate::format;

/// Buffered standard output; call `flush` at the end, so that errors are seen. What a terminal
/// would obey is escaped, whatever is printed: only ends of lines and tabs pass. Text in which an
/// end of a line would be a lie goes through [`format::plain`] before.
#[must_use]
pub fn stdout() -> Plain<BufWriter<StdoutLock<'static>>> {
    Plain(BufWriter::with_capacity(1 << 16, io::stdout().lock()))
}

/// A writer that escapes what a terminal would obey ([`format::is_obeyed`]).
pub struct Plain<W>(W);

impl<W: Write> Write for Plain<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\n' | b'\t')) {
            return self.0.write(bytes);
        }
        // Formatting hands on whole characters. What is no text is shown byte by byte.
        for chunk in bytes.utf8_chunks() {
            for part in chunk.valid().split_inclusive(['\n', '\t']) {
                let end = if part.ends_with(['\n', '\t']) { part.len() - 1 } else { part.len() };
                self.0.write_all(format::plain(&part[..end]).as_bytes())?;
                self.0.write_all(&part.as_bytes()[end..])?;
            }
            for byte in chunk.invalid() {
                write!(self.0, "\\x{byte:02x}")?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Writes strings of JSON with escapes for what a terminal would obey: JSON itself wants them for
/// the first 32 characters only.
struct Escaping;

impl serde_json::ser::Formatter for Escaping {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, text: &str) -> io::Result<()> {
        let mut rest = text;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| format::is_obeyed(*c)) {
            out.write_all(&rest.as_bytes()[..at])?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}")?;
            }
            rest = &rest[at + c.len_utf8()..];
        }
        out.write_all(rest.as_bytes())
    }
}

/// Prints one JSON object as a line.
pub fn json(value: &impl Serialize) -> Result<(), Failure> {
    let mut out = stdout();
    out.write_all(&line(value)?)?;
    Ok(out.flush()?)
}

/// A value as a line of JSON.
pub fn line(value: &impl Serialize) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, Escaping))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// A line on standard error; a closed standard error is no reason to fail.
pub fn note(text: &str) {
    let lines: Vec<_> = text.lines().map(format::plain).collect();
    let _ = writeln!(io::stderr(), "virtuoso: {}", lines.join("\n  "));
}

/// Text of several lines on standard error, as it is.
pub fn usage(text: &str) {
    let _ = Plain(io::stderr()).write_all(text.as_bytes());
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
        let bar = ProgressBar::new_spinner().with_message(format::plain(&what.into()).into_owned());
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
                bar.set_message(format::plain(what).into_owned());
            }
            None if self.quiet => {}
            None => note(what),
        }
    }

    /// Moves the bar, if there is one, to `done` steps in all; no line is printed elsewhere.
    pub fn reached(&self, done: u64, what: impl FnOnce() -> String) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(format::plain(&what()).into_owned());
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

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "a\x1b[31m\u{9b}31m\x7f\u{202e}\u{2066}\u{2028}ä\r";

    #[test]
    fn nothing_that_a_terminal_obeys_is_printed() {
        let mut out = Plain(Vec::new());
        writeln!(out, "one\ttwo {HOSTILE}\nthree").expect("it writes");
        out.write_all(b"\xff\xfe").expect("it writes");
        let text = String::from_utf8(out.0).expect("text");
        let expected =
            "one\ttwo a\\u{1b}[31m\\u{9b}31m\\u{7f}\\u{202e}\\u{2066}\\u{2028}ä\\r\nthree\n\\xff\\xfe";
        assert_eq!(text, expected);
    }

    #[test]
    fn json_reads_back_and_is_harmless() {
        let mut out = Vec::new();
        let value = serde_json::json!({ HOSTILE: [HOSTILE, "\"\\", 7] });
        value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, Escaping)).expect("it writes");
        let text = String::from_utf8(out).expect("text");
        assert!(!text.contains(format::is_obeyed), "{text:?}");
        assert!(text.contains("\\u009b31m\\u007f\\u202e\\u2066\\u2028ä"), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).expect("JSON"), value);
    }
}
