//! What is another in another boot: images and their slides, fields of code, constants.
//!
//! Learned by comparing the code of two boots, byte by byte and, for the instructions of a slice,
//! constant by constant. A field that differs by the slide of an image, or by the difference of two
//! images' slides, moves with them; any other constant that differs is one the system patches into
//! its own code. Nothing is known of relocation tables, nor of where a system puts what. With one
//! boot only there are images, but nothing is known to move.

use std::collections::BTreeMap;

use ir::place::{Change, Field, Image, Moved, Placement};
use ir::program::Anchor;
use ir::{Arg, Class};
use machine::Reg;
use rustc_hash::FxHashMap;

use crate::Error;
use crate::anchors::anchors;
use crate::recording::Code;
use crate::snapshot::AddressSpace;

/// Vectors whose gates are kept: the processor's own exceptions.
const VECTORS: u8 = 32;
/// Code this near to the interrupt handlers belongs to their image.
const NEAR: u64 = 64 << 20;
/// What an image's code may have otherwise in the other boot and still be the same: half of it, for
/// every address in a small module differs.
const SAME: usize = 2;

/// Contiguous executable pages.
struct Stretch {
    start: u64,
    bytes: Vec<u8>,
}

/// What was learned of the training system's code.
pub(crate) struct Relocations {
    /// For companion file and programs; without constants.
    pub placement: Placement,
    /// By what per-CPU memory is recognised.
    pub anchors: Vec<Anchor>,
    /// For each image how far away the other boot has it.
    slides: Vec<Option<u64>>,
    /// The other boot's code, by this boot's address.
    other: BTreeMap<u64, Vec<u8>>,
}

impl Relocations {
    /// What one boot tells.
    pub fn single(space: &AddressSpace<'_>) -> Self {
        let gates = gates(space);
        let stretches = stretches(space);
        let kernel = kernel(&gates, &stretches);
        let modules = stretches.iter().filter(|it| !kernel.holds(it.start)).map(Stretch::image);
        let known = kernel.start < kernel.end;
        let images = if known { std::iter::once(kernel).chain(modules).collect() } else { Vec::new() };
        let placement = Placement { images, gates, ..Placement::default() };
        Self { placement, anchors: anchors(space), slides: Vec::new(), other: BTreeMap::new() }
    }

    /// What two boots tell.
    ///
    /// # Errors
    /// [`Error::Bases`] when they are not two bases of one kernel.
    pub fn learn(space: &AddressSpace<'_>, other: &AddressSpace<'_>) -> Result<Self, Error> {
        let mut this = Self::single(space);
        let slide = slide(&this.placement.gates, &gates(other))
            .ok_or(Error::Bases("no interrupt gate of both leads anywhere".into()))?;
        if slide == 0 {
            return Err(Error::Bases(
                "both have the kernel at the same address; boot the other one anew, with randomisation"
                    .into(),
            ));
        }
        let (mine, theirs) = (stretches(space), stretches(other));
        for image in this.placement.images.clone() {
            let parts: Vec<&Stretch> = mine.iter().filter(|it| image.holds(it.start)).collect();
            let candidates =
                std::iter::once(slide).chain(theirs.iter().map(|it| it.start.wrapping_sub(image.start)));
            let (mut best, mut tried) = (None, Vec::new());
            for candidate in candidates {
                if tried.contains(&candidate) {
                    continue;
                }
                tried.push(candidate);
                let (differing, all) = parts
                    .iter()
                    .map(|part| part.alike(other, candidate))
                    .fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
                if all > 0 && differing * SAME <= all && best.is_none_or(|(least, _)| differing < least) {
                    best = Some((differing, candidate));
                }
                // The kernel is where its handlers are.
                if this.slides.is_empty() {
                    break;
                }
            }
            let found = best.map(|(_, candidate)| candidate);
            this.slides.push(found);
        }
        if this.slides.first().copied().flatten() != Some(slide) {
            return Err(Error::Bases("their kernels have different code".into()));
        }
        let deltas = Deltas::new(&this.placement.images, &this.slides);
        for stretch in &mine {
            let Some(image) = this.placement.image(stretch.start) else { continue };
            let Some(slide) = this.slides[image] else { continue };
            let theirs = other.read_mapped(stretch.start.wrapping_add(slide), stretch.bytes.len());
            compare(stretch, &theirs, image, &deltas, space.lift_mode(), &mut this.placement.fields);
            this.other.insert(stretch.start, theirs.into_iter().map(Option::unwrap_or_default).collect());
        }
        this.placement.fields.sort_unstable_by_key(|field| field.addr);
        this.placement.fields.dedup_by_key(|field| field.addr);
        // Which of two images that moved alike a constant belongs to, nobody can tell.
        for (image, slide) in this.placement.images.iter_mut().zip(&this.slides) {
            image.movable =
                slide.is_some() && this.slides.iter().filter(|other| *other == slide).count() == 1;
        }
        let theirs = anchors(other);
        this.anchors.retain(|anchor| theirs.binary_search(anchor).is_ok());
        this.widen();
        Ok(this)
    }

