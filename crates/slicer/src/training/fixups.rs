//! Fixups: bytes of code that differ in another boot, and how they change.
//!
//! A fixup is an operand of an instruction that both boots have with the same layout. One that
//! differs by the slide of an image, or by the difference of two images' slides, moves with them;
//! any other constant that differs is one that the system patches into its own code. Where the
//! boots have another instruction, the system has patched its code, and bytes that differ there by
//! a slide do so by accident.

use ir::Class;
use ir::relocation::{Fixup, FixupKind, Image};
use rustc_hash::FxHashMap;

use super::images::{Stretch, names};
use crate::vocabulary::{Id, ImageId, Table};

/// The differences that a fixup may have, and the kind that each stands for.
pub struct Deltas {
    images: Vec<Image>,
    slides: Table<ImageId, Option<u64>>,
    by_image: Table<ImageId, FxHashMap<u32, FixupKind>>,
}

impl Deltas {
    /// What differences stand for, given the slide of each image in the other boot.
    #[must_use]
    pub fn new(images: &[Image], slides: &Table<ImageId, Option<u64>>) -> Self {
        let by_image = slides.ids().map(|own| {
            let mut table = FxHashMap::default();
            let Some(own_slide) = slides[own] else { return table };
            let mut add = |delta: u64, kind| {
                if delta as u32 != 0 {
                    table.entry(delta as u32).or_insert(kind);
                }
            };
            // A relative operand that changes by its own image's slide alone names something that
            // stays.
            add(own_slide.wrapping_neg(), FixupKind::Moves { plus: None, minus: Some(own.number()) });
            for (image, slide) in slides.iter() {
                let Some(slide) = *slide else { continue };
                let plus = Some(image.number());
                add(slide, FixupKind::Moves { plus, minus: None });
                if image != own {
                    add(slide.wrapping_sub(own_slide), FixupKind::Moves { plus, minus: Some(own.number()) });
                }
            }
            table
        });
        Self { images: images.to_vec(), slides: slides.clone(), by_image: by_image.collect() }
    }

    /// The kind of a fixup at the beginning of these bytes, and its size.
    fn kind(&self, own: ImageId, mine: &[u8], theirs: &[u8]) -> Option<(u8, FixupKind)> {
        let four = |bytes: &[u8]| bytes.first_chunk().map(|it| u32::from_le_bytes(*it));
        let delta = four(theirs)?.wrapping_sub(four(mine)?);
        let kind = *self.by_image[own].get(&delta)?;
        let eight = |bytes: &[u8]| bytes.first_chunk().map(|it| u64::from_le_bytes(*it));
        if let (Some(a), Some(b), FixupKind::Moves { plus: Some(image), minus: None }) =
            (eight(mine), eight(theirs), kind)
            && self.slides[image_id(image)] == Some(b.wrapping_sub(a))
            && a >> 32 != b >> 32
        {
            return names(&self.images[usize::from(image)], a).then_some((8, kind));
        }
        // A slide that does not fit four bytes, extended or not, cannot have changed them so.
        let reaches = |delta: u64| delta >> 32 == 0 || delta as i32 as i64 as u64 == delta;
        let of = |image: Option<u16>| image.map_or(Some(0), |image| self.slides[image_id(image)]);
        let FixupKind::Moves { plus, minus } = kind else { return None };
        reaches(of(plus)?.wrapping_sub(of(minus)?)).then_some((4, kind))
    }
}

fn image_id(number: u16) -> ImageId {
    ImageId::new(usize::from(number))
}

/// Finds the fixups of a stretch of an image. `theirs` are the other boot's bytes; `None` where
/// nothing is mapped.
pub fn compare(
    stretch: &Stretch,
    theirs: &[Option<u8>],
    image: ImageId,
    deltas: &Deltas,
    mode: lift::Mode,
) -> Vec<Fixup> {
    let mine = &stretch.bytes;
    let other: Vec<u8> = theirs.iter().map(|byte| byte.unwrap_or(0)).collect();
    let mut fixups = Vec::new();
    let (mut at, mut insn) = (0, 0);
    while let Some(first) = (at..mine.len()).find(|&at| mine[at] != other[at]) {
        at = first + 1;
        if theirs[first].is_none() {
            continue;
        }
        while let Some(len) = mine.get(insn..).map(|rest| lift::length(mode, rest).unwrap_or(1))
            && insn + len <= first
        {
            insn += len;
        }
        let Some((len, from, whole)) = operand_at(mode, &mine[insn..], &other[insn..], first - insn) else {
            continue;
        };
        let start = insn + from;
        let moves = deltas.kind(image, &mine[start..], &other[start..]).filter(|(size, _)| *size <= whole);
        let kind = moves.or_else(|| {
            let (pc, bytes) = (stretch.start.add(insn as u64).0, insn..insn + len);
            is_constant(mode, pc, &mine[bytes.clone()], &other[bytes], from)
                .then_some((whole, FixupKind::Patched))
        });
        if let Some((size, kind)) = kind {
            fixups.push(Fixup { addr: stretch.start.add(start as u64).0, size, kind });
            at = (start + usize::from(size)).max(at);
        }
    }
    fixups
}

