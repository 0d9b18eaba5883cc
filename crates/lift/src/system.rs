//! System instructions: fast system calls, control and model-specific registers, flags, ports,
//! tables, hints.
//!
//! Model-specific registers that are part of the register file (segment bases, EFER, the system
//! call targets) are selected by number, so that `wrmsr` defines and `rdmsr` uses them in data
//! flow; the environment is told of every write. Privilege is not checked. Cache control, fences,
//! prefetches and hints have no effect in this model.

use iced_x86::{Code, Mnemonic};
use ir::{Arg, Kind, Width};
use machine::reg::{RFLAGS_FIELDS, Reg};

use crate::Mode;
use crate::builder::{Builder, Lifted, arg};
use crate::operands::segment;

/// Lifts the instruction if it is one of this family.
pub(crate) fn lift(b: &mut Builder) -> Option<Lifted> {
    use Mnemonic as M;
    Some(match b.insn.mnemonic() {
        M::Nop
        | M::Reservednop
        | M::Pause
        | M::Endbr32
        | M::Endbr64
        | M::Lfence
        | M::Mfence
        | M::Sfence
        | M::Clflush
        | M::Clflushopt
        | M::Clwb
        | M::Cldemote
        | M::Wbinvd
        | M::Wbnoinvd
        | M::Invd
        | M::Serialize
        | M::Prefetch
        | M::Prefetchw
        | M::Prefetchwt1
        | M::Prefetcht0
        | M::Prefetcht1
        | M::Prefetcht2
        | M::Prefetchnta => Some(()),
        M::Syscall => syscall(b),
        M::Sysret | M::Sysretq => sysret(b),
        M::Sysenter => sysenter(b),
        M::Sysexit | M::Sysexitq => sysexit(b),
        M::Swapgs => {
            b.set(Reg::GsBase, Width::B64, arg(Reg::KernelGsBase));
            b.set(Reg::KernelGsBase, Width::B64, arg(Reg::GsBase));
            Some(())
        }
        M::Clc => flag(b, Reg::Cf, 0),
        M::Stc => flag(b, Reg::Cf, 1),
        M::Cld => flag(b, Reg::Df, 0),
        M::Std => flag(b, Reg::Df, 1),
        M::Cli => flag(b, Reg::If, 0),
        M::Sti => flag(b, Reg::If, 1),
        M::Clac => flag(b, Reg::Ac, 0),
        M::Stac => flag(b, Reg::Ac, 1),
        M::Cmc => {
            b.flag(Reg::Cf, Kind::Not, Width::B1, &[arg(Reg::Cf)]);
            Some(())
        }
        M::Lahf => {
            let image = b.rflags_low();
            b.set_part(Reg::Rax, Width::B8, image, 8);
            Some(())
        }
        M::Sahf => {
            for (reg, bit) in [(Reg::Cf, 8), (Reg::Pf, 10), (Reg::Af, 12), (Reg::Zf, 14), (Reg::Sf, 15)] {
                b.flag(reg, Kind::Extract, Width::B1, &[arg(Reg::Rax), Arg::Const(bit)]);
            }
            Some(())
        }
        M::Xlatb => {
            let address = b.memory();
            address.map(|address| {
                let value = b.load(Width::B8, address);
                b.set_part(Reg::Rax, Width::B8, value, 0);
            })
        }
        M::Rdtsc | M::Rdtscp => {
            let counter = b.op(Kind::Tsc, Width::B64, &[]);
            if b.insn.mnemonic() == M::Rdtscp {
                b.set(Reg::Rcx, Width::B32, arg(Reg::TscAux));
            }
            pair(b, counter)
        }
        M::Rdpid => b.write(0, b.mode_width(), arg(Reg::TscAux)),
        M::Rdpmc => {
            let index = b.narrow(Width::B32, arg(Reg::Rcx));
            let counter = b.op(Kind::Rdpmc, Width::B64, &[index]);
            pair(b, counter)
        }
        // SDM vol. 2, RDPKRU: EDX becomes 0.
        M::Rdpkru => {
            let keys = b.op(Kind::ReadKeys, Width::B32, &[]);
            pair(b, keys)
        }
        M::Wrpkru => {
            let keys = b.narrow(Width::B32, arg(Reg::Rax));
            b.act(Kind::WriteKeys, Width::B32, &[keys]);
            Some(())
        }
        M::Rdrand | M::Rdseed => random(b),
        M::Cpuid => cpuid(b),
        M::Rdmsr => rdmsr(b),
        M::Wrmsr => wrmsr(b),
        M::Xgetbv => pair(b, arg(Reg::Xcr0)),
        M::Xsetbv => {
            let value = b.insert(Width::B32, arg(Reg::Rax), arg(Reg::Rdx), 32);
            b.set(Reg::Xcr0, Width::B64, value);
            Some(())
        }
        M::In => port_in(b),
        M::Out => port_out(b),
        M::Clts => {
            let value = b.and(Width::B64, arg(Reg::Cr0), !8);
            b.set(Reg::Cr0, Width::B64, value);
            Some(())
        }
        M::Smsw => {
            let width = if b.is_memory(0) { Some(Width::B16) } else { b.width(0) };
            width.and_then(|width| b.write(0, width, arg(Reg::Cr0)))
        }
        M::Lmsw => lmsw(b),
        M::Invlpg => {
            let address = b.memory();
            address.map(|address| b.act_late(Kind::TlbFlush, Width::B64, &[address]))
        }
        M::Invpcid => flush_all(b),
        M::Lgdt => load_table(b, Reg::GdtrBase, Reg::GdtrLimit),
        M::Lidt => load_table(b, Reg::IdtrBase, Reg::IdtrLimit),
        M::Sgdt => store_table(b, Reg::GdtrBase, Reg::GdtrLimit),
        M::Sidt => store_table(b, Reg::IdtrBase, Reg::IdtrLimit),
        M::Rdfsbase => read_base(b, Reg::FsBase),
        M::Rdgsbase => read_base(b, Reg::GsBase),
        M::Wrfsbase => write_base(b, Reg::FsBase),
        M::Wrgsbase => write_base(b, Reg::GsBase),
        _ => return None,
    })
}

