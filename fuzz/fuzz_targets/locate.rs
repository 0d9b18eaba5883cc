//! Processors found in memory that is mostly garbage: no panic, an end, and twice the same; what is
//! found maps the kernel's code.
#![no_main]

use engine::locate::{Hints, locate};
use ir::program::{CodeRange, SignatureWord};
use ir::relocation::Image;
use machine::memory::Mock;
use machine::{PhysAddr, Reg};

const KERNEL: u64 = 0xffff_8000_0000_0000;
const CODE: [u8; 32] = [0x5a; 32];
const TEXT: &str = "program \"test\"\nfunction f0 0x100 \"main\" {\nb0 @0x100 - 0x1ff:\n  return\n}\n";

/// Tables at 0x1000 to 0x4000, code at 0x5000, an interrupt table at 0x6000, per-CPU memory at
/// 0x7000; then what the data changes.
fn guest(data: &[u8]) -> Mock {
    let mut memory = Mock::new();
    for (at, value) in [(0x1800, 0x2007), (0x2000, 0x3007), (0x3000, 0x4007)] {
        memory.write_u64(PhysAddr(at), value);
    }
    for page in 0..4 {
        memory.write_u64(PhysAddr(0x4000 + 8 * page), 0x5003 + 0x1000 * page);
    }
    memory.write(PhysAddr(0x5000), &CODE);
    for vector in 0..4 {
        let handler = KERNEL + 0x100 + vector;
        memory.write_u64(
            PhysAddr(0x6000 + 16 * vector),
            handler & 0xffff | 0x8e00 << 32 | (handler >> 16 & 0xffff) << 48,
        );
        memory.write_u64(PhysAddr(0x6008 + 16 * vector), handler >> 32);
    }
    for offset in [0u64, 8, 0x100] {
        memory.write_u64(PhysAddr(0x7000 + offset), KERNEL + 0x2000);
    }
    for change in data.chunks_exact(11).take(256) {
        let (at, value) = (u64::from(u16::from_le_bytes([change[0], change[1]])), &change[3..11]);
        let value = u64::from_le_bytes(value.try_into().expect("eight bytes"));
        // Whole words, entries that point into the little memory there is, or pointers into the
        // kernel.
        let value = match change[2] % 3 {
            0 => value,
            1 => value & 0xffff | 1,
            _ => KERNEL + (value & 0xffff),
        };
        memory.write_u64(PhysAddr((at & !7) % 0x1_0000), value);
    }
    memory
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut program = ir::text::parse_program(TEXT, Reg::NAMES).expect("it is a program");
    program.relocations.images.push(Image { start: KERNEL, end: KERNEL + 0x1000, movable: true });
    program.relocations.gates = (0..4).map(|vector| (vector, KERNEL + 0x100 + u64::from(vector))).collect();
    program.code.push(CodeRange { addr: KERNEL, bytes: CODE.to_vec() });
    program.signature = [0, 8, 0x100].map(|offset| SignatureWord { offset, points: 0 }).to_vec();
    let memory = guest(data);
    let found = locate(&program, &memory, Hints::default());
    let again = locate(&program, &memory, Hints::default());
    let state =
        |found: &Result<engine::locate::Located, _>| found.as_ref().ok().map(|found| found.cpus.clone());
    assert_eq!(state(&found), state(&again));
    if data.len() < 11 {
        assert_eq!(found.expect("nothing is changed").cpus.len(), 1);
    }
});
