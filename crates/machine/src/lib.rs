//! The machine a guest runs on: addresses as types, the register file, paging, guest memory and the
//! files a guest's memory comes in.
//!
//! Nothing here executes code or knows of traces, of the IR or of QEMU's plugin interface.

pub mod addr;
pub mod reg;

pub use addr::{PAGE_SIZE, PhysAddr, VirtAddr};
pub use reg::{Reg, RegFile};
