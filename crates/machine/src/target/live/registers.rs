//! Processors and memory as QEMU's human monitor prints them, for monitors through which no dump
//! may be asked for ([`Monitor::may_dump`](super::Monitor::may_dump)).
//!
//! `info registers -a` has all that the notes of a dump have but one register, the base that SWAPGS
//! would swap in: unknown here. The text is no form for programs, so it is read strictly: a
//! processor that lacks a register which every processor has is not understood. Where a processor
//! in long mode executes 32-bit code, QEMU cuts segment bases to 32 bits; those are unknown too.

use crate::addr::PAGE_SIZE;
use crate::reg::{EFER_LMA, Reg};
use crate::target::cpu::{Cpu, MAX_CPUS, SEGMENTS};

/// General registers by their names in 64-bit code; in 32-bit code `E` stands for `R`.
const GENERAL: [(&str, Reg); 17] = [
    ("AX", Reg::Rax),
    ("BX", Reg::Rbx),
    ("CX", Reg::Rcx),
    ("DX", Reg::Rdx),
    ("SI", Reg::Rsi),
    ("DI", Reg::Rdi),
    ("BP", Reg::Rbp),
    ("SP", Reg::Rsp),
    ("8", Reg::R8),
    ("9", Reg::R9),
    ("10", Reg::R10),
    ("11", Reg::R11),
    ("12", Reg::R12),
    ("13", Reg::R13),
    ("14", Reg::R14),
    ("15", Reg::R15),
    ("IP", Reg::Rip),
];
const CONTROL: [(&str, Reg); 5] =
    [("CR0", Reg::Cr0), ("CR2", Reg::Cr2), ("CR3", Reg::Cr3), ("CR4", Reg::Cr4), ("EFER", Reg::Efer)];
/// Digits of a whole address in long mode.
const WHOLE: usize = 16;

/// The processors of `info registers -a`; none where one of them is not understood.
pub(super) fn processors(text: &str) -> Option<Vec<Cpu>> {
    let blocks: Vec<&str> = text.split("CPU#").skip(1).collect();
    if blocks.is_empty() || blocks.len() > MAX_CPUS {
        return None;
    }
    blocks.into_iter().enumerate().map(|(number, block)| processor(block, number)).collect()
}

fn processor(block: &str, number: usize) -> Option<Cpu> {
    // Names are padded: `R8 =`, `ES =0000`, `GDT=     0000`.
    let block = block.replace(" =", "=");
    let mut lines = block.lines();
    if lines.next()?.trim().parse() != Ok(number) {
        return None;
    }
    let mut cpu = Cpu::default();
    let (mut rflags, mut bases) = (None, Vec::new());
    for line in lines {
        let (name, rest) = line.split_once('=').unwrap_or((line, ""));
        if let Some(at) = SEGMENTS.iter().position(|segment| segment.name.eq_ignore_ascii_case(name)) {
            bases.push((at, segment(&mut cpu, at, rest)?));
            continue;
        }
        for (name, value) in line.split_whitespace().filter_map(|word| word.split_once('=')) {
            if matches!(name, "RFL" | "EFL") {
                rflags = Some(hex(value)?);
            }
            let general = name.strip_prefix(['R', 'E']);
            let found = GENERAL.iter().find(|(rest, _)| general == Some(*rest));
            if let Some((_, reg)) = found.or_else(|| CONTROL.iter().find(|(known, _)| *known == name)) {
                cpu.regs.set(*reg, hex(value)?);
            }
        }
    }
    let needed = [Reg::Rip, Reg::Rsp, Reg::Cr0, Reg::Cr3, Reg::Cr4];
    let all = (0..SEGMENTS.len()).all(|at| bases.iter().filter(|(other, _)| *other == at).count() == 1);
    if !all || needed.iter().any(|reg| cpu.regs.get(*reg).is_none()) {
        return None;
    }
    cpu.set_rflags(rflags?);
    let long = cpu.regs.get(Reg::Efer)? & EFER_LMA != 0;
    for (at, base) in bases {
        if !long || base.len() == WHOLE {
            cpu.regs.set(SEGMENTS[at].base, hex(base)?);
        }
    }
    Some(cpu)
}

