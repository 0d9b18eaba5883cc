//! Small targets for tests: memory with page tables of four levels.

use machine::memory::Mock;
use machine::{GuestMemory, PhysAddr};

/// A target: physical memory with page tables at 0.
pub(crate) struct Target {
    pub memory: Mock,
    /// The next frame that is free for a page table.
    free: u64,
}

/// The execute-disable bit of an entry.
pub(crate) const NX: u64 = 1 << 63;

impl Target {
    pub fn new() -> Self {
        let mut memory = Mock::new();
        memory.page_mut(PhysAddr(0));
        Self { memory, free: 0x1000 }
    }

    /// Maps a page that holds `bytes`; a frame is as good as another.
    pub fn map(&mut self, address: u64, bytes: &[u8], flags: u64) {
        let frame = 0x100_0000 + self.free * 16;
        self.memory.write(PhysAddr(frame), bytes);
        let mut table = 0;
        for shift in [39, 30, 21] {
            let entry = table + (address >> shift & 511) * 8;
            let next = self.word(entry);
            table = if next == 0 {
                self.free += 0x1000;
                self.memory.page_mut(PhysAddr(self.free));
                self.memory.write_u64(PhysAddr(entry), self.free | 3);
                self.free
            } else {
                next & !0xfff
            };
        }
        self.free += 0x1000;
        self.memory.write_u64(PhysAddr(table + (address >> 12 & 511) * 8), frame | 1 | flags);
    }

    fn word(&self, at: u64) -> u64 {
        let page = self.memory.page(PhysAddr(at).page()).expect("a table");
        ir::integrity::number(&page[(at & 4095) as usize..][..8])
    }
}
