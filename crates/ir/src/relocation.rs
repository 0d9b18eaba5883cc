//! What lies elsewhere, or is something else, in another boot of the same kernel.
//!
//! A kernel that randomises its addresses moves a few *images*, each as a whole: its own, and each
//! module. Training under two bases tells which constants move with which image, by comparison;
//! nothing is known of the kernel's own relocation tables. Constants that change in another way are
//! ones that the kernel patches into its own code, and are read from there in each target. Where
//! one base only was seen, nothing may move.

use serde::{Deserialize, Serialize};

pub use crate::fixups::{Fixup, FixupKind, Fixups};

/// A part of the training system's address space that moves as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Image {
    /// Its first address.
    pub start: u64,
    /// The address after its last.
    pub end: u64,
    /// Whether training saw it at two places, so that its fixups and constants are known. If not,
    /// it is of use only where training had it.
    pub movable: bool,
}

impl Image {
    /// Whether an address lies in it.
    #[must_use]
    pub const fn holds(&self, address: u64) -> bool {
        self.start <= address && address < self.end
    }
}

/// A constant of a program that is another one in another boot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum RelocatedConstant {
    /// It moves with an image.
    Address {
        /// What it is in the training system.
        value: u64,
        /// The image's number.
        image: u16,
    },
    /// It stands in the system's own code.
    Patched {
        /// What it is in the training system.
        value: u64,
        /// The instruction it stands in.
        pc: u64,
        /// The instruction's bytes.
        len: u8,
        /// Which of the lifted instruction's operations has it.
        op: u16,
        /// As which operand.
        arg: u8,
    },
}

/// Everything about a program that is another one in another boot.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct RelocationTable {
    /// The images; the first is the kernel's own.
    pub images: Vec<Image>,
    /// Where the training system's interrupt gates lead: vector and handler, ascending by vector.
    /// Their distance to the target's is the first image's slide.
    pub gates: Vec<(u8, u64)>,
    /// Constants that operands name by number.
    pub constants: Vec<RelocatedConstant>,
    /// What of the code is other bytes in another boot, ascending by address.
    pub fixups: Fixups,
}

impl RelocationTable {
    /// Whether the kernel's own image may lie elsewhere.
    #[must_use]
    pub fn movable(&self) -> bool {
        self.images.first().is_some_and(|image| image.movable)
    }

    /// The image that holds an address.
    #[must_use]
    pub fn image(&self, address: u64) -> Option<usize> {
        self.images.iter().position(|image| image.holds(address))
    }

    /// The fixups that lie in, or reach into, a range of addresses.
    pub fn fixups_in(&self, start: u64, end: u64) -> impl Iterator<Item = Fixup> + Clone {
        self.fixups.in_range(start, end)
    }

    /// Gives `bytes`, code of the training system at `start`, the values that its fixups have with
    /// these slides. `patched` reads the target's bytes of a fixup that the system writes; where it
    /// cannot, the training system's stay.
    pub fn apply(
        &self,
        start: u64,
        bytes: &mut [u8],
        slides: &[u64],
        patched: &mut dyn FnMut(&Fixup) -> Option<u64>,
    ) {
        let slide =
            |image: Option<u16>| image.and_then(|image| slides.get(image as usize)).copied().unwrap_or(0);
        let end = start.saturating_add(bytes.len() as u64);
        for fixup in self.fixups_in(start, end) {
            // A fixup at the edge is only partly here: its bytes outside are not known, so it is
            // left to the range that has all of it.
            let Some(at) = fixup.addr.checked_sub(start).map(|at| at as usize) else { continue };
            let Some(into) = bytes.get_mut(at..at + usize::from(fixup.size.min(8))) else { continue };
            let mut value = [0; 8];
            value[..into.len()].copy_from_slice(into);
            let value = u64::from_le_bytes(value);
            let new = match fixup.kind {
                FixupKind::Moves { plus, minus } => {
                    value.wrapping_add(slide(plus)).wrapping_sub(slide(minus))
                }
                FixupKind::Patched => patched(&fixup).unwrap_or(value),
                FixupKind::Either { other } => match patched(&fixup) {
                    Some(there) if there == other => other,
                    _ => value,
                },
            };
            let size = into.len();
            into.copy_from_slice(&new.to_le_bytes()[..size]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> RelocationTable {
        let moves = |plus, minus| FixupKind::Moves { plus, minus };
        RelocationTable {
            images: vec![
                Image { start: 0x1000, end: 0x3000, movable: true },
                Image { start: 0x8000, end: 0x9000, movable: true },
            ],
            fixups: vec![
                Fixup { addr: 0x1001, size: 4, kind: moves(Some(0), None) },
                Fixup { addr: 0x1008, size: 4, kind: moves(Some(1), Some(0)) },
                Fixup { addr: 0x1010, size: 2, kind: FixupKind::Patched },
                Fixup { addr: 0x1018, size: 2, kind: FixupKind::Either { other: 0x9066 } },
            ]
            .into(),
            ..RelocationTable::default()
        }
    }

    #[test]
    fn an_image_holds_its_addresses() {
        let images = [0xfff, 0x1000, 0x2fff, 0x3000, 0x8010].map(|address| table().image(address));
        assert_eq!(images, [None, Some(0), Some(0), None, Some(1)]);
    }

    #[test]
    fn fixups_get_their_values() {
        let (table, slides) = (table(), [0x10_0000, 0x30_0000]);
        let mut bytes = [0u8; 0x20];
        table.apply(0x1000, &mut bytes, &slides, &mut |fixup| (fixup.size == 2).then_some(0xabcd));
        assert_eq!(bytes[1..5], 0x10_0000u32.to_le_bytes());
        assert_eq!(bytes[8..12], 0x20_0000u32.to_le_bytes());
        assert_eq!(bytes[16..18], [0xcd, 0xab]);
        // One of both forms is taken, nothing else that a target has.
        assert_eq!(bytes[24..26], [0, 0]);
        table.apply(0x1000, &mut bytes, &slides, &mut |_| Some(0x9066));
        assert_eq!(bytes[24..26], [0x66, 0x90]);
        // A range that has only part of a fixup leaves it alone.
        let mut part = [7u8; 3];
        table.apply(0x1000, &mut part, &slides, &mut |_| None);
        assert_eq!(part, [7; 3]);
    }
}
