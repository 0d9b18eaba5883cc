//! The process that stands by during the pauses of another one, which watches a live guest.
//!
//! It holds the guest's lock, so that the lock ends when the guest runs again and not when somebody
//! dies; and it holds the connection to the monitor, which serves one client at a time: when the
//! other process dies, be it after SIGKILL, SIGINT, a crash or an abort, no client that waits for
//! the monitor can come before it, and it lets the guest run. If the other process is alive but
//! does not end its pause in time, for it was stopped (SIGSTOP, Ctrl-Z), the guest is resumed all
//! the same.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use machine::target::live::{GuestLock, Monitor, MonitorError, QmpSocket, resume, status};

use super::name::Name;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;

/// Take the lock.
pub const LOCK: u8 = b'l';
/// A pause is about to begin; its longest time in milliseconds follows.
pub const PAUSING: u8 = b'p';
/// The guest stood still before.
pub const STANDING: u8 = b's';
/// The guest needs no help; give the lock back.
pub const RESUMED: u8 = b'r';
/// Answer: the lock is taken.
pub const LOCKED: u8 = b'g';
/// Answer: somebody else has the lock.
pub const WAITING: u8 = b'w';
/// Answer: the lock cannot be taken.
pub const REFUSED: u8 = b'x';

/// How much longer a pause may be than it should before its end is forced.
const GRACE: Duration = Duration::from_millis(250);
/// How often it is tried to take a lock that somebody else has.
const TRY: Duration = Duration::from_millis(2);
/// How long it is tried to resume a guest whose monitor does not answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long another client of the monitor is waited for.
const OTHERS: Duration = Duration::from_secs(3600);
/// How long a guest must be seen to run before that is believed: an order to pause that was given
/// before the death may still come over another connection.
const PROBATION: Duration = Duration::from_millis(500);

/// How a guest fared that was left to the watching process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rescue {
    /// It was seen to run.
    Runs,
    /// It had not been paused by us.
    NotNeeded,
    /// QEMU has ended.
    Gone,
    /// Nothing is known.
    StandsStill,
}

impl Rescue {
    /// The exit codes between two processes of the same program, which nobody else sees.
    const CODES: [(Self, u8); 3] = [(Self::NotNeeded, 0), (Self::Runs, 3), (Self::Gone, 4)];

    /// What the exit code of the watching process says.
    pub fn of(code: Option<i32>) -> Self {
        let known = Self::CODES.iter().find(|(_, known)| code == Some(i32::from(*known)));
        known.map_or(Self::StandsStill, |(rescue, _)| *rescue)
    }

    /// Ends this process.
    fn exit(self) -> ! {
        let known = Self::CODES.iter().find(|(rescue, _)| *rescue == self);
        std::process::exit(known.map_or(Exit::Live.code(), |(_, code)| *code).into())
    }
}

/// Resume a guest when standard input closes during a pause; started by the verbs that pause guests
#[derive(Args, Debug)]
pub struct ResumeArgs {
    /// The guest
    guest: PathBuf,
    /// The file of its lock
    lock: PathBuf,
}

impl ResumeArgs {
    /// Waits, and resumes the guest if it must be. Standard input is the other process; standard
    /// output is the connection to the guest's monitor, if there is one.
    pub fn run(&self) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::file(&self.lock, error);
        let Some(name) = Name::parse(&self.guest) else {
            return Err(Failure::file(&self.guest, "it names no live guest"));
        };
        let control = io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
        let lock = GuestLock::open(&self.lock).map_err(failed)?;
        let is_socket = std::fs::metadata("/proc/self/fd/1").is_ok_and(|it| it.file_type().is_socket());
        let monitor =
            is_socket.then(|| io::stdout().as_fd().try_clone_to_owned()).transpose().map_err(failed)?;
        let monitor = monitor.map(QmpSocket::adopt);
        let mut keeper =
            Keeper { name, lock, monitor, control: control.into(), pausing: false, deadline: None };
        keeper.listen();
        if !keeper.pausing {
            return Ok(());
        }
        let error = match keeper.run_again() {
            Ok(()) => Rescue::Runs.exit(),
            Err(error) if is_gone(&error) => Rescue::Gone.exit(),
            Err(error) => error,
        };
        let path = self.guest.display();
        Err(Failure::new(Exit::Live, format!("{path}: the guest may stand still: {error}; {}", error.hint())))
    }
}

struct Keeper {
    name: Name,
    lock: GuestLock,
    /// The connection that the other process uses too.
    monitor: Option<QmpSocket>,
    control: UnixStream,
    /// Whether the guest is to be resumed if the other process dies.
    pausing: bool,
    /// When it is to be resumed although the other process lives.
    deadline: Option<Instant>,
}

