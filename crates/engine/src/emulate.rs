//! Emulation: the whole run of the trainer's and the kernel's trusted machine code over the
//! target's memory.
//!
//! The run begins behind the begin mark and ends at the end mark. The trainer's allocator functions
//! are replaced by the run's allocator. There is no device, no interrupt and no other CPU. An
//! assertion of the kernel (`ud2`) is stepped over, as the kernel's handler does for a warning, and
//! reported.

use ir::{Kind, Program, System};
use machine::{Reg, RegFile};

use crate::code::{Code, KernelCode};
use crate::counter::{Counter, briefly, settled};
use crate::exec::execute;
use crate::limits::Budget;
use crate::outcome::{Outcome, Stopped};
use crate::overlay::Overlay;
use crate::predecode::slots;
use crate::relocate::Relocation;
use crate::run::{Run, RunError};
use crate::show::{Show, show_summary};
use crate::spin::Spin;
use crate::start::{NoAnswer, outcome};
use crate::summary::summarise;
use crate::syscall::SystemCalls;
use crate::variables::{Inputs, collect, prepare};
use crate::watch::{Unwatched, Watch};

/// The most assertions that are reported.
const MOST_ASSERTIONS: usize = 64;
/// The vector of the exception that `ud2` raises (SDM vol. 3 table 6-1).
const INVALID_OPCODE: u8 = 6;

/// A program made ready for whole runs. What one run lifts, later ones find.
pub struct WholeProgram<'p> {
    program: &'p Program,
    system: &'p System,
    code: Code<'p>,
}

/// What a whole run reports beside its outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WholeReport {
    /// Machine instructions executed, without those of replaced functions. A block that was left in
    /// its middle counts in full.
    pub instructions: u64,
    /// Fuel used: operations, and one more for each block.
    pub used: u64,
    /// The addresses, the training system's where it has that code, at which the kernel's own
    /// assertions fired and were stepped over: the first 64.
    pub assertions: Vec<u64>,
}

impl<'p> WholeProgram<'p> {
    /// Prepares a program; `system` is the companion file of its training system.
    #[must_use]
    pub fn new(program: &'p Program, system: &'p System) -> Self {
        Self { program, system, code: Code::new(program) }
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
        let known = run.time_stamp(self.program, &relocation);
        let mut counter = Counter::new(known);
        let (outcome, report) = self.once(run, &relocation, inputs, (&mut counter, budget), watch)?;
        let brief = briefly(run, report.used);
        let again = |counter: &mut Counter| {
            let budget = Budget::new(&brief.limits);
            Ok(self.once(&brief, &relocation, inputs, (counter, budget), &mut Unwatched)?.0)
        };
        Ok((settled(outcome, &counter, again)?, report))
    }

    /// One run with this counter.
    fn once<W: Watch>(
        &mut self,
        run: &Run<'_>,
        relocation: &Relocation<'_>,
        inputs: &Inputs,
        (counter, budget): (&mut Counter, Budget),
        watch: &mut W,
    ) -> Result<(Outcome, WholeReport), RunError> {
        let mut kernel = KernelCode::new(self.system, run.memory, relocation);
        self.code.begin::<W>(&kernel);
        let mut report = WholeReport::default();
        let mut overlay = match run.overlay(self.program, relocation) {
            Ok(overlay) => overlay,
            Err(stopped) => return Ok((Outcome::Stopped(stopped), report)),
        };
        let begun = prepare(self.program, inputs, &mut overlay)
            .map_err(NoAnswer::from)
            .and_then(|()| run.override_per_cpu(self.program, relocation, &mut overlay));
        let ended = begun.and_then(|()| {
            let used = (&mut *counter, &mut report);
            let ended = self.execute((run, budget), relocation, &mut kernel, &mut overlay, used, watch);
            report.assertions.iter_mut().for_each(|at| *at = kernel.relocation.reported(*at));
            counter.report_at(|at| kernel.relocation.reported(at));
            ended.map_err(|ended| ended.map_addresses(|at| kernel.relocation.reported(at)))
        });
        let answer = ended.and_then(|end| match &self.program.provenance.unrepeated {
            // In training, another task or a device helped the trainer; here nothing does.
            Some(why) => Err(Stopped::Unrepeated { at: end, why: why.clone() }.into()),
            None => Ok(collect(self.program, end, &mut overlay)?),
        });
        Ok((outcome(answer)?, report))
    }

