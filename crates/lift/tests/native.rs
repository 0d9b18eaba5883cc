//! The oracle: executes each encoding of `native.txt` on this processor and compares with lift and
//! evaluate.
//!
//! Flags that iced calls undefined are not compared. Samples that would fault are skipped, but some
//! of every encoding must remain. Extensions that the processor lacks are skipped.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod support;

use iced_x86::{
    CpuidFeature, Decoder, DecoderOptions, InstructionInfoFactory, Mnemonic, OpKind, Register, RflagsBits,
};
use ir::Kind;
use machine::reg::{RFLAGS_FIELDS, Reg};
use support::{End, Machine, Random, Window, table};
use virtuoso_lift as lift;

const STATE: usize = 0x1000;
const GPRS: usize = STATE;
const FLAGS: usize = STATE + 128;
const HOST_STACK: usize = STATE + 136;
const TAKEN: usize = STATE + 144;
const XMMS: usize = STATE + 256;
const WINDOW: usize = 0x2000;
const WINDOW_SIZE: usize = 0x2000;
const SIZE: usize = 0x4000;

/// A page of code, a page of state and a window of data below 2 GiB, so that 32-bit addresses reach
/// them.
struct Native {
    base: *mut u8,
}

impl Native {
    fn new() -> Native {
        // SAFETY: a fresh private anonymous mapping at an address of the kernel's choice.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                SIZE,
                libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT,
                -1,
                0,
            )
        };
        assert_ne!(base, libc::MAP_FAILED, "mmap");
        Native { base: base.cast() }
    }

    fn address(&self, offset: usize) -> u64 {
        self.base as u64 + offset as u64
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is SIZE bytes long, lives as long as the process, and `&mut self`
        // makes the view unique.
        unsafe { std::slice::from_raw_parts_mut(self.base, SIZE) }
    }

    fn put(&mut self, offset: usize, value: u64) {
        self.bytes()[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
    }

    fn get(&mut self, offset: usize) -> u64 {
        u64::from_le_bytes(self.bytes()[offset..offset + 8].try_into().expect("eight bytes"))
    }

    fn run(&mut self) {
        // SAFETY: `Stub` wrote a function at the start of the mapping that keeps the registers the
        // C ABI wants kept. The instruction under test was interpreted before and found to access
        // only the window and to end at one of the two landing places.
        unsafe {
            let entry: extern "C" fn() = std::mem::transmute(self.base);
            entry();
        }
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, which nothing else refers to.
        unsafe { libc::munmap(self.base.cast(), SIZE) };
    }
}

/// The code around the instruction under test.
struct Stub {
    code: Vec<u8>,
    /// Offset of the instruction.
    start: usize,
}

impl Stub {
    /// An instruction with a rip-relative operand.
    fn relative(&mut self, bytes: &[u8], target: usize, tail: &[u8]) {
        self.code.extend_from_slice(bytes);
        let end = self.code.len() + 4 + tail.len();
        let distance = i32::try_from(target as i64 - end as i64).expect("near");
        self.code.extend_from_slice(&distance.to_le_bytes());
        self.code.extend_from_slice(tail);
    }

    fn gprs(&mut self, opcode: u8) {
        for n in 0..16u8 {
            let rex = 0x48 | (n >> 3) << 2;
            self.relative(&[rex, opcode, 0x05 | (n & 7) << 3], GPRS + 8 * usize::from(n), &[]);
        }
    }

    fn xmms(&mut self, opcode: u8) {
        for n in 0..16u8 {
            let rex = 0x40 | (n >> 3) << 2;
            self.relative(&[rex, 0x0f, opcode, 0x05 | (n & 7) << 3], XMMS + 16 * usize::from(n), &[]);
        }
    }

