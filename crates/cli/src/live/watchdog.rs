//! A second process that resumes the guest when this one dies, however that happens.
//!
//! It holds the reading end of a pipe and waits. Before a pause it is told so, after it too; when
//! the pipe breaks during a pause, be it after SIGKILL, SIGINT, a crash or an abort, it connects to
//! the guest's monitor, which the dead process has left, and lets the guest run. It is in a process
//! group of its own, so that Ctrl-C does not reach it. What ends both at once (the whole machine, a
//! control group that is killed) it cannot help against.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use machine::target::live::{Monitor, MonitorError, resume};
use serde_json::{Value, json};

use super::name::Name;
use crate::exit::Exit;
use crate::failure::Failure;

const PAUSING: u8 = b'p';
const RESUMED: u8 = b'r';

/// How long the watchdog tries to resume a guest before it gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a guest must be seen to run before that is believed: an order to pause that was given
/// before the death may still come.
const PROBATION: Duration = Duration::from_millis(500);

/// The watching process, as seen from the watched one.
#[derive(Debug)]
pub struct Watchdog {
    child: Child,
    pipe: Option<ChildStdin>,
}

impl Watchdog {
    /// Starts the watching process for a guest, which runs on.
    pub fn start(name: &Name) -> Result<Self, Failure> {
        let failed = |error| {
            Failure::input(format!(
                "cannot start the process that resumes the guest if this one dies: {error}; the guest was \
                 not paused"
            ))
        };
        // Not by its path: this very program, even if its file has been replaced since.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("virtuoso").arg("resume-when-closed").arg(name.to_argument()).process_group(0);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().map_err(failed)?;
        let pipe = child.stdin.take();
        Ok(Self { child, pipe })
    }

    /// Tells it that a pause is about to begin: if the pipe breaks now, it resumes the guest.
    pub fn pausing(&mut self) -> Result<(), Failure> {
        self.tell(PAUSING).map_err(|error| {
            let text =
                format!("the process that resumes the guest if this one dies is gone: {error}; try again");
            Failure::input(text)
        })
    }

    /// Tells it that the guest runs again and needs no help.
    pub fn resumed(&mut self) {
        // If it has gone it cannot resume a guest wrongly.
        let _ = self.tell(RESUMED);
    }

    /// Has it resume the guest now, and waits; whether it saw the guest run.
    pub fn rescue(&mut self) -> bool {
        drop(self.pipe.take());
        self.child.wait().is_ok_and(|status| status.success())
    }

    fn tell(&mut self, what: u8) -> std::io::Result<()> {
        match &mut self.pipe {
            Some(pipe) => pipe.write_all(&[what]),
            None => Err(std::io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.rescue();
    }
}

/// Resume a guest when standard input closes during a pause; started by the verbs that pause guests
#[derive(Args, Debug)]
pub struct ResumeArgs {
    /// The guest
    guest: std::path::PathBuf,
}

impl ResumeArgs {
    /// Waits, and resumes the guest if it must be.
    pub fn run(&self) -> Result<(), Failure> {
        let mut pausing = false;
        let mut input = std::io::stdin().lock();
        let mut byte = [0];
        loop {
            match input.read(&mut byte) {
                Ok(0) => break,
                Ok(_) => pausing = byte[0] == PAUSING,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        let Some(name) = Name::parse(&self.guest).filter(|_| pausing) else { return Ok(()) };
        run_again(&name).map_err(|error| {
            let path = self.guest.display();
            Failure::new(Exit::Live, format!("{path}: the guest may stand still: {error}; {}", error.hint()))
        })
    }
}

/// Tries until the guest is seen to run.
fn run_again(name: &Name) -> Result<(), MonitorError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let error = match name.monitor().and_then(|mut monitor| run_on(&mut *monitor)) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if Instant::now() > deadline {
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Lets a paused guest run, and one that is paused soon after.
fn run_on(monitor: &mut dyn Monitor) -> Result<(), MonitorError> {
    let end = Instant::now() + PROBATION;
    while Instant::now() < end {
        let status = monitor.execute("query-status", json!({}), None)?;
        // Other states (shut down, panicked) are not this command's work.
        if status.get("status").and_then(Value::as_str) == Some("paused") {
            resume(monitor)?;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
