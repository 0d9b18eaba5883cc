//! QEMU's monitor protocol (QMP) on a Unix socket, as a live target needs it.
//!
//! By hand because the protocol is lines of JSON. Every wait has a limit: a monitor serves one
//! client at a time and lets others hang without a word. Files are handed over with the command, so
//! that QEMU needs no path it may write to.
//!
//! The connection can be shared with a second process, which takes it over when the first one dies
//! ([`QmpSocket::adopt`]): so no other client comes in between.

use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};
use serde_json::{Value, json};

use super::monitor::{Events, GREETING, Monitor, MonitorError, result};

/// How long one command may take. Those used here take milliseconds.
const COMMAND: Duration = Duration::from_secs(20);
/// Bytes of the longest line that is read.
const MAX_LINE: usize = 16 << 20;
const CLOSED: &str = "QEMU closed the connection";
/// The number of the first command over a connection that was another process's: what that one
/// asked has smaller ones.
const ADOPTED: u64 = 1 << 48;

/// A QMP monitor on a Unix socket.
#[derive(Debug)]
pub struct QmpSocket {
    stream: UnixStream,
    received: Vec<u8>,
    events: Events,
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
        let mut socket = Self::over(stream, 0);
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

    /// Takes over a connection that another process has negotiated, and used until it died or stood
    /// still.
    #[must_use]
    pub fn adopt(connection: OwnedFd) -> Self {
        Self::over(connection.into(), ADOPTED)
    }

    fn over(stream: UnixStream, next_id: u64) -> Self {
        Self { stream, received: Vec::new(), events: Events::default(), next_id, broken: false }
    }

    /// Lets the guest run without waiting for an answer, which is left to the process whose
    /// connection this is: that one stands still, and reads it when it goes on.
    ///
    /// # Errors
    /// QEMU has closed the connection.
    pub fn resume_unheard(&mut self) -> io::Result<()> {
        self.next_id += 1;
        let request = json!({ "execute": "cont", "id": self.next_id });
        self.stream.write_all(format!("{request}\n").as_bytes())
    }

    fn is_adopted(&self) -> bool {
        self.next_id >= ADOPTED
    }

    /// Notes an event.
    fn note(&mut self, line: &Value) {
        match line.get("event").and_then(Value::as_str) {
            Some("RESUME") => self.events.resumed = true,
            Some("RESET") => self.events.reset = true,
            _ => {}
        }
    }

    fn ask(&mut self, request: &Value, id: u64, file: Option<&File>) -> io::Result<Value> {
        let deadline = Instant::now() + COMMAND;
        self.stream.set_write_timeout(Some(COMMAND))?;
        if self.is_adopted() {
            // QEMU forgets what the other process may have left half said.
            self.stream.write_all(b"\xff")?;
        }
        let text = format!("{request}\n");
        let sent = match file {
            Some(file) => send_with(&self.stream, text.as_bytes(), file)?,
            None => 0,
        };
        self.stream.write_all(&text.as_bytes()[sent..])?;
        loop {
            let line = self.line(deadline)?;
            let answer: Value = match serde_json::from_slice(&line) {
                Ok(answer) => answer,
                // The other process may have read the beginning of a line.
                Err(_) if self.is_adopted() => continue,
                Err(error) => return Err(io::Error::other(format!("{error} in {:?}", short(&line)))),
            };
            self.note(&answer);
            // Events, and the error that QEMU sends without an id for what it cannot parse.
            if answer.get("id").and_then(Value::as_u64) == Some(id) {
                return Ok(answer);
            }
        }
    }

    /// What has come already, as far as it is not waited for.
    fn receive(&mut self) -> io::Result<()> {
        let mut buffer = [0; 1 << 14];
        while self.received.len() <= MAX_LINE {
            match rustix::net::recv(&self.stream, &mut buffer, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(io::Error::other(CLOSED)),
                Ok((count, _)) => self.received.extend_from_slice(&buffer[..count]),
                Err(rustix::io::Errno::AGAIN) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        while let Some(line) = self.received_line(0)? {
            if let Ok(line) = serde_json::from_slice(&line) {
                self.note(&line);
            }
        }
        Ok(())
    }

    /// A line that has come; the first `searched` bytes have no end of one.
    fn received_line(&mut self, searched: usize) -> io::Result<Option<Vec<u8>>> {
        if let Some(at) = self.received[searched..].iter().position(|&byte| byte == b'\n') {
            let rest = self.received.split_off(searched + at + 1);
            return Ok(Some(std::mem::replace(&mut self.received, rest)));
        }
        if self.received.len() > MAX_LINE {
            return Err(io::Error::other("it sends a line without an end"));
        }
        Ok(None)
    }

    /// The next line.
    fn line(&mut self, deadline: Instant) -> io::Result<Vec<u8>> {
        let mut searched = 0;
        loop {
            if let Some(line) = self.received_line(searched)? {
                return Ok(line);
            }
            searched = self.received.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut buffer = [0; 1 << 14];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(io::Error::other(CLOSED)),
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

    fn take_events(&mut self) -> Result<Option<Events>, MonitorError> {
        let lost = |text: String| MonitorError::Lost { command: "events".to_owned(), text };
        if self.broken {
            return Err(lost("the connection broke before".to_owned()));
        }
        self.receive().map_err(|error| {
            self.broken = true;
            lost(error.to_string())
        })?;
        Ok(Some(std::mem::take(&mut self.events)))
    }

    fn connection(&self) -> io::Result<Option<OwnedFd>> {
        self.stream.as_fd().try_clone_to_owned().map(Some)
    }
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
