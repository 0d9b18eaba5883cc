//! The one device whose state a run knows: its processor's local APIC.
//!
//! A run begins in a process, so no interrupt is in service and nothing holds any back; the run's
//! processor takes none, and the others stand still as long as it lasts. So what is sent to them
//! has no effect, and code that waits for what another one should do is found waiting. Which
//! processor it is only the target can tell. All else is refused: the timer, errors, what is
//! pending, and what would tell what kind of machine this is.

use machine::{GuestMemory, PhysAddr, firmware};

/// Where its registers lie unless a system moves them (SDM vol. 3 section 11.4.1).
const BASE: u64 = 0xfee0_0000;
/// Each register has 16 bytes to itself there; in x2APIC mode they are model-specific registers
/// from this one on, with the same numbers (SDM vol. 3 section 11.12.1.2).
const X2APIC: u64 = 0x800;
/// Registers, and in x2APIC mode model-specific registers.
const REGISTERS: u64 = 0x40;

/// Numbers of registers: table 11-6 of SDM vol. 3 has them in both modes.
const ID: u64 = 0x02;
const TASK_PRIORITY: u64 = 0x08;
const PROCESSOR_PRIORITY: u64 = 0x0a;
const END_OF_INTERRUPT: u64 = 0x0b;
const IN_SERVICE: std::ops::RangeInclusive<u64> = 0x10..=0x17;
/// Two words outside x2APIC mode, and one there.
const INTERRUPT_COMMAND: [u64; 2] = [0x30, 0x31];

/// Whose local APIC it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ApicId {
    /// Nobody knows: code that asks is refused.
    #[default]
    Unknown,
    /// This identifier.
    Is(u32),
    /// That of the processor with this number, counted from 0, in the list that the target's
    /// firmware left in its memory.
    Listed(usize),
}

impl ApicId {
    fn find(self, memory: &dyn GuestMemory) -> Option<u32> {
        match self {
            Self::Unknown => None,
            Self::Is(id) => Some(id),
            Self::Listed(number) => firmware::local_apics(memory)?.get(number).copied(),
        }
    }
}

/// A register of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Register {
    number: u64,
    /// Whether it was asked for as a model-specific register.
    x2apic: bool,
}

impl Register {
    /// The register at a physical address.
    pub fn at(address: PhysAddr) -> Option<Self> {
        let offset = address.0.checked_sub(BASE).filter(|it| it % 16 == 0 && it / 16 < REGISTERS)?;
        Some(Self { number: offset / 16, x2apic: false })
    }

    /// The register with this number among the model-specific ones.
    pub fn of_msr(msr: u64) -> Option<Self> {
        let number = msr.checked_sub(X2APIC).filter(|it| *it < REGISTERS)?;
        Some(Self { number, x2apic: true })
    }

    const fn is_command(self) -> bool {
        let [low, high] = INTERRUPT_COMMAND;
        self.number == low || self.number == high && !self.x2apic
    }
}

/// The local APIC of a run's processor.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LocalApic {
    id: ApicId,
    /// What the run has written there: 0 at its beginning, which holds no interrupt back.
    task_priority: u32,
}

impl LocalApic {
    /// That of a processor before a run.
    pub const fn new(id: ApicId) -> Self {
        Self { id, task_priority: 0 }
    }

    /// What a register holds; `None` if that is not known.
    pub fn load(&mut self, register: Register, memory: &dyn GuestMemory) -> Option<u64> {
        match register.number {
            ID => {
                let id = self.id.find(memory);
                // Systems ask again and again: firmware's list is looked for once.
                self.id = id.map_or(ApicId::Unknown, ApicId::Is);
                let id = id?;
                // Outside x2APIC mode it is the highest byte (SDM vol. 3 figure 11-6).
                Some(if register.x2apic { id.into() } else { u64::from(id << 24) })
            }
            TASK_PRIORITY | PROCESSOR_PRIORITY => Some(self.task_priority.into()),
            // Nothing is in service, and nothing is still to be sent.
            number if IN_SERVICE.contains(&number) || register.is_command() => Some(0),
            _ => None,
        }
    }

    /// Takes what is stored to a register; `None` if that would have an effect. The result is by
    /// how much the sum of what its registers hold has grown, modulo 2^64.
    pub fn store(&mut self, register: Register, value: u64) -> Option<u64> {
        match register.number {
            TASK_PRIORITY => {
                let new = value as u32 & 0xff;
                let old = std::mem::replace(&mut self.task_priority, new);
                Some(u64::from(new).wrapping_sub(old.into()))
            }
            END_OF_INTERRUPT => Some(0),
            _ => register.is_command().then_some(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::memory::Mock;

    #[test]
    fn it_has_the_same_registers_in_both_modes() {
        let memory = Mock::new();
        let mut apic = LocalApic::new(ApicId::Is(3));
        let at = |offset| Register::at(PhysAddr(BASE + offset));
        let both = |apic: &mut LocalApic, offset, msr| {
            let mut load = |register: Option<Register>| register.and_then(|it| apic.load(it, &memory));
            (load(at(offset)), load(Register::of_msr(msr)))
        };
        assert_eq!(both(&mut apic, 0x20, 0x802), (Some(3 << 24), Some(3)));
        assert_eq!(both(&mut apic, 0x100, 0x810), (Some(0), Some(0)));
        let change = |apic: &mut LocalApic, value| at(0x80).and_then(|register| apic.store(register, value));
        assert_eq!(change(&mut apic, 0x51), Some(0x51));
        assert_eq!(change(&mut apic, 0x41), Some(0x10u64.wrapping_neg()));
        assert_eq!(both(&mut apic, 0x80, 0x808), (Some(0x41), Some(0x41)));
        assert_eq!(both(&mut apic, 0xa0, 0x80a), (Some(0x41), Some(0x41)));
        // The version, what is pending, errors, the timer.
        for register in [3, 0x20, 0x28, 0x32, 0x38, 0x39] {
            assert_eq!(both(&mut apic, register << 4, X2APIC + register), (None, None), "{register:#x}");
            assert!(at(register << 4).is_some_and(|it| apic.store(it, 1).is_none()));
        }
        assert_eq!(at(0x404), None);
        assert_eq!(at(0x21), None);
        assert_eq!(Register::of_msr(0x840), None);
    }

    #[test]
    fn who_it_is_the_target_tells_or_nobody() {
        let memory = Mock::new();
        let id = |it| LocalApic::new(it).load(Register { number: ID, x2apic: false }, &memory);
        assert_eq!(id(ApicId::Unknown), None);
        assert_eq!(id(ApicId::Listed(0)), None, "it has no firmware");
        assert_eq!(id(ApicId::Is(0)), Some(0));
    }
}