    /// Whether an address lies in the kernel's image, data and all, so that it means the same in
    /// every boot.
    pub fn in_kernel(&self, space: &AddressSpace<'_>, addr: u64) -> bool {
        match self.placement.images.first() {
            // Two boots told how far it reaches.
            Some(kernel) if kernel.movable => kernel.holds(addr),
            _ if space.mode().linear_bits() > 32 => space.is_near_code(addr),
            _ => space.is_named(addr),
        }
    }

    /// Widens the kernel's image from its code to all that its code names and that moves with it:
    /// its data.
    fn widen(&mut self) {
        let Some(&kernel) = self.placement.images.first() else { return };
        let (mut start, mut end) = (kernel.start, kernel.end);
        for field in &self.placement.fields {
            let names = Change::Moves { plus: Some(0), minus: None };
            if field.change != names || !kernel.holds(field.addr) {
                continue;
            }
            let Some((&from, _)) = self.other.range(..=field.addr).next_back() else { continue };
            let Some(bytes) = self.other.get(&from).and_then(|it| it.get((field.addr - from) as usize..))
            else {
                continue;
            };
            let Some(bytes) = bytes.get(..usize::from(field.size)) else { continue };
            let mut value = [0; 8];
            value[..bytes.len()].copy_from_slice(bytes);
            let value = u64::from_le_bytes(value);
            // A 32-bit field of 64-bit code is sign-extended.
            let value = if field.size == 4 && kernel.start >> 32 != 0 {
                value as u32 as i32 as i64 as u64
            } else {
                value
            };
            let address = value.wrapping_sub(self.slides[0].unwrap_or(0));
            // What is far away, or belongs to a module, is something else that happens to move
            // alike.
            let others =
                self.placement.images[1..].iter().any(|image| address <= image.end && image.start <= address);
            if !others && address.abs_diff(kernel.start) < NEAR {
                start = start.min(address & !4095);
                end = end.max((address | 4095).saturating_add(1));
            }
        }
        self.placement.images[0] = Image { start, end, ..kernel };
    }

    /// Which constants of an instruction are others in another boot: operation, operand, and what
    /// it is.
    pub fn constants(&self, code: &Code) -> Vec<(usize, usize, Moved)> {
        let pc = code.insn.pc;
        let Some(slide) = self.placement.image(pc).and_then(|image| *self.slides.get(image)?) else {
            return Vec::new();
        };
        let len = code.bytes.len();
        let theirs = self.other.range(..=pc).next_back().and_then(|(start, bytes)| {
            let at = (pc - start) as usize;
            bytes.get(at..at + len)
        });
        let other = theirs.and_then(|bytes| lift::lift(code.mode, pc.wrapping_add(slide), bytes).ok());
        let same_form = |other: &lift::Insn| {
            other.ops.len() == code.insn.ops.len()
                && other
                    .ops
                    .iter()
                    .zip(&code.insn.ops)
                    .all(|(a, b)| (a.kind, a.width, a.dst) == (b.kind, b.width, b.dst))
        };
        let other = other.filter(same_form);
        let mut found = Vec::new();
        for (op, it) in code.insn.ops.iter().enumerate().filter(|(_, it)| it.class() != Class::Control) {
            for (arg, operand) in it.args().iter().enumerate() {
                let Arg::Const(value) = *operand else { continue };
                let delta = match other.as_ref().map(|other| other.ops[op].args[arg]) {
                    Some(Arg::Const(theirs)) => theirs.wrapping_sub(value),
                    // The other boot has patched other code here: what lies in an image moves with
                    // it.
                    _ => match self.placement.image(value).and_then(|image| *self.slides.get(image)?) {
                        Some(slide) => slide,
                        None => continue,
                    },
                };
                if delta == 0 {
                    continue;
                }
                let mask = if value >> 32 == 0 { 0xffff_ffff } else { u64::MAX };
                let moves = |image: usize| {
                    self.slides.get(image).copied().flatten().is_some_and(|it| it & mask == delta & mask)
                };
                let holder = self.placement.image(value).filter(|&image| moves(image));
                let named = |image: usize| moves(image) && names(&self.placement.images[image], value);
                let image = holder.or_else(|| (0..self.slides.len()).find(|&image| named(image)));
                let moved = match image {
                    Some(image) => Moved::Address { value, image: image as u16 },
                    None => Moved::Patched { value, pc, len: len as u8, op: op as u16, arg: arg as u8 },
                };
                found.push((op, arg, moved));
            }
        }
        found
    }

