//! Writes a slice down as functions and blocks.
//!
//! Each site with operations in the slice becomes a block (two or more where an instruction decides
//! in its middle). A site that is not in the slice is stepped over: nothing in the slice depends on
//! which way it goes, so control goes on at its immediate post-dominator.

use ir::program::{Arm, Block, BlockId, Callee, FuncId, Function, Target, Terminator};
use ir::{Arg, Class, Kind, Op, Var};
use rustc_hash::FxHashMap;

use crate::build::Constants;
use crate::cfg::{Cfg, Node};
use crate::frames::Functions;
use crate::graph::{Graph, RSP};
use crate::preserve::RegSet;
use crate::recording::Code;
use crate::slice::Slice;
use crate::summary::summary_ops;

/// What emission reads.
pub struct Emit<'e> {
    /// The dependence graph.
    pub graph: &'e Graph,
    /// The code table.
    pub code: &'e [Code],
    /// Its constants that are others in another boot.
    pub constants: &'e Constants,
    /// Functions as frames know them.
    pub functions: &'e Functions,
    /// The slice.
    pub slice: &'e Slice,
    /// Entry addresses of summarised functions.
    pub summaries: &'e FxHashMap<u64, ir::Summary>,
}

/// The emitted functions, the first being the entry, and the function of the graph each came from.
pub struct Emitted {
    /// In order of the graph's function numbers, the entry first.
    pub functions: Vec<Function>,
}

struct Body<'e> {
    emit: &'e Emit<'e>,
    cfg: &'e Cfg,
    ids: &'e FxHashMap<u32, FuncId>,
    /// First block of each included site.
    block_of: FxHashMap<u32, BlockId>,
    by_pc: FxHashMap<u64, u32>,
    blocks: Vec<Option<Block>>,
}

impl Emit<'_> {
    /// Emits all functions that are in the slice.
    #[must_use]
    pub fn emit(&self, entry: u32) -> Emitted {
        let mut ids = FxHashMap::default();
        let order: Vec<u32> = std::iter::once(entry)
            .chain(
                (0..self.graph.functions.len() as u32)
                    .filter(|&func| func != entry && self.slice.functions[func as usize]),
            )
            .collect();
        for (at, &func) in order.iter().enumerate() {
            ids.insert(func, FuncId(at as u32));
        }
        let functions = order
            .iter()
            .map(|&func| {
                let key = self.functions.keys[func as usize];
                let preserved =
                    self.graph.functions[func as usize].preserved.iter().filter(|var| *var != RSP).collect();
                let blocks = match self.summaries.get(&key.entry) {
                    Some(&summary) if func != entry => vec![Block {
                        pc: key.entry,
                        ops: summary_ops(&summary, self.graph.narrow),
                        term: Terminator::Goto(Target::Return),
                        term_pc: key.entry,
                    }],
                    _ => self.blocks(func, &ids),
                };
                Function { pc: key.entry, name: String::new(), preserved, blocks }
            })
            .collect();
        let mut functions: Vec<Function> = functions;
        restrict_preserved(&mut functions);
        Emitted { functions }
    }

    fn blocks(&self, func: u32, ids: &FxHashMap<u32, FuncId>) -> Vec<Block> {
        let Some(cfg) = &self.slice.cfgs[func as usize] else { return Vec::new() };
        let mut body = Body {
            emit: self,
            cfg,
            ids,
            block_of: FxHashMap::default(),
            by_pc: FxHashMap::default(),
            blocks: vec![None],
        };
        let info = &self.graph.functions[func as usize];
        for &site in &info.sites {
            if let Some(code) = self.code.get(self.graph.sites[site as usize].code as usize) {
                body.by_pc.insert(code.insn.pc, site);
            }
            if self.slice.sites[site as usize] {
                body.block_of.insert(site, BlockId(body.blocks.len() as u32));
                body.blocks.push(None);
            }
        }
        let pc = self.functions.keys[func as usize].entry;
        let start = info.entry.map_or(Target::Return, |site| body.resolve(cfg.node_of[&site]));
        body.blocks[0] = Some(Block { pc, ops: Vec::new(), term: Terminator::Goto(start), term_pc: pc });
        for &site in &info.sites {
            if self.slice.sites[site as usize] {
                body.site(site);
            }
        }
        simplify(body.blocks.into_iter().flatten().collect())
    }
}

