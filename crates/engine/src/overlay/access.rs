//! Loads and stores of a run, and what they meet beside memory: the registers of the local APIC.

use jit::Held;
use machine::memory::ZERO_PAGE;
use machine::{PAGE_SIZE, Page, VirtAddr};

use super::fault::Fault;
use super::pages::Overlay;
use crate::apic::Register;

impl Overlay<'_> {
    /// Reads 1, 2, 4 or 8 bytes, little endian.
    ///
    /// # Errors
    /// A [`Fault`] naming the cause.
    #[inline]
    pub fn load(&mut self, address: VirtAddr, size: u64) -> Result<u64, Fault> {
        match self.pages.load(address, size) {
            Some(value) => Ok(value),
            None => self.load_missed(address, size),
        }
    }

    #[cold]
    fn load_missed(&mut self, address: VirtAddr, size: u64) -> Result<u64, Fault> {
        let offset = address.offset() as usize;
        if offset + size as usize > PAGE_SIZE as usize {
            return self.load_bytes(address, size);
        }
        let held = match self.undefined.near(address.page()) {
            Some(copy) => Held::Copy(copy),
            None => match self.fill(address.page(), false) {
                Ok(held) => held,
                Err(fault) => return self.load_apic(address, fault),
            },
        };
        let page = match held {
            Held::Target(page) => page,
            Held::Copy(copy) if self.undefined.any(copy, address.offset(), size) => {
                return Err(Fault::Undefined);
            }
            Held::Copy(copy) => self.pages.page(copy),
        };
        Ok(read(page, offset, size))
    }

    /// Reads across a page boundary.
    #[cold]
    fn load_bytes(&mut self, address: VirtAddr, size: u64) -> Result<u64, Fault> {
        let mut value = 0;
        for at in 0..size {
            value |= self.load(address.add(at), 1)? << (8 * at);
        }
        Ok(value)
    }

    /// Writes the low 1 to 8 bytes of `value`, little endian.
    ///
    /// # Errors
    /// A [`Fault`] naming the cause; nothing is written then.
    #[inline]
    pub fn store(&mut self, address: VirtAddr, size: u64, value: u64) -> Result<(), Fault> {
        match self.pages.store(address, size, value) {
            true => Ok(()),
            false => self.store_missed(address, size, value),
        }
    }

    #[cold]
    fn store_missed(&mut self, address: VirtAddr, size: u64, value: u64) -> Result<(), Fault> {
        let offset = address.offset() as usize;
        if offset + size as usize > PAGE_SIZE as usize {
            return self.store_bytes(address, size, value);
        }
        let near = self.undefined.near(address.page());
        let copy = match near {
            Some(copy) => copy,
            None => match self.writable(address) {
                Ok(copy) => copy,
                Err(fault) => return self.store_apic(address, value, fault),
            },
        };
        self.pages.store_to(copy, offset, size as usize, value);
        if self.undefined.define(copy, address.offset(), size) && near.is_none() {
            self.undefined.remember(address.page(), copy);
        }
        Ok(())
    }

    /// Writes across a page boundary.
    #[cold]
    fn store_bytes(&mut self, address: VirtAddr, size: u64, value: u64) -> Result<(), Fault> {
        // Both pages must be writable before either is written.
        self.writable(address)?;
        self.writable(address.add(size - 1))?;
        for at in 0..size {
            self.store(address.add(at), 1, value >> (8 * at) & 0xff)?;
        }
        Ok(())
    }

    /// Stores `size` zeros. A page of the process that holds them already stays as it is.
    ///
    /// # Errors
    /// The address of a word that cannot be written, and why.
    pub(crate) fn clear(&mut self, address: u64, size: u64) -> Result<(), (u64, Fault)> {
        let mut at = 0;
        while at < size {
            let start = VirtAddr(address.wrapping_add(at));
            let here = (PAGE_SIZE - start.offset()).min(size - at);
            let offset = start.offset() as usize;
            let process = self.process.filter(|_| !self.user.contains_key(&start.page()));
            let held = process.and_then(|process| process.get(start.page()));
            // As a comparison of slices it takes all that a vector holds at once: of a buffer of a
            // megabyte this looks at every page before every run.
            let zeros = &ZERO_PAGE[..here as usize];
            if held.is_none_or(|(_, page)| page[offset..offset + here as usize] != *zeros) {
                for word in (0..here).step_by(8) {
                    let to = start.0.wrapping_add(word);
                    self.store(VirtAddr(to), (here - word).min(8), 0).map_err(|fault| (to, fault))?;
                }
            }
            at += here;
        }
        Ok(())
    }

    /// What a model-specific register of the local APIC holds, if that is known.
    pub(crate) fn load_msr(&mut self, msr: u64) -> Option<u64> {
        self.apic.load(Register::of_msr(msr)?, self.memory)
    }

    /// Takes what is written to a model-specific register of the local APIC; `false` if that would
    /// have an effect, or it is none.
    pub(crate) fn store_msr(&mut self, msr: u64, value: u64) -> bool {
        Register::of_msr(msr).is_some_and(|register| self.store_register(register, value))
    }

    fn store_register(&mut self, register: Register, value: u64) -> bool {
        let change = self.apic.store(register, value);
        // A loop that changes it does not wait.
        self.pages.add_to_state(change.unwrap_or(0));
        change.is_some()
    }

    /// Reads what may be a register of the local APIC.
    #[cold]
    fn load_apic(&mut self, address: VirtAddr, fault: Fault) -> Result<u64, Fault> {
        let register = self.apic_register(address, &fault);
        register.and_then(|register| self.apic.load(register, self.memory)).ok_or(fault)
    }

    /// Writes what may be a register of the local APIC.
    #[cold]
    fn store_apic(&mut self, address: VirtAddr, value: u64, fault: Fault) -> Result<(), Fault> {
        match self.apic_register(address, &fault) {
            Some(register) if self.store_register(register, value) => Ok(()),
            _ => Err(fault),
        }
    }

    /// The register of the local APIC at an address, an access to which met `fault`.
    fn apic_register(&mut self, address: VirtAddr, fault: &Fault) -> Option<Register> {
        let absent = matches!(fault, Fault::NoFrame(_) | Fault::Device(_));
        absent.then(|| self.physical(address).ok()).flatten().and_then(Register::at)
    }
}

