//! A minimal client for QEMU's monitor protocol (QMP) over a Unix socket.
//!
//! One command, one answer, events kept by name: all that pausing, dumping and ending a guest
//! needs. By hand because the protocol is lines of JSON.

use crate::{Error, Result};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// A connection to QEMU's monitor.
#[derive(Debug)]
pub struct Qmp {
    stream: UnixStream,
    lines: BufReader<UnixStream>,
    events: VecDeque<String>,
}

impl Qmp {
    /// Connects and negotiates capabilities.
    pub fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).map_err(Error::io(socket))?;
        // A dump of a big guest takes a while; a monitor that says nothing for this long is dead.
        stream.set_read_timeout(Some(Duration::from_secs(120))).map_err(Error::io(socket))?;
        let reader = stream.try_clone().map_err(Error::io(socket))?;
        let mut qmp = Self { stream, lines: BufReader::new(reader), events: VecDeque::new() };
        let greeting = qmp.line()?;
        if greeting.get("QMP").is_none() {
            return Err(Error::Qmp(format!("expected a greeting, got {greeting}")));
        }
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs one command and returns its answer.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let request = json!({ "execute": command, "arguments": arguments });
        let lost = |error: std::io::Error| Error::Qmp(format!("`{command}`: {error}"));
        self.stream.write_all(format!("{request}\n").as_bytes()).map_err(lost)?;
        loop {
            let mut answer = self.line()?;
            if let Some(error) = answer.get("error") {
                let text = error.get("desc").and_then(Value::as_str).unwrap_or("unknown error");
                return Err(Error::Qmp(format!("`{command}`: {text}")));
            }
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            self.keep(&answer);
        }
    }

    /// Waits for an event with this name; earlier ones are forgotten. At most as long as an answer
    /// may take.
    pub fn wait_for_event(&mut self, name: &str) -> Result<()> {
        loop {
            while let Some(event) = self.events.pop_front() {
                if event == name {
                    return Ok(());
                }
            }
            let line = self.line()?;
            self.keep(&line);
        }
    }

    /// The events that came before the last answer and were not waited for; they are forgotten.
    pub fn take_events(&mut self) -> Vec<String> {
        self.events.drain(..).collect()
    }

    /// Whether the guest runs.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.execute("query-status", json!({}))?["running"] == true)
    }

    /// Waits until the guest runs; how long that took.
    ///
    /// # Errors
    /// [`Error::Qmp`] when it still stands still after 20 seconds.
    pub fn wait_until_running(&mut self) -> Result<Duration> {
        const PATIENCE: Duration = Duration::from_secs(20);
        let begin = Instant::now();
        while !self.is_running()? {
            if begin.elapsed() >= PATIENCE {
                return Err(Error::Qmp(format!("the guest stands still after {} s", PATIENCE.as_secs())));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(begin.elapsed())
    }

    /// Waits until somebody has paused the guest.
    ///
    /// # Errors
    /// As [`Qmp::wait_for_event`].
    pub fn wait_for_pause(&mut self) -> Result<()> {
        loop {
            // The event may be a late one, of a pause that is over.
            self.wait_for_event("STOP")?;
            if !self.is_running()? {
                return Ok(());
            }
        }
    }

    fn keep(&mut self, line: &Value) {
        self.events.extend(line.get("event").and_then(Value::as_str).map(str::to_owned));
    }

    /// Pauses the guest.
    pub fn stop(&mut self) -> Result<()> {
        self.execute("stop", json!({})).map(drop)
    }

    /// Lets the guest run on.
    pub fn cont(&mut self) -> Result<()> {
        self.execute("cont", json!({})).map(drop)
    }

    /// Ends QEMU.
    pub fn quit(&mut self) -> Result<()> {
        self.execute("quit", json!({})).map(drop)
    }

    /// Writes the guest's memory and CPU state as an ELF file addressed by physical address.
    pub fn dump_guest_memory(&mut self, path: &Path) -> Result<()> {
        let protocol = format!("file:{}", path.display());
        self.execute("dump-guest-memory", json!({ "paging": false, "protocol": protocol })).map(drop)
    }

    /// Writes the same in one of [`Qmp::dump_formats`].
    pub fn dump_guest_memory_as(&mut self, format: &str, path: &Path) -> Result<()> {
        let protocol = format!("file:{}", path.display());
        let arguments = json!({ "paging": false, "protocol": protocol, "format": format });
        self.execute("dump-guest-memory", arguments).map(drop)
    }

    /// The formats that this QEMU can dump in, such as `kdump-zlib`.
    pub fn dump_formats(&mut self) -> Result<Vec<String>> {
        let answer = self.execute("query-dump-guest-memory-capability", json!({}))?;
        let formats = answer.get("formats").and_then(Value::as_array).into_iter().flatten();
        Ok(formats.filter_map(|format| format.as_str().map(str::to_owned)).collect())
    }

    /// Writes `size` bytes of guest-physical memory from `address` on.
    pub fn pmemsave(&mut self, address: u64, size: u64, path: &Path) -> Result<()> {
        let arguments = json!({ "val": address, "size": size, "filename": path.to_string_lossy() });
        self.execute("pmemsave", arguments).map(drop)
    }

    /// Writes a migration stream to a file, in the form for files (`mapped-ram`) or the one for
    /// pipes, and waits until it is complete. The guest stays paused.
    pub fn migrate(&mut self, path: &Path, mapped: bool) -> Result<()> {
        let capability = json!({ "capability": "mapped-ram", "state": mapped });
        self.execute("migrate-set-capabilities", json!({ "capabilities": [capability] }))?;
        let uri = match mapped {
            true => format!("file:{}", path.display()),
            false => format!("exec:cat > '{}'", path.display()),
        };
        self.execute("migrate", json!({ "uri": uri }))?;
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let answer = self.execute("query-migrate", json!({}))?;
            match answer["status"].as_str() {
                Some("completed") => return Ok(()),
                Some("failed" | "cancelled") => return Err(Error::Qmp(format!("`migrate`: {answer}"))),
                _ if Instant::now() > deadline => return Err(Error::Qmp(format!("`migrate`: {answer}"))),
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Bytes of RAM the guest has.
    pub fn memory_size(&mut self) -> Result<u64> {
        let answer = self.execute("query-memory-size-summary", json!({}))?;
        let size = answer.get("base-memory").and_then(Value::as_u64);
        size.ok_or_else(|| Error::Qmp(format!("no memory size in {answer}")))
    }

    /// Runs a command of the human monitor, such as `info registers`, and returns its text.
    pub fn human(&mut self, command: &str) -> Result<String> {
        let answer = self.execute("human-monitor-command", json!({ "command-line": command }))?;
        Ok(answer.as_str().unwrap_or_default().to_owned())
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        let read = self.lines.read_line(&mut line).map_err(|error| Error::Qmp(error.to_string()))?;
        if read == 0 {
            return Err(Error::Qmp("QEMU closed the connection".to_owned()));
        }
        serde_json::from_str(&line).map_err(|error| Error::Qmp(format!("{error} in {line:?}")))
    }
}
