//! Code size and segment bases from descriptors (Intel SDM vol. 3 section 3.4.5).

/// `CR0.PE`: protected mode.
pub const CR0_PE: u64 = 1;
/// `EFLAGS.VM`: virtual-8086 mode.
pub const FLAGS_VM: u64 = 1 << 17;

/// An eight-byte descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Descriptor(pub u64);

impl Descriptor {
    /// The base address of a code or data segment.
    pub const fn base(self) -> u64 {
        machine::descriptor::base(self.0)
    }

    const fn long(self) -> bool {
        self.0 >> 53 & 1 != 0
    }

    const fn default_32(self) -> bool {
        self.0 >> 54 & 1 != 0
    }

    /// Code size of a code segment.
    pub const fn code_bits(self, long_mode: bool) -> u8 {
        if long_mode && self.long() {
            64
        } else if self.default_32() {
            32
        } else {
            16
        }
    }
}

/// The bases of the descriptor tables, as far as they were seen loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tables {
    /// The global table's.
    pub global: Option<u64>,
    /// The local table's.
    pub local: Option<u64>,
}

impl Tables {
    /// Where a selector's descriptor lies: bit 2 chooses the table; `None` for null selectors and a
    /// table that was not seen.
    pub const fn address(self, selector: u64) -> Option<u64> {
        let table = if selector & 4 != 0 {
            self.local
        } else if selector & 0xfff8 == 0 {
            None
        } else {
            self.global
        };
        match table {
            Some(base) => Some(base.wrapping_add(selector & 0xfff8)),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_of_flat_segments() {
        // __KERNEL_CS, __USER32_CS and a 16-bit code segment.
        assert_eq!(Descriptor(0x00af_9b00_0000_ffff).code_bits(true), 64);
        assert_eq!(Descriptor(0x00cf_fb00_0000_ffff).code_bits(true), 32);
        assert_eq!(Descriptor(0x00af_9b00_0000_ffff).code_bits(false), 16);
        assert_eq!(Descriptor(0x000f_9b00_0000_ffff).code_bits(false), 16);
        assert_eq!(Descriptor(0x12cf_9234_5678_ffff).base(), 0x1234_5678);
    }

    #[test]
    fn the_third_bit_of_a_selector_chooses_the_table() {
        let tables = Tables { global: Some(0x1000), local: Some(0x2000) };
        assert_eq!((tables.address(0x33), tables.address(0x37)), (Some(0x1030), Some(0x2030)));
        assert_eq!((tables.address(3), tables.address(7)), (None, Some(0x2000)));
        let global = Tables { local: None, ..tables };
        assert_eq!((global.address(0x17), Tables::default().address(0x10)), (None, None));
    }
}