/// The `size` bytes of a page from an offset on, little endian.
fn read(page: &Page, offset: usize, size: u64) -> u64 {
    let mut bytes = [0; 8];
    bytes[..size as usize].copy_from_slice(&page[offset..offset + size as usize]);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::PhysAddr;
    use machine::paging::PagingMode;

    use crate::process::ProcessPages;

    #[test]
    fn what_is_cleared_is_zero() {
        let memory = machine::memory::Mock::new();
        let mut text = "program \"test\"\npage 0x2000 zero\n".to_owned();
        for page in [0x1000, 0x3000] {
            text += &format!("page {page:#x} bytes 4096 {{\n 0x0: {}\n}}\n", "07".repeat(4096));
        }
        let program = ir::text::parse_program(&text, machine::Reg::NAMES).unwrap();
        let pages = ProcessPages::new(&program);
        let new = || Overlay::new(&memory, PagingMode::Off, 0, VirtAddr(0x9000), 16).with_process(&pages);
        let mut cleared = new();
        assert_eq!(cleared.clear(0x1ffb, 0x1008), Ok(()));
        let bytes: Vec<u64> = [0x1ff9, 0x1ffa, 0x1ffb, 0x1fff, 0x2fff, 0x3002, 0x3003]
            .map(|at| cleared.load(VirtAddr(at), 1).unwrap_or(99))
            .into();
        assert_eq!(bytes, [7, 7, 0, 0, 0, 0, 7]);
        let (at, _) = cleared.clear(0x3ff0, 0x18).expect_err("there is no such page");
        assert_eq!(at, 0x4000);
    }

    #[test]
    fn interrupts_to_other_processors_are_sent_to_nobody() {
        const COMMAND: VirtAddr = VirtAddr(0xfee0_0300);
        // A page of 4 MiB, for the system alone and not cached.
        const ENTRY: u32 = 0xfec0_0000 | 0x93;
        let mut memory = machine::memory::Mock::new();
        memory.write(PhysAddr(0x2000 + (COMMAND.0 >> 22) * 4), &ENTRY.to_le_bytes());
        let mode = PagingMode::Bits32 { pse: true };
        let mut overlay = Overlay::new(&memory, mode, 0x2000, VirtAddr(0x1000), 16);
        let before = overlay.state();
        for (at, value) in [(0x10, 1 << 24), (0, 0x8fd)] {
            assert_eq!(overlay.store(COMMAND.add(at), 4, value), Ok(()));
        }
        assert_eq!(overlay.load(COMMAND, 4), Ok(0), "nothing is still to be sent");
        assert_eq!(overlay.state(), before, "it is no memory: who waits for an effect is found waiting");
        // The timer's initial count, and the register before.
        for at in [0xfee0_0380, 0xfee0_02f0].map(VirtAddr) {
            assert!(overlay.store(at, 4, 1).is_err() && overlay.load(at, 4).is_err(), "{at:?}");
        }
    }
}
