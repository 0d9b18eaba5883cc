//! Replays a recording through the lifted operations.
//!
//! Loads take their values from the recorded accesses, everything else is computed, so a replay
//! knows the value, the address and the next instruction of every step without a memory. It is both
//! the check of the lifter (stores, next addresses and registers are compared with the recording)
//! and the walk that the analyses observe.

use ir::{Arg, Class, Kind, Op};
use machine::{PROCESS_REGS, Reg};

use trace::Access;

use crate::recording::Recording;

/// The general registers are the first.
const GENERAL: usize = 16;

/// Segments that a process may not use become null on the way out to it (SDM vol. 2, IRET), which
/// no operation does.
const DROPPED: [Reg; 8] =
    [Reg::Es, Reg::Ds, Reg::Fs, Reg::Gs, Reg::EsBase, Reg::DsBase, Reg::FsBase, Reg::GsBase];

/// Registers whose load reads a descriptor.
const SELECTORS: [Reg; 6] = [Reg::Es, Reg::Cs, Reg::Ss, Reg::Ds, Reg::Fs, Reg::Gs];

/// A memory operand as the recording saw it.
#[derive(Clone, Copy, Debug)]
pub struct MemRef {
    /// Linear address.
    pub vaddr: u64,
    /// Physical address of the first byte.
    pub paddr: u64,
    /// Physical address of the byte on the next page, where the operand crosses into one.
    pub second_page: u64,
    /// Bytes.
    pub size: u8,
    /// Whether it went to a device.
    pub io: bool,
}

impl MemRef {
    /// Physical address of its n-th byte.
    #[must_use]
    pub fn byte(&self, n: u64) -> u64 {
        let left = 4096 - (self.vaddr & 4095);
        if n < left { self.paddr + n } else { self.second_page + (n - left) }
    }
}

/// Sees every operation of a replay, in order.
pub trait Observer {
    /// `index` counts the operations of the instruction; `value` is the result, or what was stored.
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
    pub next: u64,
    /// False when an operand had no recorded access: the instruction did not finish.
    pub complete: bool,
    /// The first memory operand: for a call the return slot, for a return the slot it consumed.
    pub slot: u64,
}

/// A way in which the recording and the lifted operations disagree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Mismatch {
    /// Nothing was recorded for a load.
    NoLoad {
        /// Its address.
        vaddr: u64,
    },
    /// A store differs or was not recorded.
    Store {
        /// Its address.
        vaddr: u64,
        /// Computed value.
        computed: u64,
        /// Recorded value.
        recorded: Option<u64>,
    },
    /// A recorded store that no operation made.
    ExtraStore {
        /// Its address.
        vaddr: u64,
    },
    /// A register differs.
    Register {
        /// Which.
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
    /// Register values.
    pub regs: [u64; 256],
    temps: Vec<u64>,
    used: Vec<bool>,
    cursor: usize,
    /// Disagreements of the current step.
    pub mismatches: Vec<Mismatch>,
    /// Whether registers may differ from the recording without being wrong: after a start, an
    /// interrupt or a nondeterministic instruction.
    loose: bool,
    known: [bool; 256],
    /// The system was left since the last record.
    left: bool,
    /// The process's own registers at each open system call of a whole run, which gives them back
    /// itself.
    process: Vec<[u64; PROCESS_REGS.len()]>,
    /// The registers as last recorded: records hold changes only, and after an interruption or an
    /// undetermined result all of it counts.
    recorded: [Option<u64>; 256],
}

/// RF in RFLAGS.
const RESUME_FLAG: u64 = 1 << 16;

/// Whether these are the operations of a return that takes a stack from the stack if it changes the
/// privilege.
fn may_change_stack(ops: &[Op]) -> bool {
    let far = |op: &Op| op.def().is_some_and(|var| var.0 == Reg::Cpl as u16);
    ops.last().is_some_and(|last| last.kind == Kind::SysExit || last.kind == Kind::Ret && ops.iter().any(far))
}

impl<'r> Replay<'r> {
    /// A replay about to execute the recording's first step.
    #[must_use]
    pub fn new(recording: &'r Recording) -> Self {
        let mut regs = [0; 256];
        let mut known = [false; 256];
        let mut recorded = [None; 256];
        let in_records = &recording.trace.header().recorded.block_registers;
        for (reg, value) in recording.begin_regs().known() {
            regs[reg.index()] = value;
            known[reg.index()] = true;
            if in_records.contains(&reg) {
                recorded[reg.index()] = Some(value);
            }
        }
        Self {
            recording,
            regs,
            temps: Vec::new(),
            used: Vec::new(),
            cursor: 0,
            mismatches: Vec::new(),
            loose: true,
            left: false,
            known,
            process: Vec::new(),
            recorded,
        }
    }

