//! Relocation: finds in a target what training knew at other addresses.
//!
//! The kernel's image has the slide of the handlers in the target's interrupt gates. Modules are
//! found by their code. Whether the kernel is the one that the program was made from is decided by
//! its code, byte by byte, with fixups applied. Constants that the kernel patches into its own code
//! in each boot are read from there: they are data, and the instruction around them stays
//! training's.

use std::ops::ControlFlow;

use ir::program::CodeRange;
use ir::relocation::{Fixup, RelocatedConstant, RelocationTable};
use ir::{Arg, Class, Program, System};
use lift::Mode;
use machine::paging::{self, DEFAULT_WALK_LIMIT, PagingMode};
use machine::{GuestMemory, PAGE_SIZE, Reg, VirtAddr};

use crate::limits::Deadline;
use crate::per_cpu::Tables;
use crate::run::{Run, RunError, system_mode};

/// How many interrupt gates are compared: those of the processor's own exceptions.
const VECTORS: u8 = 32;
/// How many bytes of a module are searched for before all of it is compared.
const PROBE: usize = 16;

/// `EFER.NXE`: the execute-disable bit is in use (SDM vol. 3 section 4.6).
const EFER_NXE: u64 = 1 << 11;

/// Where a program's images, or a companion file's, are in one target.
#[derive(Clone, Debug)]
pub struct Relocation<'p> {
    /// The images, and the fixups of their code.
    table: &'p RelocationTable,
    mode: PagingMode,
    /// CR3 of the page tables that map the kernel.
    root: u64,
    /// For each image its slide, the target's address minus training's modulo 2^64; `None` if the
    /// image is not in the target.
    slides: Vec<Option<u64>>,
    /// How many bytes of the kernel's code are not training's, and how many there are.
    fit: (u64, u64),
    /// When images are no longer looked for: a run stops then before it begins.
    deadline: Deadline,
}

impl<'p> Relocation<'p> {
    /// The kernel's image has this slide, the others are nowhere; page tables are at physical 0.
    #[cfg(test)]
    pub(crate) fn kernel_at(table: &'p RelocationTable, slide: u64) -> Self {
        let slides = (0..table.images.len()).map(|image| (image == 0).then_some(slide)).collect();
        let deadline = Deadline::after(std::time::Duration::MAX);
        Self { table, mode: PagingMode::Level4, root: 0, slides, fit: (0, 0), deadline }
    }

    /// Finds a program's images, and the page tables that map the kernel.
    ///
    /// # Errors
    /// [`RunError`]: a register is missing or the paging mode unknown, the kernel is another one,
    /// it lies at another address and training saw one base only, or its code has a constant that
    /// training does not know.
    pub fn find(program: &'p Program, run: &Run<'_>) -> Result<Self, RunError> {
        let deadline = Deadline::after(run.limits.time);
        let (mode, cr3) = run.paging()?;
        let table = &program.relocations;
        let mut best = RunError::OtherKernel { differing: u64::MAX, checked: u64::MAX };
        let mut copy = None;
        for root in [cr3, paging::beside(cr3)] {
            for slide in slides(table, run, mode, root) {
                let slides = vec![Some(slide); table.images.len()];
                let mut found = Self { table, mode, root, slides, fit: (0, 0), deadline };
                if table.images.is_empty() {
                    found.slides.push(Some(slide));
                }
                let code = |range: &&CodeRange| table.image(range.addr).is_none_or(|image| image == 0);
                let mut others = Vec::new();
                let ranges = program.code.iter().filter(code);
                let (differing, checked) = found.compare(run.memory, ranges, &mut |it| others.push(it));
                if differing * 10 > checked {
                    if let RunError::OtherKernel { differing: least, .. } = best
                        && differing < least
                    {
                        best = RunError::OtherKernel { differing, checked };
                    }
                    continue;
                }
                if !found.is_pointed_to(program, run) {
                    copy = Some(RunError::Copy { slide });
                    continue;
                }
                if slide != 0 && !table.movable() {
                    return Err(RunError::Elsewhere { slide });
                }
                let mut ranges = vec![Vec::new(); table.images.len()];
                for range in &program.code {
                    if let Some(image) = table.image(range.addr) {
                        ranges[image].push(range);
                    }
                }
                found.slides.iter_mut().skip(1).for_each(|slide| *slide = None);
                for (image, ranges) in ranges.iter().enumerate().skip(1) {
                    found.slides[image] = found.module(run.memory, image, ranges);
                    if deadline.is_over() {
                        break;
                    }
                }
                found.fit = (differing, checked);
                if differing > 0 && table.images.len() > 1 {
                    // Where modules are is known by now, and their code counts too.
                    others.clear();
                    found.compare(run.memory, program.code.iter(), &mut |it| others.push(it));
                }
                patched_constants(program, &others)?;
                return Ok(found);
            }
        }
        Err(copy.unwrap_or(best))
    }