/// The operand that holds a byte of the instruction at the beginning of both codes, if they have
/// the same layout: the instruction's length, the operand's place in it and its size.
fn operand_at(mode: lift::Mode, mine: &[u8], other: &[u8], byte: usize) -> Option<(usize, usize, u8)> {
    let ((len, operands), theirs) = (lift::layout(mode, mine)?, lift::layout(mode, other)?);
    let holds = |&&(from, size): &&(usize, u8)| (from..from + usize::from(size)).contains(&byte);
    let &(from, size) = operands.iter().find(holds)?;
    ((len, &operands) == (theirs.0, &theirs.1)).then_some((len, from, size))
}

/// Whether an operand that differs is a constant of an instruction that is otherwise the same. The
/// target of a jump or call is not.
fn is_constant(mode: lift::Mode, pc: u64, mine: &[u8], other: &[u8], operand: usize) -> bool {
    let (Ok(mine_lifted), Ok(other)) = (lift::lift(mode, pc, mine), lift::lift(mode, pc, other)) else {
        return false;
    };
    let control = mine_lifted.ops.iter().any(|op| op.class() == Class::Control);
    !control
        && mine_lifted.ops.len() == other.ops.len()
        && lift::constants(mode, mine).iter().any(|&(offset, _)| offset == operand)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Linux 6.12 patches the address of a table into its code; the table lies in the mapping of
    /// all memory, and so does some code.
    #[test]
    fn what_is_far_from_an_image_does_not_move_with_it_though_it_moved_alike() {
        let images = [
            Image { start: 0xffff_ffff_8100_0000, end: 0xffff_ffff_8200_0000, movable: true },
            Image { start: 0xffff_8880_0009_a000, end: 0xffff_8880_0009_b000, movable: true },
        ];
        let slides = vec![Some(0x1200_0000), Some(0x1_4000_0000)].into();
        let deltas = Deltas::new(&images, &slides);
        let table = 0xffff_8880_0b5c_0000u64;
        let kind = |value: u64, delta: u64| {
            deltas.kind(image_id(0), &value.to_le_bytes(), &value.wrapping_add(delta).to_le_bytes())
        };
        assert_eq!(kind(table, 0x1_4000_0000), None);
        let moves = FixupKind::Moves { plus: Some(1), minus: None };
        assert_eq!(kind(0xffff_8880_0009_a100, 0x1_4000_0000), Some((8, moves)));
    }

    #[test]
    fn only_an_operand_of_the_same_instruction_moves() {
        let start = 0xffff_ffff_8100_0000u64;
        let images = [
            Image { start, end: start + 0x10_0000, movable: true },
            Image { start: 0xffff_8880_0009_9000, end: 0xffff_8880_0009_b000, movable: true },
        ];
        let slides = vec![Some(0x1e00_0000), Some(0xff88_8880_8000_0000)].into();
        let found = |mine: &[u8], other: &[u8]| {
            let stretch = Stretch { start: machine::VirtAddr(start), bytes: mine.to_vec() };
            let theirs: Vec<Option<u8>> = other.iter().copied().map(Some).collect();
            let fixups =
                compare(&stretch, &theirs, image_id(0), &Deltas::new(&images, &slides), lift::Mode::Bits64);
            fixups.iter().map(|fixup| (fixup.addr - start, fixup.size, fixup.kind)).collect::<Vec<_>>()
        };
        let code = |constant: u64, rest: &[u8]| {
            let head: &[u8] = &[0x48, 0xb8];
            [head, &constant.to_le_bytes(), rest].concat()
        };
        // movabs of the end of user space, cmp, cmova, nopl; with five levels of page tables
        // another constant, and stac. Both differ by a slide if bytes are compared at the wrong
        // offset.
        let mine = code(0x7fff_ffff_f000, &[0x48, 0x39, 0xc6, 0x48, 0x0f, 0x47, 0xf0, 0x0f, 0x1f, 0x00]);
        let other = code(0xff_ffff_ffff_f000, &[0x48, 0x39, 0xc6, 0x48, 0x0f, 0x47, 0xf0, 0x0f, 0x01, 0xcb]);
        assert_eq!(found(&mine, &other), [(2, 8, FixupKind::Patched)]);
        // mov $address,%rdi; call to what stays; ret
        let mine = [0x48, 0xc7, 0xc7, 0x80, 0x30, 0x04, 0x83, 0xe8, 0x00, 0x00, 0x00, 0x30, 0xc3];
        let other = [0x48, 0xc7, 0xc7, 0x80, 0x30, 0x04, 0xa1, 0xe8, 0x00, 0x00, 0x00, 0x12, 0xc3];
        let moves = |plus, minus| FixupKind::Moves { plus, minus };
        assert_eq!(found(&mine, &other), [(3, 4, moves(Some(0), None)), (8, 4, moves(None, Some(0)))]);
    }
}