    fn new(test: &[u8]) -> Stub {
        let mut stub = Stub { code: Vec::new(), start: 0 };
        // push rbx, rbp, r12..r15; mov [host stack], rsp
        stub.code.extend_from_slice(&[0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57]);
        stub.relative(&[0x48, 0x89, 0x25], HOST_STACK, &[]);
        stub.xmms(0x10);
        // push [flags]; popfq
        stub.relative(&[0xff, 0x35], FLAGS, &[]);
        stub.code.push(0x9d);
        stub.gprs(0x8b);
        stub.start = stub.code.len();
        stub.code.extend_from_slice(test);
        // jmp over the other landing place, which is five bytes on: mov byte [taken], 1
        stub.code.extend_from_slice(&[0xe9, 7, 0, 0, 0]);
        stub.relative(&[0xc6, 0x05], TAKEN, &[1]);
        stub.gprs(0x89);
        // mov rsp, [host stack]; pushfq; pop [flags]; cld
        stub.relative(&[0x48, 0x8b, 0x25], HOST_STACK, &[]);
        stub.code.push(0x9c);
        stub.relative(&[0x8f, 0x05], FLAGS, &[]);
        stub.code.push(0xfc);
        stub.xmms(0x11);
        stub.code.extend_from_slice(&[0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3]);
        assert!(stub.code.len() < STATE);
        stub
    }
}

fn supported(insn: &iced_x86::Instruction) -> bool {
    insn.cpuid_features().iter().all(|feature| match feature {
        CpuidFeature::BMI1 => std::is_x86_feature_detected!("bmi1"),
        CpuidFeature::BMI2 => std::is_x86_feature_detected!("bmi2"),
        CpuidFeature::ADX => std::is_x86_feature_detected!("adx"),
        CpuidFeature::LZCNT => std::is_x86_feature_detected!("lzcnt"),
        CpuidFeature::POPCNT => std::is_x86_feature_detected!("popcnt"),
        CpuidFeature::MOVBE => std::is_x86_feature_detected!("movbe"),
        CpuidFeature::SSE3 => std::is_x86_feature_detected!("sse3"),
        CpuidFeature::SSSE3 => std::is_x86_feature_detected!("ssse3"),
        CpuidFeature::SSE4_1 => std::is_x86_feature_detected!("sse4.1"),
        CpuidFeature::SSE4_2 => std::is_x86_feature_detected!("sse4.2"),
        CpuidFeature::PCLMULQDQ => std::is_x86_feature_detected!("pclmulqdq"),
        CpuidFeature::CMPXCHG16B => std::is_x86_feature_detected!("cmpxchg16b"),
        CpuidFeature::CLFSH => true,
        _ => true,
    })
}

/// The RFLAGS bits that iced leaves undefined.
fn undefined_flags(insn: &iced_x86::Instruction) -> u64 {
    let bits = insn.rflags_undefined();
    let map = [
        (RflagsBits::CF, Reg::Cf),
        (RflagsBits::PF, Reg::Pf),
        (RflagsBits::AF, Reg::Af),
        (RflagsBits::ZF, Reg::Zf),
        (RflagsBits::SF, Reg::Sf),
        (RflagsBits::OF, Reg::Of),
    ];
    // OF of a rotation through carry by more than 1 is undefined, also where the count comes down
    // to 0.
    let through_carry =
        matches!(insn.mnemonic(), Mnemonic::Rcl | Mnemonic::Rcr) && insn.op1_kind() == OpKind::Immediate8;
    let bits = if through_carry && insn.immediate8() != 1 { bits | RflagsBits::OF } else { bits };
    let place = |reg: Reg| RFLAGS_FIELDS.iter().find(|field| field.0 == reg).map_or(0, |field| 1 << field.1);
    map.iter().filter(|(bit, _)| bits & bit != 0).map(|&(_, reg)| place(reg)).sum()
}

