//! Random programs over random memory: an answer or an outcome within the limits, twice the same,
//! and the target unchanged.
#![no_main]

use engine::{Environment, Limits, Run, SliceProgram};
use machine::memory::Mock;
use machine::{PhysAddr, Reg, RegFile};

#[allow(dead_code, reason = "the generator has more than is needed here")]
#[path = "../../crates/ir/tests/suite/generate.rs"]
mod generate;

/// Page tables and memory that are whatever the data says.
fn guest(data: &[u8]) -> (Mock, RegFile) {
    let mut memory = Mock::new();
    for (at, part) in data.chunks(8).take(2048).enumerate() {
        let mut bytes = [0; 8];
        bytes[..part.len()].copy_from_slice(part);
        // Entries mostly point into the little memory there is.
        let entry = u64::from_le_bytes(bytes) & 0x8000_0000_0000_7fff | 1;
        memory.write_u64(PhysAddr(0x1000 + 8 * at as u64), entry);
    }
    let mut regs = RegFile::new();
    for (reg, value) in [
        (Reg::Cr0, 0x8000_0011),
        (Reg::Cr3, 0x1000),
        (Reg::Cr4, 0x20),
        (Reg::Efer, 0x500),
        (Reg::Cs, 0x10),
        (Reg::GsBase, 0xffff_8000_0000_0000),
        (Reg::KernelGsBase, 0),
    ] {
        regs.set(reg, value);
    }
    (memory, regs)
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((seed, rest)) = data.split_first_chunk::<8>() else { return };
    let program = generate::Random::new(u64::from_le_bytes(*seed), false).program();
    if ir::verify::verify(&program).is_err() {
        return;
    }
    let (memory, regs) = guest(rest);
    let time = std::time::Duration::from_secs(60);
    let limits = Limits { fuel: 20_000, pages: 64, depth: 32, time, machine_code: true };
    let run = Run { memory: &memory, regs: &regs, env: Environment::default(), limits };
    let Ok(slice) = SliceProgram::new(&program) else { return };
    let first = slice.run(&run, &Vec::new());
    assert_eq!(first, slice.run(&run, &Vec::new()), "a run is deterministic");
});
