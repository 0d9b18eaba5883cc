//! What differs in another boot: images and their slides, fixups, relocated constants.
//!
//! Learned by comparing the code of two boots, byte by byte ([`fixups`](super::fixups)) and, for
//! the instructions of a slice, constant by constant. Nothing is known of relocation tables, nor of
//! where a system puts what. With one boot only there are images, but nothing is known to move.

use std::collections::BTreeMap;

use ir::program::SignatureWord;
use ir::relocation::{Fixup, FixupKind, Image, RelocatedConstant, RelocationTable};
use ir::{Arg, Class, Integrity};
use machine::VirtAddr;
use rustc_hash::FxHashMap;

use super::address_space::AddressSpace;
use super::fixups::{Deltas, compare};
use super::images::{NEAR, Stretch, kernel_image, names, stretches};
use super::integrity::{self, OtherBoot};
use super::mappings::Mappings;
use super::signature::signature;
use crate::error::Error;
use crate::vocabulary::{Code, Id, ImageId, Table};

/// An image's code counts as the same if at most one byte in this many differs in the other boot.
/// That is half of it, for in a small module every address differs.
const SAME: usize = 2;

/// What was learned of the training system's code.
pub struct Relocations {
    /// For the companion file and for programs; it has no relocated constants yet.
    pub table: RelocationTable,
    /// The words by which per-CPU memory is recognised.
    pub signature: Vec<SignatureWord>,
    /// What both boots show beside the code; `None` with one boot, which shows it when asked.
    pub integrity: Option<Integrity>,
    /// For each image its slide in the other boot; `None` if it was not found there.
    slides: Table<ImageId, Option<u64>>,
    /// The other boot's code, by this boot's address.
    other: BTreeMap<VirtAddr, Vec<u8>>,
}

/// An operand that is a relocated constant.
pub struct RelocatedOperand {
    /// Index of the operation in its instruction.
    pub op: usize,
    /// Index of the operand.
    pub arg: usize,
    /// What the constant is.
    pub constant: RelocatedConstant,
}

impl Relocations {
    /// What one boot shows: the images, without knowing what moves.
    #[must_use]
    pub fn single(mappings: &Mappings<'_>) -> Self {
        let gates = mappings.gates();
        let images = images(&gates, &stretches(mappings), &|_| true);
        let table = RelocationTable { images, gates, ..RelocationTable::default() };
        Self {
            table,
            signature: signature(mappings),
            integrity: None,
            slides: Table::new(),
            other: BTreeMap::new(),
        }
    }

    /// What two boots show.
    ///
    /// # Errors
    /// [`Error::Bases`] when they are not two bases of one kernel.
    pub fn learn(mappings: &Mappings<'_>, other: &Mappings<'_>) -> Result<Self, Error> {
        let mut this = Self::single(mappings);
        let slide = machine::slides(&this.table.gates, &other.gates()).first().copied();
        let slide = slide.ok_or(Error::Bases("no interrupt gate of both leads anywhere".into()))?;
        if slide == 0 {
            return Err(Error::Bases(
                "both have the kernel at the same address; boot the other one anew, with randomisation"
                    .into(),
            ));
        }
        let mine = stretches(mappings);
        // Other code near the kernel may stay where it is.
        this.table.images = images(&this.table.gates, &mine, &|it| is_same(it.difference(other, slide)));
        this.find_images(&mine, other, slide)?;
        this.find_fixups(&mine, other, mappings.lift_mode());
        // Images that moved alike cannot be told apart by the constants that name them.
        for (image, slide) in this.table.images.iter_mut().zip(this.slides.values()) {
            image.movable =
                slide.is_some() && this.slides.values().iter().filter(|other| *other == slide).count() == 1;
        }
        let theirs = signature(other);
        this.signature.retain(|word| theirs.binary_search(word).is_ok());
        this.widen();
        let boot = OtherBoot { mappings: other, slides: this.slides.values() };
        this.integrity = Some(integrity::learn(mappings, &this.table, Some(&boot)));
        Ok(this)
    }

    /// Finds each image's slide in the other boot; `slide` is that of the interrupt handlers.
    fn find_images(&mut self, mine: &[Stretch], other: &Mappings<'_>, slide: u64) -> Result<(), Error> {
        let theirs = stretches(other);
        for (at, image) in self.table.images.iter().enumerate() {
            let parts: Vec<&Stretch> = mine.iter().filter(|it| image.holds(it.start.0)).collect();
            let mut candidates = vec![slide];
            // The kernel is where its handlers are.
            if at > 0 {
                candidates.extend(theirs.iter().map(|it| it.start.0.wrapping_sub(image.start)));
            }
            let found = likest(&parts, other, &candidates);
            self.slides.push(found);
        }
        if self.kernel_slide() != Some(slide) {
            return Err(Error::Bases("their kernels have different code".into()));
        }
        Ok(())
    }

