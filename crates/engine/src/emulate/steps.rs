//! The steps of a whole run: blocks as compiled code or interpreted, in turns.

use std::sync::Arc;

use ir::Kind;
use jit::{Exit, Slots};
use machine::Reg;

use super::way::{Inside, Place, State, Way};
use super::{Ask, INVALID_OPCODE, MOST_ASSERTIONS, Workspace};
use crate::checkpoint::{Checkpoint, perform};
use crate::code::{Batch, Block, Lifting, Machine, Window};
use crate::limits::Budget;
use crate::outcome::Stopped;
use crate::overlay::Overlay;
use crate::predecode::{Predecoded, clear, fill};
use crate::show::{Show, show_summary};
use crate::start::NoAnswer;
use crate::summary::summarise;
use crate::watch::{Unwatched, Watch};

impl<'o> Ask<'o, '_, '_> {
    /// Runs from the begin mark to the end mark, whose address is the result.
    pub(super) fn begin<W: Watch>(
        &self,
        budget: Budget,
        workspace: &mut Workspace,
        overlay: &mut Overlay<'o>,
        way: &mut Way<'_, 'o>,
        watch: &mut W,
    ) -> Result<u64, NoAnswer> {
        let (pc, slots) = (self.program.begin_pc, &mut *workspace.slots);
        clear(slots);
        budget.time(pc, 0)?;
        self.run.registers(self.program, self.relocation, slots)?;
        way.state = State::new(slots);
        self.go_on(Place { pc, from: pc }, (budget, workspace), overlay, way, (&mut Show::default(), watch))
    }

    /// Runs from where another run was, whose slots it has, to the end mark.
    pub(super) fn resume(
        &self,
        (block, op): (&Arc<Block>, usize),
        (budget, workspace): (Budget, &mut Workspace),
        overlay: &mut Overlay<'o>,
        way: &mut Way<'_, 'o>,
    ) -> Result<u64, NoAnswer> {
        let (from, mut show) = (block.start, Show::default());
        budget.time(from, way.state.progress.used)?;
        let slots = &mut *workspace.slots;
        fill(slots, &block.constants);
        let pc = self.interpret((block, op), slots, overlay, way, (&mut show, &mut Unwatched))?;
        self.go_on(Place { pc, from }, (budget, workspace), overlay, way, (&mut show, &mut Unwatched))
    }

    /// Runs on from a block to the end mark.
    fn go_on<W: Watch>(
        &self,
        Place { mut pc, mut from }: Place,
        (mut budget, workspace): (Budget, &mut Workspace),
        overlay: &mut Overlay<'o>,
        way: &mut Way<'_, 'o>,
        (show, watch): (&mut Show, &mut W),
    ) -> Result<u64, NoAnswer> {
        let Workspace { slots, at_hand, often, .. } = workspace;
        let slots = &mut **slots;
        let own = self.code.own;
        let mut window = Window::default();
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
                    let private = &mut way.state.private;
                    let (window, deadline) = (&mut window, budget.deadline());
                    let mut lifting = Lifting { slots, overlay, private, window, deadline };
                    let Some(block) = self.code.block::<W>(pc, &mut lifting)? else {
                        way.state.modules |= !own.process.is_code(pc);
                        // Modules were not looked for to the end if the time is over.
                        budget.time(pc, way.state.progress.used)?;
                        let object = self.code.kernel.object_at(pc);
                        return Err(Stopped::NoCode { at: from, to: pc, object }.into());
                    };
                    at_hand.put(block, |machine| self.code.may_execute(machine))
                }
            };
            let (mut block, mut first) = (&near.translation.block, 0);
            if let Some(machine) = near.machine.as_ref().filter(|_| by_machine && !look) {
                let State { progress, spin, .. } = &mut way.state;
                progress.due = budget.due();
                spin.tell(progress);
                let exit = compiled(machine, slots, overlay, way);
                let State { progress, spin, modules, .. } = &mut way.state;
                spin.passed(progress.seen);
                *modules |= progress.marked != 0;
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
                way.state.begin(block);
                let used = way.state.progress.used;
                if way.state.spin.is_waiting(pc, 0, slots, overlay) {
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
                way.state.progress.instructions += u64::from(block.insns);
                if W::ON {
                    show.block();
                }
            }
            fill(slots, &block.constants);
            pc = self.interpret((block, first), slots, overlay, way, (show, watch))?;
        }
    }

    /// Executes the operations of a block from one on; the result is where control goes.
    #[inline(always)]
    fn interpret<W: Watch>(
        &self,
        (block, first): (&Arc<Block>, usize),
        slots: &mut Slots,
        overlay: &mut Overlay<'o>,
        way: &mut Way<'_, 'o>,
        (show, watch): (&mut Show, &mut W),
    ) -> Result<u64, Stopped> {
        let own = self.code.own;
        for number in first..block.ops.len() {
            let (op, offset) = (&block.ops[number], block.offsets[number]);
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
                    way.state.calls.called(slots[Reg::Rsp.index()]);
                    return Ok(slots[op.a as usize]);
                }
                Kind::Ret if !way.state.calls.inside() || slots[Reg::Cpl.index()] != 3 => {
                    way.state.calls.returned(slots[Reg::Rsp.index()]);
                    return Ok(slots[op.a as usize]);
                }
                Kind::SysEnter => {
                    way.state.calls.enter(slots[op.b as usize], slots);
                    return Ok(slots[op.a as usize]);
                }
                // A far return to the process's privilege leaves the system too.
                Kind::SysExit | Kind::Ret => {
                    let to = slots[op.a as usize];
                    let goes_on = way.state.calls.leave(to, own.process.is_code(to), slots);
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
                    step((block, number), op, slots, overlay, (way, at))?;
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
fn compiled<'o>(
    machine: &Machine,
    slots: &mut Slots,
    overlay: &mut Overlay<'o>,
    way: &mut Way<'_, 'o>,
) -> Result<Exit, Stopped> {
    let Batch { native, blocks } = &*machine.batch;
    let State { calls, progress, .. } = &mut way.state;
    let (mut exit, mut own_return) =
        native.run(machine.number, slots, progress, overlay.pages(), calls.open());
    loop {
        if own_return {
            way.state.calls.was_own();
        }
        let Exit::Operation { block, at, resume: Some(resume) } = exit else { return Ok(exit) };
        let block = &blocks[block as usize];
        let (number, op) = (at as usize, &block.ops[at as usize]);
        if !matches!(op.kind, Kind::Load | Kind::Store) {
            return Ok(exit);
        }
        fill(slots, &block.constants);
        let at = block.start.wrapping_add(block.offsets[at as usize].into());
        step((block, number), op, slots, overlay, (way, at))?;
        let State { calls, progress, .. } = &mut way.state;
        (exit, own_return) = native.resume(resume, slots, progress, overlay.pages(), calls.open());
    }
}

/// Executes an operation of a block. Before the first reading of a clock that is not known, it is
/// kept where the run is.
#[inline(always)]
fn step<'o>(
    (block, number): (&Arc<Block>, usize),
    op: &Predecoded,
    slots: &mut Slots,
    overlay: &mut Overlay<'o>,
    (way, at): (&mut Way<'_, 'o>, u64),
) -> Result<(), Stopped> {
    let Way { state, counter, checkpoint, .. } = way;
    perform(op, slots, overlay, (counter, at), |slots, overlay| {
        let inside = Inside { state: state.clone(), block: Arc::clone(block), op: number };
        **checkpoint = Some(Checkpoint::keep(slots, overlay, inside));
    })
}
