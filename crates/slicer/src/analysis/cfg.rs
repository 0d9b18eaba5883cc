//! A context's control-flow graph: executed sites, and the code that no recording executed.
//!
//! Whether a branch that was only ever seen going one way matters is decided on the static graph:
//! the unseen side is disassembled from the start snapshot until it meets executed code again or
//! leaves the function. A computed jump (jump tables, tail calls through pointers) may also go to
//! unknown places, which counts as leaving.

use ir::Op;
use lift::End;
use machine::VirtAddr;
use rustc_hash::{FxHashMap, FxHashSet};

use super::control_dependence::control_dependence;
use super::node::Node;
use super::post_dominators::{Edges, post_dominators};
use super::tail_merging::{self, Piece};
use super::unseen::Unseen;
use super::unseen_side::{Region, unseen_sides};
use crate::context::Contexts;
use crate::dependence::Graph;
use crate::vocabulary::{Code, CodeSource, CodeTable, ContextId, Id, NodeId, SiteId, Table};

/// The graph of one context.
pub struct Cfg {
    /// Nodes: first the end, then sites in order of discovery, then unseen instructions.
    pub nodes: Table<NodeId, Node>,
    /// Successors by node.
    pub next: Edges,
    /// Immediate post-dominator by node.
    pub ipdom: Table<NodeId, NodeId>,
    /// Node of each site.
    pub node_of: FxHashMap<SiteId, NodeId>,
    /// For each site the branch sites it is control dependent on.
    pub controls: FxHashMap<SiteId, Vec<SiteId>>,
    /// Unseen sides of branches, each with its branch site.
    pub sides: Vec<(SiteId, Region)>,
}

/// What graphs are built from.
#[derive(Clone, Copy)]
pub struct CfgInput<'p> {
    /// The dependence graph.
    pub graph: &'p Graph,
    /// The code table.
    pub code: &'p CodeTable,
    /// The contexts.
    pub contexts: &'p Contexts,
    /// Where code comes from that nobody executed; `None`: only what was executed counts.
    pub source: Option<&'p dyn CodeSource>,
}

/// The most unseen instructions looked at in one function; past it the unseen side counts as
/// leaving the function.
const MAX_UNSEEN: usize = 20_000;

/// The vector of the invalid-opcode exception, by which kernels assert (`ud2`).
const INVALID_OPCODE: u64 = 6;

impl Cfg {
    /// The node of the function's end.
    #[must_use]
    pub fn exit() -> NodeId {
        NodeId::new(0)
    }

    /// Builds the graph of a context.
    #[must_use]
    pub fn build(program: &CfgInput<'_>, context: ContextId) -> Cfg {
        let sites = &program.graph.contexts[context].sites;
        let mut builder = Builder::new(program, context);
        for &site in sites {
            builder.site(site);
        }
        while let Some((node, pc)) = builder.queue.pop() {
            builder.unseen_insn(node, pc);
        }
        builder.merge_tails();
        let Builder { nodes, mut next, node_of, .. } = builder;
        let ipdom = post_dominators(&mut next, Self::exit());
        let site_of = |node: NodeId| match nodes[node] {
            Node::Site(site) => Some(site),
            Node::Exit | Node::Unseen(_) => None,
        };
        let controls = control_dependence(&next, &ipdom, Self::exit(), &site_of);
        let sides = unseen_sides(&nodes, &next);
        Cfg { nodes, next, ipdom, node_of, controls, sides }
    }
}

struct Builder<'b> {
    program: &'b CfgInput<'b>,
    entry: VirtAddr,
    mode: lift::Mode,
    nodes: Table<NodeId, Node>,
    next: Edges,
    node_of: FxHashMap<SiteId, NodeId>,
    /// Executed and unseen nodes by address.
    executed: FxHashMap<VirtAddr, NodeId>,
    unseen: FxHashMap<VirtAddr, NodeId>,
    /// Unseen nodes that were not looked at yet.
    queue: Vec<(NodeId, VirtAddr)>,
    /// Operations of the unseen instructions.
    unseen_ops: Vec<(NodeId, Vec<Op>)>,
}

impl<'b> Builder<'b> {
    /// The end and the executed sites, without edges.
    fn new(program: &'b CfgInput<'b>, context: ContextId) -> Self {
        let mut builder = Self {
            program,
            entry: program.contexts.entry(context),
            mode: lift::Mode::Bits64,
            nodes: vec![Node::Exit].into(),
            next: vec![Vec::new()].into(),
            node_of: FxHashMap::default(),
            executed: FxHashMap::default(),
            unseen: FxHashMap::default(),
            queue: Vec::new(),
            unseen_ops: Vec::new(),
        };
        for &site in &program.graph.contexts[context].sites {
            let node = builder.add_node(Node::Site(site));
            builder.node_of.insert(site, node);
            if let Some(code) = builder.code(site) {
                builder.executed.insert(code.pc(), node);
                builder.mode = code.mode;
            }
        }
        builder
    }

