//! What a trace consists of: static instructions and the events that refer to them.

use machine::{PhysAddr, Reg, VirtAddr};
use serde::{Deserialize, Serialize};

/// Longest x86 instruction.
pub const MAX_INSN_BYTES: usize = 15;

/// Index into [`crate::Trace::insns`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct InsnId(pub u32);

/// Instruction bytes at an address. The same address with other bytes or another code size is
/// another instruction.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StaticInsn {
    /// Linear address.
    pub pc: VirtAddr,
    /// Code size it was executed in: 16, 32 or 64.
    pub mode_bits: u8,
    len: u8,
    bytes: [u8; MAX_INSN_BYTES],
}

impl StaticInsn {
    /// An instruction, unless the length or the code size is impossible.
    #[must_use]
    pub fn new(pc: VirtAddr, mode_bits: u8, bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() || bytes.len() > MAX_INSN_BYTES || !matches!(mode_bits, 16 | 32 | 64) {
            return None;
        }
        let mut copy = [0; MAX_INSN_BYTES];
        copy[..bytes.len()].copy_from_slice(bytes);
        Some(Self { pc, mode_bits, len: bytes.len() as u8, bytes: copy })
    }

    /// The instruction's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Linear address of the byte after it.
    #[must_use]
    pub const fn next_pc(&self) -> VirtAddr {
        self.pc.add(self.len as u64)
    }
}

impl std::fmt::Debug for StaticInsn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}/{}:", self.pc, self.mode_bits)?;
        self.bytes().iter().try_for_each(|byte| write!(f, " {byte:02x}"))
    }
}

/// One data access of the last [`Event::Insn`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// Write instead of read.
    pub store: bool,
    /// Linear address of the first byte.
    pub vaddr: VirtAddr,
    /// Physical address of the first byte.
    pub paddr: PhysAddr,
    /// Where the access crosses a page: the physical address of the second page, if it is known.
    pub next_page: Option<PhysAddr>,
    /// Bytes: 1, 2, 4, 8 or 16 (others are representable).
    pub size: u8,
    /// The bytes read or written, little-endian, zero-extended.
    pub value: u128,
    /// A device answered, not RAM.
    pub io: bool,
}

impl Access {
    /// Whether it reaches into a second page.
    #[must_use]
    pub const fn crosses_page(&self) -> bool {
        self.vaddr.offset() + self.size as u64 > machine::PAGE_SIZE
    }

    /// Physical address of byte `n` of the access; `None` where the second page is unknown.
    #[must_use]
    pub const fn byte_addr(&self, n: u8) -> Option<PhysAddr> {
        let offset = self.vaddr.offset() + n as u64;
        if offset < machine::PAGE_SIZE {
            Some(self.paddr.add(n as u64))
        } else {
            match self.next_page {
                Some(page) => Some(page.add(offset - machine::PAGE_SIZE)),
                None => None,
            }
        }
    }
}

/// One event of the stream, in execution order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// At a translation block's start, and after an instruction whose result is no function of
    /// registers and memory (`rdtsc`, `in`, ...): the registers that changed since the last such
    /// event (the first one: since the begin mark). Applying them to the begin registers rebuilds
    /// every register listed in [`crate::Recorded::block_registers`].
    Regs(Vec<(Reg, u64)>),
    /// This instruction starts executing. It may not finish: a fault leads to the handler's first
    /// instruction, and the instruction appears again when it is restarted.
    Insn(InsnId),
    /// An access of the last instruction. A `rep` instruction may be one `Insn` with an access per
    /// element, or several `Insn` of the same instruction with some elements each.
    Access(Access),
}
