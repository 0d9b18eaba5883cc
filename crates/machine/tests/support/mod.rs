//! Dumps made byte by byte, from the descriptions of their formats.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(unreachable_pub, reason = "one module for several test crates")]

pub mod dumps;
pub mod streams;

/// A processor's note as QEMU writes it; field k of the 64-bit ones holds a number that tells where
/// it was.
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
    for (name, kind, desc) in
        descs.iter().flat_map(|desc| [(b"CORE", 1u32, vec![0; 336]), (b"QEMU", 0, desc.clone())])
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

/// An ELF core with these notes and segments (physical address, bytes).
pub fn core(is64: bool, descs: &[Vec<u8>], segments: &[(u64, Vec<u8>)]) -> Vec<u8> {
    core_with(is64, note_segment(descs), segments)
}

/// The same with notes as they are.
pub fn core_with(is64: bool, notes: Vec<u8>, segments: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let (header, program) = if is64 { (64u64, 56u64) } else { (52, 32) };
    let mut offset = header + program * (segments.len() as u64 + 1);
    let mut parts = vec![(4u32, 0, notes)];
    parts.extend(segments.iter().map(|(start, bytes)| (1, *start, bytes.clone())));
    let mut out = vec![0x7f, b'E', b'L', b'F', if is64 { 2 } else { 1 }, 1, 1];
    out.resize(16, 0);
    let word = |out: &mut Vec<u8>, value: u64| {
        out.extend(&value.to_le_bytes()[..if is64 { 8 } else { 4 }]);
    };
    out.extend([4u16.to_le_bytes(), if is64 { 62u16 } else { 3 }.to_le_bytes()].concat());
    out.extend(1u32.to_le_bytes());
    [0, header, 0].into_iter().for_each(|value| word(&mut out, value));
    out.extend(0u32.to_le_bytes());
    for half in [header as u16, program as u16, parts.len() as u16, 0, 0, 0] {
        out.extend(half.to_le_bytes());
    }
    for (kind, start, bytes) in &parts {
        let size = bytes.len() as u64;
        out.extend(kind.to_le_bytes());
        if is64 {
            out.extend(0u32.to_le_bytes());
        }
        [offset, 0, *start, size, size].into_iter().for_each(|value| word(&mut out, value));
        if is64 {
            out.extend(0u64.to_le_bytes());
        } else {
            out.extend([0; 8]);
        }
        offset += size;
    }
    parts.into_iter().for_each(|(.., bytes)| out.extend(bytes));
    out
}