fn flag(b: &mut Builder, reg: Reg, value: u64) -> Lifted {
    b.set_flag(reg, value);
    Some(())
}

/// A 64-bit value into edx:eax.
fn pair(b: &mut Builder, value: Arg) -> Lifted {
    let high = b.shr(Width::B64, value, 32);
    b.set(Reg::Rax, Width::B32, value);
    b.set(Reg::Rdx, Width::B32, high);
    Some(())
}

impl Builder<'_> {
    /// The low byte of RFLAGS, as `lahf` wants it.
    fn rflags_low(&mut self) -> Arg {
        let mut image = Arg::Const(2);
        for &(flag, bit, _) in RFLAGS_FIELDS.iter().filter(|field| field.1 < 8) {
            let at = self.shl(Width::B8, arg(flag), u64::from(bit));
            image = self.or(Width::B8, image, at);
        }
        image
    }
}

/// CS and SS for a system call or a return from one: selector, and both bases 0.
fn flat_segments(b: &mut Builder, code: Arg, stack: Arg, cpl: u64) {
    b.set(Reg::Cs, Width::B16, code);
    b.set(Reg::Ss, Width::B16, stack);
    b.set(Reg::CsBase, Width::B64, 0);
    b.set(Reg::SsBase, Width::B64, 0);
    b.set(Reg::Cpl, Width::B8, cpl);
}

