//! Emulation: the whole run of the trainer's and the kernel's trusted machine code over the
//! target's memory.
//!
//! The run begins behind the begin mark and ends at the end mark. The trainer's allocator functions
//! are replaced by the run's allocator. There is no device, no interrupt and no other CPU. An
//! assertion of the kernel (`ud2`) is stepped over, as the kernel's handler does for a warning, and
//! reported.

use std::sync::Arc;

use ir::{Kind, Program};
use jit::{Exit, Progress, Slots, Spare};
use machine::{Reg, hash};

use crate::code::{AtHand, Batch, Block, Code, Departures, Given, Lifting, Machine, Translation, restore};
use crate::counter::{Counter, briefly, settled};
use crate::exec::execute;
use crate::limits::Budget;
use crate::outcome::{Outcome, Stopped};
use crate::overlay::Overlay;
use crate::predecode::{clear, fill, slots};
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
/// The most pages that are kept for the next run.
const MOST_SPARE: usize = 1024;

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
    /// Where the run did not follow the target, or one over the same target before it.
    pub departures: Departures,
}

/// What a run works with, for the next one to use again. Nothing of a run is left in it but code
/// that is the same for all.
pub(crate) struct Workspace {
    slots: Box<Slots>,
    at_hand: AtHand,
    /// Blocks that have just been interpreted often.
    often: Vec<Arc<Translation>>,
    spare: Spare,
}

impl Default for Workspace {
    fn default() -> Self {
        Self { slots: slots(), at_hand: AtHand::default(), often: Vec::new(), spare: Spare::default() }
    }
}

impl Workspace {
    /// Forgets code: it will be that of another target.
    pub fn forget(&mut self) {
        self.at_hand.clear();
        self.often.clear();
    }
}

/// A whole run that is to be made: a program that was found in a target.
pub(crate) struct Ask<'a, 's, 't> {
    pub program: &'a Program,
    pub run: Run<'t>,
    pub relocation: &'a Relocation<'a>,
    /// The target's time stamp counter, if it is known.
    pub tsc: Option<u64>,
    pub code: Code<'a, 's>,
}

/// A whole run on its way.
struct Way<'w> {
    counter: &'w mut Counter,
    report: &'w mut WholeReport,
    /// Whether it reached code outside of the kernel's own image.
    modules: bool,
    /// Blocks that its own memory decides.
    private: hash::Map<u64, Arc<Translation>>,
    progress: Progress,
}

impl Way<'_> {
    /// Counts a block that begins, without its instructions.
    fn begin(&mut self, block: &Block) {
        self.modules |= block.modules;
        self.progress.used += block.ops.len() as u64 + 1;
    }
}

