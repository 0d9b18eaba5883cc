//! Whose work each retained step is: calls, calling contexts, and what functions give back.
//!
//! A shadow stack rebuilds calls from the trace ([`shadow_stack`]); what all recordings say of
//! entries and calls is learned first ([`entries`]), then each step is assigned to a function in
//! its calling context ([`contexts`]). [`walk`](mod@walk) is the loop over a recording that the
//! analyses observe, [`callee_saved`] the first of them. Which operation depends on which is the
//! next stage's question.

pub mod callee_saved;
pub mod contexts;
pub mod entries;
pub mod shadow_stack;
pub mod walk;

pub use callee_saved::Convention;
pub use contexts::{ContextPath, Contexts, Transition};
pub use entries::Entries;
