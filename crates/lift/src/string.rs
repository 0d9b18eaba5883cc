//! String instructions; with a repeat prefix one iteration of them.
//!
//! As in QEMU an iteration first leaves if the count is 0 and at the end branches to itself if the
//! count it left is not, so the last iteration goes on to the next instruction. An interrupted
//! repetition therefore needs no special treatment, and every iteration is an instruction of its
//! own in a trace.

use iced_x86::{Mnemonic, OpKind, Register};
use ir::{Arg, Kind, Width};
use machine::reg::Reg;

use crate::builder::{Builder, Lifted, arg};

/// Lifts the instruction if it is one of this family.
pub(crate) fn lift(b: &mut Builder) -> Option<Lifted> {
    use Mnemonic as M;
    // `movsd` and `cmpsd` are also SSE instructions.
    if !b.insn.is_string_instruction() {
        return None;
    }
    Some(match b.insn.mnemonic() {
        M::Movsb | M::Movsw | M::Movsd | M::Movsq => string(b, Action::Move),
        M::Cmpsb | M::Cmpsw | M::Cmpsd | M::Cmpsq => string(b, Action::Compare),
        M::Stosb | M::Stosw | M::Stosd | M::Stosq => string(b, Action::Store),
        M::Lodsb | M::Lodsw | M::Lodsd | M::Lodsq => string(b, Action::Load),
        M::Scasb | M::Scasw | M::Scasd | M::Scasq => string(b, Action::Scan),
        M::Insb | M::Insw | M::Insd => string(b, Action::In),
        M::Outsb | M::Outsw | M::Outsd => string(b, Action::Out),
        _ => return None,
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Move,
    Compare,
    Store,
    Load,
    Scan,
    In,
    Out,
}

/// The width of the address and of its registers, from the operands that use them.
fn address_width(b: &Builder) -> Lifted<Width> {
    b.insn.op_kinds().find_map(|kind| {
        Some(match kind {
            OpKind::MemorySegSI | OpKind::MemorySegDI | OpKind::MemoryESDI => Width::B16,
            OpKind::MemorySegESI | OpKind::MemorySegEDI | OpKind::MemoryESEDI => Width::B32,
            OpKind::MemorySegRSI | OpKind::MemorySegRDI | OpKind::MemoryESRDI => Width::B64,
            _ => return None,
        })
    })
}

fn pointer(b: &mut Builder, reg: Reg, width: Width) -> Lifted<Arg> {
    let segment = if reg == Reg::Rsi { b.insn.memory_segment() } else { Register::ES };
    let offset = if width >= b.linear_width() { arg(reg) } else { b.narrow(width, arg(reg)) };
    b.linear(segment, offset)
}

fn string(b: &mut Builder, action: Action) -> Lifted {
    let address_width = address_width(b)?;
    let width = Width::from_bits(8 * b.insn.memory_size().size() as u32)?;
    let repeated = b.insn.has_rep_prefix() || b.insn.has_repne_prefix();
    let next = b.next;
    if repeated {
        let empty = b.eq(address_width, arg(Reg::Rcx), 0);
        b.leave_if(empty, next);
    }
    let uses_source = matches!(action, Action::Move | Action::Compare | Action::Load | Action::Out);
    let uses_destination = !matches!(action, Action::Load | Action::Out);
    let source = if uses_source { Some(pointer(b, Reg::Rsi, address_width)?) } else { None };
    let destination = if uses_destination { Some(pointer(b, Reg::Rdi, address_width)?) } else { None };
    let mut equal = None;
    match (action, source, destination) {
        (Action::Move, Some(from), Some(to)) => {
            let value = b.load(width, from);
            b.store(width, to, value);
        }
        (Action::Store, _, Some(to)) => b.store(width, to, arg(Reg::Rax)),
        (Action::Load, Some(from), _) => {
            let value = b.load(width, from);
            b.write_reg(Reg::Rax, width, value);
        }
        (Action::Compare, Some(left), Some(right)) => {
            let left = b.load(width, left);
            let right = b.load(width, right);
            equal = Some((left, right));
        }
        (Action::Scan, _, Some(at)) => {
            let right = b.load(width, at);
            equal = Some((arg(Reg::Rax), right));
        }
        (Action::In, _, Some(to)) => {
            let port = b.narrow(Width::B16, arg(Reg::Rdx));
            let value = b.op(Kind::In, width, &[port]);
            b.store(width, to, value);
        }
        (Action::Out, Some(from), _) => {
            let port = b.narrow(Width::B16, arg(Reg::Rdx));
            let value = b.load(width, from);
            b.act(Kind::Out, width, &[port, value]);
        }
        _ => return None,
    }
    let mut again = None;
    if let Some((left, right)) = equal {
        b.flags_of_compare(width, left, right);
        if repeated {
            let same = b.eq(width, left, right);
            again = Some(if b.insn.has_repne_prefix() { b.not(Width::B1, same) } else { same });
        }
    }
    let step = width.bytes();
    let step = b.select(address_width, arg(Reg::Df), step.wrapping_neg(), step);
    if uses_source {
        b.bump(Reg::Rsi, address_width, step);
    }
    if uses_destination {
        b.bump(Reg::Rdi, address_width, step);
    }
    if repeated {
        let left = b.bump(Reg::Rcx, address_width, address_width.mask());
        let more = b.nonzero(address_width, left);
        let again = match again {
            Some(matches) => b.and(Width::B1, more, matches),
            None => more,
        };
        let pc = b.pc;
        b.end(Kind::BranchIf, &[again, Arg::Const(pc)]);
    }
    Some(())
}
