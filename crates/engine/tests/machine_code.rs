//! Random loops of machine code, interpreted and as machine code of the host: outcome, fuel and
//! instructions have to be the same.

use std::fmt::Write as _;

use ir::System;
use ir::text::parse_program;
use machine::memory::Mock;
use machine::{PhysAddr, Reg, RegFile};
use proptest::prelude::*;
use virtuoso_engine as engine;

use engine::{Environment, Limits, Outcome, Run, Session, WholeProgram};

/// Where the code, its data and its stack are.
const CODE: u64 = 0x1000;
const DATA: u64 = 0x5000;
const END: [u8; 7] = [0x0f, 0x1f, 0x80, 0x02, 0x00, 0x54, 0x56];

/// A general register that loops may change: not `rsp`, and not `rcx`, which counts.
fn register() -> impl Strategy<Value = u8> {
    prop::sample::select(vec![0, 2, 3, 5, 6, 7])
}

/// An instruction, or a few that belong together.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let modrm = (register(), register()).prop_map(|(reg, rm)| 0xc0 | reg << 3 | rm).boxed();
    let wide = any::<bool>().prop_map(|wide| if wide { vec![0x48] } else { Vec::new() });
    let prefix = prop_oneof![wide, Just(vec![0x66])].boxed();
    // add, or, adc, sbb, and, sub, xor, cmp, test, xchg, mov
    let two = prop::sample::select(vec![1, 9, 0x11, 0x19, 0x21, 0x29, 0x31, 0x39, 0x85, 0x87, 0x89]);
    let arithmetic = (prefix.clone(), two, modrm.clone())
        .prop_map(|(prefix, op, modrm)| [prefix, vec![op, modrm]].concat());
    // rol, ror, rcl, rcr, shl, shr, sar by a constant or by cl; not, neg, mul, imul
    let shift = (prefix.clone(), 0..8u8, register(), any::<u8>(), any::<bool>()).prop_map(
        |(prefix, which, rm, count, by_cl)| {
            let modrm = 0xc0 | which << 3 | rm;
            let rest = if by_cl { vec![0xd3, modrm] } else { vec![0xc1, modrm, count] };
            [prefix, rest].concat()
        },
    );
    let one = (prefix.clone(), 2..6u8, register())
        .prop_map(|(prefix, which, rm)| [prefix, vec![0xf7, 0xc0 | which << 3 | rm]].concat());
    // bsf, bsr, imul, movzx, movsx, bswap, setcc, cmovcc
    let second = prop::sample::select(vec![0xbc, 0xbd, 0xaf, 0xb6, 0xb7, 0xbe, 0xbf]);
    let more = (second, modrm.clone()).prop_map(|(op, modrm)| vec![0x48, 0x0f, op, modrm]);
    let condition = (0..16u8, modrm.clone(), any::<bool>())
        .prop_map(|(cc, modrm, set)| vec![0x0f, if set { 0x90 } else { 0x40 } | cc, modrm]);
    let swap = register().prop_map(|rm| vec![0x48, 0x0f, 0xc8 | rm]);
    // Moves of 1, 2, 4 and 8 bytes to data and from it, over the end of a page too.
    let memory = (prefix, any::<bool>(), any::<bool>(), register(), 0..0x10_08u32).prop_map(
        |(prefix, store, byte, reg, offset)| {
            let op = if store { 0x88 } else { 0x8a } | u8::from(!byte);
            let at = (DATA as u32 + offset).to_le_bytes();
            [prefix, vec![op, reg << 3 | 4, 0x25], at.to_vec()].concat()
        },
    );
    // A branch over an instruction; push and pop; a call of the next instruction that returns.
    let branch = (0..16u8, modrm).prop_map(|(cc, modrm)| vec![0x70 | cc, 3, 0x48, 0x01, modrm]);
    let stack = (register(), register()).prop_map(|(one, two)| vec![0x50 | one, 0x58 | two]);
    let call = Just(vec![0xe8, 2, 0, 0, 0, 0xeb, 1, 0xc3]);
    prop_oneof![
        6 => arithmetic, 3 => shift, 2 => one, 2 => more, 3 => condition, 1 => swap, 6 => memory, 3 => branch,
        2 => stack, 1 => call
    ]
}

