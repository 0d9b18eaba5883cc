//! Finds the registers each function gives back unchanged.
//!
//! Every value has an origin: a new number where it is computed, the number of its source where it
//! is only copied (moves, full stores and loads, so pushes and pops too). A register is preserved
//! by a function when in every instance, in every recording, its origin at the return is that at
//! the call. The stack pointer is preserved when its value is. Uses after the return then depend on
//! the definition before the call, and a program's call gives these registers back.

use ir::{Kind, Op, Var, Width};
use lift::Mode;
use machine::{PROCESS_REGS, Reg};
use rustc_hash::FxHashMap;

use crate::frames::Move;
use crate::replay::{Ended, MemRef};
use crate::summary::SUMMARY_RESULT;
use crate::walk::{SummaryCall, Visitor};

/// A set of registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RegSet(pub [u64; 4]);

impl RegSet {
    /// Every register.
    pub const ALL: RegSet = RegSet([u64::MAX; 4]);

    /// Whether it holds the register.
    #[must_use]
    pub const fn has(&self, var: Var) -> bool {
        self.0[(var.0 >> 6 & 3) as usize] >> (var.0 & 63) & 1 == 1
    }

    /// Adds a register.
    pub const fn insert(&mut self, var: Var) {
        self.0[(var.0 >> 6 & 3) as usize] |= 1 << (var.0 & 63);
    }

    /// Removes a register.
    pub const fn remove(&mut self, var: Var) {
        self.0[(var.0 >> 6 & 3) as usize] &= !(1 << (var.0 & 63));
    }

    /// Adds all of another set.
    pub fn union(&mut self, other: &RegSet) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine |= theirs;
        }
    }

    /// Removes all of another set.
    #[must_use]
    pub fn without(&self, other: &RegSet) -> RegSet {
        let mut left = *self;
        for (mine, theirs) in left.0.iter_mut().zip(other.0) {
            *mine &= !theirs;
        }
        left
    }

    /// Whether the sets share a register.
    #[must_use]
    pub fn meets(&self, other: &RegSet) -> bool {
        self.0.iter().zip(other.0).any(|(mine, theirs)| mine & theirs != 0)
    }

    /// The registers in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = Var> + '_ {
        (0..256).map(Var).filter(|&var| self.has(var))
    }
}

struct Frame {
    func: u32,
    origins: Box<[u32; 256]>,
    rsp: u64,
}

/// The visitor that computes preserved registers.
pub struct Preserve {
    /// By function number; functions never seen to return preserve nothing.
    pub preserved: Vec<Option<RegSet>>,
    /// By function number: how far above the caller's stack pointer it left it, each time it
    /// returned; none twice.
    pub moves: Vec<Vec<i64>>,
    origins: Box<[u32; 256]>,
    before: Box<[u32; 256]>,
    temps: Vec<u32>,
    memory: FxHashMap<u64, (u32, Width)>,
    next: u32,
    stack: Vec<Frame>,
    rsp: u64,
    rsp_before: u64,
    /// Width of the running code's general registers: narrower copies are new values.
    width: Width,
}

impl Preserve {
    /// For so many functions.
    #[must_use]
    pub fn new(functions: usize) -> Self {
        let origins: Box<[u32; 256]> = Box::new(std::array::from_fn(|at| at as u32));
        Self {
            preserved: vec![None; functions],
            moves: vec![Vec::new(); functions],
            before: origins.clone(),
            origins,
            temps: Vec::new(),
            memory: FxHashMap::default(),
            next: 256,
            stack: Vec::new(),
            rsp: 0,
            rsp_before: 0,
            width: Width::B64,
        }
    }

    /// Forgets everything about the previous recording but what functions preserve.
    pub fn restart(&mut self, rsp: u64) {
        let (preserved, moves) = (std::mem::take(&mut self.preserved), std::mem::take(&mut self.moves));
        *self = Self { rsp, preserved, moves, ..Self::new(0) };
    }

    /// Notes where a function left the stack pointer, which was `before` when its caller called.
    fn moved(&mut self, func: u32, before: u64) {
        let distance = self.rsp.wrapping_sub(before).cast_signed();
        let known = &mut self.moves[func as usize];
        if !known.contains(&distance) {
            known.push(distance);
        }
    }

    fn fresh(&mut self) -> u32 {
        self.next = self.next.wrapping_add(1);
        self.next
    }

    fn origin(&self, arg: ir::Arg) -> Option<u32> {
        let ir::Arg::Var(var) = arg else { return None };
        if var.is_reg() {
            Some(self.origins[var.0 as usize & 255])
        } else {
            self.temps.get((var.0 - Var::FIRST_TEMP) as usize).copied()
        }
    }