/// `0010 0000000000000000 ffffffff 00af9b00 DPL=0 CS64 [-RA]`: selector, base, limit, flags; tables
/// have neither selector nor flags. Returns the base's digits.
fn segment<'t>(cpu: &mut Cpu, at: usize, text: &'t str) -> Option<&'t str> {
    let segment = SEGMENTS[at];
    let mut words = text.split_whitespace();
    if let Some(selector) = segment.selector {
        cpu.regs.set(selector, hex(words.next()?)?);
    }
    let base = words.next()?;
    cpu.regs.set(segment.limit, hex(words.next()?)?);
    if let Some(flags) = segment.flags {
        cpu.regs.set(flags, hex(words.next()?)?);
    }
    Some(base)
}

/// The command that prints a page.
pub(super) fn page_command(address: u64) -> String {
    format!("xp /{}gx {address:#x}", PAGE_SIZE / 8)
}

/// The bytes that it prints: `0000000000100000: 0x0000000000000000 0x0000000000000000`.
pub(super) fn page(text: &str) -> Option<Vec<u8>> {
    let words =
        text.lines().filter_map(|line| line.split_once(": ")).flat_map(|(_, words)| words.split_whitespace());
    let words: Option<Vec<u64>> = words.map(|word| hex(word.strip_prefix("0x")?)).collect();
    let words = words.filter(|words| words.len() as u64 == PAGE_SIZE / 8)?;
    Some(words.into_iter().flat_map(u64::to_le_bytes).collect())
}

