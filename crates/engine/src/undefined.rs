//! Bytes of memory that hold nothing which may be read before it is written
//! ([`ir::Kind::Undefine`]): one bit for each byte of the frames that have such, as memcheck keeps
//! them.

use machine::{PAGE_SIZE, PhysAddr, VirtAddr};

/// A bit for each byte of a page.
type Bits = [u64; PAGE_SIZE as usize / 64];

/// A frame that has such bytes, or had.
struct Frame {
    place: PhysAddr,
    /// The run's copy of it.
    copy: u32,
    bits: Box<Bits>,
}

/// Which bytes are undefined.
#[derive(Default)]
pub(crate) struct Undefined {
    /// One or two stacks have a few frames: a search is faster than a map.
    frames: Vec<Frame>,
    /// Pages that lead to such frames and may be written, and the frames' numbers.
    near: Vec<(VirtAddr, usize)>,
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
    pub const fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// The number of a frame that has, or had, such bytes.
    pub fn number(&self, frame: PhysAddr) -> Option<usize> {
        self.frames.iter().position(|it| it.place == frame)
    }

    /// The same by the address of a page that [`Undefined::remember`] was told of.
    #[inline]
    pub fn near(&self, page: VirtAddr) -> Option<usize> {
        self.near.iter().find(|it| it.0 == page).map(|it| it.1)
    }

    /// Remembers that a page leads to a frame, and may be written.
    pub fn remember(&mut self, page: VirtAddr, number: usize) {
        if self.near.len() >= MOST_NEAR {
            self.near.clear();
        }
        self.near.push((page, number));
    }

    /// Forgets which pages lead where.
    pub fn forget(&mut self) {
        self.near.clear();
    }

    /// The run's copy of a frame.
    pub fn copy(&self, number: usize) -> u32 {
        self.frames[number].copy
    }

    /// The `size` bytes from `place` on, all in one frame, of which the run has this copy, are
    /// undefined from now on.
    pub fn add(&mut self, place: PhysAddr, size: u64, copy: u32) {
        let number = self.number(place.page()).unwrap_or_else(|| {
            self.frames.push(Frame { place: place.page(), copy, bits: Box::new([0; _]) });
            self.frames.len() - 1
        });
        let bits = &mut self.frames[number].bits;
        words(place.offset(), size).for_each(|(word, mask)| bits[word] |= mask);
    }

    /// The bytes from an offset on are written; what lies past the frame's end does not count.
    #[inline]
    pub fn define(&mut self, number: usize, offset: u64, size: u64) {
        let bits = &mut self.frames[number].bits;
        words(offset, size).for_each(|(word, mask)| bits[word] &= !mask);
    }

    /// Whether any of the bytes from an offset on is undefined.
    #[inline]
    pub fn any(&self, number: usize, offset: u64, size: u64) -> bool {
        let bits = &self.frames[number].bits;
        words(offset, size).any(|(word, mask)| bits[word] & mask != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_undefined_until_they_are_written() {
        let (mut it, page) = (Undefined::default(), VirtAddr(0x7000));
        assert!(it.is_empty() && it.number(PhysAddr(0x1000)).is_none());
        it.add(PhysAddr(0x103d), 0x88, 5);
        let undefined: Vec<u64> = (0..0x1000).filter(|&at| it.any(0, at, 1)).collect();
        assert_eq!(undefined, (0x3d..0xc5).collect::<Vec<_>>());
        it.define(0, 0x3f, 2);
        assert!(it.any(0, 0x3d, 2) && !it.any(0, 0x3f, 2) && it.any(0, 0x40, 2));
        it.define(0, 0x3d, 0x100);
        assert!(!it.any(0, 0, 0x1000));
        it.add(PhysAddr(0x2000), 0x1000, 6);
        assert!(it.any(1, 0xfff, 1) && !it.any(0, 0xfff, 1));
        assert_eq!((it.number(PhysAddr(0x2000)), it.copy(1), it.near(page)), (Some(1), 6, None));
        for other in 0..2 * MOST_NEAR as u64 {
            it.remember(VirtAddr(0x8000 + (other << 12)), 0);
        }
        it.remember(page, 1);
        assert_eq!(it.near(page), Some(1));
        it.forget();
        assert_eq!(it.near(page), None);
    }
}