/// A loop of these pieces.
fn code(pieces: &[Vec<u8>], times: u8) -> Vec<u8> {
    let mut code = vec![0xb9, times, 0, 0, 0];
    let begin = code.len();
    code.extend(pieces.iter().flatten());
    // dec ecx; jnz to the beginning
    code.extend([0xff, 0xc9, 0x0f, 0x85]);
    let back = begin as i32 - (code.len() as i32 + 4);
    code.extend(back.to_le_bytes());
    // What the registers have counts as well: mov %rax, DATA, and so on.
    for (at, reg) in (0..).zip([0u8, 2, 3, 5, 6, 7]) {
        code.extend([0x48, 0x89, reg << 3 | 4, 0x25]);
        code.extend((DATA as u32 + 0x100 + 8 * at).to_le_bytes());
    }
    code.extend(END);
    code
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn loops_do_the_same_by_machine_code(
        pieces in prop::collection::vec(piece(), 1..24),
        times in 1..24u8,
        values in prop::collection::vec(any::<u64>(), 6),
        fuel in prop_oneof![Just(100_000), 10..20_000u64],
    ) {
        let code = code(&pieces, times);
        let hex: String = code.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut text = format!(
            "program \"test\"\nbits 64\nbegin {CODE:#x}\nheap 0x90000\noutput \"x\" u64 @{:#x}\n\
             output \"all\" u64[512] @{DATA:#x}\nregister rsp 0x8800\nregister efer 0x500\n\
             register cs 0x33\n",
            DATA + 0x100
        );
        for (reg, value) in ["rax", "rdx", "rbx", "rbp", "rsi", "rdi"].into_iter().zip(values) {
            let _ = writeln!(text, "register {reg} {value:#x}");
        }
        let _ = write!(
            text,
            "page {CODE:#x} bytes 4096 {{\n 0x0: {hex}\n}}\npage 0x5000 zero\npage 0x6000 zero\n\
             page 0x8000 zero\nfunction f0 {CODE:#x} \"\" {{\nb0 @{CODE:#x} - {CODE:#x}:\nend\n}}\n"
        );
        let program = parse_program(&text, Reg::NAMES);
        let program = program.map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
        let mut memory = Mock::new();
        memory.write_u64(PhysAddr(0x1000), 0x1003);
        let mut regs = RegFile::new();
        let system = [(Reg::Cr0, 0x8000_0011), (Reg::Cr3, 0x1000), (Reg::Cr4, 0x20), (Reg::Efer, 0x500)];
        let processor = [(Reg::Cs, 0x10), (Reg::GsBase, 0xffff_8000_0000_0000), (Reg::KernelGsBase, 0)];
        for (reg, value) in system.into_iter().chain(processor) {
            regs.set(reg, value);
        }
        let system = System::default();
        let by = |machine_code| Limits { fuel, machine_code, ..Limits::default() };
        let run = |limits| Run { memory: &memory, regs: &regs, env: Environment::default(), limits };
        let expected = WholeProgram::new(&program, &system).run(&run(by(false)), &Vec::new());
        prop_assert!(expected.is_ok(), "{:?}", expected);
        let session = Session::new(run(by(true)), &system);
        let asked = session.program(&program).expect("it is found");
        for time in 0..80 {
            prop_assert_eq!(&asked.ask(&Vec::new(), &by(true)), &expected, "time {}", time);
        }
        let answered = matches!(expected, Ok((Outcome::Answer(_), _)));
        let compiled = session.machine_code() > 0 || !cfg!(target_arch = "x86_64");
        prop_assert!(compiled || !answered || times < 2, "nothing was compiled");
    }
}
