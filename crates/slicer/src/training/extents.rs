//! How far the images of the training system reach beyond the code that training saw.
//!
//! The kernel's image is followed by its data, and in systems of 32 bits by all other memory; a
//! module has an allocation of its own. Read-only data of either is compared in a target, and must
//! not be the other's.

use ir::integrity::Extent;
use ir::relocation::Image;
use machine::paging::Mapping;

use super::tables::Frames;

/// The most bytes that are mapped around an image and belong to it; more is a mapping of memory in
/// which the image lies.
const REACH: u64 = 16 << 20;

/// How far each image reaches: the kernel's own, beside what its code names, over what nobody may
/// write, neither here nor in the other boot (`written`), and is no module's by another address; a
/// module over all that is mapped around it.
pub fn extents(images: &[Image], all: &[Mapping], written: &dyn Fn(u64) -> bool) -> Vec<Extent> {
    let Some((home, modules)) = images.split_first() else { return Vec::new() };
    let near = |own: &Image, it: &Extent| {
        it.start >= own.start.saturating_sub(REACH) && it.end <= own.end.saturating_add(REACH)
    };
    let grown = |own: &Image, runs: &mut dyn Iterator<Item = &Extent>| {
        runs.fold(Extent { start: own.start, end: own.end }, |extent, it| {
            let wider = Extent { start: extent.start.min(it.start), end: extent.end.max(it.end) };
            if near(own, &wider) { wider } else { extent }
        })
    };
    let touches = |own: &Image, it: &Extent| it.start < own.end && own.start < it.end;
    let anything = runs(all.iter());
    let of_module = |own: &Image| {
        grown(own, &mut anything.iter().filter(|it| touches(own, it) && it.end - it.start <= REACH))
    };
    let modules: Vec<Extent> = modules.iter().map(of_module).collect();
    let theirs = frames_in(all, &modules);
    let read_only = runs(all.iter().filter(|it| {
        let is_theirs = !within(it, &modules) && theirs.overlap(it.paddr.0, it.size);
        !it.writable && !written(it.vaddr.0) && !is_theirs
    }));
    // What was freed between the kernel's code and its data leaves a gap.
    let beside = |it: &Extent| home.end <= it.start && it.start - home.end <= REACH;
    let mut own = read_only.iter().filter(|it| touches(home, it) || beside(it));
    [grown(home, &mut own)].into_iter().chain(modules.iter().copied()).collect()
}

/// Mappings one behind the other, joined.
fn runs<'m>(mappings: impl Iterator<Item = &'m Mapping>) -> Vec<Extent> {
    let mut runs: Vec<Extent> = Vec::new();
    for it in mappings {
        let (start, end) = (it.vaddr.0, it.vaddr.0.saturating_add(it.size));
        match runs.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => runs.push(Extent { start, end }),
        }
    }
    runs
}

/// The frames that are mapped in extents.
pub fn frames_in(all: &[Mapping], extents: &[Extent]) -> Frames {
    Frames::of(all.iter().filter(|it| within(it, extents)))
}

/// Whether a mapping begins in one of the extents.
fn within(mapping: &Mapping, extents: &[Extent]) -> bool {
    extents.iter().any(|it| it.start <= mapping.vaddr.0 && mapping.vaddr.0 < it.end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::tables::tests::mapping;

    /// Where all memory is mapped behind the kernel, a page of something else is read-only there.
    #[test]
    fn the_kernel_reaches_over_what_neither_boot_writes() {
        const KERNEL: u64 = 0xc100_0000;
        let image = Image { start: KERNEL, end: KERNEL + 0x2000, movable: true };
        let all = [
            mapping(KERNEL, 0x100_0000, 0x4000, false),
            mapping(KERNEL + 0x4000, 0x100_4000, 0x1000, true),
            mapping(KERNEL + 0x5000, 0x100_5000, 0x1000, false),
        ];
        let end = |written: &dyn Fn(u64) -> bool| extents(&[image], &all, written)[0].end - KERNEL;
        assert_eq!(end(&|_| false), 0x6000);
        assert_eq!(end(&|address| address == KERNEL + 0x5000), 0x4000);
    }

    /// Both boots may have a module's page there, by chance: its other address says whose it is.
    #[test]
    fn what_a_module_has_by_another_address_is_not_the_kernels() {
        const KERNEL: u64 = 0xc100_0000;
        const MODULE: u64 = 0xf800_0000;
        let kernel = Image { start: KERNEL, end: KERNEL + 0x2000, movable: true };
        let module = Image { start: MODULE, end: MODULE + 0x1000, movable: true };
        let all = [
            mapping(KERNEL, 0x100_0000, 0x4000, false),
            mapping(KERNEL + 0x9000, 0x100_9000, 0x1000, false),
            mapping(MODULE, 0x100_8000, 0x1000, false),
            mapping(MODULE + 0x1000, 0x100_9000, 0x1000, false),
        ];
        let extents = extents(&[kernel, module], &all, &|_| false);
        let bounds: Vec<(u64, u64)> = extents.iter().map(|it| (it.start, it.end)).collect();
        assert_eq!(bounds, [(KERNEL, KERNEL + 0x4000), (MODULE, MODULE + 0x2000)]);
    }
}