    /// Compares the code of all images that were found in the other boot.
    fn find_fixups(&mut self, mine: &[Stretch], other: &Mappings<'_>, mode: lift::Mode) {
        let deltas = Deltas::new(&self.table.images, &self.slides);
        let mut fixups = Vec::new();
        for stretch in mine {
            let start = stretch.start;
            let Some(image) = self.table.image(start.0).map(ImageId::new) else {
                continue;
            };
            let Some(slide) = self.slides[image] else { continue };
            let theirs = other.read_mapped(start.add(slide), stretch.bytes.len());
            fixups.extend(compare(stretch, &theirs, image, &deltas, mode));
            self.other.insert(start, theirs.into_iter().map(Option::unwrap_or_default).collect());
        }
        fixups.sort_unstable_by_key(|fixup: &Fixup| fixup.addr);
        fixups.dedup_by_key(|fixup| fixup.addr);
        self.table.fixups = fixups.into();
    }

    /// Whether an address lies in the kernel's image, data and all, so that it means the same in
    /// every boot.
    #[must_use]
    pub fn in_kernel(&self, space: &AddressSpace<'_>, addr: VirtAddr) -> bool {
        match self.table.images.first() {
            // Two boots have shown how far it reaches.
            Some(kernel) if kernel.movable => kernel.holds(addr.0),
            _ if space.mappings.mode.linear_bits() > 32 => space.mappings.is_near_code(addr),
            _ => space.is_named(addr),
        }
    }

    /// Widens the kernel's image from its code to all that its code names and that moves with it:
    /// its data.
    fn widen(&mut self) {
        let Some(&kernel) = self.table.images.first() else { return };
        let (mut start, mut end) = (kernel.start, kernel.end);
        for fixup in self.table.fixups.iter() {
            let names = FixupKind::Moves { plus: Some(0), minus: None };
            if fixup.kind != names || !kernel.holds(fixup.addr) {
                continue;
            }
            let Some(address) = self.named_by(&fixup, &kernel) else { continue };
            // What is far away, or belongs to a module, is something else that happens to move
            // alike.
            let others =
                self.table.images[1..].iter().any(|image| address <= image.end && image.start <= address);
            if !others && address.abs_diff(kernel.start) < NEAR {
                start = start.min(VirtAddr(address).page().0);
                end = end.max((address | (machine::PAGE_SIZE - 1)).saturating_add(1));
            }
        }
        self.table.images[0] = Image { start, end, ..kernel };
    }

    /// The address that a fixup of the kernel's code names, in this boot.
    fn named_by(&self, fixup: &Fixup, kernel: &Image) -> Option<u64> {
        let (&from, code) = self.other.range(..=VirtAddr(fixup.addr)).next_back()?;
        let bytes = code.get((fixup.addr - from.0) as usize..)?.get(..usize::from(fixup.size))?;
        let mut value = [0; 8];
        value[..bytes.len()].copy_from_slice(bytes);
        let value = u64::from_le_bytes(value);
        // A 32-bit operand of 64-bit code is sign-extended.
        let extended = fixup.size == 4 && kernel.start >> 32 != 0;
        let value = if extended { value as u32 as i32 as i64 as u64 } else { value };
        Some(value.wrapping_sub(self.kernel_slide().unwrap_or(0)))
    }

    /// The operands of an instruction that are relocated constants.
    #[must_use]
    pub fn constants(&self, code: &Code) -> Vec<RelocatedOperand> {
        let pc = code.pc();
        let Some(slide) = self.slide_at(pc.0) else {
            return Vec::new();
        };
        let other = self.other_insn(code, slide);
        let mut found = Vec::new();
        for (op, it) in code.insn.ops.iter().enumerate().filter(|(_, it)| it.class() != Class::Control) {
            for (arg, operand) in it.args().iter().enumerate() {
                let Arg::Const(value) = *operand else { continue };
                let theirs = other.as_ref().map(|other| other.ops[op].args[arg]);
                let Some(delta) = self.delta(value, theirs).filter(|&delta| delta != 0) else { continue };
                let constant = match self.image_of(value, delta) {
                    Some(image) => RelocatedConstant::Address { value, image: image.number() },
                    None => {
                        let len = code.bytes.len() as u8;
                        RelocatedConstant::Patched { value, pc: pc.0, len, op: op as u16, arg: arg as u8 }
                    }
                };
                found.push(RelocatedOperand { op, arg, constant });
            }
        }
        found
    }

    /// The same instruction in the other boot, if it is one there too.
    fn other_insn(&self, code: &Code, slide: u64) -> Option<lift::Insn> {
        let (start, bytes) = self.other.range(..=code.pc()).next_back()?;
        let at = (code.pc().0 - start.0) as usize;
        let theirs = bytes.get(at..at + code.bytes.len())?;
        let other = lift::lift(code.mode, code.pc().add(slide).0, theirs).ok()?;
        lift::same_form(&other, &code.insn).then_some(other)
    }

    /// By how much the other boot's constant (`theirs`, if it has the same instruction) differs.
    fn delta(&self, value: u64, theirs: Option<Arg>) -> Option<u64> {
        match theirs {
            Some(Arg::Const(theirs)) => Some(theirs.wrapping_sub(value)),
            // The other boot has another instruction here: a constant in an image is taken to move
            // with it.
            _ => self.slide_at(value),
        }
    }