    /// Whether per-CPU memory points into the kernel's image, as far as it can tell: gates may have
    /// been led to a copy of the kernel, beside which the kernel itself works on. It cannot in
    /// systems that do not use the execute-disable bit, and in those without a GS base.
    fn is_pointed_to(&self, program: &Program, run: &Run<'_>) -> bool {
        let Some(image) = self.table.images.first().filter(|_| !program.signature.is_empty()) else {
            return true;
        };
        let efer = program.registers.iter().find(|(reg, _)| *reg == Reg::Efer as u16);
        if system_mode(program) != Mode::Bits64 || efer.is_none_or(|(_, efer)| efer & EFER_NXE == 0) {
            return true;
        }
        let (slide, tables) = (self.slide(), self.tables(run.memory));
        let image = image.start.wrapping_add(slide)..image.end.wrapping_add(slide);
        // What is wrong with the base is said by the run.
        let base = run.kernel_gs_base(&program.signature, tables);
        base.map_or(true, |base| tables.points_into(base, &image))
    }

    /// The page tables that map the kernel, over the target's memory.
    pub(crate) fn tables<'m>(&self, memory: &'m dyn GuestMemory) -> Tables<'m> {
        Tables { memory, mode: self.mode, root: self.root }
    }

    /// The relocation of a companion file, whose first image is the program's: the kernel's own.
    /// The others count as not in the target until [`Relocation::find_modules`].
    #[must_use]
    pub fn system<'s>(&self, system: &'s System) -> Relocation<'s> {
        let table = system.relocations();
        let mut slides = vec![None; table.images.len()];
        if let (Some(first), Some(slide)) = (slides.first_mut(), self.slides.first()) {
            *first = *slide;
        }
        let Self { mode, root, fit, deadline, .. } = *self;
        Relocation { table, mode, root, slides, fit, deadline }
    }

    /// The same, which looks for images until then.
    pub(crate) fn until(&self, deadline: Deadline) -> Self {
        Self { deadline, ..self.clone() }
    }

    /// Looks for all images of a companion file but the first. One is found only where every byte
    /// of its code is training's, with fixups applied: it is to be executed.
    pub fn find_modules(&mut self, system: &System, memory: &dyn GuestMemory) {
        for image in 1..self.table.images.len() {
            if self.deadline.is_over() {
                return;
            }
            let here = self.table.images[image];
            let pages = system.pages_in(here.start..here.end);
            let ranges: Vec<CodeRange> =
                pages.map(|(addr, bytes)| CodeRange { addr, bytes: bytes.to_vec() }).collect();
            self.slides[image] = self.module(memory, image, &ranges.iter().collect::<Vec<_>>());
        }
    }

    /// The paging mode.
    #[must_use]
    pub const fn mode(&self) -> PagingMode {
        self.mode
    }

    /// The root (CR3) of the page tables that map the kernel.
    #[must_use]
    pub const fn root(&self) -> u64 {
        self.root
    }

    /// How many bytes of the program's kernel code differ in the target or are not there, and how
    /// many were compared: how well the target's kernel is recognised.
    #[must_use]
    pub const fn fit(&self) -> (u64, u64) {
        self.fit
    }

    /// Whether the code has fixups, that is, bytes that differ in another boot.
    #[must_use]
    pub fn moves(&self) -> bool {
        !self.table.fixups.is_empty()
    }

    /// The slide of the kernel's image: the target's address minus training's, modulo 2^64.
    #[must_use]
    pub fn slide(&self) -> u64 {
        self.slides.first().copied().flatten().unwrap_or(0)
    }

    /// What moves.
    #[must_use]
    pub(crate) const fn table(&self) -> &'p RelocationTable {
        self.table
    }

    /// Says where an image is in the target; `None` if it is not there.
    pub(crate) fn place(&mut self, image: usize, slide: Option<u64>) {
        if let Some(place) = self.slides.get_mut(image) {
            *place = slide;
        }
    }

    /// When images are no longer looked for.
    pub(crate) const fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// Whether images are no longer to be looked for.
    pub(crate) fn is_late(&self) -> bool {
        self.deadline.is_over()
    }

    /// How many bytes an address of the target has.
    pub(crate) fn word_bytes(&self) -> usize {
        if self.mode().linear_bits() > 32 { 8 } else { 4 }
    }

    /// The slide of an image, by its number; `None` if it is not in the target.
    pub(crate) fn slide_of(&self, image: usize) -> Option<u64> {
        self.slides.get(image).copied().flatten()
    }

    /// Applies to `bytes`, code of the training system at `start`, what moved. Constants that the
    /// system patches into its own code stay as training has them.
    pub(crate) fn moved_code(&self, start: u64, bytes: &mut [u8]) {
        self.apply(start, bytes, &mut |_| None);
    }

    /// Where an address of the training system is in the target. What lies in no image, or in one
    /// that is not in the target, does not move.
    #[must_use]
    pub fn to_target(&self, address: u64) -> u64 {
        let slide = self.table.image(address).and_then(|image| self.slides[image]);
        address.wrapping_add(slide.unwrap_or(0))
    }

    /// The training system's address for one of the target; `None` if training has something else
    /// there.
    #[must_use]
    pub fn to_training(&self, address: u64) -> Option<u64> {
        if self.slides.iter().all(|slide| *slide == Some(0)) {
            return Some(address);
        }
        for (image, slide) in self.table.images.iter().zip(&self.slides) {
            if let Some(slide) = slide
                && image.holds(address.wrapping_sub(*slide))
            {
                return Some(address.wrapping_sub(*slide));
            }
        }
        self.table.image(address).is_none().then_some(address)
    }

    /// For how many bytes from `address` of the target on, which is `trained` in the training
    /// system, no image begins or ends in either.
    pub(crate) fn steady(&self, address: u64, trained: u64) -> u64 {
        let images = self.table.images.iter().zip(&self.slides);
        let ends = images.flat_map(|(image, slide)| {
            [image.start, image.end].map(|end| {
                let there = slide.map(|slide| end.wrapping_add(slide).wrapping_sub(address));
                let here = end.wrapping_sub(trained);
                [Some(here), there].into_iter().flatten().filter(|distance| *distance != 0).min()
            })
        });
        ends.flatten().min().unwrap_or(u64::MAX)
    }

    /// The address by which a report names one of the target: the training system's, or if training
    /// has something else there, the target's own.
    #[must_use]
    pub fn reported(&self, address: u64) -> u64 {
        self.to_training(address).unwrap_or(address)
    }

    /// The value in this target of the program's relocated constant with this number; 0 if there is
    /// none.
    ///
    /// # Errors
    /// [`RunError::Constant`] when the image that it moves with is not in the target, or the code
    /// that it stands in cannot be read there or is not the program's.
    pub fn constant(
        &self,
        program: &Program,
        number: usize,
        memory: &dyn GuestMemory,
    ) -> Result<u64, RunError> {
        let missing = |at| RunError::Constant { at };
        match self.table.constants.get(number) {
            None => Ok(0),
            Some(&RelocatedConstant::Address { value, image }) => {
                let slide =
                    self.slides.get(usize::from(image)).copied().flatten().ok_or_else(|| missing(value))?;
                Ok(value.wrapping_add(slide))
            }
            Some(&RelocatedConstant::Patched { pc, len, op, arg, .. }) => {
                let code = program.code.iter().find_map(|range| {
                    let from = pc.checked_sub(range.addr)? as usize;
                    range.bytes.get(from..)?.get(..usize::from(len))
                });
                let mut bytes = code.ok_or_else(|| missing(pc))?.to_vec();
                let mut absent = false;
                self.apply(pc, &mut bytes, &mut |fixup| {
                    let value = self.number(memory, fixup.addr, fixup.size);
                    absent |= value.is_none();
                    value
                });
                let mode = system_mode(program);
                let insn = lift::lift(mode, self.to_target(pc), &bytes).ok().filter(|_| !absent);
                match insn
                    .as_ref()
                    .and_then(|insn| insn.ops.get(usize::from(op)))
                    .map(|op| op.args[usize::from(arg).min(2)])
                {
                    Some(Arg::Const(value)) => Ok(value),
                    _ => Err(missing(pc)),
                }
            }
        }
    }

    /// Code of a companion file as it is in this target: `count` bytes from `start`, an address of
    /// the training system, fewer where the file ends.
    #[must_use]
    pub fn trusted(&self, system: &System, start: u64, count: usize, memory: &dyn GuestMemory) -> Vec<u8> {
        // A fixup gets its value only if all its bytes are there.
        const MARGIN: u64 = 8;
        let from = start.saturating_sub(MARGIN);
        let (mut bytes, wanted) =
            (Vec::with_capacity(count + 16), (start - from) as usize + count + MARGIN as usize);
        while bytes.len() < wanted {
            let address = VirtAddr(from).add(bytes.len() as u64);
            let offset = address.offset() as usize;
            let here = (PAGE_SIZE as usize - offset).min(wanted - bytes.len());
            match system.page(address.page().0) {
                Some(page) => bytes.extend_from_slice(&page[offset..offset + here]),
                None if address.0 < start => {
                    bytes.resize(bytes.len() + here.min((start - address.0) as usize), 0)
                }
                None => break,
            }
        }
        self.code(from, &mut bytes, memory);
        bytes.drain(..((start - from) as usize).min(bytes.len()));
        bytes.truncate(count);
        bytes
    }

    /// Applies this target's fixups to `bytes`, code of the training system at `start`.
    pub fn code(&self, start: u64, bytes: &mut [u8], memory: &dyn GuestMemory) {
        // Places that the system writes are near each other: one walk of the page tables finds all.
        let end = start.saturating_add(bytes.len() as u64);
        let mut near: Option<(u64, Option<usize>, Vec<Option<u8>>)> = None;
        self.apply(start, bytes, &mut |fixup| {
            let (first, image, theirs) = near.get_or_insert_with(|| {
                let count = end.saturating_sub(fixup.addr).min(PAGE_SIZE) as usize;
                (fixup.addr, self.table.image(fixup.addr), self.bytes(memory, fixup.addr, count))
            });
            let at = (fixup.addr - *first) as usize;
            match theirs.get(at..at + usize::from(fixup.size.min(8))) {
                Some(bytes) if *image == self.table.image(fixup.addr) => number(bytes),
                _ => self.number(memory, fixup.addr, fixup.size),
            }
        });
    }

    /// Applies fixups to `bytes`; `patched` gives the values of
    /// [`FixupKind::Patched`](ir::relocation::FixupKind::Patched) ones.
    fn apply(&self, start: u64, bytes: &mut [u8], patched: &mut dyn FnMut(&Fixup) -> Option<u64>) {
        if self.table.fixups.is_empty() {
            return;
        }
        let slides: Vec<u64> = self.slides.iter().map(|slide| slide.unwrap_or(0)).collect();
        self.table.apply(start, bytes, &slides, patched);
    }

    /// The target's little-endian number at an address of the training system; `None` if it is not
    /// all mapped.
    fn number(&self, memory: &dyn GuestMemory, address: u64, size: u8) -> Option<u64> {
        number(&self.bytes(memory, address, usize::from(size.min(8))))
    }

    /// The target's bytes at addresses of the training system, which lie in one image or in none.
    pub fn bytes(&self, memory: &dyn GuestMemory, start: u64, count: usize) -> Vec<Option<u8>> {
        paging::read_mapped(memory, self.mode, self.root, VirtAddr(self.to_target(start)), count)
    }

    /// How many bytes of these ranges are missing or different in the target, and how many there
    /// are; `different` is told of the ranges that have such.
    fn compare<'r>(
        &self,
        memory: &dyn GuestMemory,
        ranges: impl Iterator<Item = &'r CodeRange>,
        different: &mut dyn FnMut(Different),
    ) -> (u64, u64) {
        let (mut differing, mut checked) = (0u64, 0u64);
        for range in ranges {
            let mut expected = range.bytes.clone();
            self.code(range.addr, &mut expected, memory);
            let found = self.bytes(memory, range.addr, expected.len());
            checked += expected.len() as u64;
            let here = expected.iter().zip(&found).filter(|(a, b)| Some(**a) != **b).count() as u64;
            differing += here;
            if here > 0 {
                different(Different { addr: range.addr, expected, found });
            }
        }
        (differing, checked)
    }

    /// The slide of an image whose code these ranges are: 0 if the code is where training had it,
    /// else that of the first mapping that holds it; `None` if there is none.
    fn module(&self, memory: &dyn GuestMemory, image: usize, ranges: &[&CodeRange]) -> Option<u64> {
        let first = ranges.iter().find(|range| range.bytes.len() >= PROBE)?;
        let mut found = self.clone();
        let mut fits = |slide: u64| {
            found.slides[image] = Some(slide);
            let (differing, _) = found.compare(memory, ranges.iter().copied(), &mut drop);
            differing == 0
        };
        if fits(0) {
            return Some(0);
        }
        if !self.table.images[image].movable {
            return None;
        }
        let fixups = self.table.fixups_in(first.addr, first.addr.saturating_add(PROBE as u64));
        let fixed = |at: usize| {
            let at = first.addr.wrapping_add(at as u64);
            !fixups.clone().any(|fixup| (fixup.addr..fixup.addr + u64::from(fixup.size)).contains(&at))
        };
        let offset = VirtAddr(first.addr).offset() as usize;
        let (mut slide, mut looked) = (None, 0u64);
        let half = VirtAddr(1 << (self.mode.linear_bits() - 1));
        let range = if self.mode.linear_bits() > 32 {
            half..=VirtAddr(u64::MAX)
        } else {
            half..=VirtAddr(0xffff_ffff)
        };
        paging::walk(memory, self.mode, self.root, range, DEFAULT_WALK_LIMIT, &mut |mapping| {
            looked += 1;
            if looked.is_multiple_of(1 << 12) && self.deadline.is_over() {
                return ControlFlow::Break(());
            }
            if mapping.user || !mapping.executable {
                return ControlFlow::Continue(());
            }
            for at in (0..mapping.size).step_by(PAGE_SIZE as usize) {
                let Ok(page) = memory.page(mapping.paddr.add(at)) else { continue };
                let here = &page[offset..(offset + PROBE).min(page.len())];
                if here.iter().zip(&first.bytes).enumerate().all(|(at, (a, b))| a == b || !fixed(at)) {
                    let candidate =
                        mapping.vaddr.0.wrapping_add(at).wrapping_sub(VirtAddr(first.addr).page().0);
                    if fits(candidate) {
                        slide = Some(candidate);
                        return ControlFlow::Break(());
                    }
                }
            }
            ControlFlow::Continue(())
        });
        slide
    }
}

