//! QEMU's monitor protocol (QMP) as a live target needs it: one command, one answer.
//!
//! By hand because the protocol is lines of JSON. Every wait has a limit: a monitor serves one
//! client at a time and lets others hang without a word. Files are handed over with the command, so
//! that QEMU needs no path it may write to. What happens in the guest (events) is deliberately not
//! looked at: states are asked for.

use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType,
};
use serde_json::{Value, json};

/// How long connecting and the greeting may take.
const GREETING: Duration = Duration::from_secs(3);
/// How long one command may take. Those used here take milliseconds.
const COMMAND: Duration = Duration::from_secs(20);
/// Bytes of the longest line that is read.
const MAX_LINE: usize = 16 << 20;

/// A way to give QEMU's monitor commands.
pub trait Monitor: Send {
    /// Runs one command and returns what it returns. `file` goes along with the commands `getfd`
    /// and `add-fd`.
    ///
    /// # Errors
    /// [`MonitorError`]; after any but [`MonitorError::Refused`] nothing more can be asked.
    fn execute(
        &mut self,
        command: &str,
        arguments: Value,
        file: Option<&File>,
    ) -> Result<Value, MonitorError>;
}

/// Why QEMU's monitor does not answer.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// Nobody listens, or the operating system refuses.
    #[error("cannot connect to QEMU's monitor: {0}")]
    Connect(io::Error),
    /// Connected, and no greeting came.
    #[error(
        "QEMU's monitor does not greet within {} s: another client is connected to it, or QEMU hangs",
        GREETING.as_secs()
    )]
    Busy,
    /// Something else listens there.
    #[error("it is no QMP monitor: it says {0}")]
    NotQmp(String),
    /// QEMU refuses the command.
    #[error("QEMU refuses `{command}`: {text}")]
    Refused {
        /// The command.
        command: String,
        /// What QEMU says.
        text: String,
    },
    /// The connection broke.
    #[error("QEMU's monitor is gone at `{command}`: {text}")]
    Lost {
        /// The command.
        command: String,
        /// What happened.
        text: String,
    },
}

impl MonitorError {
    /// What to do next, in one sentence without a full stop.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Connect(error) => match error.kind() {
                io::ErrorKind::NotFound => {
                    "start QEMU with -qmp unix:PATH,server=on,wait=off, or check the path"
                }
                io::ErrorKind::ConnectionRefused => "QEMU has ended and left its socket; start it again",
                io::ErrorKind::PermissionDenied => "run as the user that runs QEMU, or as root",
                _ => "check that the path is the Unix socket of a QMP monitor",
            },
            Self::Busy => "close the other client, or give QEMU a second monitor with another -qmp",
            Self::NotQmp(_) => "give the socket of -qmp, not that of -monitor or of a console",
            Self::Refused { .. } => "see what QEMU says; a newer QEMU may be needed",
            Self::Lost { .. } => "check whether QEMU still runs",
        }
    }
}

/// A QMP monitor on a Unix socket.
#[derive(Debug)]
pub struct QmpSocket {
    stream: UnixStream,
    received: Vec<u8>,
    next_id: u64,
    broken: bool,
}

impl QmpSocket {
    /// Connects and leaves negotiation mode.
    ///
    /// # Errors
    /// [`MonitorError`].
    pub fn connect(path: &Path) -> Result<Self, MonitorError> {
        let deadline = Instant::now() + GREETING;
        let stream = connect(path, deadline)?;
        let mut socket = Self { stream, received: Vec::new(), next_id: 0, broken: false };
        let greeting = match socket.line(deadline) {
            Ok(line) => line,
            Err(error) if timed_out(&error) => return Err(MonitorError::Busy),
            Err(error) => return Err(MonitorError::Connect(error)),
        };
        let is_greeting =
            serde_json::from_slice::<Value>(&greeting).is_ok_and(|value| value.get("QMP").is_some());
        if !is_greeting {
            return Err(MonitorError::NotQmp(format!("{:?}", short(&greeting))));
        }
        socket.execute("qmp_capabilities", json!({}), None)?;
        Ok(socket)
    }