/// SDM vol. 2, SYSCALL. From 32-bit code only AMD's processors have it (AMD APM vol. 2 section
/// 6.1.1): in long mode with a target of its own, else with one in STAR, and then R11 and the mask
/// play no part.
fn syscall(b: &mut Builder) -> Lifted {
    let next = b.next;
    let image = b.rflags();
    let mut kept = b.not(Width::B64, arg(Reg::Sfmask));
    let (mut saved, mut target) = (image, arg(Reg::Lstar));
    if b.mode != Mode::Bits64 {
        let long = b.extract_field(arg(Reg::Efer), 10, 1);
        let legacy = b.narrow(Width::B32, arg(Reg::Star));
        kept = b.select(Width::B64, long, kept, !IF);
        saved = b.select(Width::B64, long, image, arg(Reg::R11));
        target = b.select(Width::B64, long, arg(Reg::Cstar), legacy);
    }
    for &(reg, bit, size) in RFLAGS_FIELDS {
        let mask = b.extract_field(kept, bit, size);
        let width = if size == 1 { Width::B1 } else { Width::B8 };
        b.flag(reg, Kind::And, width, &[arg(reg), mask]);
    }
    let star = b.shr(Width::B64, arg(Reg::Star), 32);
    let code = b.and(Width::B16, star, 0xfffc);
    let stack = b.add(Width::B16, code, 8);
    b.set(Reg::Rcx, Width::B64, next);
    b.set(Reg::R11, Width::B64, saved);
    flat_segments(b, code, stack, 0);
    b.end(Kind::SysEnter, &[target, Arg::Const(next)]);
    Some(())
}

/// The interrupt flag, EFLAGS.IF.
const IF: u64 = 1 << 9;

/// SDM vol. 2, SYSRET; without REX.W it returns to 32-bit code.
fn sysret(b: &mut Builder) -> Lifted {
    if b.mode != Mode::Bits64 {
        // AMD APM vol. 3, SYSRET: from legacy code only IF comes back.
        let star = b.shr(Width::B64, arg(Reg::Star), 48);
        let code = b.or(Width::B16, star, 3);
        let stack = b.add(Width::B16, star, 8);
        let stack = b.or(Width::B16, stack, 3);
        b.set_flag(Reg::If, 1);
        flat_segments(b, code, stack, 3);
        let target = b.narrow(Width::B32, arg(Reg::Rcx));
        b.end(Kind::SysExit, &[target]);
        return Some(());
    }
    let long = b.insn.mnemonic() == Mnemonic::Sysretq;
    for &(reg, bit, size) in RFLAGS_FIELDS {
        let value = b.extract_field(arg(Reg::R11), bit, size);
        b.set_field(reg, size, value);
    }
    let star = b.shr(Width::B64, arg(Reg::Star), 48);
    let code = b.add(Width::B16, star, if long { 16 } else { 0 });
    let code = b.or(Width::B16, code, 3);
    let stack = b.add(Width::B16, star, 8);
    let stack = b.or(Width::B16, stack, 3);
    flat_segments(b, code, stack, 3);
    let target = if long { arg(Reg::Rcx) } else { b.narrow(Width::B32, arg(Reg::Rcx)) };
    b.end(Kind::SysExit, &[target]);
    Some(())
}

/// SDM vol. 2, SYSENTER.
fn sysenter(b: &mut Builder) -> Lifted {
    let code = b.and(Width::B16, arg(Reg::SysenterCs), 0xfffc);
    let stack = b.add(Width::B16, code, 8);
    b.set_flag(Reg::If, 0);
    // The target runs in 64-bit mode whenever the processor is in long mode, so all of the
    // registers count.
    b.set(Reg::Rsp, Width::B64, arg(Reg::SysenterEsp));
    flat_segments(b, code, stack, 0);
    let next = b.next;
    b.end(Kind::SysEnter, &[arg(Reg::SysenterEip), Arg::Const(next)]);
    Some(())
}

/// SDM vol. 2, SYSEXIT.
fn sysexit(b: &mut Builder) -> Lifted {
    let long = b.insn.mnemonic() == Mnemonic::Sysexitq;
    let width = if long { Width::B64 } else { Width::B32 };
    let (code, stack) = if long { (32, 40) } else { (16, 24) };
    let base = b.and(Width::B16, arg(Reg::SysenterCs), 0xfffc);
    let code = b.add(Width::B16, base, code);
    let code = b.or(Width::B16, code, 3);
    let stack = b.add(Width::B16, base, stack);
    let stack = b.or(Width::B16, stack, 3);
    let target = b.narrow(width, arg(Reg::Rdx));
    b.set(Reg::Rsp, width, arg(Reg::Rcx));
    flat_segments(b, code, stack, 3);
    b.end(Kind::SysExit, &[target]);
    Some(())
}