    /// Takes over the registers recorded before `step`; differences are mismatches unless something
    /// undetermined happened.
    pub fn adopt(&mut self, step: usize) {
        let wide = self.recording.code_of(step).mode == lift::Mode::Bits64;
        for &(reg, recorded) in self.recording.regs_before(step) {
            self.recorded[reg.index()] = Some(recorded);
            if !self.loose {
                self.take(reg.index(), recorded, wide);
            }
        }
        if self.recording.has_record(step) {
            if self.loose {
                for at in 0..self.recorded.len() {
                    if let Some(recorded) = self.recorded[at] {
                        self.take(at, recorded, wide);
                    }
                }
            }
            self.loose = false;
            self.left = false;
        }
    }

    /// What the last record said of a register, if any did.
    #[must_use]
    pub fn last_recorded(&self, reg: Reg) -> Option<u64> {
        self.recorded[reg.index()]
    }

    /// Passes over a step that is not replayed: records hold changes only, so those before it still
    /// count.
    pub fn skip(&mut self, step: usize) {
        for &(reg, recorded) in self.recording.regs_before(step) {
            self.recorded[reg.index()] = Some(recorded);
        }
    }

    /// `wide`: in 64-bit code. Elsewhere QEMU shows half of a general register, and the other half,
    /// which the code cannot see, stays.
    fn take(&mut self, at: usize, recorded: u64, wide: bool) {
        if !wide && at < GENERAL && self.regs[at] & 0xffff_ffff == recorded {
            self.known[at] = true;
            return;
        }
        if self.regs[at] != recorded
            && !self.loose
            && !(self.left && recorded <= 3 && DROPPED.iter().any(|reg| reg.index() == at))
            && self.known[at]
            && let Some(reg) = Reg::from_index(at)
        {
            self.mismatches.push(Mismatch::Register { reg, computed: self.regs[at], recorded });
        }
        self.regs[at] = recorded;
        self.known[at] = true;
    }

    /// An interrupt or fault was delivered before the next step, which is at `handler`: flags as
    /// its gate leaves them, registers as recorded (SDM vol. 3 section 6.12.1.3).
    pub fn interrupted(&mut self, handler: u64) {
        for reg in [Reg::Tf, Reg::Nt] {
            self.regs[reg.index()] = 0;
        }
        if !self.recording.trap_handlers.contains(&handler) {
            self.regs[Reg::If.index()] = 0;
        }
        self.loose = true;
    }

    /// The value of an operand.
    fn arg(&self, arg: Arg) -> u64 {
        match arg {
            Arg::Const(value) => value,
            // Only programs have such operands.
            Arg::Moved(_) => 0,
            Arg::Var(var) if var.is_reg() => self.regs[var.0 as usize & 255],
            Arg::Var(var) => self.temps.get((var.0 - ir::Var::FIRST_TEMP) as usize).copied().unwrap_or(0),
        }
    }

    fn set(&mut self, op: &Op, value: u64) {
        let Some(var) = op.def() else { return };
        if var.is_reg() {
            self.regs[var.0 as usize & 255] = value;
        } else {
            let at = (var.0 - ir::Var::FIRST_TEMP) as usize;
            if self.temps.len() <= at {
                self.temps.resize(at + 1, 0);
            }
            self.temps[at] = value;
        }
    }

    /// Finds the recorded access that covers `size` bytes at `vaddr` and was not consumed yet.
    fn find(&mut self, accesses: &[Access], store: bool, vaddr: u64, size: u64) -> Option<(MemRef, u64)> {
        while self.cursor < accesses.len() && self.used[self.cursor] {
            self.cursor += 1;
        }
        let mask = if size == 8 { u64::MAX } else { (1 << (8 * size)) - 1 };
        for at in self.cursor..accesses.len() {
            let access = &accesses[at];
            if self.used[at] || access.store != store {
                continue;
            }
            let offset = vaddr.wrapping_sub(access.vaddr.0);
            let length = u64::from(access.size);
            if offset < length && offset + size <= length {
                if offset + size == length {
                    self.used[at] = true;
                }
                let value = (access.value >> (8 * offset)) as u64 & mask;
                return Some((self.mem_ref(access, offset, vaddr, size), value));
            }
            if offset == 0 && length < size {
                return self.gather(accesses, at, store, vaddr, size);
            }
        }
        None
    }

