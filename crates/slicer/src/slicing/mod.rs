//! The closed backward slice, and the unexecuted paths that it is completed by.
//!
//! [`search`] finds the slice by a search over the dependence graph, [`guards`] the one-sided
//! branches that it must guard, [`completion`] unexecuted paths that can be treated like executed
//! ones. They take turns until nothing new joins. [`evidence`] says what each output depends on.
//! How a slice is written down is for emission.

pub mod completion;
pub mod detour;
pub mod elsewhere;
pub mod evidence;
pub mod guards;
pub mod parameters;
pub mod search;
pub mod slice;

pub use slice::Slice;

use crate::analysis::cfg::CfgInput;
use crate::context::Contexts;
use crate::dependence::Graph;
use crate::vocabulary::{CodeSource, CodeTable, Policy, Table};

/// How often a slice is completed and searched again. What is left after that stays unexplored,
/// which a run reports.
const MAX_ROUNDS: usize = 8;

/// The slice under a policy. Under [`Policy::Guard`] it is completed: the paths are added to graph
/// and code table.
#[must_use]
pub fn slice(
    graph: &mut Graph,
    code: &mut CodeTable,
    contexts: &Contexts,
    source: &dyn CodeSource,
    policy: Policy,
) -> Slice {
    let cfgs = graph.contexts.ids().map(|_| None).collect();
    let unseen = (policy != Policy::Assume).then_some(source);
    let mut slice = search::search(&CfgInput { graph, code, contexts, source: unseen }, policy, cfgs);
    if policy != Policy::Guard {
        return slice;
    }
    let parameters = parameters::Parameters::of(graph, code);
    // Added paths may bring branches of their own into the slice.
    for _ in 0..MAX_ROUNDS {
        let changed = completion::complete(graph, code, contexts, source, (&slice, &parameters));
        if changed.is_empty() {
            break;
        }
        let mut cfgs: Table<_, _> = slice.cfgs;
        for context in changed {
            cfgs[context] = None;
        }
        slice = search::search(&CfgInput { graph, code, contexts, source: unseen }, policy, cfgs);
    }
    slice
}
