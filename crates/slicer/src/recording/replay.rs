//! Replays a recording through the lifted operations.
//!
//! Loads take their values from the recorded accesses, everything else is computed, so a replay
//! knows the value, the address and the next instruction of every step without a memory. It is both
//! the check of the lifter (stores, next addresses and registers are compared with the recording)
//! and the walk that the analyses observe.

use ir::{Class, Kind, Op};
use machine::{PROCESS_REGS, Reg, VirtAddr};
use trace::Access;

pub use super::access_match::MemRef;

use super::Recording;
use super::access_match::Matcher;
use crate::vocabulary::{Code, GENERAL, RegisterValues, StepId, Temporaries};

/// Segment registers that the processor sets to null on the way out to a process which may not use
/// their segments (SDM vol. 2, IRET). No operation does that.
const DROPPED: [Reg; 8] =
    [Reg::Es, Reg::Ds, Reg::Fs, Reg::Gs, Reg::EsBase, Reg::DsBase, Reg::FsBase, Reg::GsBase];

/// Registers whose load reads a descriptor.
const SELECTORS: [Reg; 6] = [Reg::Es, Reg::Cs, Reg::Ss, Reg::Ds, Reg::Fs, Reg::Gs];

/// The resume flag (RF) in RFLAGS.
const RESUME_FLAG: u64 = 1 << 16;

/// Sees every operation of a replay, in order.
pub trait Observer {
    /// An operation was executed: `index` counts the operations of the instruction, `value` is the
    /// result, or what was stored.
    fn op(&mut self, index: usize, op: &Op, value: u64, mem: Option<MemRef>);
}

/// An observer that looks at nothing.
pub struct Blind;

impl Observer for Blind {
    fn op(&mut self, _: usize, _: &Op, _: u64, _: Option<MemRef>) {}
}

/// How a step ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ended {
    /// The control operation that decided, if one did.
    pub control: Option<Kind>,
    /// Where it leads.
    pub next: VirtAddr,
    /// False when an operand had no recorded access or a division failed: the instruction did not
    /// finish.
    pub complete: bool,
    /// The address of the last store, or of the first load if there is no store: for a call the
    /// slot that holds the return address, for a return the slot that it consumed.
    pub slot: VirtAddr,
}

impl Ended {
    /// Whether the instruction finished and leads to this address.
    #[must_use]
    pub fn leads_to(&self, pc: VirtAddr) -> bool {
        self.complete && self.next == pc
    }
}

/// A way in which the recording and the lifted operations disagree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Mismatch {
    /// Nothing was recorded for a load.
    NoLoad {
        /// The address it loads from.
        vaddr: VirtAddr,
    },
    /// A store differs or was not recorded.
    Store {
        /// The address it stores to.
        vaddr: VirtAddr,
        /// Computed value.
        computed: u64,
        /// Recorded value.
        recorded: Option<u64>,
    },
    /// A recorded store that no operation made.
    ExtraStore {
        /// The address it went to.
        vaddr: VirtAddr,
    },
    /// A register differs.
    Register {
        /// Which one.
        reg: Reg,
        /// Computed value.
        computed: u64,
        /// Recorded value.
        recorded: u64,
    },
    /// The instruction is not modelled.
    Unsupported {
        /// The lifter's number of it.
        id: u64,
    },
}

/// The state of a replay.
pub struct Replay<'r> {
    recording: &'r Recording,
    /// What registers hold now.
    pub regs: RegisterValues,
    temps: Temporaries,
    matcher: Matcher,
    /// Disagreements of the current step.
    pub mismatches: Vec<Mismatch>,
    /// Whether registers may differ from the recording without being wrong: after a start, an
    /// interrupt or a nondeterministic instruction.
    loose: bool,
    /// Whether a register's value is known.
    known: RegisterValues<bool>,
    /// The system was left since the last record.
    left: bool,
    /// The process's own registers at each open system call of a whole run, which gives them back
    /// itself.
    process: Vec<[u64; PROCESS_REGS.len()]>,
    /// The registers as last recorded. Records hold changes only, so after an interruption or an
    /// undetermined result all registers are taken from here.
    recorded: RegisterValues<Option<u64>>,
}