impl Body<'_> {
    /// The first included site at or after a node.
    fn resolve(&self, node: u32) -> Target {
        let mut node = node;
        for _ in 0..=self.cfg.nodes.len() {
            match self.cfg.nodes[node as usize] {
                Node::Exit => return Target::Return,
                Node::Site(site) => {
                    if let Some(&block) = self.block_of.get(&site) {
                        return Target::Block(block);
                    }
                }
                Node::Unseen { .. } => {}
            }
            node = self.cfg.ipdom[node as usize];
        }
        Target::Return
    }

    /// Where an observed way out of a site leads; what was not observed is unexplored.
    fn side(&self, site: u32, pc: u64) -> Target {
        let flow = &self.emit.graph.flow[site as usize];
        if let Some(&(_, func)) = flow.tails.iter().find(|tail| tail.0 == pc) {
            return self.ids.get(&func).map_or(Target::Return, |&func| Target::Tail(func));
        }
        match self.by_pc.get(&pc) {
            Some(next) if flow.next.contains(next) => self.resolve(self.cfg.node_of[next]),
            _ => Target::Unexplored(pc),
        }
    }

    /// Where a site that decides nothing goes on.
    fn onward(&self, site: u32) -> Target {
        let node = self.cfg.node_of[&site];
        let flow = &self.emit.graph.flow[site as usize];
        if let ([(_, func)], true) = (flow.tails.as_slice(), flow.next.is_empty() && !flow.returns)
            && let Some(&func) = self.ids.get(func)
        {
            return Target::Tail(func);
        }
        match (self.cfg.next[node as usize].as_slice(), flow.next.as_slice()) {
            ([next], _) => self.resolve(*next),
            _ => self.resolve(self.cfg.ipdom[node as usize]),
        }
    }

    /// The ways out of a computed jump that were observed.
    fn arms(&self, site: u32) -> Vec<Arm<Target>> {
        let flow = &self.emit.graph.flow[site as usize];
        let mut values: Vec<u64> = flow.tails.iter().map(|tail| tail.0).collect();
        for &next in &flow.next {
            if let Some(code) = self.emit.code.get(self.emit.graph.sites[next as usize].code as usize) {
                values.push(code.insn.pc);
            }
        }
        values.sort_unstable();
        values.dedup();
        values.into_iter().map(|value| Arm { value, target: self.side(site, value) }).collect()
    }

    fn site(&mut self, site: u32) {
        let emit = self.emit;
        let info = emit.graph.sites[site as usize];
        let Some(code) = emit.code.get(info.code as usize) else { return };
        let insn = &code.insn;
        let flow = &emit.graph.flow[site as usize];
        let fallthrough = insn.pc.wrapping_add(u64::from(insn.len));
        let mut at = self.block_of[&site];
        let mut ops: Vec<Op> = Vec::new();
        let end = emit.graph.end.filter(|end| end.0 == site).map(|end| end.1);
        let last = insn.ops.len().wrapping_sub(1);
        for (index, op) in insn.ops.iter().enumerate() {
            let included = emit.slice.ops[(info.first_op as usize) + index];
            if op.class() != Class::Control {
                if included {
                    let mut op = *op;
                    for &(arg, number) in emit.constants.get(&(info.code, index)).into_iter().flatten() {
                        op.args[arg] = Arg::Moved(number);
                    }
                    ops.push(op);
                }
                continue;
            }
            let decides_more = index < last;
            if op.kind == Kind::BranchIf
                && included
                && let Arg::Const(target) = op.args[1]
            {
                let taken = self.side_or_end(site, target, end);
                let rest = BlockId(self.blocks.len() as u32);
                let otherwise = match decides_more {
                    true if emit.graph.executed[info.first_op as usize + index + 1] => Target::Block(rest),
                    // Training never got behind the branch: a string instruction that always had
                    // nothing to do.
                    true => Target::Unexplored(insn.pc),
                    false => self.side_or_end(site, fallthrough, end),
                };
                let term = Terminator::Branch { cond: op.args[0], taken, otherwise };
                self.blocks[at.0 as usize] =
                    Some(Block { pc: insn.pc, ops: std::mem::take(&mut ops), term, term_pc: insn.pc });
                if !decides_more {
                    return;
                }
                self.blocks.push(None);
                at = rest;
            } else if op.kind != Kind::BranchIf {
                let term = self.control(site, op, included, &mut ops, info.first_op, end);
                self.blocks[at.0 as usize] = Some(Block { pc: insn.pc, ops, term, term_pc: insn.pc });
                return;
            }
        }
        let term = if end.is_some() {
            Terminator::End
        } else if flow.returns && flow.next.is_empty() {
            Terminator::Goto(Target::Return)
        } else {
            Terminator::Goto(self.onward(site))
        };
        self.blocks[at.0 as usize] = Some(Block { pc: insn.pc, ops, term, term_pc: insn.pc });
    }

    /// A block that ends the program; its address is the end mark's.
    fn ending(&mut self, pc: u64) -> Target {
        self.blocks.push(Some(Block { pc, ops: Vec::new(), term: Terminator::End, term_pc: pc }));
        Target::Block(BlockId(self.blocks.len() as u32 - 1))
    }

    /// [`Body::side`] of a branch that may lead to the end mark at `end`.
    fn side_or_end(&mut self, site: u32, pc: u64, end: Option<u64>) -> Target {
        if end == Some(pc) { self.ending(pc) } else { self.side(site, pc) }
    }

    /// The terminator for an instruction's final control operation; `end` is the address of the end
    /// mark if it comes next.
    fn control(
        &mut self,
        site: u32,
        op: &Op,
        included: bool,
        ops: &mut Vec<Op>,
        first_op: u32,
        end: Option<u64>,
    ) -> Terminator {
        let graph = self.emit.graph;
        let flow = &graph.flow[site as usize];
        let pseudo = flow.calls.is_empty();
        match op.kind {
            Kind::Call | Kind::SysEnter if !pseudo => {
                let then = match end {
                    Some(end) => self.ending(end),
                    None => self.after_call(site),
                };
                if !included {
                    return Terminator::Goto(then);
                }
                let direct = matches!(op.args[0], Arg::Const(_)) || op.kind == Kind::SysEnter;
                let code = &self.emit.code[graph.sites[site as usize].code as usize];
                let moves = |func: u32| graph.functions[func as usize].moves;
                let moved = moves(flow.calls[0].1);
                let callee = if direct {
                    match self.ids.get(&flow.calls[0].1) {
                        Some(&func) => Callee::Direct(func),
                        None => {
                            if moved != 0 {
                                ops.insert(0, stack_after(code.mode, moved));
                                ops.push(Op::new(Kind::Mov, ir::Width::B64, RSP, &[SAVED_STACK.into()]));
                            }
                            return Terminator::Goto(then);
                        }
                    }
                } else {
                    // One call can give back one stack pointer: others that it called are as if
                    // nobody had seen them.
                    let mut arms: Vec<Arm<Option<FuncId>>> = flow
                        .calls
                        .iter()
                        .filter(|call| moves(call.1) == moved)
                        .map(|&(value, func)| Arm { value, target: self.ids.get(&func).copied() })
                        .collect();
                    arms.sort_by_key(|arm| arm.value);
                    Callee::Indirect { value: op.args[0], arms }
                };
                // The frame gives the stack pointer back as it was before the call: the call's own
                // push must not be in it.
                let pushes = code.insn.ops.iter().enumerate().any(|(index, op)| {
                    op.def() == Some(RSP) && self.emit.slice.ops[first_op as usize + index]
                });
                if pushes || moved != 0 {
                    ops.insert(0, stack_after(code.mode, moved));
                    return Terminator::Call { callee, stack: SAVED_STACK, then };
                }
                Terminator::Call { callee, stack: RSP, then }
            }
            Kind::Ret | Kind::SysExit if flow.returns && flow.next.is_empty() && flow.tails.is_empty() => {
                Terminator::Goto(Target::Return)
            }
            _ if included && matches!(op.args[0], Arg::Var(_)) => {
                let mut arms = self.arms(site);
                if let Some(value) = end {
                    arms.retain(|arm| arm.value != value);
                    arms.push(Arm { value, target: self.ending(value) });
                    arms.sort_unstable_by_key(|arm| arm.value);
                }
                Terminator::Switch { value: op.args[0], arms }
            }
            _ if end.is_some() => Terminator::End,
            _ => Terminator::Goto(self.onward(site)),
        }
    }

    /// Where control goes on after a call returned.
    fn after_call(&self, site: u32) -> Target {
        let flow = &self.emit.graph.flow[site as usize];
        if flow.returns && flow.next.is_empty() {
            return Target::Return;
        }
        match self.cfg.next[self.cfg.node_of[&site] as usize].as_slice() {
            [next] => self.resolve(*next),
            _ => self.resolve(self.cfg.ipdom[self.cfg.node_of[&site] as usize]),
        }
    }
}

