//! Collects the operations of one instruction and puts them in order.
//!
//! Everything a handler emits reads the state before the instruction. Flag and register assignments
//! are kept apart from the body and appended by [`Builder::finish`], which copies an old value
//! aside where an earlier assignment would overwrite it. So handlers may assign in any order and
//! cannot break the rule that faults come before changes. Constant operands are folded; no other
//! optimisation is done.

use iced_x86::Instruction;
use ir::{Arg, Class, Kind, Op, Var, Width};
use machine::reg::Reg;

use crate::Mode;

/// What a handler returns: `None` if it does not model this form of the instruction.
pub(crate) type Lifted<T = ()> = Option<T>;

/// The register as an IR variable.
pub(crate) fn var(reg: Reg) -> Var {
    Var(reg as u16)
}

/// The register as an operand.
pub(crate) fn arg(reg: Reg) -> Arg {
    Arg::Var(var(reg))
}

/// The operations of one instruction in the making.
pub(crate) struct Builder<'a> {
    /// The decoded instruction.
    pub insn: &'a Instruction,
    /// The mode it was decoded in.
    pub mode: Mode,
    /// Its linear address.
    pub pc: u64,
    /// The linear address after it.
    pub next: u64,
    /// What `pop` has already added to the stack pointer when the operand's address is computed.
    pub stack_bias: u64,
    /// The linear address of the explicit memory operand, once computed.
    pub(crate) address: Option<Arg>,
    body: Vec<Op>,
    flags: Vec<Op>,
    writes: Vec<Op>,
    late: Vec<Op>,
    control: Option<Op>,
    temps: u16,
}

macro_rules! binary {
    ($($name:ident $kind:ident,)*) => {
        $(pub(crate) fn $name(&mut self, width: Width, a: impl Into<Arg>, b: impl Into<Arg>) -> Arg {
            self.op(Kind::$kind, width, &[a.into(), b.into()])
        })*
    };
}

impl<'a> Builder<'a> {
    pub(crate) fn new(insn: &'a Instruction, mode: Mode, pc: u64, next: u64) -> Self {
        Builder {
            insn,
            mode,
            pc,
            next,
            stack_bias: 0,
            address: None,
            body: Vec::with_capacity(8),
            flags: Vec::new(),
            writes: Vec::new(),
            late: Vec::new(),
            control: None,
            temps: 0,
        }
    }

    fn temp(&mut self) -> Var {
        let temp = Var::temp(self.temps);
        self.temps += 1;
        temp
    }

    /// Appends an operation with a result to the body.
    pub(crate) fn op(&mut self, kind: Kind, width: Width, args: &[Arg]) -> Arg {
        if let Some(value) = fold(kind, width, args) {
            return value;
        }
        let dst = self.temp();
        self.body.push(Op::new(kind, width, dst, args));
        Arg::Var(dst)
    }

    /// Appends an operation without a result to the body.
    pub(crate) fn act(&mut self, kind: Kind, width: Width, args: &[Arg]) {
        self.body.push(Op::new(kind, width, Var::NONE, args));
    }

    /// Appends an operation without a result after all assignments.
    pub(crate) fn act_late(&mut self, kind: Kind, width: Width, args: &[Arg]) {
        self.late.push(Op::new(kind, width, Var::NONE, args));
    }

    binary! {
        add Add, sub Sub, and And, or Or, xor Xor, shl Shl, shr Shr, sar Sar, mul Mul, sext Sext,
            extract Extract,
        eq Eq, less LtU,
    }

    pub(crate) fn not(&mut self, width: Width, a: impl Into<Arg>) -> Arg {
        self.op(Kind::Not, width, &[a.into()])
    }

    /// `a` reduced to `width` bits.
    pub(crate) fn narrow(&mut self, width: Width, a: impl Into<Arg>) -> Arg {
        self.op(Kind::Mov, width, &[a.into()])
    }

    /// 1 if `a` is not 0.
    pub(crate) fn nonzero(&mut self, width: Width, a: impl Into<Arg>) -> Arg {
        self.less(width, 0, a)
    }

    pub(crate) fn select(
        &mut self,
        width: Width,
        a: impl Into<Arg>,
        b: impl Into<Arg>,
        c: impl Into<Arg>,
    ) -> Arg {
        self.op(Kind::Select, width, &[a.into(), b.into(), c.into()])
    }

    pub(crate) fn insert(&mut self, width: Width, a: impl Into<Arg>, b: impl Into<Arg>, at: u64) -> Arg {
        self.op(Kind::Insert, width, &[a.into(), b.into(), Arg::Const(at)])
    }

    pub(crate) fn load(&mut self, width: Width, address: Arg) -> Arg {
        self.op(Kind::Load, width, &[address])
    }

    pub(crate) fn store(&mut self, width: Width, address: Arg, value: impl Into<Arg>) {
        self.act(Kind::Store, width, &[address, value.into()]);
    }

