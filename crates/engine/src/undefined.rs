//! Bytes of memory that hold nothing which may be read before it is written ([`ir::Kind::Undefine`]):
//! one bit for each byte of the frames that have such, as memcheck keeps them.

use machine::{PAGE_SIZE, PhysAddr, hash};

/// A bit for each byte of a page.
type Bits = [u64; PAGE_SIZE as usize / 64];

/// Which bytes are undefined.
#[derive(Default)]
pub(crate) struct Undefined(hash::Map<PhysAddr, Box<Bits>>);

/// The words of a page's bits that `size` bytes from `offset` on have bits in, and which.
fn words(offset: u64, size: u64) -> impl Iterator<Item = (usize, u64)> {
    let end = (offset + size).min(PAGE_SIZE);
    (offset / 64..end.div_ceil(64)).map(move |word| {
        let (first, last) = (offset.max(word * 64) % 64, (end - word * 64).min(64));
        (word as usize, (u64::MAX >> (64 - (last - first))) << first)
    })
}

impl Undefined {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a frame has, or had, such bytes.
    pub fn has(&self, frame: PhysAddr) -> bool {
        self.0.contains_key(&frame)
    }

    /// The `size` bytes from `place` on, all in one frame, are undefined from now on.
    pub fn add(&mut self, place: PhysAddr, size: u64) {
        let bits = self.0.entry(place.page()).or_insert_with(|| Box::new([0; _]));
        words(place.offset(), size).for_each(|(word, mask)| bits[word] |= mask);
    }

    /// They are written; what lies past the frame's end does not count.
    pub fn define(&mut self, place: PhysAddr, size: u64) {
        if let Some(bits) = self.0.get_mut(&place.page()) {
            words(place.offset(), size).for_each(|(word, mask)| bits[word] &= !mask);
        }
    }

    /// Whether any of them is undefined.
    pub fn any(&self, place: PhysAddr, size: u64) -> bool {
        let bits = self.0.get(&place.page());
        bits.is_some_and(|bits| words(place.offset(), size).any(|(word, mask)| bits[word] & mask != 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_undefined_until_they_are_written() {
        let mut it = Undefined::default();
        assert!(it.is_empty() && !it.any(PhysAddr(0x1000), 8));
        it.add(PhysAddr(0x103d), 0x88);
        let undefined: Vec<u64> = (0..0x1000).filter(|at| it.any(PhysAddr(0x1000 + at), 1)).collect();
        assert_eq!(undefined, (0x3d..0xc5).collect::<Vec<_>>());
        it.define(PhysAddr(0x103f), 2);
        assert!(it.any(PhysAddr(0x103d), 2) && !it.any(PhysAddr(0x103f), 2) && it.any(PhysAddr(0x1040), 2));
        it.define(PhysAddr(0x103d), 0x100);
        assert!(!it.any(PhysAddr(0x1000), 0x1000) && it.has(PhysAddr(0x1000)));
        it.add(PhysAddr(0x1000), 0x1000);
        assert!(it.any(PhysAddr(0x1fff), 1) && !it.any(PhysAddr(0x2000), 1));
    }
}
