//! The second process that resumes the guest when this one dies or stands still, as this one sees
//! it: it is started, told of pauses, and asked for help. What it does is in [`super::keeper`].
//!
//! Both talk over a pair of sockets. It is in a process group of its own, so that Ctrl-C does not
//! reach it. What ends both at once (the whole machine, a control group that is killed) it cannot
//! help against.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use super::keeper::{LOCK, LOCKED, PAUSING, RESUMED, Rescue, STANDING, WAITING};
use super::name::Name;
use crate::failure::Failure;

pub use super::keeper::ResumeArgs;

/// How long another process of ours may have the guest before it is given up.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);

/// The program that is `virtuoso` if given these words before its own, where this process is
/// another one.
static OTHER: OnceLock<(PathBuf, Vec<OsString>)> = OnceLock::new();

/// Says which program is `virtuoso`, with these words before its own: for a process that has loaded
/// it as a library. Only the first time counts.
pub fn started_by(program: PathBuf, words: Vec<OsString>) {
    // The first one is as good.
    let _ = OTHER.set((program, words));
}

/// The watching process, as seen from the watched one.
#[derive(Debug)]
pub struct Watchdog {
    child: Child,
    control: Option<UnixStream>,
}

impl Watchdog {
    /// Starts the watching process for a guest, which runs on. It gets the path of the guest's
    /// lock, and the connection to the monitor if that is one.
    pub fn start(name: &Name, lock: &Path, connection: Option<OwnedFd>) -> Result<Self, Failure> {
        let failed = |error| {
            Failure::input(format!(
                "cannot start the process that resumes the guest if this one dies: {error}; the guest was \
                 not paused"
            ))
        };
        let (control, theirs) = UnixStream::pair().map_err(failed)?;
        let mut command = match OTHER.get() {
            Some((program, words)) => {
                let mut command = Command::new(program);
                command.args(words);
                command
            }
            // Not by its path: this very program, even if its file has been replaced since.
            None => {
                let mut command = Command::new("/proc/self/exe");
                command.arg0("virtuoso");
                command
            }
        };
        command.arg("resume-when-closed").arg(name.to_argument()).arg(lock);
        command.process_group(0).stdin(OwnedFd::from(theirs));
        command.stdout(connection.map_or_else(Stdio::null, Stdio::from));
        let child = command.spawn().map_err(failed)?;
        Ok(Self { child, control: Some(control) })
    }

    /// Has it take the guest's lock. `waiting` is called when another process of ours has it, which
    /// is then waited for.
    pub fn lock(&mut self, waiting: impl FnOnce()) -> Result<(), Failure> {
        let mut waiting = Some(waiting);
        self.tell(&[LOCK]).map_err(|error| gone(&error))?;
        loop {
            match self.hear() {
                Ok(LOCKED) => return Ok(()),
                Ok(WAITING) => {
                    if let Some(waiting) = waiting.take() {
                        waiting();
                    }
                }
                Ok(_) => return Err(gone(&"its lock cannot be taken")),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    self.resumed();
                    let text = format!(
                        "another virtuoso has had the guest for {} s; see what it does, and ask again",
                        LOCK_PATIENCE.as_secs()
                    );
                    return Err(Failure::input(text));
                }
                Err(error) => return Err(gone(&error)),
            }
        }
    }

    /// Tells it that a pause is about to begin: if we die now it resumes the guest, and also if we
    /// do not do so ourselves in time.
    pub fn pausing(&mut self, limit: Duration) -> Result<(), Failure> {
        let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let mut message = vec![PAUSING];
        message.extend(limit.to_le_bytes());
        self.tell(&message).map_err(|error| gone(&error))
    }

    /// Tells it that the guest stood still before, and is to stay so.
    pub fn standing(&mut self) {
        // If it has gone it cannot resume a guest wrongly.
        let _ = self.tell(&[STANDING]);
    }

    /// Tells it that the guest needs no help and that others may have it.
    pub fn resumed(&mut self) {
        let _ = self.tell(&[RESUMED]);
    }

    /// Has it resume the guest now, and waits.
    pub fn rescue(&mut self) -> Rescue {
        drop(self.control.take());
        self.child.wait().map_or(Rescue::StandsStill, |status| Rescue::of(status.code()))
    }

    fn tell(&mut self, what: &[u8]) -> io::Result<()> {
        match &mut self.control {
            Some(control) => control.write_all(what),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn hear(&mut self) -> io::Result<u8> {
        let control = self.control.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        control.set_read_timeout(Some(LOCK_PATIENCE))?;
        let mut byte = [0];
        match control.read(&mut byte)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(byte[0]),
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.rescue();
    }
}

fn gone(why: &dyn std::fmt::Display) -> Failure {
    let text = "the process that resumes the guest if this one dies does not answer";
    Failure::input(format!("{text}: {why}; try again"))
}