    /// What a program needs of all this: its own code's fields, and the images that it names.
    pub fn of_program(&self, ranges: &[(u64, u64)], moved: Vec<Moved>) -> Placement {
        let mut fields: Vec<Field> = ranges
            .iter()
            .flat_map(|&(start, end)| self.placement.fields_in(start, end).iter().copied())
            .collect();
        fields.sort_unstable_by_key(|field| field.addr);
        fields.dedup();
        let mut used = vec![false; self.placement.images.len()];
        if let Some(kernel) = used.first_mut() {
            *kernel = true;
        }
        let mut mark = |image: Option<u16>| {
            if let Some(used) = image.and_then(|image| used.get_mut(usize::from(image))) {
                *used = true;
            }
        };
        ranges.iter().for_each(|range| mark(self.placement.image(range.0).map(|image| image as u16)));
        for field in &fields {
            if let Change::Moves { plus, minus } = field.change {
                mark(plus);
                mark(minus);
            }
        }
        for moved in &moved {
            if let Moved::Address { image, .. } = moved {
                mark(Some(*image));
            }
        }
        let mut numbers: FxHashMap<u16, u16> = FxHashMap::default();
        let mut images = Vec::new();
        for (image, _) in used.iter().enumerate().filter(|(_, used)| **used) {
            numbers.insert(image as u16, images.len() as u16);
            images.push(self.placement.images[image]);
        }
        let number = |image: Option<u16>| image.and_then(|image| numbers.get(&image).copied());
        for field in &mut fields {
            if let Change::Moves { plus, minus } = &mut field.change {
                (*plus, *minus) = (number(*plus), number(*minus));
            }
        }
        let moved = moved
            .into_iter()
            .map(|moved| match moved {
                Moved::Address { value, image } => {
                    Moved::Address { value, image: number(Some(image)).unwrap_or(0) }
                }
                patched @ Moved::Patched { .. } => patched,
            })
            .collect();
        Placement { images, gates: self.placement.gates.clone(), moved, fields }
    }
}

impl Stretch {
    fn image(&self) -> Image {
        Image { start: self.start, end: self.start.saturating_add(self.bytes.len() as u64), movable: false }
    }

    /// Bytes that the other boot has otherwise, this far away, and all; filling between functions
    /// says nothing.
    fn alike(&self, other: &AddressSpace<'_>, slide: u64) -> (usize, usize) {
        let says = |byte: u8| !matches!(byte, 0x00 | 0xcc | 0x90);
        let theirs = other.read_mapped(self.start.wrapping_add(slide), self.bytes.len());
        let pairs = self.bytes.iter().zip(&theirs).filter(|(a, _)| says(**a));
        pairs.fold((0, 0), |(differing, all), (a, b)| (differing + usize::from(Some(*a) != *b), all + 1))
    }
}

/// Whether a value can be an address that moves with an image: in it or near it. What is far from
/// it and moved alike once (physical memory is mapped a second time, with some code in it) need not
/// do so in the next boot.
fn names(image: &Image, value: u64) -> bool {
    image.start.saturating_sub(NEAR) <= value && value < image.end.saturating_add(NEAR)
}

/// By how much a field may differ: the change that each difference stands for.
struct Deltas {
    images: Vec<Image>,
    slides: Vec<Option<u64>>,
    by_image: Vec<FxHashMap<u32, Change>>,
}

impl Deltas {
    fn new(images: &[Image], slides: &[Option<u64>]) -> Self {
        let by_image = (0..slides.len()).map(|own| {
            let mut table = FxHashMap::default();
            let Some(own_slide) = slides[own] else { return table };
            let mut add = |delta: u64, change| {
                if delta as u32 != 0 {
                    table.entry(delta as u32).or_insert(change);
                }
            };
            // What only moves against its own image names something that stays.
            add(own_slide.wrapping_neg(), Change::Moves { plus: None, minus: Some(own as u16) });
            for (image, slide) in slides.iter().enumerate() {
                let Some(slide) = *slide else { continue };
                let plus = Some(image as u16);
                add(slide, Change::Moves { plus, minus: None });
                if image != own {
                    add(slide.wrapping_sub(own_slide), Change::Moves { plus, minus: Some(own as u16) });
                }
            }
            table
        });
        Self { images: images.to_vec(), slides: slides.to_vec(), by_image: by_image.collect() }
    }