/// Changes random registers so that the instruction is likely to stay in the window and to end
/// quickly.
fn prepare(
    native: &Native,
    insn: &iced_x86::Instruction,
    lifted: &lift::Insn,
    random: &mut Random,
    m: &mut Machine,
) {
    let middle = native.address(WINDOW + WINDOW_SIZE / 2);
    let landing = lifted.pc + u64::from(lifted.len) + 5;
    m.regs[Reg::Rsp.index()] = middle - 0x400 + 8 * random.below(16);
    if !InstructionInfoFactory::new().info(insn).used_memory().is_empty() {
        for reg in [Reg::Rbx, Reg::Rbp, Reg::Rsi, Reg::Rdi] {
            m.regs[reg.index()] = middle + 16 * random.below(32);
        }
        m.regs[Reg::R9.index()] = random.below(9).wrapping_sub(3);
        if insn.memory_base() == Register::EBX || insn.memory_base() == Register::ESI {
            m.regs[Reg::R9.index()] &= 0xffff_ffff;
        }
    }
    if insn.is_string_instruction() {
        m.regs[Reg::Rcx.index()] = random.below(6);
        if random.below(2) == 0 {
            // Make equal runs likely for the comparing ones.
            m.window.bytes.fill(random.below(2) as u8);
            m.regs[Reg::Rax.index()] = 0;
        }
    }
    if matches!(insn.mnemonic(), Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc)
        && insn.op0_kind() == OpKind::Memory
        && insn.op1_kind() == OpKind::Register
    {
        let offset = random.below(0x4000).wrapping_sub(0x2000);
        let register = insn.op1_register().full_register().number();
        m.regs[Reg::gpr(register).index()] = offset;
    }
    if matches!(insn.mnemonic(), Mnemonic::Div | Mnemonic::Idiv) {
        // Make quotients fit.
        let rax = m.regs[Reg::Rax.index()];
        m.regs[Reg::Rdx.index()] = match random.below(3) {
            0 => 0,
            1 => random.below(100),
            _ if insn.mnemonic() == Mnemonic::Idiv => ((rax as i64) >> 63) as u64,
            _ => 0,
        };
        if random.below(2) == 0 {
            m.regs[Reg::Rax.index()] = rax & 0x7fff_ffff_0000_00ff;
        }
    }
    if matches!(insn.mnemonic(), Mnemonic::Cmpxchg | Mnemonic::Cmpxchg8b | Mnemonic::Cmpxchg16b)
        && random.below(2) == 0
    {
        m.window.bytes.fill(0x5a);
        for reg in [Reg::Rax, Reg::Rdx, Reg::Rcx] {
            let high = if insn.mnemonic() == Mnemonic::Cmpxchg16b {
                0x5a5a_5a5a_0000_0000
            } else {
                random.next() << 32
            };
            m.regs[reg.index()] = high | 0x5a5a_5a5a;
        }
    }
    let indirect = matches!(
        lift::flow(lifted),
        lift::Flow::Return | lift::Flow::IndirectJump | lift::Flow::IndirectCall
    );
    if indirect {
        m.regs[Reg::Rax.index()] = landing;
        for reg in [Reg::Rsp, Reg::Rbx] {
            let at = m.regs[reg.index()].wrapping_sub(m.window.base) as usize;
            if at > WINDOW_SIZE - 8 {
                continue;
            }
            m.window.bytes[at..at + 8].copy_from_slice(&landing.to_le_bytes());
        }
    }
}

/// Processors differ in whether a 32-bit destination that keeps its value keeps its upper half too;
/// we do as QEMU.
fn keeps_upper_half(insn: &iced_x86::Instruction, reg: Reg) -> bool {
    matches!(insn.mnemonic(), Mnemonic::Cmpxchg | Mnemonic::Bsf | Mnemonic::Bsr)
        && insn.op0_kind() == OpKind::Register
        && insn.op0_register().is_gpr32()
        && Reg::gpr(insn.op0_register().full_register().number()) == reg
}

const COMPARED: u64 = 0x8d5 | 0x400;