/// Sets [`SAVED_STACK`] to the stack pointer after a call.
fn stack_after(mode: lift::Mode, moves: i64) -> Op {
    let width = if mode == lift::Mode::Bits64 { ir::Width::B64 } else { ir::Width::B32 };
    match moves {
        0 => Op::new(Kind::Mov, ir::Width::B64, SAVED_STACK, &[RSP.into()]),
        _ => Op::new(Kind::Add, width, SAVED_STACK, &[RSP.into(), moves.cast_unsigned().into()]),
    }
}

/// Holds the stack pointer across a call instruction's own push.
const SAVED_STACK: Var = Var::temp(1000);

/// Leaves in each function's preserved registers only those that it, or what it calls, changes.
fn restrict_preserved(functions: &mut [Function]) {
    let mut changed: Vec<RegSet> = vec![RegSet::default(); functions.len()];
    loop {
        let before = changed.clone();
        for (at, function) in functions.iter().enumerate() {
            let mut set = changed[at];
            for block in &function.blocks {
                block
                    .ops
                    .iter()
                    .filter_map(Op::def)
                    .filter(|var| var.is_reg())
                    .for_each(|var| set.insert(var));
                each_function(&block.term, &mut |func| set.union(&before[func.0 as usize]));
            }
            changed[at] = set;
        }
        if before == changed {
            break;
        }
    }
    for (function, changed) in functions.iter_mut().zip(changed) {
        function.preserved.retain(|&var| changed.has(var));
    }
}