    /// The change of a field at the beginning of these bytes, and its size.
    fn change(&self, own: usize, mine: &[u8], theirs: &[u8]) -> Option<(u8, Change)> {
        let four = |bytes: &[u8]| bytes.first_chunk().map(|it| u32::from_le_bytes(*it));
        let delta = four(theirs)?.wrapping_sub(four(mine)?);
        let change = *self.by_image[own].get(&delta)?;
        let eight = |bytes: &[u8]| bytes.first_chunk().map(|it| u64::from_le_bytes(*it));
        if let (Some(a), Some(b), Change::Moves { plus: Some(image), minus: None }) =
            (eight(mine), eight(theirs), change)
            && self.slides[usize::from(image)] == Some(b.wrapping_sub(a))
            && a >> 32 != b >> 32
        {
            return names(&self.images[usize::from(image)], a).then_some((8, change));
        }
        // Four bytes reach no farther.
        let reaches = |delta: u64| delta >> 32 == 0 || delta as i32 as i64 as u64 == delta;
        let of = |image: Option<u16>| image.map_or(Some(0), |image| self.slides[usize::from(image)]);
        let Change::Moves { plus, minus } = change else { return None };
        reaches(of(plus)?.wrapping_sub(of(minus)?)).then_some((4, change))
    }
}

/// Adds the fields of a stretch whose bytes the other boot has otherwise.
///
/// A field is a whole operand of an instruction that both boots have in the same form. Where they
/// have another instruction, the system has patched its code, and bytes that differ there by a
/// slide do so by accident.
fn compare(
    stretch: &Stretch,
    theirs: &[Option<u8>],
    image: usize,
    deltas: &Deltas,
    mode: lift::Mode,
    fields: &mut Vec<Field>,
) {
    let mine = &stretch.bytes;
    let other: Vec<u8> = theirs.iter().map(|byte| byte.unwrap_or(0)).collect();
    let (mut at, mut place) = (0, 0);
    while let Some(first) = (at..mine.len()).find(|&at| mine[at] != other[at]) {
        at = first + 1;
        if theirs[first].is_none() {
            continue;
        }
        while let Some(len) = mine.get(place..).map(|rest| lift::length(mode, rest).unwrap_or(1))
            && place + len <= first
        {
            place += len;
        }
        let (Some((len, operands)), Some(theirs)) =
            (lift::layout(mode, &mine[place..]), lift::layout(mode, &other[place..]))
        else {
            continue;
        };
        let operand = operands
            .iter()
            .find(|&&(from, size)| (place + from..place + from + usize::from(size)).contains(&first));
        let Some(&(from, whole)) = operand.filter(|_| (len, &operands) == (theirs.0, &theirs.1)) else {
            continue;
        };
        let start = place + from;
        let moves = deltas.change(image, &mine[start..], &other[start..]).filter(|(size, _)| *size <= whole);
        let Some((size, change)) = moves.or_else(|| {
            let bytes = place..place + len;
            is_constant(mode, stretch.start + place as u64, &mine[bytes.clone()], &other[bytes], from)
                .then_some((whole, Change::Patched))
        }) else {
            continue;
        };
        fields.push(Field { addr: stretch.start + start as u64, size, change });
        at = (start + usize::from(size)).max(at);
    }
}

/// Whether an operand that differs is a constant of an instruction that is otherwise the same.
/// Where control goes is no such constant.
fn is_constant(mode: lift::Mode, pc: u64, mine: &[u8], other: &[u8], operand: usize) -> bool {
    let (Ok(mine_lifted), Ok(other)) = (lift::lift(mode, pc, mine), lift::lift(mode, pc, other)) else {
        return false;
    };
    let control = mine_lifted.ops.iter().any(|op| op.class() == Class::Control);
    !control
        && mine_lifted.ops.len() == other.ops.len()
        && lift::constants(mode, mine).iter().any(|&(offset, _)| offset == operand)
}

/// The interrupt gates of a boot.
fn gates(space: &AddressSpace<'_>) -> Vec<(u8, u64)> {
    match space.begin_regs().get(Reg::IdtrBase) {
        Some(base) => machine::gates(&space.memory, space.mode(), space.kernel_root(), base, VECTORS),
        None => Vec::new(),
    }
}

