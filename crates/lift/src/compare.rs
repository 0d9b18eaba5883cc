//! Comparing the code of two boots or two systems.
//!
//! What a difference means (something moved, something was patched) is for the caller to say.

use ir::Arg;

use crate::Insn;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Mode, lift};

    fn same(a: &[u8], b: &[u8]) -> bool {
        let insn = |bytes| lift(Mode::Bits64, 0x1000, bytes).unwrap();
        same_form(&insn(a), &insn(b)) && same_form(&insn(b), &insn(a))
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
