//! One instruction at another address, naming what moved.
//!
//! For comparing code with a copy of it that lies elsewhere: relative operands keep their targets,
//! and what names a part of the code that moved names it where it is now. Nothing is lifted.

use iced_x86::{Decoder, DecoderOptions};

use crate::Mode;

/// The first instruction of `bytes`, code at `from`, as it is at `to`. `moved` gives the new
/// address of what moved, `None` for anything else, which constants then keep and relative operands
/// still reach. `None` for bytes that are no instruction, and where an operand cannot hold its new
/// value.
#[must_use]
pub fn rebase(
    mode: Mode,
    from: u64,
    bytes: &[u8],
    to: u64,
    moved: &dyn Fn(u64) -> Option<u64>,
) -> Option<Vec<u8>> {
    let mut decoder = Decoder::with_ip(mode.bits(), bytes, from, DecoderOptions::NONE);
    let insn = decoder.decode();
    if insn.is_invalid() {
        return None;
    }
    let branch = insn.is_jcc_short_or_near() || insn.is_jmp_short_or_near() || insn.is_call_near();
    let at = decoder.get_constant_offsets(&insn);
    let len = insn.len();
    let mut code = bytes.get(..len)?.to_vec();
    let operands = [
        (at.displacement_offset(), at.displacement_size(), insn.is_ip_rel_memory_operand()),
        (at.immediate_offset(), at.immediate_size(), branch),
        (at.immediate_offset2(), at.immediate_size2(), false),
    ];
    for (offset, size, relative) in operands {
        let Some(place) = code.get_mut(offset..offset + size).filter(|it| (1..=8).contains(&it.len())) else {
            continue;
        };
        let value = extended(place);
        let new = if relative {
            let target = mode_address(mode, from.wrapping_add(len as u64).wrapping_add(value));
            moved(target).unwrap_or(target).wrapping_sub(to.wrapping_add(len as u64))
        } else if size >= 4 {
            // An operand of four bytes is extended with its sign or with zeros: both are tried.
            let zero = if size == 4 { value & 0xffff_ffff } else { value };
            match moved(mode_address(mode, value)).or_else(|| moved(zero)) {
                Some(new) => new,
                None => continue,
            }
        } else {
            continue;
        };
        place.copy_from_slice(&new.to_le_bytes()[..size]);
        let now = extended(place);
        let fits = now == new || mode.bits() < 64 && now as u32 == new as u32 || size == 4 && !relative;
        if !fits {
            return None;
        }
    }
    Some(code)
}

/// A little-endian number, extended with its sign.
fn extended(bytes: &[u8]) -> u64 {
    let mut value = [if bytes.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 }; 8];
    value[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(value)
}

/// An address as the mode has it: 32 bits of it outside 64-bit code.
fn mode_address(mode: Mode, address: u64) -> u64 {
    if mode.bits() == 64 { address } else { address & 0xffff_ffff }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: u64 = 0xffff_ffff_8100_0000;

    #[test]
    fn operands_name_what_they_named() {
        let moved = |at: u64| (IMAGE..IMAGE + 0x10_0000).contains(&at).then(|| at + 0x20_0000);
        let rebased = |from: u64, bytes: &[u8], to: u64| rebase(Mode::Bits64, from, bytes, to, &moved);
        // Within the image: a call stays as it is.
        let call = [0xe8, 0x10, 0, 0, 0];
        assert_eq!(rebased(IMAGE, &call, IMAGE + 0x20_0000), Some(call.to_vec()));
        // From elsewhere, at the same address or at another, the image moved away from the call.
        let module = IMAGE + 0x1000_0000;
        let distance = (0x10_0000i64 - 0x1000_0000 - 5) as i32;
        let call = |by: i32| [&[0xe8], &(distance - 0x10 + by).to_le_bytes()[..]].concat();
        assert_eq!(rebased(module, &call(0), module), Some(call(0x20_0000)));
        assert_eq!(rebased(module, &call(0), module + 0x1000), Some(call(0x1f_f000)));
        // mov $address,%rdi, and one that names nothing; mov disp32(%rip) to what stays.
        assert_eq!(
            rebased(module, &[0x48, 0xc7, 0xc7, 0, 0, 2, 0x81], module),
            Some(vec![0x48, 0xc7, 0xc7, 0, 0, 0x22, 0x81])
        );
        assert_eq!(
            rebased(module, &[0x48, 0xc7, 0xc7, 1, 0, 0, 0], module + 4096),
            Some(vec![0x48, 0xc7, 0xc7, 1, 0, 0, 0])
        );
        assert_eq!(
            rebased(module, &[0x48, 0x8b, 0x05, 0, 0x20, 0, 0], module + 0x1000),
            Some(vec![0x48, 0x8b, 0x05, 0, 0x10, 0, 0])
        );
        // A short jump that would have to lead farther than it can, and no instruction.
        assert_eq!(rebased(IMAGE - 10, &[0xeb, 0x20], IMAGE - 10), None);
        assert_eq!(rebased(IMAGE, &[0x06], IMAGE), None);
    }
}