    /// The slide of the kernel's image in the other boot, if there is one.
    #[must_use]
    pub fn kernel_slide(&self) -> Option<u64> {
        self.slides.values().first().copied().flatten()
    }

    /// The slide, in the other boot, of the image that holds an address.
    #[must_use]
    pub fn slide_at(&self, address: u64) -> Option<u64> {
        let image = self.table.image(address).map(ImageId::new)?;
        self.slides.get(image).copied().flatten()
    }

    /// The image that a constant moves with that differs by `delta`.
    fn image_of(&self, value: u64, delta: u64) -> Option<ImageId> {
        let mask = if value >> 32 == 0 { 0xffff_ffff } else { u64::MAX };
        let moves = |image: ImageId| {
            self.slides.get(image).copied().flatten().is_some_and(|it| it & mask == delta & mask)
        };
        let holder = self.table.image(value).map(ImageId::new).filter(|&image| moves(image));
        let named = |&image: &ImageId| moves(image) && names(&self.table.images[image.index()], value);
        holder.or_else(|| self.slides.ids().find(named))
    }

    /// The part of the table that a program needs: the fixups of its own code, and the images that
    /// it names. `ranges` are its code, `constants` those that its operands name by number.
    #[must_use]
    pub fn of_program(&self, ranges: &[(u64, u64)], constants: Vec<RelocatedConstant>) -> RelocationTable {
        let in_range = |&(start, end): &(u64, u64)| self.table.fixups_in(start, end);
        let mut fixups: Vec<Fixup> = ranges.iter().flat_map(in_range).collect();
        fixups.sort_unstable_by_key(|fixup| fixup.addr);
        fixups.dedup();
        let numbers = self.number_images(ranges, &fixups, &constants);
        let number = |image: Option<u16>| image.and_then(|image| numbers.get(&image).copied());
        for fixup in &mut fixups {
            if let FixupKind::Moves { plus, minus } = &mut fixup.kind {
                (*plus, *minus) = (number(*plus), number(*minus));
            }
        }
        let constants = constants.into_iter().map(|constant| match constant {
            RelocatedConstant::Address { value, image } => {
                RelocatedConstant::Address { value, image: number(Some(image)).unwrap_or(0) }
            }
            patched @ RelocatedConstant::Patched { .. } => patched,
        });
        let images = self.table.images.iter().enumerate();
        let images = images.filter(|(at, _)| numbers.contains_key(&(*at as u16))).map(|(_, image)| *image);
        RelocationTable {
            images: images.collect(),
            gates: self.table.gates.clone(),
            constants: constants.collect(),
            fixups: fixups.into(),
        }
    }

    /// The images that a program names, the kernel's first, and their numbers there.
    fn number_images(
        &self,
        ranges: &[(u64, u64)],
        fixups: &[Fixup],
        constants: &[RelocatedConstant],
    ) -> FxHashMap<u16, u16> {
        let mut used = vec![false; self.table.images.len()];
        if let Some(kernel) = used.first_mut() {
            *kernel = true;
        }
        let mut mark = |image: Option<u16>| {
            if let Some(used) = image.and_then(|image| used.get_mut(usize::from(image))) {
                *used = true;
            }
        };
        ranges.iter().for_each(|range| mark(self.table.image(range.0).map(|image| image as u16)));
        for fixup in fixups {
            if let FixupKind::Moves { plus, minus } = fixup.kind {
                mark(plus);
                mark(minus);
            }
        }
        for constant in constants {
            if let RelocatedConstant::Address { image, .. } = constant {
                mark(Some(*image));
            }
        }
        let used = used.iter().enumerate().filter(|(_, used)| **used);
        used.enumerate().map(|(number, (image, _))| (image as u16, number as u16)).collect()
    }
}

/// The images of a boot, the kernel's first; `belongs` as in [`kernel_image`].
fn images(gates: &[(u8, u64)], stretches: &[Stretch], belongs: &dyn Fn(&Stretch) -> bool) -> Vec<Image> {
    let kernel = kernel_image(gates, stretches, belongs);
    let modules = stretches.iter().map(Stretch::image).filter(|it| !kernel.holds(it.start));
    let known = kernel.start < kernel.end;
    if known { std::iter::once(kernel).chain(modules).collect() } else { Vec::new() }
}

/// Whether code with so many differing bytes among so many is the same.
const fn is_same((differing, all): (usize, usize)) -> bool {
    differing * SAME <= all
}

/// The candidate slide at which the other boot's code differs least from these parts of an image;
/// `None` if it differs too much at all of them.
fn likest(parts: &[&Stretch], other: &Mappings<'_>, candidates: &[u64]) -> Option<u64> {
    let (mut best, mut tried) = (None, Vec::new());
    for &candidate in candidates {
        if tried.contains(&candidate) {
            continue;
        }
        tried.push(candidate);
        let differences = parts.iter().map(|part| part.difference(other, candidate));
        let (differing, all) = differences.fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
        if all > 0 && is_same((differing, all)) && best.is_none_or(|(least, _)| differing < least) {
            best = Some((differing, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}