    /// Assigns a flag the result of an operation.
    pub(crate) fn flag(&mut self, flag: Reg, kind: Kind, width: Width, args: &[Arg]) {
        let op = match fold(kind, width, args) {
            Some(value) => Op::new(Kind::Mov, Width::B1, var(flag), &[value]),
            None => Op::new(kind, width, var(flag), args),
        };
        self.flags.push(op);
    }

    /// Assigns a one-bit flag a value that is 0 or 1.
    pub(crate) fn set_flag(&mut self, flag: Reg, value: impl Into<Arg>) {
        self.flags.push(Op::new(Kind::Mov, Width::B1, var(flag), &[value.into()]));
    }

    /// Assigns a whole register; the value is reduced to `width` bits. An earlier assignment is
    /// dropped.
    pub(crate) fn set(&mut self, reg: Reg, width: Width, value: impl Into<Arg>) {
        self.writes.retain(|op| op.dst != var(reg));
        self.writes.push(Op::new(Kind::Mov, width, var(reg), &[value.into()]));
    }

    /// Assigns `width` bits of a register from bit `at` on.
    pub(crate) fn set_part(&mut self, reg: Reg, width: Width, value: impl Into<Arg>, at: u64) {
        self.writes.push(Op::new(Kind::Insert, width, var(reg), &[arg(reg), value.into(), Arg::Const(at)]));
    }

    /// A branch in the middle of the body, before anything has changed.
    pub(crate) fn leave_if(&mut self, condition: Arg, target: u64) {
        self.act(Kind::BranchIf, Width::B64, &[condition, Arg::Const(target)]);
    }

    /// The control operation that ends the instruction.
    pub(crate) fn end(&mut self, kind: Kind, args: &[Arg]) {
        self.control = Some(Op::new(kind, Width::B64, Var::NONE, args));
    }

    /// The operations in order.
    pub(crate) fn finish(mut self) -> Vec<Op> {
        let mut tail: Vec<Op> = Vec::with_capacity(self.flags.len() + self.writes.len() + 2);
        tail.append(&mut self.flags);
        tail.append(&mut self.writes);
        tail.append(&mut self.late);
        tail.extend(self.control);
        self.retarget(&mut tail);
        let mut defined: Vec<Var> = Vec::with_capacity(tail.len());
        let mut copies: Vec<(Var, Var)> = Vec::new();
        for op in &mut tail {
            for place in 0..op.kind.arity() {
                let Arg::Var(used) = op.args[place] else { continue };
                // A second partial write of one register goes on top of the first.
                let chained = op.kind == Kind::Insert && place == 0 && used == op.dst;
                if used.is_temp() || chained || !defined.contains(&used) {
                    continue;
                }
                let copy = match copies.iter().find(|(old, _)| *old == used) {
                    Some((_, copy)) => *copy,
                    None => {
                        let copy = self.temp();
                        self.body.push(Op::new(Kind::Mov, Width::B64, copy, &[Arg::Var(used)]));
                        copies.push((used, copy));
                        copy
                    }
                };
                op.args[place] = Arg::Var(copy);
            }
            defined.extend(op.def());
        }
        self.body.append(&mut tail);
        self.body
    }

    /// `t = f(..); r = mov t` with nothing in between becomes `r = f(..)`, unless the old `r` is
    /// still wanted.
    fn retarget(&mut self, tail: &mut Vec<Op>) {
        let (Some(first), Some(last)) = (tail.first().copied(), self.body.last_mut()) else { return };
        let Some(temp) = last.def() else { return };
        let uses = tail.iter().flat_map(Op::uses).filter(|&used| used == temp || used == first.dst).count();
        let whole = matches!(last.kind, Kind::Insert | Kind::Crc32c) || last.kind.name().starts_with('v');
        let fits = first.width == Width::B64 || (first.width >= last.width && !whole);
        if first.kind == Kind::Mov && first.args[0] == Arg::Var(temp) && uses == 1 && fits {
            last.dst = first.dst;
            self.temps -= 1;
            tail.remove(0);
        }
    }
}

/// The result of an operation if it needs no operation at run time.
fn fold(kind: Kind, width: Width, args: &[Arg]) -> Option<Arg> {
    if kind.class() != Class::Pure {
        return None;
    }
    let mut values = [0; 3];
    for (value, arg) in values.iter_mut().zip(args) {
        match arg {
            Arg::Const(constant) => *value = *constant,
            Arg::Var(_) | Arg::Relocated(_) => {
                let neutral =
                    matches!(kind, Kind::Add | Kind::Sub) && width == Width::B64 && args[1] == Arg::Const(0);
                return neutral.then_some(args[0]);
            }
        }
    }
    ir::eval(kind, width, values[0], values[1], values[2]).ok().map(Arg::Const)
}
