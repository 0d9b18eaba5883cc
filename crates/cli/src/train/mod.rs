//! A pack from a kernel image: two guests, what they record, programs, and their answers about the
//! second guest.
//!
//! The first guest gives the programs their paths. The second is another boot of the same kernel:
//! it lies elsewhere, on a larger model of processor with deeper page tables, with more processes,
//! and its modules were loaded in another order. It tells what moves, and its trainers' own answers
//! are what the programs' are compared with. How guests are booted is in [`guest`], where their
//! kernel comes from in [`source`], the comparison in [`verify`]. In [`search`] the second guest is
//! searched for changes about which slice and whole run differ. This is the only part that knows of
//! Linux; other systems are recorded with `virtuoso record` and built with `virtuoso build`.

pub mod boots;
pub mod builtin;
pub mod guest;
pub mod jobs;
pub mod modules;
pub mod package;
pub mod program;
pub mod row;
pub mod search;
pub mod source;
pub mod traces;
pub mod verify;
