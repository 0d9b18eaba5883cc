//! Bytes of memory that hold nothing which may be read before it is written
//! ([`ir::Kind::Undefine`]): one bit for each byte of the frames that have such, as memcheck keeps
//! them.

use machine::{PAGE_SIZE, VirtAddr};

/// A bit for each byte of a page.
type Bits = [u64; PAGE_SIZE as usize / 64];

/// Which bytes are undefined. The frames are named by the run's copies of them, which those that
/// have such bytes all are.
#[derive(Clone, Default)]
pub(crate) struct Undefined {
    /// One or two stacks have a few frames: a search is faster than a map.
    frames: Vec<(u32, Box<Bits>)>,
    /// Pages that lead to such frames and may be written, and the frames' copies.
    near: Vec<(VirtAddr, u32)>,
}

/// The most pages that [`Undefined::near`] knows.
const MOST_NEAR: usize = 8;

/// The words of a page's bits that `size` bytes from `offset` on have bits in, and which.
fn words(offset: u64, size: u64) -> impl Iterator<Item = (usize, u64)> {
    let end = (offset + size).min(PAGE_SIZE);
    (offset / 64..end.div_ceil(64)).map(move |word| {
        let (first, last) = (offset.max(word * 64) % 64, (end - word * 64).min(64));
        (word as usize, (u64::MAX >> (64 - (last - first))) << first)
    })
}

impl Undefined {
    /// Whether a frame has, or had, such bytes.
    pub fn has(&self, copy: u32) -> bool {
        self.frames.iter().any(|it| it.0 == copy)
    }

    /// The frame that a page leads to, if [`Undefined::remember`] was told of it.
    #[inline]
    pub fn near(&self, page: VirtAddr) -> Option<u32> {
        self.near.iter().find(|it| it.0 == page).map(|it| it.1)
    }

    /// Remembers that a page leads to a frame, and may be written.
    pub fn remember(&mut self, page: VirtAddr, copy: u32) {
        if self.near.len() >= MOST_NEAR {
            self.near.clear();
        }
        self.near.push((page, copy));
    }

    /// Forgets which pages lead where.
    pub fn forget(&mut self) {
        self.near.clear();
    }

    /// The `size` bytes of a frame from an offset on are undefined from now on; what lies past its
    /// end does not count, here and below.
    pub fn add(&mut self, copy: u32, offset: u64, size: u64) {
        if !self.has(copy) {
            self.frames.push((copy, Box::new([0; _])));
        }
        self.change(copy, (offset, size), |bits, mask| *bits |= mask);
    }

    /// They are written. Whether the frame has, or had, undefined bytes.
    #[inline]
    pub fn define(&mut self, copy: u32, offset: u64, size: u64) -> bool {
        self.change(copy, (offset, size), |bits, mask| *bits &= !mask)
    }

    #[inline]
    fn change(&mut self, copy: u32, (offset, size): (u64, u64), change: impl Fn(&mut u64, u64)) -> bool {
        let frame = self.frames.iter_mut().find(|it| it.0 == copy);
        let is_one = frame.is_some();
        if let Some((_, bits)) = frame {
            words(offset, size).for_each(|(word, mask)| change(&mut bits[word], mask));
        }
        is_one
    }

    /// Whether any of them is undefined.
    #[inline]
    pub fn any(&self, copy: u32, offset: u64, size: u64) -> bool {
        let frame = self.frames.iter().find(|it| it.0 == copy);
        frame.is_some_and(|(_, bits)| words(offset, size).any(|(word, mask)| bits[word] & mask != 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_undefined_until_they_are_written() {
        let (mut it, page) = (Undefined::default(), VirtAddr(0x7000));
        assert!(!it.has(5) && !it.any(5, 0, 0x1000) && !it.define(5, 0, 8));
        it.add(5, 0x3d, 0x88);
        let undefined: Vec<u64> = (0..0x1000).filter(|&at| it.any(5, at, 1)).collect();
        assert_eq!(undefined, (0x3d..0xc5).collect::<Vec<_>>());
        assert!(it.define(5, 0x3f, 2));
        assert!(it.any(5, 0x3d, 2) && !it.any(5, 0x3f, 2) && it.any(5, 0x40, 2));
        it.define(5, 0x3d, 0x100);
        assert!(!it.any(5, 0, 0x1000) && it.has(5));
        it.add(6, 0, 0x1000);
        assert!(it.any(6, 0xfff, 1) && !it.any(5, 0xfff, 1));
        assert_eq!((it.has(6), it.near(page)), (true, None));
        for other in 0..2 * MOST_NEAR as u64 {
            it.remember(VirtAddr(0x8000 + (other << 12)), 5);
        }
        it.remember(page, 6);
        assert_eq!(it.near(page), Some(6));
        it.forget();
        assert_eq!(it.near(page), None);
    }
}
