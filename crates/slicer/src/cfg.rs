//! A function's control-flow graph: executed sites, and the code that no run executed.
//!
//! Whether a branch that was only ever seen going one way matters is decided on the static graph:
//! the unseen side is disassembled from the start snapshot until it meets executed code again or
//! leaves the function. What is computed (jump tables, tail calls through pointers) may also go to
//! places unknown, which counts as leaving.

use ir::{Arg, Class, Kind};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::fields::{self, Form};
use crate::frames::Functions;
use crate::graph::Graph;
use crate::preserve::RegSet;
use crate::recording::Code;
use crate::tails::{self, Piece};

/// Gives the instruction at an address of the training system's code, lifted.
pub trait CodeSource {
    /// The instruction there, in the given mode; `None` if there is no code.
    fn insn(&self, mode: lift::Mode, pc: u64) -> Option<lift::Insn>;

    /// The bytes there; `None` if they are not all known.
    fn bytes(&self, pc: u64, count: usize) -> Option<Vec<u8>>;
}

/// A node of the graph.
#[derive(Clone, Debug)]
pub enum Node {
    /// An executed site.
    Site(u32),
    /// An instruction that was not executed in this function, with the registers it defines.
    Unseen {
        /// Registers it (or the function it calls) may define.
        defines: RegSet,
        /// Forms of its stores.
        stores: Vec<(Form, u64)>,
        /// The function it calls, where that is known.
        calls: Option<u64>,
    },
    /// The function's end.
    Exit,
}

/// What the unseen side of a branch may do.
#[derive(Default)]
pub(crate) struct Region {
    /// Registers it may define.
    pub defines: RegSet,
    /// Forms of its stores.
    pub stores: Vec<(Form, u64)>,
    /// Functions it calls.
    pub calls: Vec<u64>,
    /// Nodes of executed code that it meets.
    pub meets: Vec<u32>,
}

/// The graph of one function.
pub struct Cfg {
    /// Nodes; the first is the entry if the function has one, [`Cfg::EXIT`] is the end.
    pub nodes: Vec<Node>,
    /// Successors by node.
    pub next: Vec<Vec<u32>>,
    /// Immediate post-dominator by node.
    pub ipdom: Vec<u32>,
    /// Node of each site.
    pub node_of: FxHashMap<u32, u32>,
    /// For each site the branch sites it is control dependent on.
    pub controls: FxHashMap<u32, Vec<u32>>,
    /// Unseen sides of branches, by site.
    pub(crate) sides: Vec<(u32, Region)>,
}

/// The most unseen instructions looked at in one function; past it the unseen side counts as
/// leaving the function.
const MAX_UNSEEN: usize = 20_000;

/// Registers a called function may change when nothing is known of it. Callees of unseen code are
/// not looked into: what they define and the caller then uses must be a result, for a compiler
/// keeps nothing else in registers that a call may change.
fn call_results() -> RegSet {
    let mut set = RegSet::default();
    set.insert(ir::Var(machine::Reg::Rax as u16));
    set.insert(ir::Var(machine::Reg::Rdx as u16));
    set
}

struct Builder<'b> {
    graph: &'b Graph,
    code: &'b [Code],
    functions: &'b Functions,
    source: Option<&'b dyn CodeSource>,
    entry: u64,
    mode: lift::Mode,
    by_pc: FxHashMap<u64, u32>,
    unseen: FxHashMap<u64, u32>,
    queue: Vec<(u32, u64)>,
    /// Operations of the unseen instructions.
    unseen_ops: Vec<(u32, Vec<ir::Op>)>,
    cfg: Cfg,
}

impl Cfg {
    /// The node of the function's end.
    pub const EXIT: u32 = 0;

    /// Builds the graph of a function. Without a `source` only what was executed is in it.
    #[must_use]
    pub fn build(
        graph: &Graph,
        code: &[Code],
        functions: &Functions,
        source: Option<&dyn CodeSource>,
        func: u32,
    ) -> Cfg {
        let sites = &graph.functions[func as usize].sites;
        let mut cfg = Cfg {
            nodes: vec![Node::Exit],
            next: vec![Vec::new()],
            ipdom: Vec::new(),
            node_of: FxHashMap::default(),
            controls: FxHashMap::default(),
            sides: Vec::new(),
        };
        let mut by_pc = FxHashMap::default();
        let mut mode = lift::Mode::Bits64;
        for &site in sites {
            cfg.node_of.insert(site, cfg.nodes.len() as u32);
            if let Some(code) = code.get(graph.sites[site as usize].code as usize) {
                by_pc.insert(code.insn.pc, cfg.nodes.len() as u32);
                mode = code.mode;
            }
            cfg.nodes.push(Node::Site(site));
            cfg.next.push(Vec::new());
        }
        let entry = functions.keys.get(func as usize).map_or(0, |key| key.entry);
        let mut builder = Builder {
            graph,
            code,
            functions,
            source,
            entry,
            mode,
            by_pc,
            unseen: FxHashMap::default(),
            queue: Vec::new(),
            unseen_ops: Vec::new(),
            cfg,
        };
        for &site in sites {
            builder.site(site);
        }
        while let Some((node, pc)) = builder.queue.pop() {
            builder.unseen_insn(node, pc);
        }
        builder.merge_tails();
        let mut cfg = builder.cfg;
        cfg.post_dominators();
        cfg.control_dependence();
        cfg.sides = cfg.unseen_sides();
        cfg
    }

