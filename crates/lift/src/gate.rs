//! Software interrupts of a process: `int N` through its gate into a system that runs at privilege
//! 0.
//!
//! SDM vol. 3 sections 6.12.1 (32-bit gates) and 6.14 (long mode): the gate says where to, the
//! task-state segment which stack; the process's SS, stack pointer, flags, CS and address of return
//! are pushed there. That the privilege changes is taken for granted: an interrupt at privilege 0
//! is not lifted by this. Gates' rights, task gates and 16-bit gates are not modelled.

use ir::{Arg, Kind, Width};
use machine::reg::Reg;

use crate::Mode;
use crate::builder::{Builder, arg};
use crate::linear::next_offset;
use crate::segment::{base_at, descriptor_base};

/// The low byte of a gate's type field that tells a trap gate, which leaves IF alone.
const TRAP_GATE: u64 = 0xf;

/// Lifts `int vector`. `long`: the processor is in long mode, whatever the mode of the process's
/// code.
pub(crate) fn enter(b: &mut Builder, vector: u64, long: bool) {
    let (address, word) = if long { (Width::B64, Width::B64) } else { (Width::B32, Width::B32) };
    let gate = b.add(address, arg(Reg::IdtrBase), vector << if long { 4 } else { 3 });
    let low = b.load(Width::B32, gate);
    let second = b.add(address, gate, 4);
    let high = b.load(Width::B32, second);
    let upper = b.and(Width::B32, high, 0xffff_0000);
    let lower = b.and(Width::B32, low, 0xffff);
    let mut offset = b.or(Width::B32, upper, lower);
    let selector = b.shr(Width::B32, low, 16);
    let selector = b.and(Width::B16, selector, 0xfffc);
    let kind = b.shr(Width::B32, high, 8);
    let kind = b.and(Width::B8, kind, 0xf);
    let trap = b.eq(Width::B8, kind, TRAP_GATE);
    let (stack, stack_selector, stack_base, code_base);
    if long {
        let third = b.add(address, gate, 8);
        let top = b.load(Width::B32, third);
        offset = b.insert(Width::B32, offset, top, 32);
        // The interrupt stack table begins 0x24 bytes into the segment, its number 0 means the
        // stack of privilege 0 at 4.
        let number = b.and(Width::B8, high, 7);
        let table = b.shl(Width::B64, number, 3);
        let table = b.add(Width::B64, table, 0x1c);
        let place = b.select(Width::B64, number, table, 4);
        let place = b.add(Width::B64, arg(Reg::TrBase), place);
        let pointer = b.load(Width::B64, place);
        stack = b.and(Width::B64, pointer, !15);
        (stack_selector, stack_base, code_base) = (Arg::Const(0), Arg::Const(0), Arg::Const(0));
    } else {
        let place = b.add(Width::B32, arg(Reg::TrBase), 4);
        stack = b.load(Width::B32, place);
        let place = b.add(Width::B32, arg(Reg::TrBase), 8);
        stack_selector = b.load(Width::B16, place);
        let (words, descriptors) = (base_at(b, selector), base_at(b, stack_selector));
        code_base = descriptor_base(b, words.0, words.1);
        stack_base = descriptor_base(b, descriptors.0, descriptors.1);
    }
    let (back, image) = (next_offset(b), b.rflags());
    let mut pointer = stack;
    for value in [arg(Reg::Ss), arg(Reg::Rsp), image, arg(Reg::Cs), back] {
        pointer = b.sub(address, pointer, word.bytes());
        let place = if long { pointer } else { b.add(Width::B32, stack_base, pointer) };
        b.store(word, place, value);
    }
    b.set(Reg::Rsp, word, pointer);
    b.set(Reg::Ss, Width::B16, stack_selector);
    b.set(Reg::SsBase, Width::B64, stack_base);
    b.set(Reg::Cs, Width::B16, selector);
    b.set(Reg::CsBase, Width::B64, code_base);
    b.set(Reg::Cpl, Width::B8, 0);
    b.flag(Reg::If, Kind::Select, Width::B1, &[trap, arg(Reg::If), Arg::Const(0)]);
    for flag in [Reg::Tf, Reg::Nt] {
        b.set_flag(flag, 0);
    }
    let target = if long { offset } else { b.add(Width::B32, offset, code_base) };
    let next = b.next;
    debug_assert!(b.mode != Mode::Bits64 || long);
    b.end(Kind::SysEnter, &[target, Arg::Const(next)]);
}

