//! Live guests for the command: how they are named, how they are paused, and that they run again
//! whatever happens.
//!
//! The pause ends in one of four ways: the library ends it (also on errors and at its time limit);
//! a panic unwinds through the guard; or this process dies or stands still, and [`watchdog`] sees
//! it. What was computed in a pause that somebody else ended is worth nothing, and neither is what
//! went wrong in it: both are left to [`Opened::resume`] to tell.

mod guest;
mod keeper;
mod moment;
mod name;
pub mod virsh;
pub mod watchdog;

use std::ops::Deref;
use std::path::Path;
use std::time::Instant;

use engine::locate::Located;
use machine::target::live::{Pause, PauseReport};
use machine::{Cpu, Target};

use crate::context::Context;
use crate::failure::Failure;
use crate::output;
pub use guest::{Guest, not_whole, unheard};
pub use moment::{Moment, PauseIn};
pub use name::Name;

/// A target, paused if it is a live guest. Dropping it lets the guest run.
pub struct Opened {
    target: Target,
    paused: Option<(Guest, Pause)>,
    since: Option<Instant>,
    quiet: bool,
    located: Option<Located>,
}

impl Deref for Opened {
    type Target = Target;

    fn deref(&self) -> &Target {
        &self.target
    }
}

/// The processors that were found in a target's memory, as a target has its own.
pub fn processors(located: &Located) -> Vec<Cpu> {
    located.cpus.iter().map(|regs| Cpu { regs: regs.clone() }).collect()
}

impl Opened {
    /// A target that was read from a dump and needs no pause.
    pub const fn dump(target: Target) -> Self {
        Self { target, paused: None, since: None, quiet: false, located: None }
    }

    /// A live guest, which is paused from now on.
    pub fn live(name: &Name, path: &Path, moment: &Moment, context: Context) -> Result<Self, Failure> {
        let mut guest = Guest::connect(name, path, context)?;
        // Not before: to connect may take longer than a pause may, and so may waiting.
        let mut since = Some(Instant::now());
        let (target, pause) = guest.pause(moment)?;
        if moment.wanted.is_some() {
            since = Some(Instant::now());
        }
        if !context.quiet && !pause.is_ours() {
            output::note(&format!("{}: the guest was paused already and stays paused", path.display()));
        }
        Ok(Self { target, paused: Some((guest, pause)), since, quiet: context.quiet, located: None })
    }

    /// Since when a live guest stands still, or is about to; none for a dump.
    pub const fn paused_since(&self) -> Option<Instant> {
        self.since
    }

    /// Gives it the processors that were found in its memory.
    pub fn found(&mut self, located: Located) {
        self.target.cpus = processors(&located);
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
        if let Some(failure) = not_whole(&self.target.path, &report) {
            return Err(failure);
        }
        if let Some(problem) = &report.problem {
            output::note(&format!("{}: {problem}", self.target.path.display()));
        }
        if let Some(remark) = unheard(&self.target.path, &report).filter(|_| !self.quiet) {
            output::note(&remark);
        }
        Ok(Some(report))
    }

    /// Does what the target is there for and lets it run again. A pause that was not ours to its
    /// end is the cause of whatever went wrong in it.
    ///
    /// # Errors
    /// As [`Opened::resume`], else those of the work.
    pub fn during<T>(&mut self, work: impl FnOnce(&Self) -> Result<T, Failure>) -> Result<T, Failure> {
        let done = work(self);
        self.resume()?;
        done
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
