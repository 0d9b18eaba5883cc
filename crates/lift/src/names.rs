//! The constant addresses that code names.
//!
//! For finding out which data belongs to code, by decoding it in one sweep. Nothing is lifted, and
//! where the sweep gets out of step with the code (data between functions) it is wrong for a few
//! instructions.

use iced_x86::{Decoder, DecoderOptions, Instruction, OpKind, Register};

use crate::Mode;

/// Calls `visit` with every constant that an instruction uses as an address, or that could be one:
/// absolute and instruction-relative memory operands, and immediate operands of full width.
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

/// Calls `visit` with every constant that can only be an address: absolute memory operands without
/// registers, and immediate operands of 64 bits.
pub fn absolutes(mode: Mode, pc: u64, code: &[u8], visit: &mut dyn FnMut(u64)) {
    let mut decoder = Decoder::with_ip(mode.bits(), code, pc, DecoderOptions::NONE);
    let mut insn = Instruction::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut insn);
        for operand in 0..insn.op_count() {
            let registers = [insn.memory_base(), insn.memory_index(), insn.segment_prefix()];
            match insn.op_kind(operand) {
                OpKind::Memory if registers == [Register::None; 3] => visit(insn.memory_displacement64()),
                OpKind::Immediate64 => visit(insn.immediate64()),
                _ => {}
            }
        }
    }
}

/// Calls `visit` with every constant address of a memory operand: absolute without registers, or
/// relative to the instruction. Unlike an immediate operand it can be nothing else.
pub fn operands(mode: Mode, pc: u64, code: &[u8], visit: &mut dyn FnMut(u64)) {
    let mut decoder = Decoder::with_ip(mode.bits(), code, pc, DecoderOptions::NONE);
    let mut insn = Instruction::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut insn);
        if (0..insn.op_count()).any(|at| insn.op_kind(at) == OpKind::Memory) {
            let registers = [insn.memory_base(), insn.memory_index(), insn.segment_prefix()];
            if insn.is_ip_rel_memory_operand() {
                visit(insn.ip_rel_memory_address());
            } else if registers == [Register::None; 3] {
                visit(insn.memory_displacement64());
            }
        }
    }
}

/// Where the constants of one instruction stand in its bytes: displacement and immediate operands,
/// as offset and size. Where a direct jump or call leads is none of them.
#[must_use]
pub fn constants(mode: Mode, bytes: &[u8]) -> Vec<(usize, u8)> {
    let mut decoder = Decoder::with_ip(mode.bits(), bytes, 0, DecoderOptions::NONE);
    let insn = decoder.decode();
    if insn.is_jcc_short_or_near() || insn.is_jmp_short_or_near() || insn.is_call_near() {
        return Vec::new();
    }
    fields(&decoder, &insn)
}

/// The length of one instruction and where its displacement, immediate operands or distance to go
/// stand in its bytes, as offset and size; `None` for bytes that are no instruction.
#[must_use]
pub fn layout(mode: Mode, bytes: &[u8]) -> Option<(usize, Vec<(usize, u8)>)> {
    let mut decoder = Decoder::with_ip(mode.bits(), bytes, 0, DecoderOptions::NONE);
    let insn = decoder.decode();
    (!insn.is_invalid()).then(|| (insn.len(), fields(&decoder, &insn)))
}

/// The length of one instruction; `None` for bytes that are no instruction.
#[must_use]
pub fn length(mode: Mode, bytes: &[u8]) -> Option<usize> {
    let insn = Decoder::with_ip(mode.bits(), bytes, 0, DecoderOptions::NONE).decode();
    (!insn.is_invalid()).then(|| insn.len())
}

