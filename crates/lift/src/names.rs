//! The constant addresses that code names.
//!
//! For finding out which data belongs to code, by decoding it in one sweep. Nothing is lifted, and where the sweep gets out of step with the code (data between
//! functions) it is wrong for a few instructions.

use iced_x86::{Decoder, DecoderOptions, Instruction, OpKind, Register};

use crate::Mode;

/// Calls `visit` with every constant that an instruction uses as an address, or that could be one: absolute and instruction-relative memory operands, and
/// immediate operands of full width.
pub fn names(mode: Mode, pc: u64, code: &[u8], visit: &mut dyn FnMut(u64)) {
    let mut decoder = Decoder::with_ip(mode.bits(), code, pc, DecoderOptions::NONE);
    let mut insn = Instruction::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut insn);
        for operand in 0..insn.op_count() {
            match insn.op_kind(operand) {
                OpKind::Memory if insn.is_ip_rel_memory_operand() => visit(insn.ip_rel_memory_address()),
                // An index may be added to the beginning of a table.
                OpKind::Memory if insn.memory_base() == Register::None || insn.memory_displ_size() >= 4 => {
                    visit(insn.memory_displacement64());
                }
                OpKind::Immediate32 => visit(u64::from(insn.immediate32())),
                OpKind::Immediate32to64 => visit(insn.immediate32to64() as u64),
                OpKind::Immediate64 => visit(insn.immediate64()),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_of_all_kinds() {
        // lea 0x10(%rip),%rax; mov $0xffffffff83043080,%rdi; mov 0xffffffff82a00000(,%rax,8),%rax; add $1,%eax
        let code = [
            0x48, 0x8d, 0x05, 0x10, 0, 0, 0, 0x48, 0xc7, 0xc7, 0x80, 0x30, 0x04, 0x83, 0x48, 0x8b, 0x04, 0xc5, 0, 0,
            0xa0, 0x82, 0x83, 0xc0, 0x01,
        ];
        let mut found = Vec::new();
        names(Mode::Bits64, 0x1000, &code, &mut |address| found.push(address));
        assert_eq!(found, [0x1017, 0xffff_ffff_8304_3080, 0xffff_ffff_82a0_0000]);
    }
}
