//! Pages that the kernel shows to its processes: the kernel's own address of each.
//!
//! What such a page holds (Linux's vvar page, which the vDSO reads; Windows' shared user data) is
//! the target's own, so a program holds only the kernel's address of the frame.
//!
//! What counts is the frame: whether the process may execute its page says nothing, for page
//! tables of two levels cannot tell. Nor does it matter whether the recorded code read it as the
//! kernel: all of the kernel's code is searched for what it names.
//!
//! Three cases are recognised. The frame has at least two supervisor mappings, mostly one of them
//! in the mapping of all memory, and the kernel's code names an address on the one nearest to it.
//! The name is required because ordinary memory behind the image has two mappings as well, and may
//! hold anything, the trainer's own code included. Or the mapping nearest to the code, be it the
//! only one as in 32-bit systems, is one that an instruction accesses at a constant address; an
//! immediate operand may be any number. Or the code uses an address far from itself as a constant
//! address, and the frame has only one such mapping.
//!
//! A page that the kernel reaches only through a pointer is not recognised: where that leads in
//! another boot is not known. Outputs that come from such a page depend on nothing
//! (`slicing/evidence`), and no program is made of them alone.

use machine::{GuestMemory, PAGE_SIZE, PhysAddr, VirtAddr};
use rustc_hash::FxHashSet;

use super::mappings::Mappings;

/// Pages that the kernel's code names.
#[derive(Default)]
pub struct NamedPages {
    /// Those near the code.
    pub near: FxHashSet<VirtAddr>,
    /// Of those, pages that an instruction accesses at a constant address.
    pub operands: FxHashSet<VirtAddr>,
    /// Others in the kernel's half, by constants that can only be addresses.
    pub far: FxHashSet<VirtAddr>,
}

/// Fills pages of code that are not there: each byte is an instruction of its own.
const BREAKPOINT: u8 = 0xcc;

impl NamedPages {
    /// The pages of which the kernel's instructions name an address.
    #[must_use]
    pub fn of(mappings: &Mappings<'_>) -> Self {
        let mode = mappings.lift_mode();
        let mut named = Self::default();
        mappings.walk_code(&mut |mapping| {
            let mut code = Vec::new();
            for at in (0..mapping.size).step_by(PAGE_SIZE as usize) {
                match mappings.memory.page(mapping.paddr.add(at)) {
                    Ok(page) if *page != [0; PAGE_SIZE as usize] => code.extend_from_slice(page),
                    _ => code.resize(code.len() + PAGE_SIZE as usize, BREAKPOINT),
                }
            }
            lift::names(mode, mapping.vaddr.0, &code, &mut |address| {
                if mappings.is_near_code(VirtAddr(address)) {
                    named.near.insert(VirtAddr(address).page());
                }
            });
            let known_code = code.chunks(PAGE_SIZE as usize).zip((mapping.vaddr.0..).step_by(4096));
            for (page, at) in known_code.filter(|&(_, at)| mappings.is_code(VirtAddr(at))) {
                lift::operands(mode, at, page, &mut |address| {
                    if mappings.is_near_code(VirtAddr(address)) {
                        named.operands.insert(VirtAddr(address).page());
                    }
                });
            }
            lift::absolutes(mode, mapping.vaddr.0, &code, &mut |address| {
                let address = VirtAddr(address);
                if !mappings.is_near_code(address) && !mappings.is_in_user_half(address) {
                    named.far.insert(address.page());
                }
            });
        });
        named
    }
}

/// The kernel's own address of a frame that it shows to processes, where there is one; `named`
/// gives the pages that its code names.
#[must_use]
pub fn kernel_alias<'n>(
    mappings: &Mappings<'_>,
    frame: PhysAddr,
    named: impl FnOnce() -> &'n NamedPages,
) -> Option<VirtAddr> {
    let aliases: Vec<VirtAddr> = mappings
        .supervisor
        .iter()
        .filter(|it| frame.0.wrapping_sub(it.frame.0) < it.size)
        .map(|it| it.vaddr.add(frame.0 - it.frame.0))
        .collect();
    let nearest = aliases.iter().copied().min_by_key(|&alias| mappings.distance_to_code(alias))?;
    let named = named();
    let accessed = named.operands.contains(&nearest.page());
    if accessed || aliases.len() > 1 && named.near.contains(&nearest.page()) {
        return Some(nearest);
    }
    let mut far = aliases.into_iter().filter(|alias| named.far.contains(&alias.page()));
    far.next().filter(|_| far.next().is_none())
}
