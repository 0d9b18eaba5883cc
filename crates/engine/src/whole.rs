//! Whole runs of one program over any target, one after the other.
//!
//! Nothing is known of a target before a run over it: the program is found in it anew, and of the
//! code that earlier runs lifted only that is used which is the same wherever the kernel lies at
//! the same place. Many runs over a target that does not change are a
//! [`Session`](crate::Session)'s.

use ir::{Program, System};
use machine::{Reg, RegFile};

use crate::code::{Cache, Code, Kernel, Own};
use crate::emulate::{Ask, WholeReport, Workspace};
use crate::limits::Budget;
use crate::outcome::Outcome;
use crate::predecode::slots;
use crate::relocate::Relocation;
use crate::run::{Run, RunError};
use crate::tampering::changed_data;
use crate::variables::Inputs;
use crate::watch::{Unwatched, Watch};

/// A program made ready for whole runs. What one run lifts, later ones find.
pub struct WholeProgram<'p> {
    program: &'p Program,
    system: &'p System,
    own: Own<'p>,
    cache: Cache,
    workspace: Workspace,
    /// The kernel's slide in the target that code was lifted for.
    slide: Option<u64>,
}

impl<'p> WholeProgram<'p> {
    /// Prepares a program; `system` is the companion file of its training system.
    #[must_use]
    pub fn new(program: &'p Program, system: &'p System) -> Self {
        let (own, cache, workspace) = (Own::new(program), Cache::default(), Workspace::default());
        Self { program, system, own, cache, workspace, slide: None }
    }

    /// Runs over a target.
    ///
    /// # Errors
    /// [`RunError`] when the run cannot begin.
    pub fn run(&mut self, run: &Run<'_>, inputs: &Inputs) -> Result<(Outcome, WholeReport), RunError> {
        self.watched(run, inputs, &mut Unwatched)
    }

    /// The registers that a run over a target begins with.
    ///
    /// # Errors
    /// [`RunError`] when the run cannot begin.
    pub fn begin(&self, run: &Run<'_>) -> Result<RegFile, RunError> {
        let mut slots = slots();
        run.registers(self.program, &Relocation::find(self.program, run)?, &mut slots)?;
        let mut regs = RegFile::new();
        for &reg in Reg::ALL {
            regs.set(reg, slots[reg.index()]);
        }
        Ok(regs)
    }

    /// The words of read-only data that somebody changed in a target, by the training system's
    /// addresses: what explains two answers.
    ///
    /// # Errors
    /// [`RunError`] when the program is not found there.
    pub fn changed_data(&self, run: &Run<'_>) -> Result<Vec<u64>, RunError> {
        Ok(changed_data(self.system, run.memory, &Relocation::find(self.program, run)?))
    }

    /// Runs over a target and shows every step.
    ///
    /// # Errors
    /// [`RunError`] when the run cannot begin.
    pub fn watched<W: Watch>(
        &mut self,
        run: &Run<'_>,
        inputs: &Inputs,
        watch: &mut W,
    ) -> Result<(Outcome, WholeReport), RunError> {
        let budget = Budget::new(&run.limits);
        let relocation = Relocation::find(self.program, run)?;
        let tsc = run.time_stamp(self.program, &relocation);
        let kernel = Kernel::new(self.system, run.memory, &relocation);
        let slide = Some(relocation.slide());
        self.cache.forget(self.slide != slide);
        self.slide = slide;
        self.workspace.forget();
        let (system, trainer) = (0, 1);
        let code = Code { own: &self.own, kernel: &kernel, cache: &self.cache, system, trainer };
        let ask = Ask { program: self.program, run: *run, relocation: &relocation, tsc, code };
        ask.answer((inputs, budget), &mut self.workspace, watch)
    }
}