    fn ask(&mut self, request: &Value, id: u64, file: Option<&File>) -> io::Result<Value> {
        let deadline = Instant::now() + COMMAND;
        self.stream.set_write_timeout(Some(COMMAND))?;
        let text = format!("{request}\n");
        let sent = match file {
            Some(file) => send_with(&self.stream, text.as_bytes(), file)?,
            None => 0,
        };
        self.stream.write_all(&text.as_bytes()[sent..])?;
        loop {
            let line = self.line(deadline)?;
            let answer: Value = serde_json::from_slice(&line)
                .map_err(|error| io::Error::other(format!("{error} in {:?}", short(&line))))?;
            // Events, and the error that QEMU sends without an id for what it cannot parse.
            if answer.get("id").and_then(Value::as_u64) == Some(id) {
                return Ok(answer);
            }
        }
    }

    /// The next line, without its end.
    fn line(&mut self, deadline: Instant) -> io::Result<Vec<u8>> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.received[searched..].iter().position(|&byte| byte == b'\n') {
                let rest = self.received.split_off(searched + at + 1);
                return Ok(std::mem::replace(&mut self.received, rest));
            }
            searched = self.received.len();
            if searched > MAX_LINE {
                return Err(io::Error::other("it sends a line without an end"));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut buffer = [0; 1 << 14];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(io::Error::other("QEMU closed the connection")),
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Monitor for QmpSocket {
    fn execute(
        &mut self,
        command: &str,
        arguments: Value,
        file: Option<&File>,
    ) -> Result<Value, MonitorError> {
        let lost = |text: String| MonitorError::Lost { command: command.to_owned(), text };
        if self.broken {
            return Err(lost("the connection broke before".to_owned()));
        }
        self.next_id += 1;
        let id = self.next_id;
        let request = json!({ "execute": command, "arguments": arguments, "id": id });
        match self.ask(&request, id, file) {
            Ok(answer) => result(command, answer),
            Err(error) => {
                // An answer that comes late must not be taken for that of the next command.
                self.broken = true;
                Err(lost(if timed_out(&error) {
                    format!("no answer within {} s", COMMAND.as_secs())
                } else {
                    error.to_string()
                }))
            }
        }
    }
}

/// What an answer of QEMU's monitor returns.
///
/// # Errors
/// [`MonitorError::Refused`].
pub fn result(command: &str, mut answer: Value) -> Result<Value, MonitorError> {
    match answer.get_mut("return") {
        Some(value) => Ok(value.take()),
        None => {
            let text = answer.pointer("/error/desc").and_then(Value::as_str).unwrap_or("it does not say why");
            Err(MonitorError::Refused { command: command.to_owned(), text: text.chars().take(500).collect() })
        }
    }
}

/// Lets a paused guest run. One that runs stays as it is.
///
/// # Errors
/// [`MonitorError`].
pub fn resume(monitor: &mut dyn Monitor) -> Result<(), MonitorError> {
    monitor.execute("cont", json!({}), None).map(drop)
}

fn timed_out(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Connects without ever waiting: `connect` on a Unix socket waits as long as the listener's queue
/// is full.
fn connect(path: &Path, deadline: Instant) -> Result<UnixStream, MonitorError> {
    let failed = |error: rustix::io::Errno| MonitorError::Connect(error.into());
    let address = SocketAddrUnix::new(path).map_err(failed)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(failed)?;
    loop {
        match rustix::net::connect(&socket, &address) {
            Ok(()) => break,
            Err(rustix::io::Errno::AGAIN) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(rustix::io::Errno::AGAIN) => return Err(MonitorError::Busy),
            Err(error) => return Err(failed(error)),
        }
    }
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false).map_err(MonitorError::Connect)?;
    Ok(stream)
}

/// Sends the beginning of `text` together with a file; returns how much of it.
fn send_with(stream: &UnixStream, text: &[u8], file: &File) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut along = SendAncillaryBuffer::new(&mut space);
    let files = [file.as_fd()];
    if !along.push(SendAncillaryMessage::ScmRights(&files)) {
        return Err(io::Error::other("no room for a file descriptor"));
    }
    Ok(rustix::net::sendmsg(stream, &[IoSlice::new(text)], &mut along, SendFlags::NOSIGNAL)?)
}

/// The beginning of a line, for messages.
fn short(line: &[u8]) -> String {
    String::from_utf8_lossy(&line[..line.len().min(60)]).trim_end().to_owned()
}
