//! The dependence graph as text: the input form of file tests.
//!
//! ```text
//! context c0 entry 0x1000
//!   site 0x1000+4
//!     rax = load.64 rdi ; local -8; uses c0:0x0ffc.1
//!     next 0x1004
//! ```
//!
//! An operation that belongs to a slice has a star before it. File tests read all of this but the
//! notes `completed store`, `foreign` and `device`.

use std::fmt::Write as _;

use super::contexts;
use super::names::{Names, print_op};
use crate::context::Contexts;
use crate::dependence::Locals;
use crate::dependence::graph::Adjacency;
use crate::slicing::Slice;
use crate::vocabulary::{OpId, SiteId};

/// All contexts; only those of the slice, if one is given.
#[must_use]
pub fn text(names: &Names<'_>, known: &Contexts, slice: Option<&Slice>) -> String {
    let mut text = String::new();
    let adjacency = names.graph.adjacency();
    for (id, context) in names.graph.contexts.iter() {
        if slice.is_some_and(|slice| !slice.contexts.contains(id)) {
            continue;
        }
        let _ = writeln!(text, "{}", contexts::line(known, id, context));
        for &it in &context.sites {
            site(&mut text, names, &adjacency, it, slice);
        }
    }
    text
}

fn site(text: &mut String, names: &Names<'_>, adjacency: &Adjacency, site: SiteId, slice: Option<&Slice>) {
    let length = names.graph.code(names.code, site).map_or(0, |code| code.insn.len);
    let _ = writeln!(text, "  site {}+{length}", names.pc(site));
    for (at, op) in names.operations(site).iter().enumerate() {
        let number = names.graph.sites[site].op(at);
        let star = if slice.is_some_and(|slice| slice.ops.contains(number)) { "* " } else { "" };
        let notes = notes(names, adjacency, number);
        let _ = write!(text, "    {star}{}", print_op(op));
        let _ = writeln!(text, "{}{}", if notes.is_empty() { "" } else { " ; " }, notes.join("; "));
    }
    flow(text, names, site);
}

/// What is known of an operation beside what it does.
fn notes(names: &Names<'_>, adjacency: &Adjacency, op: OpId) -> Vec<String> {
    let graph = names.graph;
    let mut notes = Vec::new();
    match graph.locals.get(&op) {
        Some(Locals::At(distance)) => notes.push(format!("local {distance}")),
        Some(Locals::Varying) | None => {}
    }
    let flags = [
        (!graph.executed[op], "not executed"),
        (graph.criteria.contains(&op), "criterion"),
        (graph.unexecuted_stores.contains(&op), "completed store"),
        (graph.foreign.contains_key(&op), "foreign"),
        (graph.devices.contains(&op), "device"),
    ];
    notes.extend(flags.iter().filter(|flag| flag.0).map(|flag| flag.1.to_owned()));
    if !adjacency.of(op).is_empty() {
        notes.push(format!("uses {}", names.ops(adjacency.of(op).iter().copied())));
    }
    notes
}

/// Where control was seen to go from a site.
fn flow(text: &mut String, names: &Names<'_>, site: SiteId) {
    let flow = &names.graph.flow[site];
    if !flow.next.is_empty() {
        let next: Vec<String> = flow.next.iter().map(|&next| names.pc(next)).collect();
        let _ = writeln!(text, "    next {}", next.join(" "));
    }
    for (pc, callee) in &flow.calls {
        let _ = writeln!(text, "    calls {pc:#x} as {callee}");
    }
    for (pc, tail) in &flow.tails {
        let _ = writeln!(text, "    goes on at {pc:#x} as {tail}");
    }
    if flow.returns {
        text.push_str("    returns\n");
    }
    if let Some(end) = names.graph.end.filter(|end| end.site == site) {
        let _ = writeln!(text, "    ends at {:#x}", end.pc);
    }
}
