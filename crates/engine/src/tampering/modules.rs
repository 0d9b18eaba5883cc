//! Finds modules in a target, wherever they lie, by their code.
//!
//! What instructions name moves with modules and differs from boot to boot; what they do does not.
//! So the bytes of operands are left out when places are compared, and nine tenths of the others
//! must be the same. What the operands name is compared afterwards, like all code.

use machine::paging;
use machine::{PhysAddr, VirtAddr};

use super::comparison::Comparison;

/// The fewest bytes by which a module is recognised.
const FEWEST: usize = 24;

/// A module's code.
struct Module {
    /// Where its image begins, by training.
    start: u64,
    /// Its pages: distance from the start, bytes, and which of them tell whose code it is.
    pages: Vec<(u64, Vec<u8>, Vec<bool>)>,
}

impl Module {
    /// How many bytes of a page are the target's, and how many there are.
    fn page((_, mine, telling): &(u64, Vec<u8>, Vec<bool>), found: &[u8]) -> (usize, usize) {
        let telling = mine.iter().zip(found).zip(telling).filter(|it| *it.1);
        telling.fold((0, 0), |(equal, all), ((mine, found), _)| (equal + usize::from(mine == found), all + 1))
    }
}

/// Whether so many of all bytes are enough.
const fn is_same(equal: usize, all: usize) -> bool {
    all >= FEWEST && equal * 10 >= all * 9
}

impl Comparison<'_> {
    /// Finds all images but the kernel's own.
    pub(super) fn find_modules(&mut self, mode: lift::Mode) {
        // The first is the kernel's: the program has found it.
        for image in 1..self.relocation.table().images.len() {
            // Code that is not found so counts as the target's, of which training has no copy.
            if self.relocation.is_late() {
                return;
            }
            let module = self.module(image, mode);
            let slide = if self.is_at(&module, 0) { Some(0) } else { self.elsewhere(&module) };
            self.relocation.place(image, slide);
        }
    }

    fn module(&self, image: usize, mode: lift::Mode) -> Module {
        let image = self.relocation.table().images[image];
        let (mut pages, mut into) = (Vec::new(), 0);
        for (address, bytes) in self.system.pages_in(image.start..image.end) {
            let (telling, next) = telling(mode, bytes, into);
            into = next;
            pages.push((address - image.start, bytes.to_vec(), telling));
        }
        Module { start: image.start, pages }
    }

    /// Whether the target has a module at this slide.
    fn is_at(&self, module: &Module, slide: u64) -> bool {
        let (mut equal, mut all) = (0, 0);
        for page in &module.pages {
            let address = VirtAddr(module.start.wrapping_add(page.0).wrapping_add(slide));
            let found =
                paging::translate(self.memory, self.relocation.mode(), self.relocation.root(), address);
            let found =
                found.ok().filter(|it| !it.user).and_then(|it| self.memory.page(it.paddr.page()).ok());
            let (same, of) = found.map_or_else(
                || (0, page.2.iter().filter(|it| **it).count()),
                |found| Module::page(page, found),
            );
            equal += same;
            all += of;
        }
        is_same(equal, all)
    }

    /// The slide of a module that is not where training had it.
    fn elsewhere(&self, module: &Module) -> Option<u64> {
        let first = module.pages.iter().find(|page| page.2.iter().filter(|it| **it).count() >= FEWEST)?;
        let begin: Vec<usize> = (0..first.1.len()).filter(|at| first.2[*at]).take(FEWEST).collect();
        let looks = |frame: u64| {
            self.memory.page(PhysAddr(frame)).is_ok_and(|found| {
                // Most pages are something else from the beginning.
                let equal = begin.iter().filter(|at| found[**at] == first.1[**at]).count();
                if equal * 2 < begin.len() {
                    return false;
                }
                let (equal, all) = Module::page(first, found);
                is_same(equal, all)
            })
        };
        // A target may have any number of pages that look like it.
        let pages = self.code.pages().iter().take_while(|_| !self.relocation.is_late());
        let candidates = pages.filter(|(_, frame)| looks(*frame));
        let mut slides = candidates.map(|(at, _)| at.wrapping_sub(module.start.wrapping_add(first.0)));
        slides.find(|&slide| self.is_at(module, slide))
    }
}

/// Which bytes of a page of code tell whose it is: those of instructions that are no operands and
/// no filling. The first `into` bytes belong to an instruction of the page before; the second
/// result is how many bytes of the next page belong to the last one here.
fn telling(mode: lift::Mode, bytes: &[u8], into: usize) -> (Vec<bool>, usize) {
    let mut telling: Vec<bool> = bytes.iter().map(|byte| !lift::is_padding(*byte)).collect();
    let mut at = into.min(bytes.len());
    telling[..at].fill(false);
    while at < bytes.len() {
        let Some((len, operands)) = lift::layout(mode, &bytes[at..]) else {
            // No instruction, or one that goes on in the next page, which is not known here.
            let rest = bytes.len() - at;
            if rest < 15 {
                telling[at..].fill(false);
                return (telling, 0);
            }
            at += 1;
            continue;
        };
        for (offset, size) in operands.into_iter().filter(|(_, size)| *size >= 4) {
            telling[at + offset..at + offset + usize::from(size)].fill(false);
        }
        // A no-operation of five bytes may become a call: neither tells anything.
        let nothing = bytes[at..at + len] == [0x0f, 0x1f, 0x44, 0x00, 0x00];
        if nothing || len == 5 && matches!(bytes[at], 0xe8 | 0xe9) {
            telling[at..at + len].fill(false);
        }
        at += len;
    }
    (telling, at - bytes.len())
}
