//! The machine a guest runs on: addresses as types, the register file, paging, guest memory and the
//! files a guest's memory comes in.
//!
//! Nothing here executes code or knows of traces, of the IR or of QEMU's plugin interface.

#![deny(unsafe_code)]

pub mod addr;
pub mod descriptor;
pub mod firmware;
mod gates;
pub mod hash;
mod map;
pub mod memory;
pub mod paging;
pub mod reg;
pub mod target;

pub use addr::{PAGE_SIZE, PhysAddr, VirtAddr};
pub use gates::{gates, handler, slides, trap_handlers};
pub use memory::{GuestMemory, MemoryError, Page};
pub use paging::{PagingMode, Translation, translate};
pub use reg::{EFER_LMA, PROCESS_REGS, Reg, RegFile};
pub use target::{Cpu, Target, TargetError, TargetOptions};
