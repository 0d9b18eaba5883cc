//! Registers that QEMU does not show to plugins, followed from the instructions that load them.

use machine::{Reg, RegFile};

use crate::segment::Tables;

/// The model-specific registers worth keeping (Intel SDM vol. 4), and where they go.
const MSRS: &[(u32, Reg)] = &[
    (0x174, Reg::SysenterCs),
    (0x175, Reg::SysenterEsp),
    (0x176, Reg::SysenterEip),
    (0xc000_0080, Reg::Efer),
    (0xc000_0081, Reg::Star),
    (0xc000_0082, Reg::Lstar),
    (0xc000_0083, Reg::Cstar),
    (0xc000_0084, Reg::Sfmask),
    (0xc000_0102, Reg::KernelGsBase),
    (0xc000_0103, Reg::TscAux),
];

/// What one virtual CPU was seen to load since power-on.
#[derive(Default)]
pub struct SystemRegs {
    regs: RegFile,
}

impl SystemRegs {
    /// `wrmsr` executes with these values.
    pub fn wrmsr(&mut self, index: u32, value: u64) {
        if let Some(&(_, reg)) = MSRS.iter().find(|(number, _)| *number == index) {
            self.regs.set(reg, value);
        }
    }

    /// Another load.
    pub fn set(&mut self, reg: Reg, value: u64) {
        self.regs.set(reg, value);
    }

    /// The last value seen.
    pub fn get(&self, reg: Reg) -> Option<u64> {
        self.regs.get(reg)
    }

    /// One of the two reads of `lgdt` or `lidt`: two bytes are the limit, four or eight the base.
    pub fn table(&mut self, base: Reg, limit: Reg, size: u8, value: u64) {
        self.regs.set(if size == 2 { limit } else { base }, value);
    }

    /// The descriptor tables.
    pub fn tables(&self) -> Tables {
        Tables { global: self.get(Reg::GdtrBase), local: self.get(Reg::LdtrBase) }
    }

    /// Fills in what is not known better from elsewhere.
    pub fn complete(&self, regs: &mut RegFile) {
        for (reg, value) in self.regs.known() {
            if regs.get(reg).is_none() {
                regs.set(reg, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_loads_and_yields_to_read_registers() {
        let mut system = SystemRegs::default();
        system.wrmsr(0xc000_0082, 7);
        system.wrmsr(0x1234, 8);
        system.wrmsr(0xc000_0080, 9);
        system.table(Reg::IdtrBase, Reg::IdtrLimit, 2, 0xfff);
        system.table(Reg::IdtrBase, Reg::IdtrLimit, 8, 0xffff_fe00);
        let mut regs = RegFile::new();
        regs.set(Reg::Efer, 1);
        system.complete(&mut regs);
        assert_eq!(regs.get(Reg::Lstar), Some(7));
        assert_eq!(regs.get(Reg::Efer), Some(1));
        assert_eq!((regs.get(Reg::IdtrBase), regs.get(Reg::IdtrLimit)), (Some(0xffff_fe00), Some(0xfff)));
        assert_eq!(regs.known().count(), 4);
    }
}
