//! Random machine code as a trainer: a whole run ends within its limits, with an outcome, which is
//! the same by the interpreter and by machine code of this host.
#![no_main]

use engine::{Environment, Limits, Run, WholeProgram};
use ir::System;
use machine::memory::Mock;
use machine::{PhysAddr, Reg, RegFile};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((&mode, code)) = data.split_first() else { return };
    let bits = if mode & 1 == 0 { 64 } else { 32 };
    let text = format!(
        "program \"fuzz\"\nbits {bits}\nbegin 0x401000\nheap 0x10000000\noutput \"x\" u64 @0x5000\npage \
         0x5000 zero\npage 0x7000 zero\nregister rsp 0x7800\n\
         function f0 0x401000 \"main\" {{\nb0 @0x401000:\n end\n}}\n"
    );
    let Ok(mut program) = ir::text::parse_program(&text, Reg::NAMES) else { return };
    let mut page = vec![0x90; 4096];
    let length = code.len().min(4096);
    page[..length].copy_from_slice(&code[..length]);
    program
        .pages
        .push(ir::program::UserPage { addr: 0x40_1000, content: ir::program::PageContent::Bytes(page) });
    let mut memory = Mock::new();
    memory.write_u64(PhysAddr(0x1000), 0x1003);
    let mut regs = RegFile::new();
    for (reg, value) in [
        (Reg::Cr0, 0x8000_0011),
        (Reg::Cr3, 0x1000),
        (Reg::Cr4, 0x20),
        (Reg::Efer, if bits == 64 { 0x500 } else { 0 }),
        (Reg::Cs, 0x10),
        (Reg::GsBase, 0xffff_8000_0000_0000),
        (Reg::KernelGsBase, 0),
    ] {
        regs.set(reg, value);
    }
    let limits = Limits {
        fuel: 20_000,
        pages: 64,
        depth: 32,
        time: std::time::Duration::from_secs(60),
        machine_code: false,
    };
    let run = Run { memory: &memory, regs: &regs, env: Environment::default(), limits };
    let system = System::default();
    let first = WholeProgram::new(&program, &system).run(&run, &Vec::new());
    assert_eq!(first, WholeProgram::new(&program, &system).run(&run, &Vec::new()), "a run is deterministic");
    // Whatever was executed 64 times has become machine code.
    let limits = Limits { machine_code: true, ..limits };
    let mut compiled = WholeProgram::new(&program, &system);
    for _ in 0..72 {
        assert_eq!(compiled.run(&Run { limits, ..run }, &Vec::new()), first, "so is machine code");
    }
});
