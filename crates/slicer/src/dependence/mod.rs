//! Which operation depends on which: the static dependence graph of all recordings together.
//!
//! [`recorder`] walks each recording once, forward, and adds what it sees to the [`graph`]: data
//! dependences by last-writer tables of registers ([`variable_map`]) and of guest-physical bytes
//! ([`shadow_memory`]), those of mappings on the stores into page tables that made them
//! ([`page_tables`]), what others wrote meanwhile ([`foreign`]), and control flow between sites
//! ([`flow`], [`flow_recorder`]). Loads may also depend on stores that went to the same object
//! ([`pointers`], [`objects`]). Where the code gets a new stack is noted ([`stacks`]). What a path
//! that nobody executed would add is for the analyses.

pub mod definer;
pub mod flow;
pub mod flow_recorder;
pub mod foreign;
pub mod graph;
pub mod objects;
pub mod page_tables;
pub mod pointers;
pub mod recorder;
pub mod shadow_memory;
pub mod stacks;
pub mod variable_map;

pub use graph::{Graph, Locals};
