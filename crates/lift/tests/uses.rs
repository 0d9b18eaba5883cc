//! What each lifted encoding of `native.txt` reads and writes agrees with iced's `InstructionInfo`.
//!
//! Allowed: keeping the old value of a register that is written partly or conditionally; not
//! reading where the value does not matter; not writing what does not change.

mod support;

use std::collections::BTreeSet;

use iced_x86::{Decoder, DecoderOptions, InstructionInfoFactory, Mnemonic, OpAccess, RflagsBits};
use ir::{Class, Kind, Var};
use machine::reg::Reg;
use support::table;
use virtuoso_lift as lift;

/// A register without regard to its parts: general by number, XMM from 16 on.
fn whole(var: Var) -> Option<usize> {
    let index = usize::from(var.0);
    if index < 16 {
        return Some(index);
    }
    index.checked_sub(Reg::Xmm0Lo.index()).filter(|&n| n < 32).map(|n| 16 + n / 2)
}

const FLAGS: [(Reg, u32); 7] = [
    (Reg::Cf, RflagsBits::CF),
    (Reg::Pf, RflagsBits::PF),
    (Reg::Af, RflagsBits::AF),
    (Reg::Zf, RflagsBits::ZF),
    (Reg::Sf, RflagsBits::SF),
    (Reg::Of, RflagsBits::OF),
    (Reg::Df, RflagsBits::DF),
];

fn flags(vars: &BTreeSet<Var>) -> u32 {
    FLAGS.iter().filter(|(reg, _)| vars.contains(&Var(*reg as u16))).map(|(_, bit)| bit).sum()
}

#[test]
fn agrees_with_iced() {
    let mut factory = InstructionInfoFactory::new();
    let mut problems = Vec::new();
    for (bytes, comment) in table() {
        let insn = Decoder::with_ip(64, &bytes, 0x1000, DecoderOptions::NONE).decode();
        let lifted = lift::lift(lift::Mode::Bits64, 0x1000, &bytes).expect("decodes");
        let uses: BTreeSet<Var> =
            lifted.ops.iter().flat_map(|op| op.uses().collect::<Vec<_>>()).filter(|v| v.is_reg()).collect();
        let defs: BTreeSet<Var> =
            lifted.ops.iter().filter_map(|op| op.def()).filter(|v| v.is_reg()).collect();
        let (mut reads, mut writes, mut may_write, mut may_read) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let info = factory.info(&insn);
        for used in info.used_registers() {
            let register = used.register().full_register();
            let name = if register.is_gpr() {
                register.number()
            } else if used.register().is_vector_register() {
                16 + used.register().number()
            } else {
                continue;
            };
            match used.access() {
                OpAccess::Read => {
                    reads.insert(name);
                }
                OpAccess::CondRead => {
                    may_read.insert(name);
                }
                OpAccess::ReadWrite => {
                    reads.insert(name);
                    writes.insert(name);
                }
                OpAccess::ReadCondWrite => {
                    reads.insert(name);
                    may_write.insert(name);
                }
                OpAccess::Write => {
                    writes.insert(name);
                }
                OpAccess::CondWrite => {
                    may_write.insert(name);
                }
                OpAccess::None | OpAccess::NoMemAccess => {}
            }
        }
        let our_reads: BTreeSet<usize> = uses.iter().filter_map(|&var| whole(var)).collect();
        let our_writes: BTreeSet<usize> = defs.iter().filter_map(|&var| whole(var)).collect();
        let mut wrong = Vec::new();
        for read in &our_reads {
            if !(reads.contains(read)
                || may_read.contains(read)
                || writes.contains(read)
                || may_write.contains(read))
            {
                wrong.push(format!("reads {read}"));
            }
        }
        for read in &reads {
            // Values that do not matter: the same register twice; the register of a condition, a
            // hint's address, a 0 count.
            let same = insn.op_count() >= 2 && insn.op0_register() == insn.op1_register();
            let hint = lifted.ops.is_empty();
            // Lanes that are replaced or shifted out completely, selections of one source only.
            let chosen = (1..3).any(|n| insn.try_immediate(n).is_ok());
            // The other half stays untouched: no read and no write.
            let halves = defs.iter().filter(|&&var| whole(var) == Some(*read)).count();
            let replaced = *read >= 16 && (chosen || halves == 1);
            if !(our_reads.contains(read) || same || hint || replaced) {
                wrong.push(format!("does not read {read}"));
            }
        }
        for write in &our_writes {
            if !(writes.contains(write) || may_write.contains(write)) {
                wrong.push(format!("writes {write}"));
            }
        }
        for write in &writes {
            if !our_writes.contains(write) && !lifted.ops.is_empty() {
                wrong.push(format!("does not write {write}"));
            }
        }
        let (read, written) = (flags(&uses), flags(&defs));
        let kept = lifted.ops.iter().any(|op| op.kind == Kind::Select);
        if insn.rflags_read() & !read != 0 && insn.mnemonic() != Mnemonic::Pushfq {
            wrong.push(format!("does not read flags {:#x}", insn.rflags_read() & !read));
        }
        if read & !insn.rflags_read() != 0 && !kept {
            wrong.push(format!("reads flags {:#x}", read & !insn.rflags_read()));
        }
        let defined = insn.rflags_written() | insn.rflags_cleared() | insn.rflags_set();
        if defined & !written != 0 {
            wrong.push(format!("does not write flags {:#x}", defined & !written));
        }
        if written & !(defined | insn.rflags_undefined()) != 0 {
            wrong.push(format!("writes flags {:#x}", written & !(defined | insn.rflags_undefined())));
        }
        // Memory: each byte at most once, and in the direction iced says. Repeated ones have no
        // size.
        let (mut loaded, mut stored) = (0, 0);
        for op in &lifted.ops {
            match op.class() {
                Class::Load => loaded += op.width.bytes(),
                Class::Store => stored += op.width.bytes(),
                _ => {}
            }
        }
        let (mut should_load, mut should_store) = (0, 0);
        for memory in factory.info(&insn).used_memory() {
            let size = memory.memory_size().size() as u64;
            match memory.access() {
                OpAccess::Read | OpAccess::CondRead => should_load += size,
                OpAccess::Write | OpAccess::CondWrite => should_store += size,
                OpAccess::ReadWrite | OpAccess::ReadCondWrite => {
                    should_load += size;
                    should_store += size;
                }
                OpAccess::None | OpAccess::NoMemAccess => {}
            }
        }
        // Arithmetic that leaves memory as it is lifts to no store.
        let neutral = match insn.mnemonic() {
            Mnemonic::Add | Mnemonic::Sub | Mnemonic::Or | Mnemonic::Xor => Some(0),
            Mnemonic::And => Some(u64::MAX),
            _ => None,
        };
        let ones = if should_store < 8 { (1 << (8 * should_store)) - 1 } else { u64::MAX };
        let immediate = insn.try_immediate(1).ok().map(|it| it & ones);
        if neutral.is_some_and(|neutral| immediate == Some(neutral & ones)) {
            should_store = 0;
        }
        let repeated = insn.has_rep_prefix() || insn.has_repne_prefix();
        if !lifted.ops.is_empty() && !repeated && (loaded, stored) != (should_load, should_store) {
            wrong.push(format!(
                "loads {loaded} and stores {stored} bytes, not {should_load} and {should_store}"
            ));
        }
        if !wrong.is_empty() {
            problems.push(format!("{comment}: {}", wrong.join("; ")));
        }
    }
    assert!(problems.is_empty(), "{}:\n{}", problems.len(), problems.join("\n"));
}