    /// Runs to the end mark, whose address is the result.
    fn execute<W: Watch>(
        &mut self,
        (run, mut budget): (&Run<'_>, Budget),
        relocation: &Relocation<'_>,
        kernel: &mut KernelCode<'_>,
        overlay: &mut Overlay<'_>,
        (counter, report): (&mut Counter, &mut WholeReport),
        watch: &mut W,
    ) -> Result<u64, NoAnswer> {
        let mut slots = slots();
        self.code.fill(&mut slots);
        budget.time(self.program.begin_pc, 0)?;
        run.registers(self.program, relocation, &mut slots)?;
        let (mut show, mut spin) = (Show::default(), Spin::new());
        let mut calls = SystemCalls::new(&slots);
        let (mut pc, mut from) = (self.program.begin_pc, self.program.begin_pc);
        loop {
            let Some(block) = self.code.find::<W>(kernel, pc, &mut slots, overlay)? else {
                // Modules were not looked for to the end if the time is over.
                budget.time(pc, report.used)?;
                return Err(Stopped::NoCode { at: from, to: pc }.into());
            };
            let block = self.code.block(block);
            if block.end {
                return Ok(pc);
            }
            report.used += u64::from(block.last - block.first) + 1;
            if spin.is_waiting(pc, 0, &slots, overlay) {
                return Err(Stopped::Blocked { at: pc }.into());
            }
            if budget.is_due(report.used) {
                budget.check(pc, report.used)?;
            }
            from = pc;
            if let Some(summary) = block.summary {
                let (stack, mode) = (slots[Reg::Rsp.index()], self.code.process_mode());
                pc = summarise(&summary, &mut slots, overlay, mode)
                    .map_err(|fault| Stopped::access(from, stack, &fault))?;
                if W::ON {
                    show_summary(watch, (from, &summary), (stack, pc), &slots, overlay, mode);
                }
                continue;
            }
            pc = block.next;
            report.instructions += u64::from(block.insns);
            if W::ON {
                show.block();
            }
            let (ops, pcs) = self.code.ops(block);
            for (op, &at) in ops.iter().zip(pcs) {
                if W::ON {
                    show.step(watch, at, self.code.mode(at), self.code.insn_bytes(at), &slots);
                }
                match op.kind {
                    Kind::BranchIf => {
                        if slots[op.a as usize] != 0 {
                            pc = slots[op.b as usize];
                            break;
                        }
                    }
                    Kind::Jump => {
                        pc = slots[op.a as usize];
                        break;
                    }
                    Kind::Call => {
                        pc = slots[op.a as usize];
                        calls.called(slots[Reg::Rsp.index()]);
                        break;
                    }
                    Kind::Ret if !calls.inside() || slots[Reg::Cpl.index()] != 3 => {
                        pc = slots[op.a as usize];
                        calls.returned(slots[Reg::Rsp.index()]);
                        break;
                    }
                    Kind::SysEnter => {
                        pc = slots[op.a as usize];
                        calls.enter(slots[op.b as usize], &slots);
                        break;
                    }
                    // A far return to the process's privilege leaves the system too.
                    Kind::SysExit | Kind::Ret => {
                        pc = slots[op.a as usize];
                        if !calls.leave(pc, self.code.is_process(pc), &mut slots) {
                            return Err(Stopped::Switched { at, to: pc }.into());
                        }
                        break;
                    }
                    Kind::Trap => {
                        let vector = slots[op.a as usize] as u8;
                        if vector != INVALID_OPCODE || self.code.is_process(at) {
                            return Err(Stopped::Exception { at, vector }.into());
                        }
                        if report.assertions.len() < MOST_ASSERTIONS {
                            report.assertions.push(at);
                        }
                        pc = slots[op.b as usize];
                        break;
                    }
                    Kind::Halt => return Err(Stopped::Blocked { at }.into()),
                    Kind::Unsupported => {
                        let name = lift::mnemonic_name(slots[op.a as usize]);
                        return Err(Stopped::Unsupported { at, name }.into());
                    }
                    _ => {
                        let address = slots[op.a as usize];
                        execute(op, &mut slots, overlay, counter, at)?;
                        if W::ON {
                            show.done(watch, op, address, &slots, overlay);
                        }
                    }
                }
            }
        }
    }
}
