//! Comparing the code of two boots or two systems.
//!
//! What a difference means (something moved, something was patched) is for the caller to say.

use iced_x86::{Decoder, DecoderOptions, Mnemonic, OpKind, Register};
use ir::Arg;

use crate::{Insn, Mode};

/// Whether two instructions do the same, apart from the values of constants: the same operations on
/// the same registers, in as many bytes. Constants that decide what is done (a shift by 0 does
/// nothing) make other operations.
#[must_use]
pub fn same_form(a: &Insn, b: &Insn) -> bool {
    let form = |arg: &Arg| match arg {
        Arg::Var(var) => Some(*var),
        Arg::Const(_) | Arg::Relocated(_) => None,
    };
    a.len == b.len
        && a.ops.len() == b.ops.len()
        && a.ops.iter().zip(&b.ops).all(|(a, b)| {
            (a.kind, a.width, a.dst) == (b.kind, b.width, b.dst)
                && a.args.iter().map(form).eq(b.args.iter().map(form))
        })
}

/// Whether a byte may be filling between functions (zeros, `int3`, `nop`), which says nothing about
/// whose code it is. The same bytes also occur inside instructions.
#[must_use]
pub const fn is_padding(byte: u8) -> bool {
    matches!(byte, 0x00 | 0x90 | 0xcc)
}

/// Whether these bytes are one instruction that changes nothing but the instruction pointer: a
/// `nop`, or a `mov` or `lea` of a register to itself, which serve as longer ones (SDM vol. 2,
/// NOP). In 64-bit code such a `mov` of 32 bits does something.
#[must_use]
pub fn is_nop(mode: Mode, bytes: &[u8]) -> bool {
    let insn = Decoder::with_ip(mode.bits(), bytes, 0, DecoderOptions::NONE).decode();
    if insn.len() != bytes.len() || insn.is_invalid() {
        return false;
    }
    let to_itself = match insn.mnemonic() {
        Mnemonic::Nop => return true,
        Mnemonic::Mov => insn.op1_kind() == OpKind::Register && insn.op0_register() == insn.op1_register(),
        Mnemonic::Lea => {
            let registers = match (insn.memory_base(), insn.memory_index(), insn.memory_index_scale()) {
                (Register::None, index, 1) => index,
                (base, Register::None, _) => base,
                _ => return false,
            };
            registers == insn.op0_register() && insn.memory_displacement64() == 0
        }
        _ => return false,
    };
    to_itself
        && insn.op0_kind() == OpKind::Register
        && u32::from(mode.bits() == 64) * 4 + 4 == insn.op0_register().size() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who looks for what does nothing looks at no others.
    #[test]
    fn a_nop_is_at_most_one_operation() {
        let nops: [(Mode, &[u8]); 7] = [
            (Mode::Bits64, &[0x90]),
            (Mode::Bits64, &[0x66, 0x90]),
            (Mode::Bits64, &[0x0f, 0x1f, 0x44, 0x00, 0x00]),
            (Mode::Bits64, &[0x48, 0x89, 0xf6]),
            (Mode::Bits32, &[0x89, 0xf6]),
            (Mode::Bits32, &[0x3e, 0x8d, 0x74, 0x26, 0x00]),
            (Mode::Bits32, &[0x8d, 0x76, 0x00]),
        ];
        for (mode, bytes) in nops {
            assert!(is_nop(mode, bytes), "{bytes:02x?}");
            let ops = lift(mode, 0, bytes).unwrap().ops;
            assert!(ops.len() <= 1, "{bytes:02x?}: {ops:?}");
        }
    }

    use crate::lift;

    fn same(a: &[u8], b: &[u8]) -> bool {
        let insn = |bytes| lift(Mode::Bits64, 0x1000, bytes).unwrap();
        same_form(&insn(a), &insn(b)) && same_form(&insn(b), &insn(a))
    }

    #[test]
    fn an_instruction_of_no_effect_is_one() {
        let long: [&[u8]; 4] = [&[0x90], &[0x66, 0x90], &[0x0f, 0x1f, 0x44, 0, 0], &[0x48, 0x89, 0xf6]];
        assert!(long.iter().all(|bytes| is_nop(Mode::Bits64, bytes)));
        // mov %esi,%esi; lea 0(%esi,%eiz,1),%esi
        let short: [&[u8]; 2] = [&[0x89, 0xf6], &[0x3e, 0x8d, 0x74, 0x26, 0]];
        assert!(short.iter().all(|bytes| is_nop(Mode::Bits32, bytes)));
        // The first clears half of %rsi; lea 1(%esi),%esi; mov %ecx,%esi; two of them; jmp.
        let others: [&[u8]; 5] =
            [&[0x89, 0xf6], &[0x48, 0x8d, 0x76, 1], &[0x48, 0x89, 0xce], &[0x90, 0x90], &[0xeb, 0]];
        assert!(!others.iter().any(|bytes| is_nop(Mode::Bits64, bytes)));
    }

    #[test]
    fn other_constants_are_the_same_form() {
        // mov $imm32,%rdi; mov disp32(%rip),%rax; call; shr $imm8,%eax
        assert!(same(&[0x48, 0xc7, 0xc7, 1, 2, 3, 4], &[0x48, 0xc7, 0xc7, 5, 6, 7, 0x80]));
        assert!(same(&[0x48, 0x8b, 0x05, 1, 2, 3, 4], &[0x48, 0x8b, 0x05, 5, 6, 7, 8]));
        assert!(same(&[0xe8, 1, 2, 3, 4], &[0xe8, 5, 6, 7, 8]));
        assert!(same(&[0xc1, 0xe8, 0x14], &[0xc1, 0xe8, 0x15]));
    }

    #[test]
    fn other_registers_widths_operations_and_lengths_are_not() {
        // mov %rcx,(%rdi); mov %rdx,(%rdi); mov %ecx,(%rdi)
        assert!(!same(&[0x48, 0x89, 0x0f], &[0x48, 0x89, 0x17]));
        assert!(!same(&[0x48, 0x89, 0x0f], &[0x89, 0x0f]));
        // mov $1,%eax and mov $1,%ecx; add and sub
        assert!(!same(&[0xb8, 1, 0, 0, 0], &[0xb9, 1, 0, 0, 0]));
        assert!(!same(&[0x83, 0xc0, 1], &[0x83, 0xe8, 1]));
        // jmp of two and of five bytes
        assert!(!same(&[0xeb, 0x10], &[0xe9, 0x10, 0, 0, 0]));
        // A register where the other has a constant: mov %ecx,%eax; mov $1,%eax
        assert!(!same(&[0x89, 0xc8], &[0xb8, 1, 0, 0, 0]));
    }

    #[test]
    fn fillings_are_padding() {
        let found: Vec<u8> = (0..=u8::MAX).filter(|byte| is_padding(*byte)).collect();
        assert_eq!(found, [0x00, 0x90, 0xcc]);
    }
}
