//! The blocks of one context.

use ir::program::{Arm, Block, BlockId, Target, Terminator};
use ir::{Arg, Class, Kind, Op, Var, Width};
use machine::VirtAddr;
use rustc_hash::FxHashMap;

use super::input::{Emission, FunctionIds};
use super::simplify;
use crate::analysis::cfg::Cfg;
use crate::analysis::node::Node;
use crate::dependence::flow::Flow;
use crate::dependence::graph::Body as SiteBody;
use crate::dependence::stacks;
use crate::vocabulary::{Code, ContextId, NodeId, OpId, SiteId};

/// The blocks of a context, joined; the first is its entry.
#[must_use]
pub fn blocks(emission: &Emission<'_>, context: ContextId, ids: &FunctionIds) -> Vec<Block> {
    let Some(cfg) = &emission.slice.cfgs[context] else { return Vec::new() };
    let mut body = Body::new(emission, cfg, context, ids);
    let info = &emission.graph.contexts[context];
    let pc = emission.contexts.entry(context).0;
    let start = info.entry.map_or(Target::Return, |site| body.resolve(cfg.node_of[&site]));
    body.blocks[0] = Some(Block { pc, ops: Vec::new(), term: Terminator::Goto(start), term_pc: pc });
    for &site in info.sites.iter().filter(|&&site| emission.slice.sites.contains(site)) {
        body.site(site);
    }
    simplify::simplify(body.blocks.into_iter().flatten().collect())
}

/// A context's blocks while they are made.
pub(super) struct Body<'e> {
    pub emission: &'e Emission<'e>,
    cfg: &'e Cfg,
    pub ids: &'e FunctionIds,
    /// First block of each included site, that is, of each site in the slice.
    block_of: FxHashMap<SiteId, BlockId>,
    /// Sites by address.
    by_pc: FxHashMap<VirtAddr, SiteId>,
    blocks: Vec<Option<Block>>,
}

impl<'e> Body<'e> {
    /// Room for a block of each included site, behind that of the entry.
    fn new(emission: &'e Emission<'e>, cfg: &'e Cfg, context: ContextId, ids: &'e FunctionIds) -> Self {
        let mut body = Self {
            emission,
            cfg,
            ids,
            block_of: FxHashMap::default(),
            by_pc: FxHashMap::default(),
            blocks: vec![None],
        };
        for &site in &emission.graph.contexts[context].sites {
            if let Some(code) = body.code(site) {
                body.by_pc.insert(code.pc(), site);
            }
            if emission.slice.sites.contains(site) {
                let block = body.add_block();
                body.block_of.insert(site, block);
            }
        }
        body
    }

    fn add_block(&mut self) -> BlockId {
        self.blocks.push(None);
        BlockId(self.blocks.len() as u32 - 1)
    }

