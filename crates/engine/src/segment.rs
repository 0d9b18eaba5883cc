//! The trainer's segments: what its selectors name in the target's descriptor tables.
//!
//! A system may keep the running process's segments in the global table, or in a local one for each process. Those in the target belong to
//! whoever runs there; code that loads the trainer's selectors, to return to it or to reach its memory, is to find the trainer's bases. So a run's
//! overlay has them where the target's bases are others. Only bases matter to the lifter: limits and rights stay the target's. 64-bit trainers have no
//! such segments.

use ir::Program;
use machine::{Reg, RegFile};

use crate::space::Space;

/// Selectors and what they stand for.
const SEGMENTS: [(Reg, Reg); 6] = [
    (Reg::Cs, Reg::CsBase),
    (Reg::Ss, Reg::SsBase),
    (Reg::Ds, Reg::DsBase),
    (Reg::Es, Reg::EsBase),
    (Reg::Fs, Reg::FsBase),
    (Reg::Gs, Reg::GsBase),
];

/// Gives the descriptors that the trainer's selectors name its bases, in the overlay. Where the target has no such descriptor, code that needs it stops
/// at it.
pub(crate) fn give(program: &Program, target: &RegFile, space: &mut Space<'_>) {
    if program.bits == 64 {
        return;
    }
    let trained = |reg: Reg| program.registers.iter().find(|(number, _)| *number == reg as u16).map(|it| it.1);
    for (selector, base) in SEGMENTS {
        let (Some(selector), Some(base)) = (trained(selector), trained(base)) else { continue };
        // Null selectors, and what is the system's own (privilege 0), are no segments of the process.
        if selector <= 3 || selector & 3 == 0 {
            continue;
        }
        let table = if selector & 4 == 0 { Reg::GdtrBase } else { Reg::LdtrBase };
        let Some(table) = target.get(table).or_else(|| trained(table)) else { continue };
        let at = table.wrapping_add(selector & 0xfff8);
        if let Ok(old) = space.load(at, 8)
            && with_base(old, base) != old
        {
            // It was just read: only a full overlay can refuse it, and the run's own first write would end at that.
            let _ = space.overwrite(at, &with_base(old, base).to_le_bytes());
        }
    }
}

/// A descriptor with another base (SDM vol. 3 figure 3-8).
const fn with_base(descriptor: u64, base: u64) -> u64 {
    descriptor & 0x00ff_ff00_0000_ffff | (base & 0xff_ffff) << 16 | (base >> 24 & 0xff) << 56
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_is_all_that_changes() {
        assert_eq!(with_base(0x00cf_fa00_0000_ffff, 0), 0x00cf_fa00_0000_ffff);
        assert_eq!(with_base(0x99c1_f288_7766_00ff, 0x1234_5678), 0x12c1_f234_5678_00ff);
    }
}
