//! What each output depends on: the target, or only what the program brings along.
//!
//! A program whose answer is the same for every target is no introspection, however well slice and
//! whole run agree on it: a library may have kept the answer from before the begin mark, or read it
//! from a page that was not recognised as the system's. So each output's own part of the slice is
//! searched for what no operation of the recording defined: memory and registers of the system,
//! counters, devices, inputs.
//!
//! A decision counts like data: which error code is answered may depend on the target though each
//! of them is a constant. What decides whether the end mark is reached at all does not count.
//!
//! ```text
//! evidence(output) = union over o in part(criteria(output)) of given(o)
//! ```
//!
//! One search for each output.

use std::collections::BTreeSet;

use ir::{Class, Kind};
use machine::VirtAddr;
use rustc_hash::FxHashMap;

use super::search::part;
use super::slice::Slice;
use crate::analysis::cfg::CfgInput;
use crate::dependence::graph::Given;
use crate::vocabulary::{OpId, Policy};

/// Something that an output depends on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Evidence {
    /// What no operation of the recording defined.
    Given(Given),
    /// A counter of the processor.
    Counter,
}

/// By output, what it depends on; `is_user` tells the process's pages.
#[must_use]
pub fn of_outputs(
    program: &CfgInput<'_>,
    policy: Policy,
    is_user: &dyn Fn(VirtAddr) -> bool,
    slice: &mut Slice,
) -> Vec<BTreeSet<Evidence>> {
    let mut given: FxHashMap<OpId, Vec<Given>> = FxHashMap::default();
    for &(op, what) in &program.graph.given {
        given.entry(op).or_default().push(what);
    }
    let adjacency = program.graph.adjacency();
    let outputs = program.graph.outputs.iter().map(|criteria| {
        let part = part(program, &adjacency, policy, slice, criteria.iter().copied());
        let ops = program.graph.op_site.ids().filter(|&op| part.contains(op));
        ops.flat_map(|op| {
            let known = given.get(&op).into_iter().flatten().copied().map(Evidence::Given);
            known.chain(by_kind(program, is_user, op)).collect::<Vec<_>>()
        })
        .collect()
    });
    outputs.collect()
}

/// What an operation's kind alone tells. A load that completion added reads the system's memory if
/// the system's code makes it; where one of the process's own code reads is not known.
fn by_kind(program: &CfgInput<'_>, is_user: &dyn Fn(VirtAddr) -> bool, op: OpId) -> Option<Evidence> {
    let graph = program.graph;
    let site = graph.op_site[op];
    let it = &graph.ops(program.code, site)[graph.sites[site].index_of(op)];
    match it.kind {
        Kind::Tsc | Kind::Rdpmc => Some(Evidence::Counter),
        Kind::Rdmsr => Some(Evidence::Given(Given::Register)),
        Kind::Load if !graph.executed[op] => {
            let pc = graph.code(program.code, site)?.pc();
            (!is_user(pc.page())).then_some(Evidence::Given(Given::Memory))
        }
        kind if kind.class() == Class::Nondet => Some(Evidence::Given(Given::Device)),
        _ => None,
    }
}