impl<'r> Replay<'r> {
    /// A replay about to execute the recording's first step.
    #[must_use]
    pub fn new(recording: &'r Recording) -> Self {
        let mut replay = Self {
            recording,
            regs: RegisterValues::all(0),
            temps: Temporaries::default(),
            matcher: Matcher::default(),
            mismatches: Vec::new(),
            loose: true,
            known: RegisterValues::all(false),
            left: false,
            process: Vec::new(),
            recorded: RegisterValues::all(None),
        };
        let in_records = &recording.trace.header().recorded.block_registers;
        for (reg, value) in recording.begin_regs().known() {
            replay.regs[reg] = value;
            replay.known[reg] = true;
            if in_records.contains(&reg) {
                replay.recorded[reg] = Some(value);
            }
        }
        replay
    }

    /// Takes over the registers recorded before `step`. Differences are mismatches, unless
    /// registers may differ (`loose`).
    pub fn adopt(&mut self, step: StepId) {
        let wide = self.recording.code_of(step).mode == lift::Mode::Bits64;
        for &(reg, recorded) in self.recording.regs_before(step) {
            self.recorded[reg] = Some(recorded);
            if !self.loose {
                self.take(reg, recorded, wide);
            }
        }
        if self.recording.has_record(step) {
            if self.loose {
                for &reg in Reg::ALL {
                    if let Some(recorded) = self.recorded[reg] {
                        self.take(reg, recorded, wide);
                    }
                }
            }
            self.loose = false;
            self.left = false;
        }
    }

    /// What the last record that has a register says of it; `None` if there is none.
    #[must_use]
    pub fn last_recorded(&self, reg: Reg) -> Option<u64> {
        self.recorded[reg]
    }

    /// Passes over a step that is not replayed. Records hold changes only, so the one before this
    /// step still has to be noted.
    pub fn skip(&mut self, step: StepId) {
        for &(reg, recorded) in self.recording.regs_before(step) {
            self.recorded[reg] = Some(recorded);
        }
    }

    /// Takes over one recorded register. `wide`: the step is 64-bit code. In other code QEMU shows
    /// only the lower half of a general register; the upper half, which the code cannot see, stays.
    fn take(&mut self, reg: Reg, recorded: u64, wide: bool) {
        let computed = self.regs[reg];
        if !wide && reg.index() < GENERAL && computed & 0xffff_ffff == recorded {
            self.known[reg] = true;
            return;
        }
        let dropped = self.left && recorded <= 3 && DROPPED.contains(&reg);
        if computed != recorded && !self.loose && !dropped && self.known[reg] {
            self.mismatches.push(Mismatch::Register { reg, computed, recorded });
        }
        self.regs[reg] = recorded;
        self.known[reg] = true;
    }

    /// An interrupt or fault was delivered before the next step, which is at `handler`. Flags
    /// become what its gate makes them (SDM vol. 3 section 6.12.1.3), registers what the next
    /// record says.
    pub fn interrupted(&mut self, handler: VirtAddr) {
        for reg in [Reg::Tf, Reg::Nt] {
            self.regs[reg] = 0;
        }
        if !self.recording.is_trap_handler(handler) {
            self.regs[Reg::If] = 0;
        }
        self.loose = true;
    }

    /// Executes one step.
    pub fn step(&mut self, step: StepId, observer: &mut impl Observer) -> Ended {
        let recording = self.recording;
        let code = recording.code_of(step);
        let accesses = recording.accesses_of(step);
        self.mismatches.clear();
        self.adopt(step);
        self.matcher.restart(accesses.len());
        let mut slot = None;
        loop {
            let ended = self.iteration(code, accesses, &mut slot, observer);
            let again = ended.complete && ended.control == Some(Kind::BranchIf) && ended.next == code.pc();
            if again && self.matcher.has_left() {
                continue;
            }
            if ended.complete {
                self.report_extra_stores(code, accesses);
            }
            return self.repeats(step, ended);
        }
    }

    /// How a step ended, given what follows: a string instruction that comes again has branched to
    /// itself. QEMU may execute it once more only to find that its count is 0.
    fn repeats(&self, step: StepId, ended: Ended) -> Ended {
        let code = self.recording.code_of(step);
        let follows =
            self.recording.steps.get(step.next()).is_some() && self.recording.pc(step.next()) == code.pc();
        if ended.complete && follows && code.repeats_itself() {
            return Ended { next: code.pc(), control: Some(Kind::BranchIf), ..ended };
        }
        ended
    }

