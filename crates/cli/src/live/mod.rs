//! Live guests for the command: how they are named, how they are paused, and that they run again
//! whatever happens.
//!
//! The pause ends in one of three ways: the library ends it (also on errors and at its time limit);
//! a panic unwinds through the guard; or this process dies, and [`watchdog`] sees it.

mod name;
mod virsh;
pub mod watchdog;

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::locate::Located;
use machine::target::live::{Live, LiveError, Pause, PauseReport};
use machine::{Cpu, Target};

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
pub use name::Name;
use watchdog::Watchdog;

/// A target, paused if it is a live guest. Dropping it lets the guest run.
pub struct Opened {
    target: Target,
    paused: Option<(Guest, Pause)>,
    located: Option<Located>,
}

impl Deref for Opened {
    type Target = Target;

    fn deref(&self) -> &Target {
        &self.target
    }
}

impl Opened {
    /// A target that was read from a dump and needs no pause.
    pub const fn dump(target: Target) -> Self {
        Self { target, paused: None, located: None }
    }

    /// A live guest, which is paused from now on.
    pub fn live(name: &Name, path: &Path, limit: Duration, context: Context) -> Result<Self, Failure> {
        let mut guest = Guest::connect(name, path, context)?;
        let (target, pause) = guest.pause(limit)?;
        if !context.quiet && !pause.is_ours() {
            output::note(&format!("{}: the guest was paused already and stays paused", path.display()));
        }
        Ok(Self { target, paused: Some((guest, pause)), located: None })
    }

    /// Gives it the processors that were found in its memory.
    pub fn found(&mut self, located: Located) {
        self.target.cpus = located.cpus.iter().map(|regs| Cpu { regs: regs.clone() }).collect();
        self.located = Some(located);
    }

    /// How its processors were found in its memory, if they were.
    pub const fn located(&self) -> Option<&Located> {
        self.located.as_ref()
    }

    /// Lets a live guest run; its memory can no longer be read. A dump has no pause to report, and
    /// is to be the file that was opened.
    ///
    /// # Errors
    /// That what was computed is worth nothing, or that the guest may stand still.
    pub fn resume(&mut self) -> Result<Option<PauseReport>, Failure> {
        let Some((mut guest, pause)) = self.paused.take() else {
            return self.target.check_unchanged().map(|()| None).map_err(Failure::input);
        };
        let report = guest.resume(pause)?;
        if report.expired {
            return Err(Failure::new(Exit::PauseOver, expired(&self.target.path, &report)));
        }
        if let Some(problem) = &report.problem {
            output::note(&format!("{}: {problem}", self.target.path.display()));
        }
        Ok(Some(report))
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if self.paused.is_none() {
            return;
        }
        // Here something failed already, which the caller reports; this may be why.
        if let Err(failure) = self.resume() {
            output::note(&failure.to_string());
        }
    }
}

/// What is wrong with an answer that came too late.
pub fn expired(path: &Path, report: &PauseReport) -> String {
    format!(
        "{}: the guest was resumed after {:.0} ms, before the run was over, so there is no answer; allow \
         more with --max-pause",
        path.display(),
        report.length.as_secs_f64() * 1e3
    )
}

/// A live guest whose monitor we are connected to, and the process that watches over its pauses.
pub struct Guest {
    path: PathBuf,
    live: Live,
    watchdog: Watchdog,
}

impl Guest {
    /// Connects to the guest's monitor and starts the watchdog; the guest runs on.
    pub fn connect(name: &Name, path: &Path, context: Context) -> Result<Self, Failure> {
        let monitor = name.monitor().map_err(|error| failure(path, &error.into()))?;
        let live = Live::open(monitor, path).map_err(|error| failure(path, &error))?;
        if let Some(why) = live.slow().filter(|_| !context.quiet) {
            output::note(&format!(
                "{}: RAM is read through QEMU's monitor, about 1 ms for each 64 KiB that a run touches \
                 ({why}); run as the user that runs QEMU, \
                 or give it -object memory-backend-memfd,id=ram,size=SIZE,share=on -machine \
                 memory-backend=ram",
                path.display()
            ));
        }
        Ok(Self { path: path.to_owned(), live, watchdog: Watchdog::start(name)? })
    }

    /// Pauses the guest for `limit` at most; one that stands still already stays so.
    pub fn pause(&mut self, limit: Duration) -> Result<(Target, Pause), Failure> {
        let was_running = self.live.is_running().map_err(|error| failure(&self.path, &error))?;
        if was_running {
            self.watchdog.pausing()?;
        }
        self.live.pause(limit).map_err(|error| {
            let failed = failure(&self.path, &error);
            if was_running && self.live.is_running().is_ok_and(|running| running) {
                self.watchdog.resumed();
                return failed;
            }
            Failure::new(Exit::Live, format!("{failed}{}", self.rescue()))
        })
    }

    /// Lets the guest run again, unless it stood still before the pause.
    pub fn resume(&mut self, pause: Pause) -> Result<PauseReport, Failure> {
        match pause.finish() {
            Ok(report) => {
                self.watchdog.resumed();
                Ok(report)
            }
            Err(error) => {
                let failed = failure(&self.path, &error.into());
                Err(Failure::new(Exit::Live, format!("{failed}{}", self.rescue())))
            }
        }
    }

    /// Leaves the guest to the watchdog; how that ended, as the end of a message.
    fn rescue(&mut self) -> &'static str {
        self.live.hang_up();
        if self.watchdog.rescue() {
            " (over another connection it was seen to run again)"
        } else {
            " (the guest may stand still: resume it with `cont` in its monitor)"
        }
    }
}

fn failure(path: &Path, error: &LiveError) -> Failure {
    Failure::file(path, format!("{error}; {}", error.hint()))
}
