//! What CR3 says of whose page tables are in use, whatever the paging mode.
//!
//! CR3 has flags, a process-context number and more beside the address (SDM vol. 3 tables 4-3, 4-7
//! and 4-12), so its images are not to be compared as they are. A root of PAE is 32 bytes long and
//! several may lie in a page; then [`PagingMode::root`](super::PagingMode::root) tells them apart.

use crate::addr::PhysAddr;

/// The address bits of CR3 down to pages.
const PAGE: u64 = 0x000f_ffff_ffff_f000;
/// A system that hides itself from its processes has two roots for each, in a pair of pages: one
/// for the process, and one with all of the system's mappings too.
const PAIR: u64 = 0x1000;

/// The page that the root of the page tables lies in.
#[must_use]
pub const fn root_page(cr3: u64) -> PhysAddr {
    PhysAddr(cr3 & PAGE)
}

/// Something that is the same for both roots of a process, and another for the roots of others in
/// such a system. Where processes have one root each, two processes may have it in common, if their
/// roots lie in one pair of pages.
#[must_use]
pub const fn address_space(cr3: u64) -> u64 {
    cr3 & PAGE & !PAIR
}

/// The image of CR3 with the other root of the pair. Whether there are page tables, only reading
/// them shows.
#[must_use]
pub const fn beside(cr3: u64) -> u64 {
    cr3 ^ PAIR
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_context_numbers_say_nothing() {
        // A PCID, bit 63 (no flush), LAM and the write-through flag.
        for extra in [0x7ff, 1 << 63, 3 << 61, 8] {
            assert_eq!(root_page(0x1_2345_6000 | extra), PhysAddr(0x1_2345_6000));
            assert_eq!(address_space(0x1_2345_6000 | extra), 0x1_2345_6000);
        }
    }

    #[test]
    fn both_roots_of_a_pair_are_one_address_space() {
        assert_eq!(address_space(0x7000), address_space(0x6000));
        assert_ne!(address_space(0x7000), address_space(0x8000));
        assert_eq!((beside(0x6018), beside(0x7018)), (0x7018, 0x6018));
        assert_ne!(root_page(0x7000), root_page(0x6000));
    }
}