    /// Puts an operand together from several smaller accesses in a row.
    fn gather(
        &mut self,
        accesses: &[Access],
        first: usize,
        store: bool,
        vaddr: u64,
        size: u64,
    ) -> Option<(MemRef, u64)> {
        let (mut value, mut have, mut at) = (0u64, 0u64, first);
        let mut mem = self.mem_ref(&accesses[first], 0, vaddr, size);
        while have < size {
            let access = accesses.get(at)?;
            if access.store == store && !self.used[at] {
                if access.vaddr.0 != vaddr.wrapping_add(have) || have + u64::from(access.size) > size {
                    return None;
                }
                value |= (access.value as u64) << (8 * have);
                if access.vaddr.page().0 != vaddr & !4095 {
                    mem.second_page = access.paddr.page().0;
                }
                have += u64::from(access.size);
                self.used[at] = true;
            }
            at += 1;
        }
        Some((mem, value))
    }

    fn mem_ref(&self, access: &Access, offset: u64, vaddr: u64, size: u64) -> MemRef {
        // The second page's frame is missing where nothing else touched it; the next frame is then
        // assumed, which is right for memory the kernel maps linearly.
        let second_page = access.next_page.map_or((access.paddr.0 & !4095) + 4096, |page| page.0);
        MemRef { vaddr, paddr: access.paddr.0 + offset, second_page, size: size as u8, io: access.io }
    }

    /// Executes one step.
    pub fn step(&mut self, step: usize, observer: &mut impl Observer) -> Ended {
        let recording = self.recording;
        let code = recording.code_of(step);
        let accesses = recording.accesses_of(step);
        self.mismatches.clear();
        self.adopt(step);
        self.cursor = 0;
        self.used.clear();
        self.used.resize(accesses.len(), false);
        let mut slot = None;
        loop {
            let ended = self.iteration(code, accesses, &mut slot, observer);
            let left = self.used.iter().any(|used| !used);
            let again = ended.complete && ended.control == Some(Kind::BranchIf) && ended.next == code.insn.pc;
            if left && again {
                continue;
            }
            if ended.complete {
                self.report_extra_stores(code, accesses);
            }
            return self.repeats(step, ended);
        }
    }

    /// QEMU may execute a string instruction once more to find that its count is 0.
    fn repeats(&self, step: usize, ended: Ended) -> Ended {
        let code = self.recording.code_of(step);
        let itself = |op: &Op| op.kind == Kind::BranchIf && op.args[1] == Arg::Const(code.insn.pc);
        let follows = step + 1 < self.recording.steps.len() && self.recording.pc(step + 1) == code.insn.pc;
        if ended.complete && follows && code.insn.ops.iter().any(itself) {
            return Ended { next: code.insn.pc, control: Some(Kind::BranchIf), ..ended };
        }
        ended
    }

    /// Follows system calls of a whole run.
    fn system_call(&mut self, kind: Kind) {
        if kind == Kind::SysEnter {
            self.process.push(PROCESS_REGS.map(|reg| self.regs[reg.index()]));
        } else if kind == Kind::SysExit
            && let Some(process) = self.process.pop()
        {
            PROCESS_REGS.iter().zip(process).for_each(|(reg, value)| self.regs[reg.index()] = value);
        }
    }

    fn report_extra_stores(&mut self, code: &crate::recording::Code, accesses: &[Access]) {
        let segment =
            |op: &Op| op.def().is_some_and(|var| SELECTORS.iter().any(|reg| reg.index() == var.0 as usize));
        for (access, used) in accesses.iter().zip(&self.used) {
            if access.store
                && !used
                && !(code.insn.ops.iter().any(segment) && self.marks_descriptor(access, accesses))
            {
                self.mismatches.push(Mismatch::ExtraStore { vaddr: access.vaddr.0 });
            }
        }
    }

    /// Whether a processor marks a descriptor as accessed, which it does when it loads it first
    /// (SDM vol. 3 section 3.4.5.1). No operation does it: it is conditional, and only ever changes
    /// this one bit.
    fn marks_descriptor(&self, store: &Access, accesses: &[Access]) -> bool {
        const ACCESSED: u128 = 1 << 8;
        let in_table = [Reg::GdtrBase, Reg::LdtrBase]
            .iter()
            .any(|table| store.vaddr.0.wrapping_sub(self.regs[table.index()]) < 1 << 16);
        let was = |load: &&Access| !load.store && load.vaddr == store.vaddr && load.size == store.size;
        let was = accesses.iter().find(was);
        in_table && store.size == 4 && was.is_some_and(|load| load.value | ACCESSED == store.value)
    }