    fn link(&mut self, from: u32, to: u32) {
        let next = &mut self.next[from as usize];
        if !next.contains(&to) {
            next.push(to);
        }
    }

    /// Cooper, Harvey, Kennedy, "A Simple, Fast Dominance Algorithm" (2001), on the reversed graph.
    fn post_dominators(&mut self) {
        let count = self.nodes.len();
        let mut previous: Vec<Vec<u32>> = vec![Vec::new(); count];
        for (from, next) in self.next.iter().enumerate() {
            for &to in next {
                previous[to as usize].push(from as u32);
            }
        }
        let mut order = Vec::with_capacity(count);
        let mut seen = vec![false; count];
        // Endless loops: a node that cannot reach the end is given an edge to it.
        let mut endless = Vec::new();
        let mut ignored = Vec::new();
        post_order(&previous, Self::EXIT, &mut seen, &mut ignored);
        for node in (1..count as u32).rev() {
            if !seen[node as usize] {
                endless.push(node);
                post_order(&previous, node, &mut seen, &mut ignored);
            }
        }
        for &node in &endless {
            self.next[node as usize].push(Self::EXIT);
            previous[Self::EXIT as usize].push(node);
        }
        seen.fill(false);
        post_order(&previous, Self::EXIT, &mut seen, &mut order);
        let mut rank = vec![0u32; count];
        for (at, &node) in order.iter().enumerate() {
            rank[node as usize] = at as u32;
        }
        const NONE: u32 = u32::MAX;
        let mut ipdom = vec![NONE; count];
        ipdom[Self::EXIT as usize] = Self::EXIT;
        loop {
            let mut changed = false;
            for &node in order.iter().rev() {
                if node == Self::EXIT {
                    continue;
                }
                let mut new = NONE;
                for &next in &self.next[node as usize] {
                    if ipdom[next as usize] == NONE {
                        continue;
                    }
                    new = if new == NONE { next } else { meet(&ipdom, &rank, new, next) };
                }
                if new != NONE && ipdom[node as usize] != new {
                    ipdom[node as usize] = new;
                    changed = true;
                }
            }
            if !changed {
                break;
            }
        }
        for dominator in &mut ipdom {
            if *dominator == NONE {
                *dominator = Self::EXIT;
            }
        }
        self.ipdom = ipdom;
    }

    /// Ferrante, Ottenstein, Warren, "The Program Dependence Graph" (1987), section 3.1.
    fn control_dependence(&mut self) {
        for branch in 1..self.nodes.len() as u32 {
            let Node::Site(branch_site) = self.nodes[branch as usize] else { continue };
            if self.next[branch as usize].len() < 2 {
                continue;
            }
            for &next in &self.next[branch as usize] {
                let mut node = next;
                let mut steps = 0;
                while node != self.ipdom[branch as usize] && node != Self::EXIT && steps <= self.nodes.len() {
                    if let Node::Site(site) = self.nodes[node as usize] {
                        let controls = self.controls.entry(site).or_default();
                        if controls.last() != Some(&branch_site) {
                            controls.push(branch_site);
                        }
                    }
                    node = self.ipdom[node as usize];
                    steps += 1;
                }
            }
        }
    }

    /// The unseen sides of all branches.
    fn unseen_sides(&self) -> Vec<(u32, Region)> {
        let mut sides = Vec::new();
        for (node, next) in self.nodes.iter().zip(&self.next) {
            if let (Node::Site(site), true) = (node, next.len() >= 2) {
                sides.extend(next.iter().filter_map(|&side| Some((*site, self.unseen_region(side)?))));
            }
        }
        sides
    }

