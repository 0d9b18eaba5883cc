//! Sessions: any number of runs over one target that does not change, from any number of threads.
//!
//! What can be known before a run is found out once: where a program's images are, the target's
//! counter, what the kernel's code is there. What a run lifts, all later ones find, whichever
//! program they are of and on whichever thread they run. Nothing else is kept from run to run: a
//! run writes to an overlay of its own, and code does not depend on that. So the outcome of a run,
//! the fuel that it uses and the instructions that it executes are those of the same run alone.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ir::{Program, System};
use lift::Mode;
use machine::paging::PagingMode;

use crate::code::{Cache, Code, Departures, Given, Kernel, Own};
use crate::emulate::{Ask, WholeReport, Workspace};
use crate::idle::Idle;
use crate::limits::{Budget, Limits};
use crate::outcome::{Outcome, Stopped};
use crate::predecode::TooLarge;
use crate::relocate::Relocation;
use crate::run::{Run, RunError};
use crate::slice::SliceProgram;
use crate::tampering::changed_data;
use crate::variables::Inputs;
use crate::watch::Unwatched;

/// A target, and the code of the system that programs were trained in.
///
/// The target's memory must stay as it is while the session lives: dumps do; a live guest does as
/// long as it is paused.
pub struct Session<'s> {
    run: Run<'s>,
    system: &'s System,
    cache: Cache,
    /// The kernel's code, for each place at which a program found it; mostly that is one.
    kernels: Mutex<Vec<(Place, u32, Arc<Kernel<'s>>)>>,
    owners: AtomicU32,
}

/// What the kernel's lifted code depends on in one target.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    slide: u64,
    root: u64,
    paging: PagingMode,
    mode: Mode,
}

impl<'s> Session<'s> {
    /// A session over a target. `system` is the companion file of the programs that are to be
    /// asked; the limits of `run` are for finding them.
    #[must_use]
    pub fn new(run: Run<'s>, system: &'s System) -> Self {
        let (cache, kernels) = (Cache::default(), Mutex::default());
        Self { run, system, cache, kernels, owners: AtomicU32::new(0) }
    }

    /// Finds a program in the target and makes it ready to be asked.
    ///
    /// # Errors
    /// [`RunError`] when no run of it could begin.
    pub fn program<'p>(&'p self, program: &'p Program) -> Result<SessionProgram<'p, 's>, RunError> {
        let relocation = Relocation::find(program, &self.run)?;
        // Then not all of it was looked for.
        let late = relocation.is_late();
        let own = Own::new(program);
        let place = Place {
            slide: relocation.slide(),
            root: relocation.root(),
            paging: relocation.mode(),
            mode: own.system_mode(),
        };
        let (system, kernel) = self.kernel(place, &relocation);
        let tsc = self.run.time_stamp(program, &relocation);
        Ok(SessionProgram {
            session: self,
            program,
            relocation,
            late,
            tsc,
            own,
            kernel,
            system,
            trainer: self.owner(),
            slice: OnceLock::new(),
            idle: Idle::default(),
        })
    }

    /// Bytes of machine code of this host that code executed often has become.
    #[must_use]
    pub fn machine_code(&self) -> usize {
        self.cache.machine_code()
    }

    /// Where runs did not follow the target.
    #[must_use]
    pub fn departures(&self) -> Departures {
        let kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        kernels.iter().fold(Departures::default(), |all, it| all.and(it.2.departures()))
    }

    fn owner(&self) -> u32 {
        self.owners.fetch_add(1, Ordering::Relaxed)
    }

    /// The kernel's code at a place.
    fn kernel(&self, place: Place, program: &Relocation<'_>) -> (u32, Arc<Kernel<'s>>) {
        let mut kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, owner, kernel)) = kernels.iter().find(|it| it.0 == place) {
            return (*owner, Arc::clone(kernel));
        }
        let kernel = Arc::new(Kernel::new(self.system, self.run.memory, program));
        let owner = self.owner();
        kernels.push((place, owner, Arc::clone(&kernel)));
        (owner, kernel)
    }
}

