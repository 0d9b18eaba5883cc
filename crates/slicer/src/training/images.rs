//! Images: the parts of the training system's code that move as a whole, the kernel's own and each
//! module.

use ir::relocation::Image;
use machine::VirtAddr;

use super::mappings::Mappings;

/// Code less than this many bytes from the interrupt handlers' belongs to their image, and what is
/// farther from an image does not move with it.
pub const NEAR: u64 = 64 << 20;

/// Contiguous executable pages.
pub struct Stretch {
    /// Its first address.
    pub start: VirtAddr,
    /// What it holds.
    pub bytes: Vec<u8>,
}

impl Stretch {
    /// As an image of its own.
    #[must_use]
    pub fn image(&self) -> Image {
        let end = self.start.0.saturating_add(self.bytes.len() as u64);
        Image { start: self.start.0, end, movable: false }
    }

    /// How many bytes differ in the other boot at this slide, and how many were compared. Padding
    /// between functions is left out.
    #[must_use]
    pub fn difference(&self, other: &Mappings<'_>, slide: u64) -> (usize, usize) {
        let theirs = other.read_mapped(self.start.add(slide), self.bytes.len());
        let pairs = self.bytes.iter().zip(&theirs).filter(|(a, _)| !lift::is_padding(**a));
        pairs.fold((0, 0), |(differing, all), (a, b)| (differing + usize::from(Some(*a) != *b), all + 1))
    }
}

/// The kernel's code pages, neighbours joined.
#[must_use]
pub fn stretches(mappings: &Mappings<'_>) -> Vec<Stretch> {
    let mut found: Vec<Stretch> = Vec::new();
    for (addr, page) in mappings.code_pages() {
        match found.last_mut() {
            Some(last) if last.start.add(last.bytes.len() as u64) == addr => {
                last.bytes.extend_from_slice(&page);
            }
            _ => found.push(Stretch { start: addr, bytes: page.to_vec() }),
        }
    }
    found
}

/// The kernel's own image: the code around its interrupt handlers, without what does not belong
/// there. Empty if there is none.
#[must_use]
pub fn kernel_image(gates: &[(u8, u64)], stretches: &[Stretch], belongs: &dyn Fn(&Stretch) -> bool) -> Image {
    let count = |it: &&Stretch| gates.iter().filter(|gate| it.image().holds(gate.1)).count();
    let Some(home) = stretches.iter().max_by_key(count).filter(|it| count(it) > 0) else {
        return Image { start: 0, end: 0, movable: false };
    };
    let mut image = home.image();
    for it in stretches.iter().filter(|it| it.start.0.abs_diff(home.start.0) < NEAR && belongs(it)) {
        let it = it.image();
        (image.start, image.end) = (image.start.min(it.start), image.end.max(it.end));
    }
    image
}

/// Whether a value can be an address that moves with an image: in it or near it. What is far from
/// it and moved alike once need not do so in the next boot: physical memory is mapped a second
/// time, with some code in it.
#[must_use]
pub const fn names(image: &Image, value: u64) -> bool {
    image.start.saturating_sub(NEAR) <= value && value < image.end.saturating_add(NEAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A 32-bit Linux has code in its first mebibyte, at the same place in every boot, and may
    /// choose a place for itself less than 64 MiB above it.
    #[test]
    fn near_code_that_does_not_belong_is_no_part_of_the_kernels_image() {
        let stretch =
            |start: u64, pages: usize| Stretch { start: VirtAddr(start), bytes: vec![0x90; pages << 12] };
        let stretches = [stretch(0xc009_c000, 1), stretch(0xc400_0000, 3), stretch(0xc400_8000, 1)];
        let gates = [(0, 0xc400_1230)];
        let image = |belongs: &dyn Fn(&Stretch) -> bool| {
            let Image { start, end, .. } = kernel_image(&gates, &stretches, belongs);
            (start, end)
        };
        assert_eq!(image(&|_| true), (0xc009_c000, 0xc400_9000));
        assert_eq!(image(&|it| it.start.0 > 0xc400_0000), (0xc400_0000, 0xc400_9000));
        assert_eq!(image(&|_| false), (0xc400_0000, 0xc400_3000), "the handlers are the kernel's");
    }
}