    fn iteration(
        &mut self,
        code: &crate::recording::Code,
        accesses: &[Access],
        slot: &mut Option<u64>,
        observer: &mut impl Observer,
    ) -> Ended {
        let fallthrough = code.insn.pc.wrapping_add(u64::from(code.insn.len));
        let privilege = self.regs[Reg::Cpl.index()];
        let mut ended = Ended { control: None, next: fallthrough, complete: true, slot: 0 };
        for (index, op) in code.insn.ops.iter().enumerate() {
            let [a, b, c] = op.args.map(|arg| self.arg(arg));
            match op.class() {
                Class::Pure => match ir::eval(op.kind, op.width, a, b, c) {
                    Ok(value) => {
                        self.set(op, value);
                        observer.op(index, op, value, None);
                    }
                    Err(_) => {
                        ended.complete = false;
                        break;
                    }
                },
                Class::Load => {
                    slot.get_or_insert(a);
                    let Some((mem, value)) = self.find(accesses, false, a, op.width.bytes()) else {
                        // The processor does not read the null descriptor when a null selector is
                        // loaded (SDM vol. 3 section 3.4.2); an operation cannot be conditional,
                        // and whatever it reads there does not matter. The same goes for the stack
                        // of an `iret` or a far return that does not change the privilege.
                        if a.wrapping_sub(self.regs[Reg::GdtrBase.index()]) < 8
                            || may_change_stack(&code.insn.ops) && index > 0
                        {
                            self.set(op, 0);
                            observer.op(index, op, 0, None);
                            continue;
                        }
                        self.mismatches.push(Mismatch::NoLoad { vaddr: a });
                        ended.complete = false;
                        break;
                    };
                    self.set(op, value);
                    observer.op(index, op, value, Some(mem));
                }
                Class::Store => {
                    *slot = Some(a);
                    let value = b & op.width.mask();
                    let found = self.find(accesses, true, a, op.width.bytes());
                    // A software interrupt right behind an interruption pushes RF too, which no
                    // operation knows (SDM vol. 3 section 17.3.1.1).
                    let enters = code.insn.ops.last().is_some_and(|op| op.kind == Kind::SysEnter);
                    let resumed = found.is_some_and(|found| enters && found.1 ^ value == RESUME_FLAG);
                    if found.map(|found| found.1) != Some(value) && !resumed {
                        self.mismatches.push(Mismatch::Store {
                            vaddr: a,
                            computed: value,
                            recorded: found.map(|found| found.1),
                        });
                    }
                    let Some((mem, recorded)) = found else {
                        ended.complete = false;
                        break;
                    };
                    observer.op(index, op, recorded, Some(mem));
                }
                Class::Nondet => {
                    self.loose = true;
                    if let Some(var) = op.def().filter(|var| var.is_reg()) {
                        self.known[var.0 as usize & 255] = false;
                    }
                    self.set(op, 0);
                    observer.op(index, op, 0, None);
                }
                Class::Effect => observer.op(index, op, 0, None),
                Class::Control => {
                    // A far return to a lower privilege leaves a system that was entered through a
                    // call gate.
                    let outward = op.kind == Kind::Ret && self.regs[Reg::Cpl.index()] > privilege;
                    self.left |= op.kind == Kind::SysExit || outward;
                    let (kind, next) = match op.kind {
                        Kind::Ret if outward => (Kind::SysExit, a),
                        Kind::BranchIf => (Kind::BranchIf, if a != 0 { b } else { fallthrough }),
                        Kind::Unsupported => {
                            self.mismatches.push(Mismatch::Unsupported { id: a });
                            self.loose = true;
                            (Kind::Unsupported, fallthrough)
                        }
                        Kind::Halt => (Kind::Halt, fallthrough),
                        Kind::Trap => (Kind::Trap, b),
                        kind => (kind, a),
                    };
                    observer.op(index, op, next, None);
                    if self.recording.trace.header().whole_run {
                        self.system_call(kind);
                    }
                    ended.control = Some(kind);
                    ended.next = next;
                    if kind != Kind::BranchIf || a != 0 {
                        break;
                    }
                }
            }
        }
        ended.slot = slot.unwrap_or(0);
        ended
    }
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
