//! Finds the recorded access that each memory operand of an instruction made.
//!
//! QEMU records what its translated code accessed, not operands: several operands of one
//! instruction may lie in one access, and one operand may be several accesses. An operand gets the
//! first access that fits; an access is taken once an operand has reached its last byte.

use machine::{PAGE_SIZE, PhysAddr, VirtAddr};
use trace::Access;

/// A memory operand as the recording saw it.
#[derive(Clone, Copy, Debug)]
pub struct MemRef {
    /// Linear address.
    pub vaddr: VirtAddr,
    /// Physical address of the first byte.
    pub paddr: PhysAddr,
    /// The frame of the bytes on the next page, where the operand crosses into one; `None` if the
    /// recording does not say.
    second_frame: Option<PhysAddr>,
    /// How many bytes it has.
    pub size: u8,
    /// Whether it went to a device.
    pub io: bool,
}

impl MemRef {
    fn new(access: &Access, offset: u64, vaddr: VirtAddr, size: u64) -> Self {
        // Where the recording does not say which frame the second page is in, the next one is
        // assumed, as `byte` does.
        let paddr = access.byte_addr(offset as u8).unwrap_or(access.paddr.add(offset));
        MemRef { vaddr, paddr, second_frame: access.next_page, size: size as u8, io: access.io }
    }

    /// Physical address of its n-th byte. Where the recording does not say where the second page
    /// lies, nothing else touched it, and the next frame is assumed, which is right for memory the
    /// kernel maps linearly.
    #[must_use]
    pub fn byte(&self, n: u64) -> PhysAddr {
        let left = PAGE_SIZE - self.vaddr.offset();
        let second = || self.second_frame.unwrap_or(self.paddr.page().add(PAGE_SIZE));
        if n < left { self.paddr.add(n) } else { second().add(n - left) }
    }

    /// The pages that it touches, each with its frame, as far as the recording says.
    pub fn pages(&self) -> impl Iterator<Item = (VirtAddr, PhysAddr)> {
        let crosses = self.vaddr.offset() + u64::from(self.size) > PAGE_SIZE;
        let second = self.second_frame.filter(|_| crosses);
        let second = second.map(|frame| (self.vaddr.page().add(PAGE_SIZE), frame));
        std::iter::once((self.vaddr.page(), self.paddr.page())).chain(second)
    }

    /// Physical addresses of all its bytes.
    pub fn bytes(&self) -> impl Iterator<Item = PhysAddr> + '_ {
        (0..u64::from(self.size)).map(|n| self.byte(n))
    }
}

/// Which accesses of a step are taken, that is, belong to operands that were found.
#[derive(Default)]
pub(super) struct Matcher {
    used: Vec<bool>,
    /// Those before it are all taken.
    cursor: usize,
}

impl Matcher {
    /// A step with this many accesses begins.
    pub fn restart(&mut self, accesses: usize) {
        self.cursor = 0;
        self.used.clear();
        self.used.resize(accesses, false);
    }

    /// Whether some access was not taken yet.
    pub fn has_left(&self) -> bool {
        self.used.iter().any(|used| !used)
    }

    /// The accesses that were not taken.
    pub fn left<'a>(&'a self, accesses: &'a [Access]) -> impl Iterator<Item = &'a Access> {
        accesses.iter().zip(&self.used).filter(|(_, used)| !**used).map(|(access, _)| access)
    }

    /// Finds the access that covers `size` bytes (1 to 8) at `vaddr`, or the accesses that do so
    /// together: where the operand went, and its value.
    pub fn find(
        &mut self,
        accesses: &[Access],
        store: bool,
        vaddr: VirtAddr,
        size: u64,
    ) -> Option<(MemRef, u64)> {
        while self.cursor < accesses.len() && self.used[self.cursor] {
            self.cursor += 1;
        }
        let mask = if size == 8 { u64::MAX } else { (1 << (8 * size)) - 1 };
        for at in self.cursor..accesses.len() {
            let access = &accesses[at];
            if self.used[at] || access.store != store {
                continue;
            }
            let offset = vaddr.0.wrapping_sub(access.vaddr.0);
            let length = u64::from(access.size);
            if offset < length && offset + size <= length {
                if offset + size == length {
                    self.used[at] = true;
                }
                let value = (access.value >> (8 * offset)) as u64 & mask;
                return Some((MemRef::new(access, offset, vaddr, size), value));
            }
            if offset == 0 && length < size {
                return self.gather(accesses, at, vaddr, size);
            }
        }
        None
    }

    /// Puts an operand together from several smaller accesses in a row.
    fn gather(
        &mut self,
        accesses: &[Access],
        first: usize,
        vaddr: VirtAddr,
        size: u64,
    ) -> Option<(MemRef, u64)> {
        let store = accesses[first].store;
        let (mut value, mut have, mut at) = (0u64, 0u64, first);
        let mut taken = Vec::new();
        let mut mem = MemRef::new(&accesses[first], 0, vaddr, size);
        while have < size {
            let access = accesses.get(at)?;
            if access.store == store && !self.used[at] {
                if access.vaddr != vaddr.add(have) || have + u64::from(access.size) > size {
                    return None;
                }
                value |= (access.value as u64) << (8 * have);
                if access.vaddr.page() != vaddr.page() {
                    mem.second_frame = Some(access.paddr.page());
                }
                have += u64::from(access.size);
                taken.push(at);
            }
            at += 1;
        }
        taken.into_iter().for_each(|at| self.used[at] = true);
        Some((mem, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(vaddr: u64, size: u8) -> Access {
        let (vaddr, paddr) = (VirtAddr(vaddr), PhysAddr(0x5_0000 + vaddr % PAGE_SIZE));
        let crosses = vaddr.offset() + u64::from(size) > PAGE_SIZE;
        let next_page = crosses.then_some(PhysAddr(0x9_0000));
        Access { store: false, vaddr, paddr, next_page, size, value: 0x1122_3344, io: false }
    }

    #[test]
    fn operand_on_the_second_page_of_an_access_is_in_that_pages_frame() {
        let accesses = [access(0x1ff8, 16)];
        let mut matcher = Matcher::default();
        matcher.restart(1);
        matcher.find(&accesses, false, VirtAddr(0x1ff8), 8).expect("its first half");
        let (second, _) = matcher.find(&accesses, false, VirtAddr(0x2000), 8).expect("its second half");
        assert_eq!(
            second.bytes().collect::<Vec<_>>(),
            (0x9_0000..0x9_0008).map(PhysAddr).collect::<Vec<_>>()
        );
    }

    #[test]
    fn operand_that_is_not_found_takes_no_access() {
        let accesses = [access(0x1000, 2), access(0x1004, 2)];
        let mut matcher = Matcher::default();
        matcher.restart(2);
        assert!(matcher.find(&accesses, false, VirtAddr(0x1000), 4).is_none());
        assert_eq!(matcher.left(&accesses).count(), 2);
    }
}
