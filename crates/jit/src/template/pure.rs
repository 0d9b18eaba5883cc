//! Operations that are a function of their operands.

use dynasmrt::{DynasmApi, DynasmLabelApi, dynasm};
use ir::{Kind, Width};

use super::{Operand, R8, RAX, RCX, RDX, Template};
use crate::operation::Predecoded;

/// `op rax|eax, b`.
macro_rules! arithmetic {
    ($self:ident, $name:ident, $op:expr) => {{
        $self.load(RAX, $op.a);
        match ($self.operand($op.b), $op.width == Width::B64) {
            (Operand::Slot(at), true) => dynasm!($self.assembler ; .arch x64 ; $name rax, [rbx + at]),
            (Operand::Slot(at), false) => dynasm!($self.assembler ; .arch x64 ; $name eax, [rbx + at]),
            (Operand::Value(value), true) => match i32::try_from(value.cast_signed()) {
                Ok(value) => dynasm!($self.assembler ; .arch x64 ; $name rax, value),
                Err(_) => {
                    $self.load(RCX, $op.b);
                    dynasm!($self.assembler ; .arch x64 ; $name rax, rcx);
                }
            },
            (Operand::Value(value), false) => {
                dynasm!($self.assembler ; .arch x64 ; $name eax, value as u32 as i32);
            }
        }
        $self.finish($op, $op.width != Width::B32);
    }};
}

/// An instruction on `rax` and `rcx` in the width.
macro_rules! sized {
    ($self:ident, $name:ident, $width:expr) => {
        match $width {
            Width::B64 => dynasm!($self.assembler ; .arch x64 ; $name rax, rcx),
            Width::B32 => dynasm!($self.assembler ; .arch x64 ; $name eax, ecx),
            Width::B16 => dynasm!($self.assembler ; .arch x64 ; $name ax, cx),
            Width::B8 | Width::B1 => dynasm!($self.assembler ; .arch x64 ; $name al, cl),
        }
    };
}

/// A flag of the host as the result.
macro_rules! flag {
    ($self:ident, $name:ident, $op:expr) => {{
        dynasm!($self.assembler ; .arch x64 ; $name al ; movzx eax, al);
        $self.finish($op, false);
    }};
}

/// A shift or rotation of `rax` by `cl` in the width.
macro_rules! rotate {
    ($self:ident, $name:ident, $op:expr) => {{
        $self.load_both($op);
        match $op.width {
            Width::B64 => dynasm!($self.assembler ; .arch x64 ; $name rax, cl),
            Width::B32 => dynasm!($self.assembler ; .arch x64 ; $name eax, cl),
            Width::B16 => dynasm!($self.assembler ; .arch x64 ; $name ax, cl),
            Width::B8 | Width::B1 => dynasm!($self.assembler ; .arch x64 ; $name al, cl),
        }
        $self.finish($op, true);
    }};
}