/// A program in a session.
pub struct SessionProgram<'p, 's> {
    session: &'p Session<'s>,
    program: &'p Program,
    relocation: Relocation<'p>,
    /// Whether the time was over when it was found.
    late: bool,
    /// The target's time stamp counter, if it is known.
    tsc: Option<u64>,
    own: Own<'p>,
    kernel: Arc<Kernel<'s>>,
    /// The numbers of the kernel's code and the trainer's in the session's cache.
    system: u32,
    trainer: u32,
    slice: OnceLock<Result<SliceProgram<'p>, TooLarge>>,
    idle: Idle<Workspace>,
}

impl<'p> SessionProgram<'p, '_> {
    /// The program.
    #[must_use]
    pub const fn program(&self) -> &'p Program {
        self.program
    }

    /// The target's time stamp counter, if it is known: as the session's environment says, or by
    /// the program's clock cells. Where it is not, a run that reads it is made three times: who
    /// knows it by one program may give it to a session for all.
    #[must_use]
    pub const fn time_stamp(&self) -> Option<u64> {
        self.tsc
    }

    /// A whole run with these inputs, within these limits. Any number of threads may ask at a time.
    ///
    /// # Errors
    /// [`RunError`] when the run cannot begin, or needs a piece of the companion file that is
    /// damaged.
    pub fn ask(&self, inputs: &Inputs, limits: &Limits) -> Result<(Outcome, WholeReport), RunError> {
        let budget = Budget::new(limits);
        if let Some(stopped) = self.late() {
            return Ok((stopped, WholeReport::default()));
        }
        let Self { session, program, own, relocation, tsc, system, trainer, .. } = self;
        let mut workspace = self.idle.take().unwrap_or_default();
        let code =
            Code { own, kernel: &self.kernel, cache: &session.cache, system: *system, trainer: *trainer };
        let ask = Ask { program, run: self.run(limits), relocation, tsc: *tsc, code };
        let answer = ask.answer((inputs, budget), &mut workspace, &mut Unwatched);
        self.idle.give(workspace);
        answer
    }

    /// The words of read-only data that somebody changed in the target, by the training system's
    /// addresses: what explains two answers.
    #[must_use]
    pub fn changed_data(&self) -> Vec<u64> {
        changed_data(self.session.system, self.session.run.memory, &self.relocation)
    }

    /// A run of the slice with these inputs, within these limits; as [`SliceProgram::run`].
    ///
    /// # Errors
    /// [`RunError`] when the run cannot begin.
    pub fn ask_slice(&self, inputs: &Inputs, limits: &Limits) -> Result<(Outcome, u64), RunError> {
        self.ask_slice_given(Given { inputs, restored: &[] }, limits)
    }

    /// The same with what a whole run had restored ([`Departures::restored`]), for an answer of
    /// which to be verified.
    ///
    /// # Errors
    /// As [`SessionProgram::ask_slice`].
    pub fn ask_slice_restored(&self, inputs: &Inputs, limits: &Limits) -> Result<(Outcome, u64), RunError> {
        let restored = self.kernel.redirected(Budget::new(limits).deadline());
        self.ask_slice_given(Given { inputs, restored }, limits)
    }

    fn ask_slice_given(&self, given: Given<'_>, limits: &Limits) -> Result<(Outcome, u64), RunError> {
        let budget = Budget::new(limits);
        if let Some(stopped) = self.late() {
            return Ok((stopped, 0));
        }
        let slice = self.slice.get_or_init(|| SliceProgram::new(self.program));
        let slice = slice.as_ref().map_err(|error| *error)?;
        slice.answer(&self.run(limits), &self.relocation, self.tsc, (given, budget))
    }

    fn run(&self, limits: &Limits) -> Run<'_> {
        Run { limits: *limits, ..self.session.run }
    }

    /// The outcome of all runs where finding the program took all the time that there was.
    fn late(&self) -> Option<Outcome> {
        let milliseconds = self.session.run.limits.time.as_millis() as u64;
        let stopped = Stopped::OutOfTime { at: self.program.begin_pc, used: 0, milliseconds };
        self.late.then_some(Outcome::Stopped(stopped))
    }
}
