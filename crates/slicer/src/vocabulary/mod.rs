//! What all stages of the slicer share: ids, sets of registers, distinct instructions, options.
//!
//! Plain data without an algorithm of its own. Nothing here knows of traces, graphs or programs
//! under construction, so that every stage may depend on it and it depends on none.

pub mod allocator;
pub mod code;
pub mod ids;
pub mod options;
pub mod registers;
pub mod table;

pub use code::{Code, CodeSource, CodeTable};
pub use ids::{ContextId, Id, ImageId, InsnId, NodeId, OpId, RetainedId, SiteId, StepId};
pub use options::{BuildOptions, Policy};
pub use registers::{GENERAL, RESULT, RegisterSet, RegisterValues, STACK_POINTER, Temporaries};
pub use table::{IdSet, Table};