fn random(b: &mut Builder) -> Lifted {
    let width = b.width(0)?;
    let value = b.op(Kind::Rand, width, &[]);
    b.write(0, width, value)?;
    b.set_flag(Reg::Cf, 1);
    for reg in [Reg::Of, Reg::Sf, Reg::Zf, Reg::Af, Reg::Pf] {
        b.set_flag(reg, 0);
    }
    Some(())
}

fn cpuid(b: &mut Builder) -> Lifted {
    let (leaf, subleaf) = (arg(Reg::Rax), arg(Reg::Rcx));
    let results = [
        (Reg::Rax, Kind::CpuidA),
        (Reg::Rbx, Kind::CpuidB),
        (Reg::Rcx, Kind::CpuidC),
        (Reg::Rdx, Kind::CpuidD),
    ];
    for (reg, kind) in results {
        let value = b.op(kind, Width::B32, &[leaf, subleaf]);
        b.set(reg, Width::B32, value);
    }
    Some(())
}

/// Model-specific registers that are part of the register file (SDM vol. 4 table 2-2).
const MSRS: [(u64, Reg); 12] = [
    (0x174, Reg::SysenterCs),
    (0x175, Reg::SysenterEsp),
    (0x176, Reg::SysenterEip),
    (0xc000_0080, Reg::Efer),
    (0xc000_0081, Reg::Star),
    (0xc000_0082, Reg::Lstar),
    (0xc000_0083, Reg::Cstar),
    (0xc000_0084, Reg::Sfmask),
    (0xc000_0100, Reg::FsBase),
    (0xc000_0101, Reg::GsBase),
    (0xc000_0102, Reg::KernelGsBase),
    (0xc000_0103, Reg::TscAux),
];

/// EFER.LMA, which follows CR0.PG and cannot be written.
const LMA: u64 = 1 << 10;

fn rdmsr(b: &mut Builder) -> Lifted {
    let number = b.narrow(Width::B32, arg(Reg::Rcx));
    let mut value = b.op(Kind::Rdmsr, Width::B64, &[number]);
    for (msr, reg) in MSRS {
        let this = b.eq(Width::B32, number, msr);
        value = b.select(Width::B64, this, arg(reg), value);
    }
    pair(b, value)
}

fn wrmsr(b: &mut Builder) -> Lifted {
    let number = b.narrow(Width::B32, arg(Reg::Rcx));
    let value = b.insert(Width::B32, arg(Reg::Rax), arg(Reg::Rdx), 32);
    b.act(Kind::Wrmsr, Width::B64, &[number, value]);
    for (msr, reg) in MSRS {
        let this = b.eq(Width::B32, number, msr);
        let mut new = value;
        if reg == Reg::Efer {
            let active = b.and(Width::B64, arg(reg), LMA);
            let rest = b.and(Width::B64, value, !LMA);
            new = b.or(Width::B64, rest, active);
        }
        let new = b.select(Width::B64, this, new, arg(reg));
        b.set(reg, Width::B64, new);
    }
    Some(())
}

fn port_in(b: &mut Builder) -> Lifted {
    let width = b.width(0)?;
    let port = b.read_exact(1, if b.register(1).is_some() { Width::B16 } else { Width::B8 })?;
    let value = b.op(Kind::In, width, &[port]);
    b.write(0, width, value)
}

fn port_out(b: &mut Builder) -> Lifted {
    let width = b.width(1)?;
    let port = b.read_exact(0, if b.register(0).is_some() { Width::B16 } else { Width::B8 })?;
    let value = b.read_exact(1, width)?;
    b.act(Kind::Out, width, &[port, value]);
    Some(())
}

