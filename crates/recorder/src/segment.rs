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
        self.0 >> 16 & 0xff_ffff | (self.0 >> 56 & 0xff) << 24
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

/// Where a selector's descriptor lies in the global table; `None` for null selectors and the local table.
pub const fn gdt_offset(selector: u64) -> Option<u64> {
    if selector & 4 != 0 || selector & 0xfff8 == 0 { None } else { Some(selector & 0xfff8) }
}

/// Where a selector's descriptor lies, given the bases of the global and the local table; `None` for null selectors and a table that is not known.
pub fn address(global: Option<u64>, local: Option<u64>, selector: u64) -> Option<u64> {
    match gdt_offset(selector) {
        Some(offset) => Some(global?.wrapping_add(offset)),
        None if selector & 4 != 0 => Some(local?.wrapping_add(selector & 0xfff8)),
        None => None,
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
        assert_eq!(gdt_offset(0x33), Some(0x30));
        assert_eq!((gdt_offset(0x37), gdt_offset(3)), (None, None));
    }

    #[test]
    fn descriptors_lie_in_two_tables() {
        let (global, local) = (Some(0x1000), Some(0x2000));
        assert_eq!(address(global, local, 0x33), Some(0x1030));
        assert_eq!(address(global, local, 0x37), Some(0x2030));
        assert_eq!(address(global, local, 7), Some(0x2000), "the first local one is no null selector");
        assert_eq!(
            (address(global, None, 0x37), address(None, local, 0x33), address(global, local, 3)),
            (None, None, None)
        );
    }
}
