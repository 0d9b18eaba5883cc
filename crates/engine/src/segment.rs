//! The trainer's segments: what its selectors name in the target's descriptor tables.
//!
//! A system may keep the running process's segments in the global table, or in a local one for each
//! process. Those in the target belong to whoever runs there; code that loads the trainer's
//! selectors, to return to it or to reach its memory, must find the trainer's bases. So a run
//! writes them into its overlay, over the target's. Only bases matter to the lifter: limits and
//! rights stay the target's. 64-bit trainers have no such segments.

use ir::Program;
use machine::descriptor::with_base;
use machine::{Reg, RegFile, VirtAddr};

use crate::overlay::Overlay;

/// Segment registers: the selector, and the base that it stands for.
const SEGMENTS: [(Reg, Reg); 6] = [
    (Reg::Cs, Reg::CsBase),
    (Reg::Ss, Reg::SsBase),
    (Reg::Ds, Reg::DsBase),
    (Reg::Es, Reg::EsBase),
    (Reg::Fs, Reg::FsBase),
    (Reg::Gs, Reg::GsBase),
];

/// Gives the descriptors that the trainer's selectors name its bases, in the overlay. Where the
/// target's table is not known or has no such descriptor, nothing is changed: code that loads the
/// selector then finds what it would find anyway.
pub(crate) fn give(program: &Program, target: &RegFile, overlay: &mut Overlay<'_>) {
    if program.bits == 64 {
        return;
    }
    let trained =
        |reg: Reg| program.registers.iter().find(|(number, _)| *number == reg as u16).map(|it| it.1);
    for (selector, base) in SEGMENTS {
        let (Some(selector), Some(base)) = (trained(selector), trained(base)) else { continue };
        // Null selectors and those of privilege 0 name no segments of the process.
        if selector <= 3 || selector & 3 == 0 {
            continue;
        }
        let local = selector & 4 != 0;
        let (table, limit) =
            if local { (Reg::LdtrBase, Reg::LdtrLimit) } else { (Reg::GdtrBase, Reg::GdtrLimit) };
        let inside = target.get(limit).is_none_or(|limit| selector & 0xfff8 | 7 <= limit);
        let Some(table) = target.get(table).filter(|_| inside) else { continue };
        let at = VirtAddr(table.wrapping_add(selector & 0xfff8));
        if let Ok(old) = overlay.load(at, 8)
            && with_base(old, base) != old
        {
            // The descriptor was just read, so only a full overlay can refuse the write, and then
            // the run's own first write stops the run.
            let _ = overlay.overwrite(at, &with_base(old, base).to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use machine::memory::Mock;
    use machine::{PagingMode, PhysAddr};

    use super::*;

    /// Page tables of two levels in which the page at 0x5000 is mapped at its own address for the
    /// system to read, with a table in it.
    fn memory() -> Mock {
        let mut memory = Mock::new();
        memory.write_u64(PhysAddr(0x1000), 0x2001);
        memory.write_u64(PhysAddr(0x2014), 0x5001);
        memory.write_u64(PhysAddr(0x5018), 0x00cf_fa00_0000_ffff);
        memory.write_u64(PhysAddr(0x5020), 0x00cf_f200_0000_ffff);
        memory
    }

    fn descriptors(trained: &[(Reg, u64)], target: &[(Reg, u64)], bits: u8) -> [u64; 2] {
        let memory = memory();
        let registers = trained.iter().map(|&(reg, value)| (reg as u16, value)).collect();
        let program =
            Program { bits, registers, ..ir::text::parse_program("program \"test\"", Reg::NAMES).unwrap() };
        let mut regs = RegFile::new();
        target.iter().for_each(|&(reg, value)| regs.set(reg, value));
        let mode = PagingMode::Bits32 { pse: false };
        let mut overlay = Overlay::new(&memory, mode, 0x1000, VirtAddr(0), 16);
        give(&program, &regs, &mut overlay);
        [0x5018, 0x5020].map(|at| overlay.load(VirtAddr(at), 8).unwrap())
    }

    const CODE: u64 = 0x00cf_fa00_0000_ffff;
    const DATA: u64 = 0x00cf_f200_0000_ffff;
    const TRAINED: [(Reg, u64); 4] =
        [(Reg::Cs, 0x1b), (Reg::CsBase, 0x1040_0000), (Reg::Ds, 0x23), (Reg::DsBase, 0x1040_0000)];
    const TABLE: [(Reg, u64); 2] = [(Reg::GdtrBase, 0x5000), (Reg::GdtrLimit, 0x27)];

    #[test]
    fn the_trainers_bases_replace_another_process_s() {
        let based = [0x10cf_fa40_0000_ffff, 0x10cf_f240_0000_ffff];
        assert_eq!(descriptors(&TRAINED, &TABLE, 32), based, "though the table may not be written");
        assert_eq!(descriptors(&TRAINED, &TABLE, 64), [CODE, DATA], "64-bit code has no bases");
        assert_eq!(descriptors(&TRAINED, &[], 32), [CODE, DATA], "no table is known");
        let short = [(Reg::GdtrBase, 0x5000), (Reg::GdtrLimit, 0x1f)];
        assert_eq!(
            descriptors(&TRAINED, &short, 32),
            [based[0], DATA],
            "what is behind the table is something else"
        );
    }

    #[test]
    fn the_system_s_own_segments_stay() {
        let trained = [(Reg::Cs, 0x18), (Reg::CsBase, 0x1000), (Reg::Ds, 3), (Reg::DsBase, 0x1000)];
        assert_eq!(descriptors(&trained, &TABLE, 32), [CODE, DATA]);
    }

    #[test]
    fn a_local_table_is_the_target_s() {
        let trained = [(Reg::Cs, 0x1f), (Reg::CsBase, 0x1040_0000)];
        let local = [(Reg::LdtrBase, 0x5000), (Reg::LdtrLimit, 0xff)];
        assert_eq!(descriptors(&trained, &local, 32)[0], with_base(CODE, 0x1040_0000));
        assert_eq!(descriptors(&trained, &TABLE, 32)[0], CODE, "the target's process has no local table");
    }
}
