//! Ways whose end only the run knows: the table in which compiled code looks up where a block is.

/// Blocks of a group by address, for returns and other ways whose end only the run knows: open
/// addressing by a multiplicative hash, one place each. A block whose place is taken is not found.
pub(crate) struct Ways {
    /// Address of the block and of its machine code.
    pub places: Box<[[u64; 2]]>,
    /// The hash's bits are the product's from this one on.
    pub shift: u8,
}

/// The factor of the hash.
pub(crate) const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

impl Ways {
    /// Room for so many blocks.
    pub fn new(blocks: usize) -> Self {
        let bits = (4 * blocks.max(1)).next_power_of_two().trailing_zeros();
        Self { places: vec![[u64::MAX, 0]; 1 << bits].into(), shift: 64 - bits as u8 }
    }

    /// Adds a block.
    pub fn add(&mut self, start: u64, code: u64) {
        let place = &mut self.places[(start.wrapping_mul(FACTOR) >> self.shift) as usize];
        if place[1] == 0 {
            *place = [start, code];
        }
    }
}
