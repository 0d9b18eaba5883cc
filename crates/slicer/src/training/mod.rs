//! The training system: its memory and code at the begin mark, and what a program has to know of it
//! beyond the slice.
//!
//! [`start`] is where programs begin. [`mappings`] and [`address_space`] are the system's memory at
//! the begin mark, [`shared_page`] what of it processes see, [`process_pages`] what a program holds
//! of the process. [`relocation`] learns what moves from boot to boot, [`clock`] where the kernel
//! keeps the last time stamp, [`execution_context`] the cells by which code finds out in whose
//! context it runs, [`levels`] those that code puts back, [`context_cells`] both as several
//! recordings show them together, [`whole_context`] whether they are all, [`signature`] the words
//! by which per-CPU memory is recognised, `shared_code` whether several recordings can share a copy
//! of the system's code, and [`integrity`] what a search for tampering compares
//! beside the code. None of them slices.

pub mod address_space;
pub mod clock;
pub mod context_cells;
pub mod execution_context;
mod extents;
pub mod fixups;
pub mod images;
pub mod integrity;
pub mod levels;
pub mod mappings;
pub mod process_pages;
pub mod process_word;
pub mod relocation;
mod shared_code;
pub mod shared_page;
pub mod signature;
pub mod start;
pub mod switches;
mod tables;
pub mod whole_context;
