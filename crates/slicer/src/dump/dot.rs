//! Graphs in the language of Graphviz (`dot -Tsvg`).

use std::fmt::Write as _;

use super::cfg::name;
use super::names::{Names, print_op};
use crate::analysis::cfg::Cfg;
use crate::analysis::node::Node;
use crate::context::Contexts;
use crate::slicing::Slice;
use crate::vocabulary::{ContextId, Id, OpId};

/// Text as a quoted string.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\l"))
}

/// The tree of calling contexts.
#[must_use]
pub fn contexts(contexts: &Contexts) -> String {
    let mut text = "digraph contexts {\n  node [shape=box, fontname=monospace];\n".to_owned();
    for id in (0..contexts.len()).map(ContextId::new) {
        let key = contexts.key(id);
        let _ = writeln!(text, "  {id} [label={}];", quoted(&format!("{id} {:#x}", key.entry)));
        if let (Some(parent), Some(call)) = (key.parent, key.call) {
            let _ = writeln!(text, "  {parent} -> {id} [label={}];", quoted(&format!("{call:#x}")));
        }
    }
    text + "}\n"
}

/// Operations and what they depend on: all, or those of a slice.
#[must_use]
pub fn dependences(names: &Names<'_>, slice: Option<&Slice>) -> String {
    let mut text = "digraph dependences {\n  node [shape=box, fontname=monospace];\n".to_owned();
    let adjacency = names.graph.adjacency();
    let shown = |op: OpId| slice.is_none_or(|slice| slice.ops.contains(op));
    for op in names.graph.op_site.ids().filter(|&op| shown(op)) {
        let site = names.graph.op_site[op];
        let operation = &names.operations(site)[names.graph.sites[site].index_of(op)];
        let label = format!("{}\n{}", names.op(op), print_op(operation));
        let _ = writeln!(text, "  {op} [label={}];", quoted(&label));
        for definer in adjacency.of(op).iter().filter(|&&definer| shown(definer)) {
            let _ = writeln!(text, "  {op} -> {definer};");
        }
    }
    text + "}\n"
}

/// A context's control flow; unseen code is dashed, post-dominators are dotted.
#[must_use]
pub fn cfg(names: &Names<'_>, context: ContextId, cfg: &Cfg) -> String {
    let mut text = format!("digraph {context} {{\n  node [shape=box, fontname=monospace];\n");
    for (id, node) in cfg.nodes.iter() {
        let style = if matches!(node, Node::Unseen(_)) { ", style=dashed" } else { "" };
        let label = match node {
            Node::Site(site) => {
                let ops: Vec<String> = names.operations(*site).iter().map(print_op).collect();
                format!("{}\n{}\n", names.pc(*site), ops.join("\n"))
            }
            Node::Exit | Node::Unseen(_) => name(names, cfg, id),
        };
        let _ = writeln!(text, "  {id} [label={}{style}];", quoted(&label));
        for next in &cfg.next[id] {
            let _ = writeln!(text, "  {id} -> {next};");
        }
        if id != Cfg::exit() {
            let _ = writeln!(text, "  {id} -> {} [style=dotted, constraint=false];", cfg.ipdom[id]);
        }
    }
    text + "}\n"
}