/// The functions a terminator may enter.
fn each_function(term: &Terminator, visit: &mut dyn FnMut(FuncId)) {
    each_target(term, &mut |target| {
        if let Target::Tail(func) = target {
            visit(func);
        }
    });
    match term {
        Terminator::Call { callee: Callee::Direct(func), .. } => visit(*func),
        Terminator::Call { callee: Callee::Indirect { arms, .. }, .. } => {
            arms.iter().filter_map(|arm| arm.target).for_each(visit);
        }
        _ => {}
    }
}

/// Joins blocks that only follow one another and drops those that nothing reaches.
fn simplify(mut blocks: Vec<Block>) -> Vec<Block> {
    // A block that does nothing but go on is skipped.
    for _ in 0..2 {
        let skip: Vec<Option<Target>> = blocks
            .iter()
            .map(|block| match block.term {
                Terminator::Goto(target) if block.ops.is_empty() => Some(target),
                _ => None,
            })
            .collect();
        let follow = |target: Target| {
            let mut target = target;
            for _ in 0..skip.len() {
                match target {
                    Target::Block(id) => match skip[id.0 as usize] {
                        Some(next) if next != target => target = next,
                        _ => return target,
                    },
                    _ => return target,
                }
            }
            target
        };
        for block in &mut blocks {
            retarget(&mut block.term, &follow);
        }
    }
    let mut reached = vec![0u32; blocks.len()];
    let mut stack = vec![0u32];
    reached[0] = 1;
    while let Some(at) = stack.pop() {
        each_target(&blocks[at as usize].term, &mut |target| {
            if let Target::Block(id) = target {
                reached[id.0 as usize] += 1;
                if reached[id.0 as usize] == 1 {
                    stack.push(id.0);
                }
            }
        });
    }
    let mut absorbed = vec![false; blocks.len()];
    for at in 0..blocks.len() {
        if reached[at] == 0 || absorbed[at] {
            continue;
        }
        while let Terminator::Goto(Target::Block(next)) = blocks[at].term {
            let next = next.0 as usize;
            if next == at || next == 0 || reached[next] != 1 || absorbed[next] {
                break;
            }
            absorbed[next] = true;
            let ops = std::mem::take(&mut blocks[next].ops);
            blocks[at].ops.extend(ops);
            blocks[at].term = blocks[next].term.clone();
            blocks[at].term_pc = blocks[next].term_pc;
        }
    }
    let mut ids = vec![BlockId(0); blocks.len()];
    let mut count = 0;
    for at in 0..blocks.len() {
        if reached[at] > 0 && !absorbed[at] {
            ids[at] = BlockId(count);
            count += 1;
        }
    }
    let renumber = |target: Target| match target {
        Target::Block(id) => Target::Block(ids[id.0 as usize]),
        other => other,
    };
    let mut kept: Vec<Block> = blocks
        .into_iter()
        .enumerate()
        .filter(|(at, _)| reached[*at] > 0 && !absorbed[*at])
        .map(|(_, block)| block)
        .collect();
    for block in &mut kept {
        retarget(&mut block.term, &renumber);
    }
    kept
}

fn retarget(term: &mut Terminator, change: &dyn Fn(Target) -> Target) {
    match term {
        Terminator::Goto(target) => *target = change(*target),
        Terminator::Branch { taken, otherwise, .. } => {
            *taken = change(*taken);
            *otherwise = change(*otherwise);
        }
        Terminator::Switch { arms, .. } => arms.iter_mut().for_each(|arm| arm.target = change(arm.target)),
        Terminator::Call { then, .. } => *then = change(*then),
        Terminator::End => {}
    }
}

fn each_target(term: &Terminator, visit: &mut dyn FnMut(Target)) {
    match term {
        Terminator::Goto(target) => visit(*target),
        Terminator::Branch { taken, otherwise, .. } => {
            visit(*taken);
            visit(*otherwise);
        }
        Terminator::Switch { arms, .. } => arms.iter().for_each(|arm| visit(arm.target)),
        Terminator::Call { then, .. } => visit(*then),
        Terminator::End => {}
    }
}
