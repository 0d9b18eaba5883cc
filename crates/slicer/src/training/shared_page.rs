//! Pages that the kernel shows to its processes: where the kernel itself has them.
//!
//! By their content such pages (Linux's vvar page, which the vDSO reads; Windows' shared user data)
//! are the target's, so a program holds only the kernel's own address of the frame.
//!
//! Near the kernel's code: the frame is mapped for the kernel in two ways at least (every frame has
//! one in a kernel that maps all memory). Of these the nearest to the kernel's code is its own, if
//! that code names it: memory behind the image may have such an address too, and hold anything, the
//! process's program among it. Elsewhere: the one address that the code uses as such.

use machine::{GuestMemory, PAGE_SIZE, PhysAddr, VirtAddr};
use rustc_hash::FxHashSet;

use super::mappings::Mappings;

/// Pages that the kernel's code names.
#[derive(Default)]
pub struct NamedPages {
    /// Those near it.
    pub near: FxHashSet<VirtAddr>,
    /// Others in the kernel's half, by constants that can only be addresses.
    pub far: FxHashSet<VirtAddr>,
}

/// What fills pages of code that are not there: each byte is an instruction of its own.
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
    if aliases.len() > 1 && named.near.contains(&nearest.page()) {
        return Some(nearest);
    }
    let mut far = aliases.into_iter().filter(|alias| named.far.contains(&alias.page()));
    far.next().filter(|_| far.next().is_none())
}