/// How far the other boot's handlers lie from this one's: the distance most of them have.
fn slide(mine: &[(u8, u64)], theirs: &[(u8, u64)]) -> Option<u64> {
    let mut votes: BTreeMap<u64, usize> = BTreeMap::new();
    for (vector, handler) in mine {
        if let Ok(at) = theirs.binary_search_by_key(vector, |gate| gate.0) {
            *votes.entry(theirs[at].1.wrapping_sub(*handler)).or_default() += 1;
        }
    }
    votes.into_iter().max_by_key(|vote| vote.1).map(|vote| vote.0)
}

/// The kernel's own image: the code around its interrupt handlers.
fn kernel(gates: &[(u8, u64)], stretches: &[Stretch]) -> Image {
    let handlers: Vec<u64> = gates.iter().map(|gate| gate.1).collect();
    let count = |it: &&Stretch| handlers.iter().filter(|handler| it.image().holds(**handler)).count();
    let Some(home) = stretches.iter().max_by_key(count).filter(|it| count(it) > 0) else {
        return Image { start: 0, end: 0, movable: false };
    };
    let (mut start, mut end) = (home.image().start, home.image().end);
    for it in stretches.iter().map(Stretch::image) {
        if it.start.abs_diff(home.start) < NEAR {
            (start, end) = (start.min(it.start), end.max(it.end));
        }
    }
    Image { start, end, movable: false }
}

/// The executable pages of the kernel, joined.
fn stretches(space: &AddressSpace<'_>) -> Vec<Stretch> {
    let mut found: Vec<Stretch> = Vec::new();
    for (addr, page) in space.code_pages() {
        match found.last_mut() {
            Some(last) if last.start + last.bytes.len() as u64 == addr => last.bytes.extend_from_slice(&page),
            _ => found.push(Stretch { start: addr, bytes: page.to_vec() }),
        }
    }
    found
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
        let slides = [Some(0x1200_0000), Some(0x1_4000_0000)];
        let deltas = Deltas::new(&images, &slides);
        let table = 0xffff_8880_0b5c_0000u64;
        let change = |value: u64, delta: u64| {
            deltas.change(0, &value.to_le_bytes(), &value.wrapping_add(delta).to_le_bytes())
        };
        assert_eq!(change(table, 0x1_4000_0000), None);
        let moves = Change::Moves { plus: Some(1), minus: None };
        assert_eq!(change(0xffff_8880_0009_a100, 0x1_4000_0000), Some((8, moves)));
    }

    #[test]
    fn only_an_operand_of_the_same_instruction_moves() {
        let start = 0xffff_ffff_8100_0000u64;
        let images = [
            Image { start, end: start + 0x10_0000, movable: true },
            Image { start: 0xffff_8880_0009_9000, end: 0xffff_8880_0009_b000, movable: true },
        ];
        let slides = [Some(0x1e00_0000), Some(0xff88_8880_8000_0000)];
        let found = |mine: &[u8], other: &[u8]| {
            let stretch = Stretch { start, bytes: mine.to_vec() };
            let theirs: Vec<Option<u8>> = other.iter().copied().map(Some).collect();
            let mut fields = Vec::new();
            compare(&stretch, &theirs, 0, &Deltas::new(&images, &slides), lift::Mode::Bits64, &mut fields);
            fields.iter().map(|field| (field.addr - start, field.size, field.change)).collect::<Vec<_>>()
        };
        let code = |constant: u64, rest: &[u8]| {
            let head: &[u8] = &[0x48, 0xb8];
            [head, &constant.to_le_bytes(), rest].concat()
        };
        // movabs of the end of user space, cmp, cmova, nopl: with five levels another constant, and
        // stac. Both differ by a slide if looked at askew.
        let mine = code(0x7fff_ffff_f000, &[0x48, 0x39, 0xc6, 0x48, 0x0f, 0x47, 0xf0, 0x0f, 0x1f, 0x00]);
        let other = code(0xff_ffff_ffff_f000, &[0x48, 0x39, 0xc6, 0x48, 0x0f, 0x47, 0xf0, 0x0f, 0x01, 0xcb]);
        assert_eq!(found(&mine, &other), [(2, 8, Change::Patched)]);
        // mov $address,%rdi; call to what stays; ret
        let mine = [0x48, 0xc7, 0xc7, 0x80, 0x30, 0x04, 0x83, 0xe8, 0x00, 0x00, 0x00, 0x30, 0xc3];
        let other = [0x48, 0xc7, 0xc7, 0x80, 0x30, 0x04, 0xa1, 0xe8, 0x00, 0x00, 0x00, 0x12, 0xc3];
        let moves = |plus, minus| Change::Moves { plus, minus };
        assert_eq!(found(&mine, &other), [(3, 4, moves(Some(0), None)), (8, 4, moves(None, Some(0)))]);
    }
}