    fn define(&mut self, var: Var, origin: u32) {
        if var.is_reg() {
            self.origins[var.0 as usize & 255] = origin;
        } else {
            let at = (var.0 - Var::FIRST_TEMP) as usize;
            if self.temps.len() <= at {
                self.temps.resize(at + 1, 0);
            }
            self.temps[at] = origin;
        }
    }
}

impl Visitor for Preserve {
    fn begin(&mut self, _: u32, _: u32, mode: Mode) {
        self.width = if mode == Mode::Bits64 { Width::B64 } else { Width::B32 };
        *self.before = *self.origins;
        self.rsp_before = self.rsp;
    }

    fn op(&mut self, _: usize, op: &Op, _: u64, mem: Option<MemRef>) {
        let whole = op.width == self.width;
        let aligned = mem.filter(|mem| mem.paddr % u64::from(mem.size.max(1)) == 0 && whole);
        let origin = match op.kind {
            Kind::Mov if whole => self.origin(op.args[0]),
            Kind::Load => aligned
                .and_then(|mem| self.memory.get(&mem.paddr))
                .filter(|(_, width)| *width == self.width)
                .map(|(origin, _)| *origin),
            _ => None,
        };
        if op.kind == Kind::Store
            && let Some(mem) = mem
        {
            for at in (mem.paddr & !7..mem.paddr + u64::from(mem.size)).step_by(4) {
                self.memory.remove(&at);
            }
            let stored = self.origin(op.args[1]);
            if let (Some(mem), Some(origin)) = (aligned, stored) {
                self.memory.insert(mem.paddr, (origin, self.width));
            }
        } else if op.kind == Kind::Load
            && let (Some(mem), Some(var)) = (aligned, op.def())
        {
            // A first load gives the cell an origin, so that what is saved elsewhere and brought
            // back is recognised.
            let origin = match origin {
                Some(origin) => origin,
                None => self.fresh(),
            };
            self.memory.insert(mem.paddr, (origin, self.width));
            self.define(var, origin);
            return;
        }
        if let Some(var) = op.def() {
            let origin = match origin {
                Some(origin) => origin,
                None => self.fresh(),
            };
            self.define(var, origin);
        }
    }

    fn end(&mut self, step_move: Move, ended: &Ended, regs: &[u64; 256]) {
        self.rsp = regs[Reg::Rsp.index()];
        match step_move {
            Move::Call(func) => {
                let origins = self.before.clone();
                self.stack.push(Frame { func, origins, rsp: self.rsp_before });
            }
            Move::Return(count) => {
                for nth in 1..=count {
                    let Some(frame) = self.stack.pop() else { return };
                    let mut same = RegSet::default();
                    for at in 0..256u16 {
                        if self.origins[at as usize] == frame.origins[at as usize] {
                            same.insert(Var(at));
                        }
                    }
                    let rsp = Var(Reg::Rsp as u16);
                    if self.rsp == frame.rsp {
                        same.insert(rsp)
                    } else {
                        same.remove(rsp)
                    }
                    if nth == count && ended.control == Some(Kind::Ret) {
                        self.moved(frame.func, frame.rsp);
                    }
                    if nth == count && ended.control == Some(Kind::SysExit) {
                        // A system gives a process its registers back, however it does it.
                        PROCESS_REGS.iter().for_each(|&reg| same.insert(Var(reg as u16)));
                    }
                    let slot = &mut self.preserved[frame.func as usize];
                    let mut both = slot.unwrap_or(RegSet::ALL);
                    for (mine, theirs) in both.0.iter_mut().zip(same.0) {
                        *mine &= theirs;
                    }
                    *slot = Some(both);
                    // Copies may have made a new origin for an equal value: what is preserved has
                    // the caller's again.
                    for var in both.iter() {
                        self.origins[var.0 as usize] = frame.origins[var.0 as usize];
                    }
                }
            }
            Move::Stay | Move::Tail(_) => {}
        }
    }

    fn summary(&mut self, _: u32, call: &SummaryCall) {
        if let Some(frame) = self.stack.pop() {
            self.rsp = frame.rsp.wrapping_add(call.summary.pops.into());
            self.moved(frame.func, frame.rsp);
            let mut all = RegSet::ALL;
            all.remove(SUMMARY_RESULT);
            self.preserved[frame.func as usize] = Some(all);
            *self.origins = *frame.origins;
        }
        let fresh = self.fresh();
        self.define(SUMMARY_RESULT, fresh);
    }
}
