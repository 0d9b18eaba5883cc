//! Which definitions of a register, or of a local, can reach a use, on every path through executed
//! code.
//!
//! Dependences that were seen are not enough: a path may be made of pieces that were executed, but
//! never together (one more iteration of a loop, the left side of one branch and then the right
//! side of another), and then a use gets its value from a definition that no recording joined with
//! it. Registers can be followed exactly: backward from the use, through calls and returns, to
//! every last definition. So can a function's own locals, which always lie at the same distance
//! from where its frame begins. Other memory cannot, and is left to what was seen.
//!
//! Reaching definitions, backward and on demand: what is asked is a value before a site, the answer
//! is the set of definitions met on all paths back from there. With `prev(s)` the sites before `s`
//! in its frame and `calls(s)` the call sites of the context that `s` is the entry of:
//!
//! ```text
//! reach(v, s) = union of out(v, p) for p in prev(s) and in calls(s)
//! out(v, p)   = definitions of v in p, and, unless one of them is certain, reach(v, p)
//!             = reach(v, p)                          if p is a call whose callee saves v
//!             = union of out(v, e) over ends e of the callee   otherwise
//! ```
//!
//! Each pair of a site and a register (or a local) is worked on once. Cost: at most their number
//! times the sites before one; only what the slice asks for is computed.

use ir::{Kind, Var};

use super::inverse::Inverse;
use super::solver::{Worklist, closure};
use crate::dependence::{Graph, Locals};
use crate::vocabulary::{CodeTable, ContextId, OpId, RegisterSet, STACK_POINTER, SiteId, Table};

/// A local of the running function before a site.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Local {
    site: SiteId,
    /// Distance from the frame's first word in bytes.
    distance: i64,
    /// How many bytes of it are read.
    size: i64,
}

/// Backward steps over executed sites.
pub struct Reaching<'g> {
    graph: &'g Graph,
    code: &'g CodeTable,
    /// Sites that a site follows in its frame.
    previous: Table<SiteId, Vec<SiteId>>,
    /// For each context the sites that end a frame which began in it; see [`ends`].
    ends: Table<ContextId, Vec<SiteId>>,
    /// Sites that enter a context.
    callers: Table<ContextId, Vec<SiteId>>,
    /// Registers that were asked for already, before each site: a worklist with a dense set.
    asked: Table<SiteId, RegisterSet>,
    waiting: Vec<(SiteId, Var)>,
    locals: Worklist<Local>,
}

impl<'g> Reaching<'g> {
    /// Nothing is asked for yet.
    #[must_use]
    pub fn new(graph: &'g Graph, code: &'g CodeTable) -> Self {
        let Inverse { previous, callers } = Inverse::of(graph);
        Self {
            graph,
            code,
            previous,
            ends: ends(graph),
            callers,
            asked: Table::filled(graph.sites.len(), RegisterSet::default()),
            waiting: Vec::new(),
            locals: Worklist::new(),
        }
    }

    /// An operation is in the slice, so what it reads must be too. Adds the operations of its own
    /// site that define that to `found`, and asks for the rest.
    pub fn uses(&mut self, op: OpId, found: &mut Vec<OpId>) {
        let site = self.graph.op_site[op];
        let info = self.graph.sites[site];
        let ops = self.graph.ops(self.code, site);
        let index = info.index_of(op);
        for var in ops[index].uses() {
            match ops[..index].iter().rposition(|it| it.def() == Some(var)) {
                Some(at) => found.push(info.op(at)),
                None if var.is_reg() => self.ask(site, var),
                None => {}
            }
        }
        let it = &ops[index];
        if it.kind == Kind::Call && self.moves_stack(site) {
            self.ask(site, STACK_POINTER);
        }
        if it.kind == Kind::Load
            && let Some(&Locals::At(distance)) = self.graph.locals.get(&op)
        {
            self.locals.add(Local { site, distance, size: it.width.bytes().cast_signed() });
        }
    }

    fn ask(&mut self, site: SiteId, var: Var) {
        let asked = &mut self.asked[site];
        if !asked.has(var) {
            asked.insert(var);
            self.waiting.push((site, var));
        }
    }

    /// Follows one more value one step back, and adds the definitions met to `found`. Returns false
    /// when there is nothing left to follow.
    pub fn follow(&mut self, found: &mut Vec<OpId>) -> bool {
        if let Some((site, var)) = self.waiting.pop() {
            self.follow_register(site, var, found);
        } else if let Some(local) = self.locals.take() {
            self.follow_local(local, found);
        } else {
            return false;
        }
        true
    }

