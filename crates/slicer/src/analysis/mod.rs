//! Analyses over the dependence graph's control flow, executed and not.
//!
//! Each states its equations: lattice, direction, transfer, termination and cost; [`solver`] does
//! the iterating for all of them. [`mod@cfg`] makes a context's control-flow graph with the code
//! that nobody executed ([`unseen`]), joins what does the same ([`tail_merging`]), and finds
//! [`post_dominators`] and [`control_dependence`] on it. [`reaching`] and [`liveness`] follow
//! registers and locals over executed sites of all contexts, [`address_shape`] compares memory
//! operands. None of them decides what a slice is.

pub mod address_shape;
pub mod cfg;
pub mod control_dependence;
pub mod inverse;
pub mod liveness;
pub mod node;
pub mod post_dominators;
pub mod reaching;
pub mod solver;
pub mod tail_merging;
pub mod unseen;
pub mod unseen_side;
