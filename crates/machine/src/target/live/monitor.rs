//! What a live target needs of QEMU's monitor (QMP), however it is reached: one command, one
//! answer.
//!
//! Of the events only those are counted that say that a pause was not ours alone: states are asked
//! for, but a guest that was resumed and paused again looks as it did before.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use serde_json::{Value, json};

/// How long connecting and the greeting may take.
pub(super) const GREETING: Duration = Duration::from_secs(3);

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

    /// The events that came since they were last taken; `None` from a monitor that tells of none.
    ///
    /// # Errors
    /// [`MonitorError::Lost`]: QEMU has closed the connection.
    fn take_events(&mut self) -> Result<Option<Events>, MonitorError> {
        Ok(None)
    }

    /// The events of before the last answer that had not come yet when it came, waited for where
    /// the monitor sends events another way than answers. To be asked for when the guest was let
    /// run again, of which these say nothing, or is left standing still.
    ///
    /// # Errors
    /// [`MonitorError::Lost`]: they do not come.
    fn late_events(&mut self) -> Result<Events, MonitorError> {
        Ok(Events::default())
    }

    /// Why this monitor tells of no events, if it does not: a guest that was resumed and paused
    /// again is not known then.
    fn unheard(&self) -> Option<String> {
        None
    }

    /// Whether `dump-guest-memory` may be asked for: there is a libvirt that dies of it.
    fn may_dump(&self) -> bool {
        true
    }

    /// The connection, for another process to hold on to; `None` where each command has its own.
    ///
    /// # Errors
    /// What the operating system says.
    fn connection(&self) -> io::Result<Option<OwnedFd>> {
        Ok(None)
    }
}

/// What a monitor told of the guest without being asked, whoever was the cause.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Events {
    /// Whether the guest was resumed.
    pub resumed: bool,
    /// Whether it was reset, which writes its memory even while it stands still.
    pub reset: bool,
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
    /// There is no way to the monitor on this system.
    #[error("{what}")]
    Unreachable {
        /// What is missing.
        what: String,
        /// What to do next.
        hint: &'static str,
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
            Self::Unreachable { hint, .. } => hint,
            Self::Refused { .. } => "see what it says; QEMU may have ended, or be too old",
            Self::Lost { .. } => "check whether QEMU still runs",
        }
    }

    /// Whether nobody listens any more: QEMU has ended, and no guest is left to be resumed.
    #[must_use]
    pub fn nobody_listens(&self) -> bool {
        let kinds = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
        matches!(self, Self::Connect(error) if kinds.contains(&error.kind()))
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

/// The guest's state, as QEMU names it: `running`, `paused` and others.
///
/// # Errors
/// [`MonitorError`].
pub fn status(monitor: &mut dyn Monitor) -> Result<String, MonitorError> {
    let status = monitor.execute("query-status", json!({}), None)?;
    Ok(status.get("status").and_then(Value::as_str).unwrap_or("").to_owned())
}

/// Lets a paused guest run. One that runs stays as it is.
///
/// # Errors
/// [`MonitorError`].
pub fn resume(monitor: &mut dyn Monitor) -> Result<(), MonitorError> {
    monitor.execute("cont", json!({}), None).map(drop)
}