fn fields(decoder: &Decoder<'_>, insn: &Instruction) -> Vec<(usize, u8)> {
    if insn.is_invalid() {
        return Vec::new();
    }
    let at = decoder.get_constant_offsets(insn);
    [
        (at.displacement_offset(), at.displacement_size()),
        (at.immediate_offset(), at.immediate_size()),
        (at.immediate_offset2(), at.immediate_size2()),
    ]
    .into_iter()
    .filter(|(_, size)| (1..=8).contains(size))
    .map(|(offset, size)| (offset, size as u8))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_stand_where_the_encoding_has_them() {
        // movabs $imm64,%rax; shr $0x14,%eax; mov disp32(%rip),%rax; movl $imm32,disp8(%rsp); jmp;
        // call
        type Case = (&'static [u8], &'static [(usize, u8)]);
        let cases: [Case; 6] = [
            (&[0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8], &[(2, 8)]),
            (&[0xc1, 0xe8, 0x14], &[(2, 1)]),
            (&[0x48, 0x8b, 0x05, 1, 2, 3, 4], &[(3, 4)]),
            (&[0xc7, 0x44, 0x24, 0x10, 1, 2, 3, 4], &[(3, 1), (4, 4)]),
            (&[0xe9, 1, 2, 3, 4], &[]),
            (&[0xe8, 1, 2, 3, 4], &[]),
        ];
        for (bytes, expected) in cases {
            assert_eq!(constants(Mode::Bits64, bytes), expected, "{bytes:02x?}");
            assert_eq!(length(Mode::Bits64, bytes), Some(bytes.len()));
        }
        assert_eq!(layout(Mode::Bits64, &[0xe8, 1, 2, 3, 4]), Some((5, vec![(1, 4)])));
        assert_eq!(layout(Mode::Bits64, &[0x90, 0x90]), Some((1, Vec::new())));
        assert_eq!((layout(Mode::Bits64, &[0x06]), length(Mode::Bits64, &[0x06])), (None, None));
    }

    #[test]
    fn constants_of_all_kinds() {
        // lea 0x10(%rip),%rax; mov $0xffffffff83043080,%rdi; mov 0xffffffff82a00000(,%rax,8),%rax;
        // add $1,%eax
        let code = [
            0x48, 0x8d, 0x05, 0x10, 0, 0, 0, 0x48, 0xc7, 0xc7, 0x80, 0x30, 0x04, 0x83, 0x48, 0x8b, 0x04,
            0xc5, 0, 0, 0xa0, 0x82, 0x83, 0xc0, 0x01,
        ];
        let mut found = Vec::new();
        names(Mode::Bits64, 0x1000, &code, &mut |address| found.push(address));
        assert_eq!(found, [0x1017, 0xffff_ffff_8304_3080, 0xffff_ffff_82a0_0000]);
        found.clear();
        // The same, and: mov 0xfffff78000000014,%rax; movabs $0xfffff78000000000,%rcx; mov
        // %gs:0x14,%eax
        let mut code = code.to_vec();
        code.extend([0x48, 0xa1, 0x14, 0, 0, 0, 0x80, 0xf7, 0xff, 0xff]);
        code.extend([0x48, 0xb9, 0, 0, 0, 0, 0x80, 0xf7, 0xff, 0xff, 0x65, 0x8b, 0x04, 0x25, 0x14, 0, 0, 0]);
        absolutes(Mode::Bits64, 0x1000, &code, &mut |address| found.push(address));
        assert_eq!(found, [0xffff_f780_0000_0014, 0xffff_f780_0000_0000]);
        found.clear();
        // mov 0xffdf0014,%eax; mov 0xffdf0320(%ecx),%eax; mov $0xffdf0000,%eax
        let code = [0xa1, 0x14, 0, 0xdf, 0xff, 0x8b, 0x81, 0x20, 0x03, 0xdf, 0xff, 0xb8, 0, 0, 0xdf, 0xff];
        absolutes(Mode::Bits32, 0x1000, &code, &mut |address| found.push(address));
        assert_eq!(found, [0xffdf_0014]);
        found.clear();
        operands(Mode::Bits32, 0x1000, &code, &mut |address| found.push(address));
        assert_eq!(found, [0xffdf_0014], "a constant that a register is added to may be a distance");
        found.clear();
        // incl 0x10(%rip)
        operands(Mode::Bits64, 0x1000, &[0xff, 0x05, 0x10, 0, 0, 0], &mut |address| found.push(address));
        assert_eq!(found, [0x1016]);
    }
}
