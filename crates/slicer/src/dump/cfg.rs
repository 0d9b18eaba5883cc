//! Control-flow graphs as text.
//!
//! A line for each node: where it may go, its immediate post-dominator (`then`), and for a site the
//! branches that it is control dependent on (`if`). Unseen nodes have numbers for names, for
//! several may have been merged.

use std::fmt::Write as _;

use super::names::{Names, registers};
use crate::analysis::address_shape::{AddressBase, AddressShape};
use crate::analysis::cfg::Cfg;
use crate::analysis::node::Node;
use crate::vocabulary::{ContextId, NodeId};

/// The graph of one context.
#[must_use]
pub fn text(names: &Names<'_>, context: ContextId, cfg: &Cfg) -> String {
    let mut text = format!("cfg {context}\n");
    for (id, node) in cfg.nodes.iter().skip(1) {
        let next: Vec<String> = cfg.next[id].iter().map(|&next| name(names, cfg, next)).collect();
        let (own, ipdom) = (name(names, cfg, id), name(names, cfg, cfg.ipdom[id]));
        let _ = write!(text, "  {own} -> {}, then {ipdom}", next.join(" "));
        match node {
            Node::Site(site) => {
                if let Some(branches) = cfg.controls.get(site) {
                    let mut branches: Vec<String> = branches.iter().map(|&it| names.pc(it)).collect();
                    branches.sort_unstable();
                    branches.dedup();
                    let _ = write!(text, ", if {}", branches.join(" "));
                }
            }
            Node::Unseen(unseen) => {
                let defines = registers(&unseen.defines);
                if !defines.is_empty() {
                    let _ = write!(text, ", defines {defines}");
                }
                for store in &unseen.stores {
                    let _ = write!(text, ", stores {}", shape(store));
                }
                if let Some(callee) = unseen.calls {
                    let _ = write!(text, ", calls {callee:#x}");
                }
            }
            Node::Exit => {}
        }
        text.push('\n');
    }
    text
}

/// A node by its address or number.
#[must_use]
pub fn name(names: &Names<'_>, cfg: &Cfg, node: NodeId) -> String {
    match &cfg.nodes[node] {
        Node::Exit => "exit".to_owned(),
        Node::Site(site) => names.pc(*site),
        Node::Unseen(_) => format!("unseen-{node}"),
    }
}

/// The shape of an address: size and base.
#[must_use]
pub fn shape(shape: &AddressShape) -> String {
    match shape.base {
        AddressBase::Fixed(address) => format!("{} bytes at {address:#x}", shape.size),
        AddressBase::Member(distance) => {
            format!("{} bytes at pointer{:+#x}", shape.size, distance.cast_signed())
        }
        AddressBase::Local(Some(distance)) => format!("{} bytes of a local at stack{distance:+}", shape.size),
        AddressBase::Local(None) => format!("{} bytes of a local", shape.size),
    }
}