    pub fn code(&self, site: SiteId) -> Option<&'e Code> {
        self.emission.graph.code(self.emission.code, site)
    }

    pub fn flow(&self, site: SiteId) -> &'e Flow {
        &self.emission.graph.flow[site]
    }

    /// Where control goes at a node: to the nearest included site at it or up its post-dominators,
    /// else back to the caller.
    fn resolve(&self, node: NodeId) -> Target {
        let mut node = node;
        for _ in 0..=self.cfg.nodes.len() {
            match self.cfg.nodes[node] {
                Node::Exit => return Target::Return,
                Node::Site(site) => {
                    if let Some(&block) = self.block_of.get(&site) {
                        return Target::Block(block);
                    }
                }
                Node::Unseen(_) => {}
            }
            node = self.cfg.ipdom[node];
        }
        Target::Return
    }

    /// Where a site's way to an address leads; it is unexplored if it was not observed.
    fn side(&self, site: SiteId, pc: VirtAddr) -> Target {
        let flow = self.flow(site);
        if let Some(context) = flow.tail(pc) {
            return self.ids.get(&context).map_or(Target::Return, |&function| Target::Tail(function));
        }
        match self.by_pc.get(&pc) {
            Some(next) if flow.next.contains(next) => self.resolve(self.cfg.node_of[next]),
            _ => Target::Unexplored(pc.0),
        }
    }

    /// Where a site that decides nothing goes on.
    pub fn onward(&self, site: SiteId) -> Target {
        let flow = self.flow(site);
        if let ([(_, context)], true) = (flow.tails.as_slice(), flow.next.is_empty() && !flow.returns)
            && let Some(&function) = self.ids.get(context)
        {
            return Target::Tail(function);
        }
        self.behind(site)
    }

    /// Where control goes on after a call returned.
    pub fn after_call(&self, site: SiteId) -> Target {
        let flow = self.flow(site);
        if flow.returns && flow.next.is_empty() { Target::Return } else { self.behind(site) }
    }

    /// The only way on from a site, or where all of its ways meet.
    fn behind(&self, site: SiteId) -> Target {
        let node = self.cfg.node_of[&site];
        match self.cfg.next[node].as_slice() {
            [next] => self.resolve(*next),
            _ => self.resolve(self.cfg.ipdom[node]),
        }
    }

    /// The ways out of a computed jump that were observed.
    pub fn arms(&self, site: SiteId) -> Vec<Arm<Target>> {
        let flow = self.flow(site);
        let mut values: Vec<VirtAddr> = flow.tails.iter().map(|tail| tail.0).collect();
        values.extend(flow.next.iter().filter_map(|&next| self.code(next)).map(Code::pc));
        values.sort_unstable();
        values.dedup();
        values.into_iter().map(|pc| Arm { value: pc.0, target: self.side(site, pc) }).collect()
    }

    /// A block that ends the program; its address is the end mark's.
    pub fn ending(&mut self, pc: VirtAddr) -> Target {
        let block = Block { pc: pc.0, ops: Vec::new(), term: Terminator::End, term_pc: pc.0 };
        self.blocks.push(Some(block));
        Target::Block(BlockId(self.blocks.len() as u32 - 1))
    }

    /// [`Body::side`], for a branch that may lead to the end mark at `end`.
    fn side_or_end(&mut self, site: SiteId, pc: VirtAddr, end: Option<VirtAddr>) -> Target {
        if end == Some(pc) { self.ending(pc) } else { self.side(site, pc) }
    }

    /// An operation of the slice as the program has it: with operands that name relocated
    /// constants.
    fn relocated(&self, site: SiteId, index: usize, op: &Op) -> Op {
        let mut op = *op;
        if let SiteBody::Insn(insn) = self.emission.graph.sites[site].body {
            for &(arg, number) in self.emission.constants.operands.get(&(insn, index)).into_iter().flatten() {
                op.args[arg] = Arg::Relocated(number);
            }
        }
        op
    }

    /// What follows an operation that gives the code a new stack.
    fn undefined(&self, number: OpId, op: &Op) -> Option<Op> {
        let graph = self.emission.graph;
        // Of contexts that are not in the slice nobody knows what branches decide.
        let is_decided = |op: OpId| {
            let site = graph.op_site[op];
            let cfg = self.emission.slice.cfgs[graph.sites[site].context].as_ref();
            cfg.is_none_or(|cfg| cfg.controls.get(&site).is_some_and(|controls| !controls.is_empty()))
        };
        graph.stacks.contains_key(&number).then(|| {
            let below = [op.dst.into(), stacks::depth(&graph.stacks, number, &is_decided).into()];
            Op::new(Kind::Undefine, Width::B64, Var::NONE, &below)
        })
    }

    /// Makes the blocks of an included site.
    fn site(&mut self, site: SiteId) {
        let emission = self.emission;
        let info = emission.graph.sites[site];
        let Some(code) = self.code(site) else { return };
        let pc = code.insn.pc;
        let mut at = self.block_of[&site];
        let mut ops: Vec<Op> = Vec::new();
        let end = emission.graph.end.filter(|end| end.site == site).map(|end| end.pc);
        for (index, op) in code.insn.ops.iter().enumerate() {
            let included = emission.slice.ops.contains(info.op(index));
            if op.class() != Class::Control {
                if included {
                    ops.push(self.relocated(site, index, op));
                    ops.extend(self.undefined(info.op(index), op));
                }
                continue;
            }
            if op.kind != Kind::BranchIf {
                let term = self.control(site, op, included, &mut ops, end);
                self.finish(at, pc, ops, term);
                return;
            }
            let Arg::Const(target) = op.args[1] else { continue };
            if !included {
                continue;
            }
            let taken = self.side_or_end(site, VirtAddr(target), end);
            // The number of the block behind the branch, if there is one.
            let rest = BlockId(self.blocks.len() as u32);
            let decides_more = index + 1 < code.insn.ops.len();
            let otherwise = match decides_more {
                true if emission.graph.executed[info.op(index + 1)] => Target::Block(rest),
                // Training never got behind the branch: a string instruction that always had a
                // count of 0.
                true => Target::Unexplored(pc),
                false => self.side_or_end(site, code.fallthrough(), end),
            };
            let term = Terminator::Branch { cond: op.args[0], taken, otherwise };
            self.finish(at, pc, std::mem::take(&mut ops), term);
            if !decides_more {
                return;
            }
            at = self.add_block();
        }
        let flow = self.flow(site);
        let term = if end.is_some() {
            Terminator::End
        } else if flow.returns && flow.next.is_empty() {
            Terminator::Goto(Target::Return)
        } else {
            Terminator::Goto(self.onward(site))
        };
        self.finish(at, pc, ops, term);
    }

    fn finish(&mut self, at: BlockId, pc: u64, ops: Vec<Op>, term: Terminator) {
        self.blocks[at.0 as usize] = Some(Block { pc, ops, term, term_pc: pc });
    }
}