fn hex(digits: &str) -> Option<u64> {
    let all =
        !digits.is_empty() && digits.len() <= WHOLE && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    all.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What QEMU 10.0.2 prints of a processor that waits in a 64-bit kernel, general registers and
    /// vectors shortened.
    const KERNEL: &str = "\r\nCPU#0\r\n\
        RAX=000000000001ad40 RBX=0000000000000000 RCX=0000000000000000 RDX=4000000000000000\r\n\
        RSI=0000000000000083 RDI=000000000000826c RBP=ffffffff82a1aa40 RSP=ffffffff82a03e98\r\n\
        R8 =0000000000023000 R9 =00000000313b13b1 R10=00000000fffffffb R11=0000000000000001\r\n\
        R12=0000000000000000 R13=0000000000000000 R14=ffffffff82a1a120 R15=0000000000000000\r\n\
        RIP=ffffffff81a592eb RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1\r\n\
        ES =0000 0000000000000000 00000000 00000000\r\n\
        CS =0010 0000000000000000 ffffffff 00af9b00 DPL=0 CS64 [-RA]\r\n\
        SS =0018 0000000000000000 ffffffff 00cf9300 DPL=0 DS   [-WA]\r\n\
        DS =0000 0000000000000000 00000000 00000000\r\n\
        FS =0000 0000000000000000 00000000 00000000\r\n\
        GS =0000 ffff88800b200000 00000000 00000000\r\n\
        LDT=0000 0000000000000000 00000000 00008200 DPL=0 LDT\r\n\
        TR =0040 fffffe0000003000 00004087 00008900 DPL=0 TSS64-avl\r\n\
        GDT=     fffffe0000001000 0000007f\r\n\
        IDT=     fffffe0000000000 00000fff\r\n\
        CR0=80050033 CR2=0000000001e07c28 CR3=000000000487c000 CR4=000006f0\r\n\
        DR0=0000000000000000 DR1=0000000000000000 DR2=0000000000000000 DR3=0000000000000000 \r\n\
        DR6=00000000ffff0ff0 DR7=0000000000000400\r\n\
        EFER=0000000000000d01\r\n\
        FCW=037f FSW=0000 [ST=0] FTW=00 MXCSR=00001f80\r\n";

    #[test]
    fn all_registers_but_the_base_to_swap_in() {
        let second = KERNEL.replace("CPU#0", "CPU#1").replace("RIP=ffffffff81a592eb", "RIP=ffffffff81a592ec");
        let cpus = processors(&format!("{KERNEL}{second}")).expect("two processors");
        let regs = &cpus[0].regs;
        let expected = [
            (Reg::Rip, 0xffff_ffff_81a5_92eb),
            (Reg::R8, 0x2_3000),
            (Reg::R14, 0xffff_ffff_82a1_a120),
            (Reg::Cs, 0x10),
            (Reg::CsFlags, 0x00af_9b00),
            (Reg::GsBase, 0xffff_8880_0b20_0000),
            (Reg::TrBase, 0xffff_fe00_0000_3000),
            (Reg::GdtrLimit, 0x7f),
            (Reg::IdtrBase, 0xffff_fe00_0000_0000),
            (Reg::Cr3, 0x487_c000),
            (Reg::Efer, 0xd01),
            (Reg::Cpl, 0),
            (Reg::Zf, 1),
        ];
        for (reg, value) in expected {
            assert_eq!(regs.get(reg), Some(value), "{reg:?}");
        }
        assert_eq!(regs.get(Reg::KernelGsBase), None);
        assert_eq!(cpus[0].code_bits(), Some(64));
        assert_eq!(cpus[1].regs.get(Reg::Rip), Some(0xffff_ffff_81a5_92ec));
    }

    #[test]
    fn bases_that_qemu_cuts_are_unknown() {
        let text = KERNEL
            .replace("CS =0010 0000000000000000 ffffffff 00af9b00", "CS =0023 00000000 ffffffff 00cffb00")
            .replace("GS =0000 ffff88800b200000", "GS =0000 0b200000")
            .replace("TR =0040 fffffe0000003000", "TR =0040 00003000")
            .replace("RIP=ffffffff81a592eb RFL", "EIP=081a592e EFL");
        let regs = &processors(&text).expect("a processor")[0].regs;
        assert_eq!([Reg::GsBase, Reg::TrBase].map(|reg| regs.get(reg)), [None; 2]);
        assert_eq!(
            [Reg::GdtrBase, Reg::Cpl].map(|reg| regs.get(reg)),
            [Some(0xffff_fe00_0000_1000), Some(3)]
        );
    }

    #[test]
    fn what_is_not_all_there_is_not_understood() {
        for line in KERNEL.split("\r\n").filter(|line| !line.is_empty()) {
            let needed = ["CPU#", "RSI", "RIP", "CR0", "EFER"].iter().any(|name| line.starts_with(name))
                || line.get(3..4) == Some("=")
                    && !line.starts_with('R')
                    && !line.starts_with("DR")
                    && !line.starts_with("FCW");
            let without = KERNEL.replace(line, "");
            assert_eq!(processors(&without).is_none(), needed, "{line}");
        }
        assert!(processors(&KERNEL.replace("81a592eb", "81a592eg")).is_none());
        assert!(processors(&KERNEL.replace("CPU#0", "CPU#1")).is_none());
        assert!(processors("unknown command: 'info registers'").is_none());
    }

    #[test]
    fn a_page_is_as_many_words() {
        use std::fmt::Write;
        let mut text = String::new();
        for row in 0..256_u64 {
            write!(text, "{:016x}: {:#018x} {:#018x}\r\n", 0x1000 + row * 16, row, row << 56)
                .expect("it fits");
        }
        let bytes = page(&text).expect("a page");
        assert_eq!((bytes.len(), bytes[16], bytes[31], bytes[4095]), (4096, 1, 1, 255));
        assert!(page(text.split_once("\r\n").expect("lines").1).is_none());
        assert_eq!(page_command(0x1000), "xp /512gx 0x1000");
    }
}