    fn code(&self, site: SiteId) -> Option<&'b Code> {
        self.program.graph.code(self.program.code, site)
    }

    fn add_node(&mut self, node: Node) -> NodeId {
        self.next.push(Vec::new());
        self.nodes.push(node)
    }

    fn link(&mut self, from: NodeId, to: NodeId) {
        let next = &mut self.next[from];
        if !next.contains(&to) {
            next.push(to);
        }
    }

    /// Links a site with what was seen to follow it, and with what its instruction says may.
    fn site(&mut self, site: SiteId) {
        let node = self.node_of[&site];
        let flow = &self.program.graph.flow[site];
        let Some(code) = self.code(site) else { return self.link(node, Cfg::exit()) };
        let mut observed: FxHashSet<VirtAddr> = FxHashSet::default();
        for next in &flow.next {
            let to = self.node_of[next];
            self.link(node, to);
            observed.extend(self.code(*next).map(Code::pc));
        }
        for &(target, _) in &flow.tails {
            observed.insert(target);
            self.link(node, Cfg::exit());
        }
        if let Some(end) = self.program.graph.end.filter(|end| end.site == site) {
            // The mark is one way on; a branch before it may take another.
            observed.insert(end.pc);
            self.link(node, Cfg::exit());
        }
        if flow.returns {
            return self.link(node, Cfg::exit());
        }
        if self.program.source.is_some() {
            let pseudo = self.program.contexts.entries.is_pseudo_call(code.pc());
            self.successors(node, &code.insn, pseudo, &observed);
        } else if self.next[node].is_empty() {
            self.link(node, Cfg::exit());
        }
    }

    /// Links what the instruction itself says can follow, apart from what was observed.
    fn successors(&mut self, node: NodeId, insn: &lift::Insn, pseudo: bool, observed: &FxHashSet<VirtAddr>) {
        let control = lift::control(insn);
        for &target in &control.targets {
            self.goto(node, VirtAddr(target), observed);
        }
        let falls = match control.end {
            End::Next | End::Halt => true,
            // An assertion: a kernel that only warns goes on behind it, and so do whole runs.
            End::Trap(INVALID_OPCODE) => true,
            End::Jump(_) => false,
            End::Call(Some(target)) if pseudo => {
                self.goto(node, VirtAddr(target), observed);
                false
            }
            End::Call(_) if !pseudo => true,
            // A system may go back to a place of the process that is not behind the call.
            End::Enter => observed.is_empty(),
            // Whatever it did, it was seen to go on: it decides nothing.
            End::Trap(_) | End::Unknown if !observed.is_empty() => false,
            End::Call(_) | End::Computed | End::Return | End::Leave | End::Trap(_) | End::Unknown => {
                self.link(node, Cfg::exit());
                false
            }
        };
        if falls {
            self.goto(node, VirtAddr(control.next), observed);
        }
    }

    /// Links a node with the instruction at an address, unless that was observed to follow it and
    /// is linked already. Another function's entry is the end of this one.
    fn goto(&mut self, from: NodeId, pc: VirtAddr, observed: &FxHashSet<VirtAddr>) {
        if observed.contains(&pc) {
            return;
        }
        if self.program.contexts.entries.is_entry(pc) && pc != self.entry {
            return self.link(from, Cfg::exit());
        }
        if let Some(&to) = self.executed.get(&pc).or_else(|| self.unseen.get(&pc)) {
            return self.link(from, to);
        }
        if self.unseen.len() >= MAX_UNSEEN {
            return self.link(from, Cfg::exit());
        }
        let to = self.add_node(Node::Unseen(Unseen::default()));
        self.unseen.insert(pc, to);
        self.link(from, to);
        self.queue.push((to, pc));
    }

    /// Looks at an unseen instruction.
    fn unseen_insn(&mut self, node: NodeId, pc: VirtAddr) {
        let mode = self.mode;
        let found = self.program.source.and_then(|source| Some((source, source.insn(mode, pc)?)));
        let Some((source, insn)) = found else { return self.link(node, Cfg::exit()) };
        self.nodes[node] = Node::Unseen(Unseen::of(&insn, source, mode));
        self.successors(node, &insn, false, &FxHashSet::default());
        if self.next[node].is_empty() {
            self.link(node, Cfg::exit());
        }
        self.unseen_ops.push((node, insn.ops));
    }

    /// Joins unseen instructions with others that do the same.
    fn merge_tails(&mut self) {
        let mut pieces: Table<NodeId, Option<Piece<'_>>> = Table::filled(self.nodes.len(), None);
        for (&site, &node) in &self.node_of {
            pieces[node] = self.code(site).map(|code| Piece { ops: &code.insn.ops, executed: true });
        }
        for (node, ops) in &self.unseen_ops {
            pieces[*node] = Some(Piece { ops, executed: false });
        }
        tail_merging::merge(&mut self.next, &pieces, Cfg::exit());
    }
}