    /// Keeps the process's own registers during a system call of a whole run, and gives them back
    /// when it returns.
    fn system_call(&mut self, kind: Kind) {
        if kind == Kind::SysEnter {
            self.process.push(PROCESS_REGS.map(|reg| self.regs[reg]));
        } else if kind == Kind::SysExit
            && let Some(process) = self.process.pop()
        {
            PROCESS_REGS.iter().zip(process).for_each(|(&reg, value)| self.regs[reg] = value);
        }
    }

    /// Reports stores that no operation does, but for two kinds that processors make by the way.
    fn report_extra_stores(&mut self, code: &Code, accesses: &[Access]) {
        let selector =
            |op: &Op| op.def().is_some_and(|var| SELECTORS.iter().any(|reg| reg.index() == var.0 as usize));
        for access in self.matcher.left(accesses).filter(|access| access.store) {
            let marks = code.insn.ops.iter().any(selector) && self.marks_descriptor(access, accesses);
            let stores = code.insn.ops.iter().any(|op| op.kind == Kind::Store);
            if !marks && (stores || !puts_back(access, accesses)) {
                self.mismatches.push(Mismatch::ExtraStore { vaddr: access.vaddr });
            }
        }
    }

    /// Whether a processor marks a descriptor as accessed, which it does when it loads it first
    /// (SDM vol. 3 section 3.4.5.1). No operation does it: it happens only if the bit is clear, and
    /// changes this bit alone.
    fn marks_descriptor(&self, store: &Access, accesses: &[Access]) -> bool {
        const ACCESSED: u128 = 1 << 8;
        let in_table = [Reg::GdtrBase, Reg::LdtrBase]
            .iter()
            .any(|&table| store.vaddr.0.wrapping_sub(self.regs[table]) < 1 << 16);
        let was = |load: &&Access| !load.store && load.vaddr == store.vaddr && load.size == store.size;
        let was = accesses.iter().find(was);
        in_table && store.size == 4 && was.is_some_and(|load| load.value | ACCESSED == store.value)
    }

    /// Executes the operations of an instruction once. `slot` is [`Ended::slot`] so far.
    fn iteration(
        &mut self,
        code: &Code,
        accesses: &[Access],
        slot: &mut Option<VirtAddr>,
        observer: &mut impl Observer,
    ) -> Ended {
        let privilege = self.regs[Reg::Cpl];
        let fallthrough = code.fallthrough();
        let mut ended = Ended { control: None, next: fallthrough, complete: true, slot: VirtAddr(0) };
        for (index, op) in code.insn.ops.iter().enumerate() {
            let [a, b, c] = op.args.map(|arg| self.temps.value(arg, &self.regs));
            let done = match op.class() {
                Class::Pure => ir::eval(op.kind, op.width, a, b, c).ok().map(|value| (value, None)),
                Class::Load => {
                    slot.get_or_insert(VirtAddr(a));
                    self.load(code, accesses, index, VirtAddr(a))
                }
                Class::Store => {
                    *slot = Some(VirtAddr(a));
                    self.store(code, accesses, op, VirtAddr(a), b & op.width.mask())
                }
                Class::Nondet => {
                    self.loose = true;
                    if let Some(var) = op.def().filter(|var| var.is_reg()) {
                        self.known[var] = false;
                    }
                    Some((0, None))
                }
                Class::Effect => Some((0, None)),
                Class::Control => {
                    let (kind, next) = self.control(op, [a, b], fallthrough, privilege);
                    observer.op(index, op, next.0, None);
                    if self.recording.is_whole_run() {
                        self.system_call(kind);
                    }
                    ended.control = Some(kind);
                    ended.next = next;
                    if kind != Kind::BranchIf || a != 0 {
                        break;
                    }
                    continue;
                }
            };
            let Some((value, mem)) = done else {
                ended.complete = false;
                break;
            };
            self.temps.define(op, &mut self.regs, value);
            observer.op(index, op, value, mem);
        }
        ended.slot = slot.unwrap_or(VirtAddr(0));
        ended
    }