impl Keeper {
    /// Does what the other process says, as long as it lives.
    fn listen(&mut self) {
        loop {
            let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                self.deadline = None;
                self.enforce();
                continue;
            }
            let Ok(said) = self.hear(left) else { return };
            match said {
                Some(LOCK) => self.take_lock(),
                Some(PAUSING) => {
                    self.pausing = true;
                    let mut limit = [0; 8];
                    if self
                        .control
                        .set_read_timeout(None)
                        .and_then(|()| self.control.read_exact(&mut limit))
                        .is_err()
                    {
                        return;
                    }
                    let limit = Duration::from_millis(u64::from_le_bytes(limit)).saturating_add(GRACE);
                    self.deadline = Instant::now().checked_add(limit);
                }
                Some(what @ (STANDING | RESUMED)) => {
                    (self.pausing, self.deadline) = (false, None);
                    if what == RESUMED {
                        let _ = self.lock.unlock();
                    }
                }
                _ => {}
            }
        }
    }

    /// The next word of the other process; `None` if none comes in time, an error when it is dead.
    fn hear(&mut self, wait: Option<Duration>) -> io::Result<Option<u8>> {
        self.control.set_read_timeout(wait)?;
        let mut byte = [0];
        match self.control.read(&mut byte) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(Some(byte[0])),
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// Takes the lock, however long that lasts, unless the other process gives up.
    fn take_lock(&mut self) {
        let mut told = false;
        loop {
            let answer = match self.lock.try_lock() {
                Ok(true) => LOCKED,
                Ok(false) => WAITING,
                Err(_) => REFUSED,
            };
            if (answer != WAITING || !told) && self.control.write_all(&[answer]).is_err() {
                return;
            }
            told = true;
            // Whatever it says now, it waits no longer; that it is dead the next look shows too.
            if answer != WAITING || !matches!(self.hear(Some(TRY)), Ok(None)) {
                return;
            }
        }
    }

    /// Ends a pause that the other process does not end. It may be in the middle of a conversation
    /// with the monitor, so over its connection nothing is heard here.
    fn enforce(&mut self) {
        let resumed = match &mut self.monitor {
            Some(monitor) => monitor.resume_unheard().map_err(|error| error.to_string()),
            None => {
                self.name.monitor().and_then(|mut it| run_on(&mut *it)).map_err(|error| error.to_string())
            }
        };
        if resumed.is_ok() && self.monitor.is_some() {
            // Others may have it now, once QEMU has done that: the process that stands still hears
            // of it over its connection, and will leave them alone.
            std::thread::sleep(GRACE);
            let _ = self.lock.unlock();
        }
        if let Err(error) = resumed {
            output::note(&format!(
                "the guest may stand still: {error}; resume it with `cont` in its monitor"
            ));
        }
    }

    /// Tries until the guest is seen to run.
    fn run_again(&mut self) -> Result<(), MonitorError> {
        if let Some(mut monitor) = self.monitor.take() {
            // What the dead process said is done before what is asked now.
            if run_once(&mut monitor).is_ok() {
                return Ok(());
            }
        }
        // The connection is closed by now, so the monitor is free for a new one.
        let begin = Instant::now();
        let mut told = false;
        loop {
            let error = match self.name.monitor().and_then(|mut monitor| run_on(&mut *monitor)) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let is_busy = matches!(error, MonitorError::Busy);
            let patience = if is_busy { OTHERS } else { PATIENCE };
            if is_gone(&error) || begin.elapsed() > patience {
                return Err(error);
            }
            if is_busy && !std::mem::replace(&mut told, true) {
                output::note(
                    "another client has the guest's monitor: the guest stands still until it closes that",
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Whether there is no guest any more that could be resumed.
fn is_gone(error: &MonitorError) -> bool {
    // These are virsh's words in the C locale.
    let gone = ["domain is not running", "failed to get domain"];
    match error {
        MonitorError::Refused { text, .. } => gone.iter().any(|words| text.contains(words)),
        other => other.nobody_listens(),
    }
}

/// Lets a paused guest run.
fn run_once(monitor: &mut dyn Monitor) -> Result<(), MonitorError> {
    // A paused guest that is reset is in QEMU's state before the launch. Others (shut down,
    // panicked, migrated) are not this command's work.
    if matches!(status(monitor)?.as_str(), "paused" | "prelaunch") {
        resume(monitor)?;
    }
    Ok(())
}

/// Lets a paused guest run, and one that is paused soon after.
fn run_on(monitor: &mut dyn Monitor) -> Result<(), MonitorError> {
    let end = Instant::now() + PROBATION;
    while Instant::now() < end {
        run_once(monitor)?;
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
