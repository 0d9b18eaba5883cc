//! Dumps made byte by byte, from the descriptions of their formats.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(unreachable_pub, reason = "one module for several test crates")]

pub mod dumps;

/// A processor's note as QEMU writes it; field k of the 64-bit ones holds a number that tells where it was.
pub fn note(kernel_gs: bool) -> Vec<u8> {
    let size: u32 = if kernel_gs { 440 } else { 432 };
    let mut out = [1u32.to_le_bytes(), size.to_le_bytes()].concat();
    (0..17u64).for_each(|i| out.extend((0x1000 + i).to_le_bytes()));
    out.extend(0x3246u64.to_le_bytes());
    for i in 0..10u32 {
        let flags = if i == 0 { 0xaf_9b00 } else { 0x300 + i };
        for word in [if i == 0 { 0x33 } else { 0x100 + i }, 0x200 + i, flags, 0] {
            out.extend(word.to_le_bytes());
        }
        out.extend((0xffff_8000_0000_0400 + u64::from(i)).to_le_bytes());
    }
    for cr in [0x8005_0033u64, 0, 0xc2, 0x2000, 0x20] {
        out.extend(cr.to_le_bytes());
    }
    if kernel_gs {
        out.extend(0xffff_8888_0000_0000u64.to_le_bytes());
    }
    out
}

/// A note segment: for each processor what QEMU writes for debuggers and its own note.
pub fn note_segment(descs: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, kind, desc) in descs.iter().flat_map(|desc| [(b"CORE", 1u32, vec![0; 336]), (b"QEMU", 0, desc.clone())])
    {
        out.extend([5u32.to_le_bytes(), (desc.len() as u32).to_le_bytes(), kind.to_le_bytes()].concat());
        out.extend(name);
        out.extend([0; 4]);
        out.extend(&desc);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out
}

/// Bytes that differ from page to page.
pub fn ram(n: usize, seed: u8) -> Vec<u8> {
    (0..n).map(|i| (i as u8).wrapping_mul(31).wrapping_add((i >> 8) as u8) ^ seed).collect()
}