/// A range of code that the target has otherwise.
struct Different {
    /// Its address in the training system.
    addr: u64,
    /// Its bytes as they would be in the target.
    expected: Vec<u8>,
    /// What the target has there.
    found: Vec<Option<u8>>,
}

/// The little-endian number of these bytes, if all of them are there.
fn number(bytes: &[Option<u8>]) -> Option<u64> {
    bytes.iter().rev().try_fold(0, |value, byte| Some(value << 8 | u64::from((*byte)?)))
}

/// Refuses a target in whose code, of which these ranges differ, an instruction of the program
/// has a constant that training does not know. Other changes are ignored, whether they are the
/// kernel's own patches or tampering: the run executes training's code in any case.
fn patched_constants(program: &Program, ranges: &[Different]) -> Result<(), RunError> {
    let mode = system_mode(program);
    for Different { addr, expected, found } in ranges {
        let same = |at: usize, end: usize| {
            expected[at..end].iter().zip(&found[at..end]).all(|(mine, theirs)| Some(*mine) == *theirs)
        };
        let last = (0..expected.len()).rfind(|at| !same(*at, at + 1));
        let mut at = 0;
        while last.is_some_and(|last| at <= last) {
            let (pc, rest) = (addr.wrapping_add(at as u64), &expected[at..]);
            let Some(len) = lift::length(mode, rest).filter(|len| *len <= rest.len()) else { break };
            let theirs: Option<Vec<u8>> = found[at..at + len].iter().copied().collect();
            if let Some(theirs) = theirs
                && !same(at, at + len)
                && let Ok(trusted) = lift::lift(mode, pc, rest)
                && let Ok(other) = lift::lift(mode, pc, &theirs)
                && differ_in_a_constant(&trusted, &other)
            {
                return Err(RunError::Constant { at: pc });
            }
            at += len;
        }
    }
    Ok(())
}

/// Whether two instructions differ in a constant only. The target of a call or jump is not such a
/// constant: kernels patch those.
fn differ_in_a_constant(a: &lift::Insn, b: &lift::Insn) -> bool {
    let control = |insn: &lift::Insn| insn.ops.iter().any(|op| op.class() == Class::Control);
    lift::same_form(a, b) && !control(a) && a.ops != b.ops
}

/// The slides that the kernel's image may have: those of interrupt gates, the most frequent first,
/// and 0.
fn slides(table: &RelocationTable, run: &Run<'_>, mode: PagingMode, root: u64) -> Vec<u64> {
    let gates = run.regs.get(Reg::IdtrBase).map(|base| machine::gates(run.memory, mode, root, base, VECTORS));
    let mut slides = machine::slides(&table.gates, &gates.unwrap_or_default());
    if !slides.contains(&0) {
        slides.push(0);
    }
    slides
}