/// The forms of `mov` with a segment, control or debug register.
pub(crate) fn mov_special(b: &mut Builder) -> Lifted {
    if let Some(to) = b.register(0).filter(|register| register.is_segment_register()) {
        let selector = b.read(1, Width::B16)?;
        return crate::segment::load_segment(b, to, selector);
    }
    if let Some((selector, _)) = b.register(1).and_then(segment) {
        return crate::segment::store_selector(b, selector);
    }
    let width = if b.mode == Mode::Bits64 { Width::B64 } else { Width::B32 };
    let (to, from) = (b.register(0)?, b.register(1)?);
    if to.is_cr() {
        let value = b.read_exact(1, width)?;
        return write_control(b, to.number(), value);
    }
    if from.is_cr() {
        let from = control_register(from.number())?;
        return b.write(0, width, arg(from));
    }
    if to.is_dr() {
        let value = b.read_exact(1, width)?;
        b.act(Kind::WriteDr, Width::B64, &[Arg::Const(to.number() as u64), value]);
        return Some(());
    }
    if from.is_dr() {
        let value = b.op(Kind::ReadDr, Width::B64, &[Arg::Const(from.number() as u64)]);
        return b.write(0, width, value);
    }
    None
}

fn control_register(number: usize) -> Lifted<Reg> {
    Some(match number {
        0 => Reg::Cr0,
        2 => Reg::Cr2,
        3 => Reg::Cr3,
        4 => Reg::Cr4,
        8 => Reg::Cr8,
        _ => return None,
    })
}

fn write_control(b: &mut Builder, number: usize, value: Arg) -> Lifted {
    let reg = control_register(number)?;
    let mut value = value;
    match reg {
        // With process-context identifiers, bit 63 asks to keep translations and is not stored (SDM
        // vol. 3 section 4.10.4.1).
        Reg::Cr3 if b.mode == Mode::Bits64 => value = b.and(Width::B64, value, !(1 << 63)),
        // Paging on with EFER.LME set makes long mode active (SDM vol. 3 section 10.8.5).
        Reg::Cr0 => {
            let paging = b.shr(Width::B64, value, 31);
            let enabled = b.shr(Width::B64, arg(Reg::Efer), 8);
            let active = b.and(Width::B1, paging, enabled);
            let active = b.shl(Width::B64, active, 10);
            let rest = b.and(Width::B64, arg(Reg::Efer), !LMA);
            let efer = b.or(Width::B64, rest, active);
            b.set(Reg::Efer, Width::B64, efer);
        }
        _ => {}
    }
    b.set(reg, Width::B64, value);
    if matches!(reg, Reg::Cr0 | Reg::Cr3 | Reg::Cr4) { flush_all(b) } else { Some(()) }
}

fn flush_all(b: &mut Builder) -> Lifted {
    b.act_late(Kind::TlbFlush, Width::B64, &[Arg::Const(u64::MAX)]);
    Some(())
}

/// The low four bits of CR0, except that PE cannot be cleared.
fn lmsw(b: &mut Builder) -> Lifted {
    let value = b.read(0, Width::B16)?;
    let low = b.and(Width::B64, value, 0xf);
    let rest = b.and(Width::B64, arg(Reg::Cr0), !0xe);
    let value = b.or(Width::B64, rest, low);
    b.set(Reg::Cr0, Width::B64, value);
    Some(())
}

fn load_table(b: &mut Builder, base: Reg, limit: Reg) -> Lifted {
    let width = b.linear_width();
    let address = b.memory()?;
    let size = b.load(Width::B16, address);
    let second = b.advance(address, 2);
    let mut start = b.load(width, second);
    // With a 16-bit operand the base has 24 bits (SDM vol. 2, LGDT).
    if matches!(b.insn.code(), Code::Lgdt_m1632_16 | Code::Lidt_m1632_16) {
        start = b.and(Width::B32, start, 0x00ff_ffff);
    }
    b.set(limit, Width::B64, size);
    b.set(base, Width::B64, start);
    Some(())
}

fn store_table(b: &mut Builder, base: Reg, limit: Reg) -> Lifted {
    let width = b.linear_width();
    let address = b.memory()?;
    b.store(Width::B16, address, arg(limit));
    let second = b.advance(address, 2);
    b.store(width, second, arg(base));
    Some(())
}

fn read_base(b: &mut Builder, base: Reg) -> Lifted {
    let width = b.width(0)?;
    b.write(0, width, arg(base))
}

fn write_base(b: &mut Builder, base: Reg) -> Lifted {
    let width = b.width(0)?;
    let value = b.read(0, width)?;
    b.set(base, width, value);
    Some(())
}
