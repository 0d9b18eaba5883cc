//! The clock of many PCs: the high precision event timer (IA-PC HPET Specification 1.0a).
//!
//! Where it lies, and which of its registers is its counter. What that shows no dump holds
//! (`counter`); its other registers set alarms, and are refused like any device's.

use machine::{PhysAddr, VirtAddr};

use crate::overlay::Fault;

/// Where PCs have it (section 3.2.4 of its specification, and every chipset since).
const BASE: PhysAddr = PhysAddr(0xfed0_0000);
/// Where it has its main counter, from its first register on (section 2.3.1).
const MAIN_COUNTER: u64 = 0xf0;

/// Whether an access met it.
pub(crate) fn is_it(fault: &Fault) -> bool {
    matches!(fault, Fault::Device(page) if *page == BASE)
}

/// Whether an access to an address met its main counter.
#[cold]
pub(crate) fn is_main_counter(address: VirtAddr, fault: &Fault) -> bool {
    is_it(fault) && address.offset() == MAIN_COUNTER
}
