//! The base address in a segment descriptor (SDM vol. 3 section 3.4.5, figure 3-8).

/// The base of a code or data segment.
#[must_use]
pub const fn base(descriptor: u64) -> u64 {
    descriptor >> 16 & 0xff_ffff | (descriptor >> 56) << 24
}

/// The descriptor with another base.
#[must_use]
pub const fn with_base(descriptor: u64, base: u64) -> u64 {
    descriptor & 0x00ff_ff00_0000_ffff | (base & 0xff_ffff) << 16 | (base >> 24 & 0xff) << 56
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_is_all_that_changes() {
        assert_eq!(with_base(0x00cf_fa00_0000_ffff, 0), 0x00cf_fa00_0000_ffff);
        assert_eq!(with_base(0x99c1_f288_7766_00ff, 0x1234_5678), 0x12c1_f234_5678_00ff);
        assert_eq!((base(0x99c1_f288_7766_00ff), base(0x12c1_f234_5678_00ff)), (0x9988_7766, 0x1234_5678));
    }
}