impl Template<'_> {
    pub(super) fn pure(&mut self, op: &Predecoded, at: usize) {
        let wide = op.width != Width::B1;
        match op.kind {
            Kind::Mov => {
                self.load(RAX, op.a);
                self.finish(op, true);
            }
            Kind::Add => arithmetic!(self, add, op),
            Kind::Sub => arithmetic!(self, sub, op),
            Kind::And => arithmetic!(self, and, op),
            Kind::Or => arithmetic!(self, or, op),
            Kind::Xor => arithmetic!(self, xor, op),
            Kind::Not => {
                self.load(RAX, op.a);
                dynasm!(self.assembler ; .arch x64 ; not rax);
                self.finish(op, true);
            }
            Kind::Neg => {
                self.load(RAX, op.a);
                dynasm!(self.assembler ; .arch x64 ; neg rax);
                self.finish(op, true);
            }
            Kind::Mul => {
                self.load_both(op);
                dynasm!(self.assembler ; .arch x64 ; imul rax, rcx);
                self.finish(op, true);
            }
            Kind::Shl | Kind::Shr => self.shift(op),
            Kind::Sar => {
                self.load_both(op);
                self.sign(op.width);
                dynasm!(self.assembler
                    ; .arch x64
                    ; mov edx, 63
                    ; cmp rcx, rdx
                    ; cmova rcx, rdx
                    ; sar rax, cl
                );
                self.finish(op, true);
            }
            Kind::Rol if wide => rotate!(self, rol, op),
            Kind::Ror if wide => rotate!(self, ror, op),
            Kind::Sext | Kind::Insert | Kind::Extract => self.bits(op, at),
            Kind::Eq | Kind::LtU | Kind::LtS if wide => self.compare(op),
            Kind::CarryAdd | Kind::OverflowAdd | Kind::CarrySub | Kind::OverflowSub if wide => {
                self.with_carry(op);
            }
            Kind::Parity => {
                self.load(RAX, op.a);
                dynasm!(self.assembler ; .arch x64 ; test al, al);
                flag!(self, setp, op);
            }
            Kind::Select => {
                self.load(RDX, op.a);
                self.load(RCX, op.b);
                self.load(RAX, op.c);
                dynasm!(self.assembler ; .arch x64 ; test rdx, rdx ; cmovnz rax, rcx);
                self.finish(op, true);
            }
            Kind::Bswap if op.width == Width::B64 => {
                self.load(RAX, op.a);
                dynasm!(self.assembler ; .arch x64 ; bswap rax);
                self.finish(op, false);
            }
            Kind::Bswap if op.width == Width::B32 => {
                self.load(RAX, op.a);
                dynasm!(self.assembler ; .arch x64 ; bswap eax);
                self.finish(op, false);
            }
            _ => self.ask(op, at),
        }
    }

    /// `a << b` and `a >> b`; 0 where b is the width or more.
    fn shift(&mut self, op: &Predecoded) {
        let (left, bits) = (op.kind == Kind::Shl, op.width.bits() as i32);
        match self.operand(op.b) {
            Operand::Value(count) if count >= bits as u64 => {
                dynasm!(self.assembler ; .arch x64 ; xor eax, eax);
            }
            Operand::Value(count) => {
                self.load(RAX, op.a);
                if left {
                    dynasm!(self.assembler ; .arch x64 ; shl rax, count as i8);
                } else {
                    self.cut(op.width);
                    dynasm!(self.assembler ; .arch x64 ; shr rax, count as i8);
                }
            }
            Operand::Slot(_) => {
                self.load_both(op);
                self.cut(op.width);
                if left {
                    dynasm!(self.assembler ; .arch x64 ; shl rax, cl);
                } else {
                    dynasm!(self.assembler ; .arch x64 ; shr rax, cl);
                }
                dynasm!(self.assembler ; .arch x64 ; mov edx, 0 ; cmp rcx, bits ; cmovae rax, rdx);
            }
        }
        self.finish(op, left);
    }

    /// Parts of values, whose places are constants.
    fn bits(&mut self, op: &Predecoded, at: usize) {
        let place = if op.kind == Kind::Insert { op.c } else { op.b };
        let Operand::Value(place) = self.operand(place) else { return self.ask(op, at) };
        match op.kind {
            Kind::Sext => {
                let bits = if place == 0 || place > 64 { 64 } else { place as u32 };
                self.load(RAX, op.a);
                match Width::from_bits(bits) {
                    Some(width) => self.sign(width),
                    None => {
                        let by = 64 - bits as i8;
                        dynasm!(self.assembler ; .arch x64 ; shl rax, by ; sar rax, by);
                    }
                }
                self.finish(op, true);
            }
            Kind::Extract => {
                self.load(RAX, op.a);
                if place & 63 != 0 {
                    dynasm!(self.assembler ; .arch x64 ; shr rax, (place & 63) as i8);
                }
                self.finish(op, true);
            }
            _ => {
                let lsb = (place & 63) as u32;
                let mask = op.width.mask();
                self.load(R8, op.a);
                self.load(RAX, op.b);
                self.cut(op.width);
                dynasm!(self.assembler
                    ; .arch x64
                    ; shl rax, lsb as i8
                    ; mov rdx, QWORD (!(mask << lsb)).cast_signed()
                    ; and r8, rdx
                    ; or rax, r8
                );
                self.finish(op, false);
            }
        }
    }

    fn compare(&mut self, op: &Predecoded) {
        self.load_both(op);
        sized!(self, cmp, op.width);
        match op.kind {
            Kind::Eq => flag!(self, sete, op),
            Kind::LtU => flag!(self, setb, op),
            _ => flag!(self, setl, op),
        }
    }

    /// The carry and the overflow of sums and differences of three.
    fn with_carry(&mut self, op: &Predecoded) {
        let adds = matches!(op.kind, Kind::CarryAdd | Kind::OverflowAdd);
        match self.operand(op.c) {
            Operand::Value(value) if value & 1 == 0 => {
                self.load_both(op);
                if adds {
                    sized!(self, add, op.width);
                } else {
                    sized!(self, cmp, op.width);
                }
            }
            _ => {
                self.load(RDX, op.c);
                self.load_both(op);
                dynasm!(self.assembler ; .arch x64 ; bt edx, 0);
                if adds {
                    sized!(self, adc, op.width);
                } else {
                    sized!(self, sbb, op.width);
                }
            }
        }
        match op.kind {
            Kind::CarryAdd | Kind::CarrySub => flag!(self, setc, op),
            _ => flag!(self, seto, op),
        }
    }

    /// Asks `ir::eval`.
    fn ask(&mut self, op: &Predecoded, at: usize) {
        let exit = self.exit_at(at);
        let (kind, width) = (i32::from(op.kind as u8), op.width.bits() as i32);
        self.load(RDX, op.a);
        self.load(RCX, op.b);
        self.load(R8, op.c);
        let function = (evaluate as extern "sysv64" fn(u32, u32, u64, u64, u64, *mut u64) -> u32) as usize;
        dynasm!(self.assembler
            ; .arch x64
            ; mov edi, kind
            ; mov esi, width
            ; lea r9, [rbx + i32::from(op.dst) * 8]
            ; mov rax, QWORD function as i64
            ; call rax
            ; test eax, eax
            ; jnz =>exit
        );
        self.rax = None;
    }
}

/// What compiled code calls for an operation that has no template; 0, or 1 if there is no result.
extern "sysv64" fn evaluate(kind: u32, width: u32, a: u64, b: u64, c: u64, result: *mut u64) -> u32 {
    let (Some(&kind), Some(width)) = (Kind::ALL.get(kind as usize), Width::from_bits(width)) else {
        return 1;
    };
    let Ok(value) = ir::eval(kind, width, a, b, c) else { return 1 };
    // SAFETY: compiled code gives the address of a slot (`Template::ask`), and has borrowed the
    // slots for as long as it runs.
    unsafe { result.write(value) };
    0
}
