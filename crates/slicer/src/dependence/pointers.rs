//! From which pointer each value was computed: through registers, arithmetic and memory.
//!
//! Of the operands of a sum, the one nearest to the result is the pointer and the other the index.
//! A value that was not computed from a pointer is one itself, if it is large enough for an address
//! and something is accessed through it. What is relative to the stack pointer is a local of the
//! running function, named by the address before an index was added.
//!
//! Values that steps outside the walk leave in registers have no origin. Cost: for each operation
//! one table entry.

use ir::{Arg, Kind, Op, Var};
use machine::{PhysAddr, RegFile};
use rustc_hash::FxHashMap;

use super::objects::{Met, Object, Objects};
use crate::recording::replay::MemRef;
use crate::vocabulary::{ContextId, OpId, RegisterValues, STACK_POINTER};

/// Values below are numbers, not addresses.
const LOWEST_ADDRESS: u64 = 0x1_0000;

/// An index as large leads to another object: what the base of a processor's memory or of all
/// memory is added to is a pointer by itself.
const FARTHEST: u64 = 1 << 16;

/// Where a value points.
#[derive(Clone, Copy)]
struct Pointer {
    /// `None` while the stack pointer itself is being added to.
    object: Option<Object>,
    /// The address of the object.
    base: u64,
    /// Whether something else than constants was added.
    indexed: bool,
    /// The address that a register held before this instruction added to it.
    element: u64,
    /// Whether the instruction added something else than constants to that.
    varied: bool,
}

/// Where the running function's frame is.
#[derive(Clone, Copy)]
pub struct Here {
    /// The function.
    pub context: ContextId,
    /// The address of the first word above its frame.
    pub bottom: u64,
}

/// What each register and temporary holds and points to, and what was accessed through it.
#[derive(Default)]
pub struct Pointers {
    values: Vec<(u64, Option<Pointer>)>,
    /// Pointers in memory, with their values.
    memory: FxHashMap<PhysAddr, (u64, Pointer)>,
    /// What was accessed.
    pub objects: Objects,
}

impl Pointers {
    /// At a begin mark with these registers.
    pub fn new(regs: &RegFile) -> Self {
        let mut pointers = Self::default();
        regs.known().for_each(|(reg, value)| pointers.set(Var(reg as u16), value, None));
        pointers
    }

    fn var(&self, var: Var) -> (u64, Option<Pointer>) {
        self.values.get(var.0 as usize).copied().unwrap_or_default()
    }

    fn set(&mut self, var: Var, value: u64, pointer: Option<Pointer>) {
        let at = var.0 as usize;
        if self.values.len() <= at {
            self.values.resize(at + 1, (0, None));
        }
        self.values[at] = (value, pointer);
    }

    /// Where an operand points.
    fn pointer(&self, arg: Arg) -> Option<Pointer> {
        let new = |object, base| Pointer { object, base, indexed: false, element: base, varied: false };
        let at = |value| (value >= LOWEST_ADDRESS).then(|| new(Some(Object::At(value)), value));
        match arg {
            Arg::Var(STACK_POINTER) => Some(new(None, self.var(STACK_POINTER).0)),
            Arg::Var(var) => {
                let (value, pointer) = self.var(var);
                pointer.or_else(|| at(value))
            }
            Arg::Const(value) => at(value),
            Arg::Relocated(_) => None,
        }
    }

    fn value(&self, arg: Arg) -> u64 {
        match arg {
            Arg::Var(var) => self.var(var).0,
            Arg::Const(value) => value,
            Arg::Relocated(_) => 0,
        }
    }

    /// Where a sum or difference points: where the operand nearest to it does.
    fn sum(&self, op: &Op, value: u64) -> Option<Pointer> {
        let far = |arg: Arg| {
            let other = self.value(arg);
            value.wrapping_sub(other).min(other.wrapping_sub(value))
        };
        let (a, b) = (op.args[0], op.args[1]);
        let (pointer, other) = if op.kind == Kind::Sub || far(a) <= far(b) { (a, b) } else { (b, a) };
        if far(pointer) >= FARTHEST {
            return None;
        }
        let mut sum = self.pointer(pointer)?;
        match other {
            Arg::Const(_) | Arg::Relocated(_) if sum.object.is_none() => {
                sum.base = sum.base.wrapping_add(value).wrapping_sub(self.value(pointer));
                sum.element = sum.base;
            }
            Arg::Const(_) | Arg::Relocated(_) => {}
            Arg::Var(_) => (sum.indexed, sum.varied) = (true, true),
        }
        Some(sum)
    }

    /// A pointer into the stack becomes one to a local, once it is kept or accessed through.
    fn named(pointer: Pointer, here: Here) -> Pointer {
        let local = || Object::Local(here.context, pointer.base.wrapping_sub(here.bottom));
        Pointer { object: Some(pointer.object.unwrap_or_else(local)), ..pointer }
    }

    /// An operation was executed; `value` is its result, or what it loaded or stored.
    pub fn op(&mut self, number: OpId, op: &Op, value: u64, mem: Option<&MemRef>, here: Here) {
        if let Some(mem) = mem.filter(|mem| !mem.io) {
            self.access(number, op, value, mem, here);
        }
        let Some(var) = op.def() else { return };
        let pointer = match op.kind {
            Kind::Mov => self.pointer(op.args[0]).filter(|_| self.value(op.args[0]) == value),
            Kind::Add | Kind::Sub => self.sum(op, value),
            Kind::And if matches!(op.args[1], Arg::Const(_)) => self.sum(op, value),
            Kind::Select => op.args[1..]
                .iter()
                .copied()
                .find(|&arg| self.value(arg) == value)
                .and_then(|arg| self.pointer(arg)),
            Kind::Load => {
                mem.and_then(|mem| self.memory.get(&mem.paddr)).filter(|it| it.0 == value).map(|it| it.1)
            }
            _ => None,
        };
        let kept = var.is_reg() && var != STACK_POINTER;
        let pointer = pointer.map(|it| match kept {
            true => Pointer { element: value, varied: false, ..Self::named(it, here) },
            false => it,
        });
        self.set(var, value, pointer.filter(|_| value >= LOWEST_ADDRESS && var != STACK_POINTER));
    }

    fn access(&mut self, number: OpId, op: &Op, value: u64, mem: &MemRef, here: Here) {
        let store = op.kind == Kind::Store;
        let pointer = self.pointer(op.args[0]).filter(|it| it.object.is_some() || it.indexed);
        if let Some(Pointer { object: Some(object), base, indexed, element, varied }) =
            pointer.map(|it| Self::named(it, here))
        {
            let met = |base: u64, indexed| {
                let from = mem.vaddr.0.wrapping_sub(base).cast_signed();
                Met::new(from, from.saturating_add(i64::from(mem.size)), indexed, store)
            };
            self.objects.access(number, (object, met(base, indexed)), (element, met(element, varied)));
        }
        if store {
            let kept = self.pointer(op.args[1]).filter(|_| self.value(op.args[1]) == value);
            match kept.filter(|_| value >= LOWEST_ADDRESS && mem.size >= 4) {
                Some(pointer) => {
                    let kept = Pointer { element: value, varied: false, ..Self::named(pointer, here) };
                    self.memory.insert(mem.paddr, (value, kept))
                }
                None => self.memory.remove(&mem.paddr),
            };
        }
    }

    /// Registers after a step: what no operation of it defined points nowhere known.
    pub fn settle(&mut self, regs: &RegisterValues, count: u16) {
        for var in (0..count).map(Var) {
            if self.var(var).0 != regs[var] {
                self.set(var, regs[var], None);
            }
        }
    }
}