impl Ask<'_, '_, '_> {
    /// Makes the run, with these inputs; and if it came to code that is not trusted, once more with
    /// the pointers that lead to such code as they were in training.
    pub fn answer<W: Watch>(
        &self,
        (inputs, budget): (&Inputs, Budget),
        workspace: &mut Workspace,
        watch: &mut W,
    ) -> Result<(Outcome, WholeReport), RunError> {
        let (deadline, first) = (budget.deadline(), Given { inputs, restored: &[] });
        let ended = self.counted((first, budget), workspace, watch)?;
        if W::ON || !matches!(ended.0, Outcome::Stopped(Stopped::NoCode { .. })) {
            return Ok(ended);
        }
        match self.code.kernel.redirected(deadline) {
            [] => Ok(ended),
            restored => {
                let budget = Budget::until(&self.run.limits, deadline);
                self.counted((Given { inputs, restored }, budget), workspace, watch)
            }
        }
    }

    /// Makes the run as often as it takes to see whether it depends on a counter that is not known.
    fn counted<W: Watch>(
        &self,
        (given, budget): (Given<'_>, Budget),
        workspace: &mut Workspace,
        watch: &mut W,
    ) -> Result<(Outcome, WholeReport), RunError> {
        let [tsc, hpet] = self.code.kernel.last_readings();
        let known = [self.tsc.or(tsc), hpet];
        let mut counter = Counter::new(known);
        let (outcome, mut report) = self.once((given, budget), &mut counter, workspace, watch)?;
        let brief = Ask { run: briefly(&self.run, report.used), ..*self };
        if W::ON {
            // What is watched is the first run.
            workspace.forget();
        }
        let again = |counter: &mut Counter| {
            let budget = Budget::new(&brief.run.limits);
            Ok(brief.once((given, budget), counter, workspace, &mut Unwatched)?.0)
        };
        // What was watched is what is sliced.
        let (outcome, clock) = settled(outcome, (&counter, known), !W::ON, again)?;
        if let Some((at, last)) = clock {
            self.code.kernel.note_clock(at, last);
            report.departures.clocks.push(at);
        }
        Ok((outcome, report))
    }

    /// One run with this counter.
    fn once<W: Watch>(
        &self,
        (Given { inputs, restored }, budget): (Given<'_>, Budget),
        counter: &mut Counter,
        workspace: &mut Workspace,
        watch: &mut W,
    ) -> Result<(Outcome, WholeReport), RunError> {
        let Self { program, relocation, run, code, .. } = self;
        let mut report = WholeReport::default();
        report.departures.restored = restored.iter().map(|it| it.trained).collect();
        let overlay = match run.overlay(program, relocation, &code.own.process) {
            Ok(overlay) => overlay,
            Err(stopped) => return Ok((Outcome::Stopped(stopped), report)),
        };
        let mut overlay = overlay.with_spare(std::mem::take(&mut workspace.spare));
        let begun = restore(restored, program, &mut overlay)
            .map_err(NoAnswer::from)
            .and_then(|()| Ok(prepare(program, inputs, &mut overlay)?))
            .and_then(|()| run.override_per_cpu(program, relocation, &mut overlay));
        let ended = begun.and_then(|()| {
            let private = hash::Map::default();
            let progress = Progress::default();
            let mut way = Way { counter, report: &mut report, modules: false, private, progress };
            let ended = self.execute(budget, workspace, &mut overlay, &mut way, watch);
            if !way.private.is_empty() {
                workspace.at_hand.clear();
            }
            let Way { modules, progress, .. } = way;
            (report.used, report.instructions) = (progress.used, progress.instructions);
            report.assertions.iter_mut().for_each(|at| *at = code.kernel.reported(*at, modules));
            counter.report_at(|at| code.kernel.reported(at, modules));
            report.departures.overruled = code.kernel.departures().overruled;
            ended.map_err(|ended| ended.map_addresses(|at| code.kernel.reported(at, modules)))
        });
        let answer = ended.and_then(|end| match &program.provenance.unrepeated {
            // In training, another task or a device helped the trainer; here nothing does.
            Some(why) => Err(Stopped::Unrepeated { at: end, why: why.clone() }.into()),
            None => Ok(collect(program, end, &mut overlay)?),
        });
        workspace.spare = overlay.into_spare();
        workspace.spare.truncate(MOST_SPARE);
        code.cache.compile(&mut workspace.often, &mut workspace.at_hand);
        // Where a damaged piece of the companion file would have been, there was no code.
        match code.kernel.damage() {
            Some(error) => Err(error.into()),
            None => Ok((outcome(answer)?, report)),
        }
    }

    /// Runs to the end mark, whose address is the result.
    fn execute<W: Watch>(
        &self,
        mut budget: Budget,
        workspace: &mut Workspace,
        overlay: &mut Overlay<'_>,
        way: &mut Way<'_>,
        watch: &mut W,
    ) -> Result<u64, NoAnswer> {
        let Workspace { slots, at_hand, often, .. } = workspace;
        let slots = &mut **slots;
        let own = self.code.own;
        clear(slots);
        budget.time(self.program.begin_pc, 0)?;
        self.run.registers(self.program, self.relocation, slots)?;
        let (mut show, mut spin) = (Show::default(), Spin::new());
        let mut calls = SystemCalls::new(slots);
        let (mut pc, mut from) = (self.program.begin_pc, self.program.begin_pc);
        // Whether the next block is the interpreter's, for there is something to ask before it.
        let mut look = false;
        let by_machine = self.run.limits.machine_code && !W::ON && !way.counter.is_seeking();
        // Whether there may be more to compile: a run may take long.
        let mut due = false;
        loop {
            if std::mem::take(&mut due) {
                self.code.cache.compile(often, at_hand);
            }
            let near = match at_hand.get(pc) {
                Some(near) => near,
                None => {
                    let Way { private, .. } = way;
                    let mut lifting = Lifting { slots, overlay, private, deadline: budget.deadline() };
                    let Some(block) = self.code.block::<W>(pc, &mut lifting)? else {
                        way.modules |= !own.process.is_code(pc);
                        // Modules were not looked for to the end if the time is over.
                        budget.time(pc, way.progress.used)?;
                        let object = self.code.kernel.object_at(pc);
                        return Err(Stopped::NoCode { at: from, to: pc, object }.into());
                    };
                    at_hand.put(block, |machine| self.code.may_execute(machine))
                }
            };
            let (mut block, mut first) = (&*near.translation.block, 0);
            if let Some(machine) = near.machine.as_ref().filter(|_| by_machine && !look) {
                let progress = &mut way.progress;
                progress.due = budget.due();
                spin.tell(progress);
                let exit = compiled(machine, slots, progress, (&mut calls, &mut *overlay), way.counter);
                spin.passed(progress.seen);
                way.modules |= progress.marked != 0;
                let blocks = &machine.batch.blocks;
                match exit? {
                    Exit::Next { block, to } => {
                        (from, pc) = (blocks[block as usize].start, to);
                        continue;
                    }
                    Exit::Begin { block } => {
                        (pc, look) = (blocks[block as usize].start, true);
                        continue;
                    }
                    Exit::Operation { block: number, at, .. } => {
                        (block, first) = (&blocks[number as usize], at as usize);
                        from = block.start;
                    }
                }
            } else {
                if block.end {
                    return Ok(pc);
                }
                look = false;
                if by_machine && near.translation.is_often() {
                    often.push(Arc::clone(&near.translation));
                }
                way.begin(block);
                let used = way.progress.used;
                if spin.is_waiting(pc, 0, slots, overlay) {
                    return Err(Stopped::Blocked { at: pc }.into());
                }
                if budget.is_due(used) {
                    budget.check(pc, used)?;
                    due = by_machine;
                }
                from = pc;
                if let Some(summary) = block.summary {
                    let (stack, mode) = (slots[Reg::Rsp.index()], own.process_mode());
                    pc = summarise(&summary, slots, overlay, mode)
                        .map_err(|fault| Stopped::access(from, stack, &fault))?;
                    if W::ON {
                        show_summary(watch, (from, &summary), (stack, pc), slots, overlay, mode);
                    }
                    continue;
                }
                way.progress.instructions += u64::from(block.insns);
                if W::ON {
                    show.block();
                }
            }
            fill(slots, &block.constants);
            pc = self.interpret((block, first), (slots, &mut calls), overlay, way, (&mut show, watch))?;
        }
    }

    /// Executes the operations of a block from one on; the result is where control goes.
    #[inline(always)]
    fn interpret<W: Watch>(
        &self,
        (block, first): (&Block, usize),
        (slots, calls): (&mut Slots, &mut SystemCalls),
        overlay: &mut Overlay<'_>,
        way: &mut Way<'_>,
        (show, watch): (&mut Show, &mut W),
    ) -> Result<u64, Stopped> {
        let own = self.code.own;
        for (op, &offset) in block.ops[first..].iter().zip(&block.offsets[first..]) {
            let at = block.start.wrapping_add(offset.into());
            if W::ON {
                show.step(watch, at, own.mode(at), block.insn_bytes(offset), slots);
            }
            match op.kind {
                Kind::BranchIf => {
                    if slots[op.a as usize] != 0 {
                        return Ok(slots[op.b as usize]);
                    }
                }
                Kind::Jump => return Ok(slots[op.a as usize]),
                Kind::Call => {
                    calls.called(slots[Reg::Rsp.index()]);
                    return Ok(slots[op.a as usize]);
                }
                Kind::Ret if !calls.inside() || slots[Reg::Cpl.index()] != 3 => {
                    calls.returned(slots[Reg::Rsp.index()]);
                    return Ok(slots[op.a as usize]);
                }
                Kind::SysEnter => {
                    calls.enter(slots[op.b as usize], slots);
                    return Ok(slots[op.a as usize]);
                }
                // A far return to the process's privilege leaves the system too.
                Kind::SysExit | Kind::Ret => {
                    let to = slots[op.a as usize];
                    let goes_on = calls.leave(to, own.process.is_code(to), slots);
                    return if goes_on { Ok(to) } else { Err(Stopped::Switched { at, to }) };
                }
                Kind::Trap => {
                    let vector = slots[op.a as usize] as u8;
                    if vector != INVALID_OPCODE || own.process.is_code(at) {
                        return Err(Stopped::Exception { at, vector });
                    }
                    if way.report.assertions.len() < MOST_ASSERTIONS {
                        way.report.assertions.push(at);
                    }
                    return Ok(slots[op.b as usize]);
                }
                Kind::Halt => return Err(Stopped::Blocked { at }),
                Kind::Unsupported => {
                    let name = lift::mnemonic_name(slots[op.a as usize]);
                    return Err(Stopped::Unsupported { at, name });
                }
                _ => {
                    let address = slots[op.a as usize];
                    execute(op, slots, overlay, way.counter, at)?;
                    if W::ON {
                        show.done(watch, op, address, slots, overlay);
                    }
                }
            }
        }
        Ok(block.next)
    }
}

/// Executes a compiled block and what follows it there, with the interpreter's help where memory is
/// not at hand.
#[inline(always)]
fn compiled(
    machine: &Machine,
    slots: &mut Slots,
    progress: &mut Progress,
    (calls, overlay): (&mut SystemCalls, &mut Overlay<'_>),
    counter: &mut Counter,
) -> Result<Exit, Stopped> {
    let Batch { native, blocks } = &*machine.batch;
    let (mut exit, mut own_return) =
        native.run(machine.number, slots, progress, overlay.pages(), calls.open());
    loop {
        if own_return {
            calls.was_own();
        }
        let Exit::Operation { block, at, resume: Some(resume) } = exit else { return Ok(exit) };
        let block = &blocks[block as usize];
        let op = &block.ops[at as usize];
        if !matches!(op.kind, Kind::Load | Kind::Store) {
            return Ok(exit);
        }
        fill(slots, &block.constants);
        let at = block.start.wrapping_add(block.offsets[at as usize].into());
        execute(op, slots, overlay, counter, at)?;
        (exit, own_return) = native.resume(resume, slots, progress, overlay.pages(), calls.open());
    }
}