#[test]
fn agrees_with_the_processor() {
    let mut native = Native::new();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let samples = std::env::var("VIRTUOSO_SAMPLES").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let verbose = std::env::var_os("VIRTUOSO_VERBOSE").is_some();
    let (mut problems, mut ran, mut encodings) = (Vec::new(), 0, 0);
    for (bytes, comment) in table() {
        let stub = Stub::new(&bytes);
        let pc = native.address(stub.start);
        let insn = Decoder::with_ip(64, &bytes, pc, DecoderOptions::NONE).decode();
        if !supported(&insn) {
            continue;
        }
        encodings += 1;
        let lifted = lift::lift(lift::Mode::Bits64, pc, &bytes).expect("the table decodes");
        if lifted.ops.iter().any(|op| op.kind == Kind::Unsupported) {
            problems.push(format!("{comment}: unsupported"));
            continue;
        }
        if verbose {
            eprintln!("{comment}");
        }
        let next = pc + bytes.len() as u64;
        native.bytes()[..stub.code.len()].copy_from_slice(&stub.code);
        let undefined = undefined_flags(&insn);
        let (mut done, mut tries) = (0, 0);
        let before = problems.len();
        while done < samples && tries < samples * 40 && problems.len() == before {
            tries += 1;
            let mut m = Machine {
                regs: (0..Reg::COUNT).map(|_| 0).collect(),
                window: Window {
                    base: native.address(WINDOW),
                    bytes: (0..WINDOW_SIZE).map(|_| random.next() as u8).collect(),
                },
            };
            for n in 0..16 {
                m.regs[Reg::gpr(n).index()] = random.value();
                m.regs[Reg::xmm_lo(n).index()] = random.value();
                m.regs[Reg::xmm_hi(n).index()] = random.value();
            }
            prepare(&native, &insn, &lifted, &mut random, &mut m);
            let flags_before = 0x202 | random.next() & COMPARED;
            for &(reg, bit, size) in RFLAGS_FIELDS {
                m.regs[reg.index()] = flags_before >> bit & ((1 << size) - 1);
            }
            let regs_before = m.regs.clone();
            let window_before = m.window.bytes.clone();
            let mut end = m.run(&lifted);
            while end == End::At(pc) {
                end = m.run(&lifted);
            }
            let taken = match end {
                End::At(at) if at == next => false,
                End::At(at) if at == next + 5 => true,
                _ => continue,
            };
            for n in 0..16 {
                native.put(GPRS + 8 * n, regs_before[n]);
                native.put(XMMS + 16 * n, regs_before[Reg::xmm_lo(n).index()]);
                native.put(XMMS + 16 * n + 8, regs_before[Reg::xmm_hi(n).index()]);
            }
            native.put(FLAGS, flags_before);
            native.put(TAKEN, 0);
            native.bytes()[WINDOW..WINDOW + WINDOW_SIZE].copy_from_slice(&window_before);
            native.run();
            done += 1;
            let mut wrong = Vec::new();
            for n in 0..16 {
                let places = [
                    (Reg::gpr(n), GPRS + 8 * n),
                    (Reg::xmm_lo(n), XMMS + 16 * n),
                    (Reg::xmm_hi(n), XMMS + 16 * n + 8),
                ];
                for (reg, place) in places {
                    let (is, mut should) = (m.regs[reg.index()], native.get(place));
                    if keeps_upper_half(&insn, reg) && is == should & 0xffff_ffff {
                        should = is;
                    }
                    if is != should {
                        let was = regs_before[reg.index()];
                        wrong.push(format!("{} was {was:#x} is {is:#x} should be {should:#x}", reg.name()));
                    }
                }
            }
            let flags_after = native.get(FLAGS);
            for &(reg, bit, size) in RFLAGS_FIELDS.iter().filter(|field| COMPARED >> field.1 & 1 == 1) {
                let (is, should) = (m.regs[reg.index()], flags_after >> bit & ((1 << size) - 1));
                if is != should && undefined >> bit & 1 == 0 {
                    wrong.push(format!("{} is {is} should be {should}", reg.name()));
                }
            }
            if (native.get(TAKEN) & 0xff == 1) != taken {
                wrong.push(format!("branch taken is {taken}"));
            }
            let memory = &native.bytes()[WINDOW..WINDOW + WINDOW_SIZE];
            if let Some(at) = (0..WINDOW_SIZE).find(|&at| memory[at] != m.window.bytes[at]) {
                let (is, should) = (m.window.bytes[at], memory[at]);
                wrong.push(format!("memory at {at:#x} is {is:#x} should be {should:#x}"));
            }
            if !wrong.is_empty() {
                let regs: Vec<_> = [Reg::Rax, Reg::Rcx, Reg::Rdx]
                    .iter()
                    .map(|r| format!("{}={:#x}", r.name(), regs_before[r.index()]))
                    .collect();
                problems.push(format!(
                    "{comment}: {} ({}, flags {flags_before:#x})",
                    wrong.join("; "),
                    regs.join(" ")
                ));
            }
        }
        ran += done;
        if done == 0 {
            problems.push(format!("{comment}: never ran"));
        }
    }
    println!("{encodings} encodings, {ran} samples");
    assert!(problems.is_empty(), "{} of {encodings}:\n{}", problems.len(), problems.join("\n"));
}