    /// The recorded value of a load; `None` if there is none and there should be.
    fn load(
        &mut self,
        code: &Code,
        accesses: &[Access],
        index: usize,
        vaddr: VirtAddr,
    ) -> Option<(u64, Option<MemRef>)> {
        let size = code.insn.ops[index].width.bytes();
        if let Some((mem, value)) = self.matcher.find(accesses, false, vaddr, size) {
            return Some((value, Some(mem)));
        }
        // The processor does not read the null descriptor when a null selector is loaded (SDM vol.
        // 3 section 3.4.2); an operation cannot be conditional, and whatever it reads there does
        // not matter. The same goes for the stack of an `iret` or a far return that does not change
        // the privilege.
        let null = vaddr.0.wrapping_sub(self.regs[Reg::GdtrBase]) < 8;
        if null || may_change_stack(&code.insn.ops) && index > 0 {
            return Some((0, None));
        }
        self.mismatches.push(Mismatch::NoLoad { vaddr });
        None
    }

    /// What was recorded of a store; `None` if nothing was.
    fn store(
        &mut self,
        code: &Code,
        accesses: &[Access],
        op: &Op,
        vaddr: VirtAddr,
        computed: u64,
    ) -> Option<(u64, Option<MemRef>)> {
        let found = self.matcher.find(accesses, true, vaddr, op.width.bytes());
        let recorded = found.map(|(_, value)| value);
        // A software interrupt right behind an interruption pushes the resume flag too, which no
        // operation models (SDM vol. 3 section 17.3.1.1).
        let enters = code.insn.ops.last().is_some_and(|op| op.kind == Kind::SysEnter);
        let resumed = recorded.is_some_and(|recorded| enters && recorded ^ computed == RESUME_FLAG);
        if recorded != Some(computed) && !resumed {
            self.mismatches.push(Mismatch::Store { vaddr, computed, recorded });
        }
        found.map(|(mem, recorded)| (recorded, Some(mem)))
    }

    /// What a control operation does, and where it leads; `privilege` is the level at which its
    /// instruction began.
    fn control(
        &mut self,
        op: &Op,
        [a, b]: [u64; 2],
        fallthrough: VirtAddr,
        privilege: u64,
    ) -> (Kind, VirtAddr) {
        // A far return to a lower privilege leaves a system that was entered through a call gate.
        let outward = op.kind == Kind::Ret && self.regs[Reg::Cpl] > privilege;
        self.left |= op.kind == Kind::SysExit || outward;
        match op.kind {
            Kind::Ret if outward => (Kind::SysExit, VirtAddr(a)),
            Kind::BranchIf => (Kind::BranchIf, if a != 0 { VirtAddr(b) } else { fallthrough }),
            Kind::Unsupported => {
                self.mismatches.push(Mismatch::Unsupported { id: a });
                self.loose = true;
                (Kind::Unsupported, fallthrough)
            }
            Kind::Halt => (Kind::Halt, fallthrough),
            Kind::Trap => (Kind::Trap, VirtAddr(b)),
            kind => (kind, VirtAddr(a)),
        }
    }
}

/// Whether these are the operations of a return that pops a new stack pointer if it changes the
/// privilege.
fn may_change_stack(ops: &[Op]) -> bool {
    let far = |op: &Op| op.def().is_some_and(|var| var.0 == Reg::Cpl as u16);
    ops.last().is_some_and(|last| last.kind == Kind::SysExit || last.kind == Kind::Ret && ops.iter().any(far))
}

/// Whether a store writes what the instruction has read there: arithmetic that leaves memory as it
/// is lifts to no store.
fn puts_back(store: &Access, accesses: &[Access]) -> bool {
    accesses.iter().any(|load| {
        !load.store && (load.vaddr, load.size, load.value) == (store.vaddr, store.size, store.value)
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn returns_that_may_take_another_stack() {
        let may = |bytes: &[u8]| {
            let insn = lift::lift(lift::Mode::Bits32, 0xc000_0000, bytes).unwrap();
            super::may_change_stack(&insn.ops)
        };
        assert!(may(&[0xcf]) && may(&[0xcb]) && may(&[0xca, 8, 0]), "iret, lret");
        assert!(!may(&[0xc3]) && !may(&[0x58]), "ret, pop");
    }
}