    /// From a branch's side: what unseen code may do before it meets executed sites or the end, and
    /// where it meets them.
    fn unseen_region(&self, from: u32) -> Option<Region> {
        let mut region = Region::default();
        let (mut stack, mut seen) = (vec![from], FxHashSet::default());
        while let Some(node) = stack.pop() {
            if !seen.insert(node) {
                continue;
            }
            match &self.nodes[node as usize] {
                Node::Unseen { defines, stores, calls } => {
                    region.defines.union(defines);
                    region.stores.extend(stores);
                    region.calls.extend(calls);
                    stack.extend(&self.next[node as usize]);
                }
                Node::Site(_) | Node::Exit => region.meets.push(node),
            }
        }
        matches!(self.nodes[from as usize], Node::Unseen { .. }).then_some(region)
    }
}

/// Appends what is reached from `root` over `edges` and was not seen before, in depth-first
/// post-order.
fn post_order(edges: &[Vec<u32>], root: u32, seen: &mut [bool], order: &mut Vec<u32>) {
    let mut stack = vec![(root, 0)];
    seen[root as usize] = true;
    while let Some((node, at)) = stack.last_mut() {
        if let Some(&before) = edges[*node as usize].get(*at) {
            *at += 1;
            if !seen[before as usize] {
                seen[before as usize] = true;
                stack.push((before, 0));
            }
        } else {
            order.push(*node);
            stack.pop();
        }
    }
}

fn meet(ipdom: &[u32], rank: &[u32], a: u32, b: u32) -> u32 {
    let (mut a, mut b) = (a, b);
    while a != b {
        while rank[a as usize] < rank[b as usize] {
            a = ipdom[a as usize];
        }
        while rank[b as usize] < rank[a as usize] {
            b = ipdom[b as usize];
        }
    }
    a
}