    fn follow_register(&mut self, site: SiteId, var: Var, found: &mut Vec<OpId>) {
        for at in 0..self.previous[site].len() {
            let before = self.previous[site][at];
            if self.graph.flow[before].calls.is_empty() {
                self.after(before, var, found);
            } else {
                self.after_call(before, var, found);
            }
        }
        let context = self.graph.sites[site].context;
        if self.graph.contexts[context].entry == Some(site) {
            for at in 0..self.callers[context].len() {
                let caller = self.callers[context][at];
                self.after(caller, var, found);
            }
        }
    }

    /// Follows a local back through its function. A store that covers all of it ends the path.
    fn follow_local(&mut self, local: Local, found: &mut Vec<OpId>) {
        for &before in &self.previous[local.site] {
            let info = self.graph.sites[before];
            let Some(code) = self.graph.code(self.code, before) else { continue };
            let mut covered = false;
            for (at, op) in code.insn.ops.iter().enumerate().filter(|(_, op)| op.kind == Kind::Store) {
                let Some(&Locals::At(start)) = self.graph.locals.get(&info.op(at)) else { continue };
                let (end, wanted) = (start + op.width.bytes().cast_signed(), local.distance + local.size);
                if start < wanted && local.distance < end {
                    found.push(info.op(at));
                    covered |= start <= local.distance && wanted <= end;
                }
            }
            if !covered {
                self.locals.add(Local { site: before, ..local });
            }
        }
    }

    /// Whether a call there has a stack delta.
    fn moves_stack(&self, site: SiteId) -> bool {
        let calls = &self.graph.flow[site].calls;
        calls.iter().any(|&(_, callee)| self.graph.contexts[callee].convention.stack_delta != 0)
    }

    /// The value of a register after a site's own operations.
    fn after(&mut self, site: SiteId, var: Var, found: &mut Vec<OpId>) {
        let info = self.graph.sites[site];
        let ops = self.graph.ops(self.code, site);
        // What comes behind a branch inside the instruction need not be executed.
        let certain = ops.iter().position(|op| op.kind == Kind::BranchIf).unwrap_or(ops.len());
        let mut always = false;
        for (at, _) in ops.iter().enumerate().filter(|(_, op)| op.def() == Some(var)) {
            found.push(info.op(at));
            always |= at < certain;
        }
        if !always {
            self.ask(site, var);
        }
    }

    /// The value of a register after a call has returned. Where the callee ends in a call whose
    /// return also ended the callee's frame, that call's callees are followed too.
    fn after_call(&mut self, site: SiteId, var: Var, found: &mut Vec<OpId>) {
        let (graph, mut calls) = (self.graph, Worklist::from_iter([site]));
        while let Some(site) = calls.take() {
            if var == STACK_POINTER && self.moves_stack(site) {
                let ops = graph.ops(self.code, site);
                let call = ops.iter().rposition(|op| op.kind == Kind::Call);
                found.extend(call.map(|at| graph.sites[site].op(at)));
                continue;
            }
            for &(_, callee) in &graph.flow[site].calls {
                if var == STACK_POINTER || graph.contexts[callee].convention.callee_saved.has(var) {
                    self.ask(site, var);
                    continue;
                }
                for at in 0..self.ends[callee].len() {
                    let end = self.ends[callee][at];
                    if graph.flow[end].calls.is_empty() {
                        self.after(end, var, found);
                    } else {
                        calls.add(end);
                    }
                }
            }
        }
    }
}

/// For each context the sites at which a frame that began in it ends: its own, and those of the
/// contexts it goes on as.
fn ends(graph: &Graph) -> Table<ContextId, Vec<SiteId>> {
    let tails: Table<ContextId, Vec<ContextId>> = graph
        .contexts
        .values()
        .iter()
        .map(|context| {
            let tails = context.sites.iter().flat_map(|&site| &graph.flow[site].tails);
            tails.map(|tail| tail.1).collect()
        })
        .collect();
    let all = tails.ids().map(|context| {
        let reached = closure([context], |it: ContextId| tails[it].iter().copied());
        let sites = reached.iter().flat_map(|&context| &graph.contexts[context].sites);
        sites.copied().filter(|&site| graph.flow[site].returns).collect()
    });
    all.collect()
}