/// Whether the upper half of a descriptor says that it is a 32-bit call gate that copies no
/// parameters (SDM vol. 3 section 5.8.3); those that copy some are not modelled.
#[must_use]
pub const fn is_call_gate(high: u32) -> bool {
    high >> 8 & 0x1f == 0xc && high & 0x1f == 0
}

/// Lifts a process's far call through a call gate outside long mode (SDM vol. 3 section 5.8.5): the
/// gate says where to, the task-state segment which stack; SS, stack pointer, CS and address of
/// return are pushed there. Flags stay.
pub(crate) fn call(b: &mut Builder, gate: u16) {
    let table = if gate & 4 != 0 { Reg::LdtrBase } else { Reg::GdtrBase };
    let place = b.add(Width::B32, arg(table), u64::from(gate & 0xfff8));
    let low = b.load(Width::B32, place);
    let second = b.add(Width::B32, place, 4);
    let high = b.load(Width::B32, second);
    let upper = b.and(Width::B32, high, 0xffff_0000);
    let lower = b.and(Width::B32, low, 0xffff);
    let offset = b.or(Width::B32, upper, lower);
    let selector = b.shr(Width::B32, low, 16);
    let selector = b.and(Width::B16, selector, 0xfffc);
    let place = b.add(Width::B32, arg(Reg::TrBase), 4);
    let stack = b.load(Width::B32, place);
    let place = b.add(Width::B32, arg(Reg::TrBase), 8);
    let stack_selector = b.load(Width::B16, place);
    let (words, descriptors) = (base_at(b, selector), base_at(b, stack_selector));
    let code_base = descriptor_base(b, words.0, words.1);
    let stack_base = descriptor_base(b, descriptors.0, descriptors.1);
    let back = next_offset(b);
    let mut pointer = stack;
    for value in [arg(Reg::Ss), arg(Reg::Rsp), arg(Reg::Cs), back] {
        pointer = b.sub(Width::B32, pointer, 4);
        let place = b.add(Width::B32, stack_base, pointer);
        b.store(Width::B32, place, value);
    }
    b.set(Reg::Rsp, Width::B32, pointer);
    b.set(Reg::Ss, Width::B16, stack_selector);
    b.set(Reg::SsBase, Width::B64, stack_base);
    b.set(Reg::Cs, Width::B16, selector);
    b.set(Reg::CsBase, Width::B64, code_base);
    b.set(Reg::Cpl, Width::B8, 0);
    let target = b.add(Width::B32, offset, code_base);
    let next = b.next;
    b.end(Kind::SysEnter, &[target, Arg::Const(next)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_gates_are_told_from_segments_and_from_gates_with_parameters() {
        assert!(is_call_gate(0xc100_ec00));
        // A code segment, a call gate of two parameters, a 16-bit one, an interrupt gate.
        assert!([0x00cf_9a00, 0xc100_ec02, 0xc100_e400, 0xc100_ee00].iter().all(|&high| !is_call_gate(high)));
    }

    #[test]
    fn only_a_far_call_through_a_gate_enters_the_system() {
        let far_call = [0x9a, 0, 0, 0, 0, 7, 0];
        let last = |gate: bool| {
            let mut asked = Vec::new();
            let insn = crate::lift_process(Mode::Bits32, false, 0x1000, &far_call, &mut |selector| {
                asked.push(selector);
                gate
            });
            assert_eq!(asked, [7]);
            insn.ok().and_then(|insn| insn.ops.last().map(|op| op.kind))
        };
        assert_eq!((last(true), last(false)), (Some(Kind::SysEnter), Some(Kind::Call)));
    }
}