impl Builder<'_> {
    fn site(&mut self, site: u32) {
        let node = self.cfg.node_of[&site];
        let flow = &self.graph.flow[site as usize];
        let Some(code) = self.code.get(self.graph.sites[site as usize].code as usize) else {
            self.cfg.link(node, Cfg::EXIT);
            return;
        };
        let insn = &code.insn;
        let mut observed: FxHashSet<u64> = FxHashSet::default();
        for &next in &flow.next {
            let to = self.cfg.node_of[&next];
            self.cfg.link(node, to);
            if let Some(code) = self.code.get(self.graph.sites[next as usize].code as usize) {
                observed.insert(code.insn.pc);
            }
        }
        for &(target, _) in &flow.tails {
            observed.insert(target);
            self.cfg.link(node, Cfg::EXIT);
        }
        if flow.returns || self.graph.end.is_some_and(|end| end.0 == site) {
            self.cfg.link(node, Cfg::EXIT);
            return;
        }
        if self.source.is_none() {
            if self.cfg.next[node as usize].is_empty() {
                self.cfg.link(node, Cfg::EXIT);
            }
            return;
        }
        let pseudo = self.functions.is_pseudo_call(insn.pc);
        self.successors(node, insn, pseudo, &observed);
    }

    /// Links what the instruction itself says can follow, apart from what was observed.
    fn successors(&mut self, node: u32, insn: &lift::Insn, pseudo: bool, observed: &FxHashSet<u64>) {
        let fallthrough = insn.pc.wrapping_add(u64::from(insn.len));
        let mut falls = true;
        for op in &insn.ops {
            if op.class() != Class::Control {
                continue;
            }
            match (op.kind, op.args[0], op.args[1]) {
                (Kind::BranchIf, Arg::Const(0), _) => {}
                (Kind::BranchIf, _, Arg::Const(target)) => {
                    if !observed.contains(&target) {
                        self.goto(node, target);
                    }
                }
                (Kind::Call, target, _) if pseudo => {
                    falls = false;
                    match target {
                        Arg::Const(target) if !observed.contains(&target) => self.goto(node, target),
                        Arg::Const(_) => {}
                        Arg::Var(_) | Arg::Moved(_) => self.cfg.link(node, Cfg::EXIT),
                    }
                }
                // A system may go back to another place of the process than behind the call.
                (Kind::SysEnter, ..) => falls = observed.is_empty(),
                (Kind::Call | Kind::Halt, ..) => {}
                // An assertion: a kernel that only warns goes on behind it, and so do whole runs.
                (Kind::Trap, Arg::Const(6), _) => {}
                (Kind::Jump, Arg::Const(target), _) => {
                    falls = false;
                    if !observed.contains(&target) {
                        self.goto(node, target);
                    }
                }
                _ => {
                    falls = false;
                    self.cfg.link(node, Cfg::EXIT);
                }
            }
        }
        if falls && !observed.contains(&fallthrough) {
            self.goto(node, fallthrough);
        }
    }

    /// Joins unseen instructions with others that do the same.
    fn merge_tails(&mut self) {
        let mut pieces: Vec<Option<Piece<'_>>> = vec![None; self.cfg.nodes.len()];
        for (&site, &node) in &self.cfg.node_of {
            if let Some(code) = self.code.get(self.graph.sites[site as usize].code as usize) {
                pieces[node as usize] = Some(Piece { ops: &code.insn.ops, executed: true });
            }
        }
        for (node, ops) in &self.unseen_ops {
            pieces[*node as usize] = Some(Piece { ops, executed: false });
        }
        tails::merge(&mut self.cfg.next, &pieces);
    }

    fn goto(&mut self, from: u32, pc: u64) {
        if self.functions.is_entry(pc) && pc != self.entry {
            self.cfg.link(from, Cfg::EXIT);
            return;
        }
        if let Some(&to) = self.by_pc.get(&pc).or_else(|| self.unseen.get(&pc)) {
            self.cfg.link(from, to);
            return;
        }
        if self.unseen.len() >= MAX_UNSEEN {
            self.cfg.link(from, Cfg::EXIT);
            return;
        }
        let to = self.cfg.nodes.len() as u32;
        self.cfg.nodes.push(Node::Unseen { defines: RegSet::default(), stores: Vec::new(), calls: None });
        self.cfg.next.push(Vec::new());
        self.unseen.insert(pc, to);
        self.cfg.link(from, to);
        self.queue.push((to, pc));
    }

    /// The results a called function may leave in registers: not those that it saves on entry and
    /// gives back, as assembly stubs around slow paths do with all of them.
    fn callee_defines(&self, entry: u64) -> RegSet {
        const MAX_INSNS: usize = 64;
        let (mut saved, mut restored) = (RegSet::default(), RegSet::default());
        let (mut stack, mut seen) = (vec![entry], FxHashSet::default());
        while let Some(pc) = stack.pop() {
            if seen.len() >= MAX_INSNS || !seen.insert(pc) {
                continue;
            }
            let Some(insn) = self.source.and_then(|source| source.insn(self.mode, pc)) else {
                return call_results();
            };
            let moves_stack = insn.ops.iter().any(|op| op.def() == Some(crate::graph::RSP));
            let loads = insn.ops.iter().any(|op| op.kind == Kind::Load);
            for op in insn.ops.iter().filter(|_| moves_stack) {
                match (op.kind, op.args[1]) {
                    (Kind::Store, Arg::Var(var)) if var.is_reg() => saved.insert(var),
                    _ => {}
                }
                if let Some(var) = op.def().filter(|var| var.is_reg() && loads) {
                    restored.insert(var);
                }
            }
            match lift::flow(&insn) {
                lift::Flow::Jump(target) => stack.push(target),
                lift::Flow::Branch { taken } => stack.extend([taken, pc.wrapping_add(u64::from(insn.len))]),
                lift::Flow::Return | lift::Flow::IndirectJump | lift::Flow::Exit | lift::Flow::Stop => {}
                _ => stack.push(pc.wrapping_add(u64::from(insn.len))),
            }
        }
        let given_back = saved.without(&saved.without(&restored));
        call_results().without(&given_back)
    }

    fn unseen_insn(&mut self, node: u32, pc: u64) {
        let insn = self.source.and_then(|source| source.insn(self.mode, pc));
        let Some(insn) = insn else {
            self.cfg.link(node, Cfg::EXIT);
            return;
        };
        let mut defines = RegSet::default();
        for op in &insn.ops {
            if let Some(var) = op.def().filter(|var| var.is_reg()) {
                defines.insert(var);
            }
            if matches!(op.kind, Kind::Call | Kind::SysEnter) {
                defines = match op.args[0] {
                    Arg::Const(callee) => self.callee_defines(callee),
                    Arg::Var(_) | Arg::Moved(_) => call_results(),
                };
            }
        }
        // Compiled code joins other code with the same stack pointer.
        defines.remove(crate::graph::RSP);
        let calls = insn.ops.iter().find_map(|op| match (op.kind, op.args[0]) {
            (Kind::Call, Arg::Const(callee)) => Some(callee),
            _ => None,
        });
        // A call's own store is its return address.
        let stores = if calls.is_some() { Vec::new() } else { fields::stores(&insn.ops).collect() };
        self.cfg.nodes[node as usize] = Node::Unseen { defines, stores, calls };
        self.successors(node, &insn, false, &FxHashSet::default());
        if self.cfg.next[node as usize].is_empty() {
            self.cfg.link(node, Cfg::EXIT);
        }
        self.unseen_ops.push((node, insn.ops));
    }
}
