//! Which definitions of a register can reach a use, on every path through executed code.
//!
//! Dependences that were seen are not enough: a path may be made of pieces that were each executed
//! in other company (one more iteration of a loop, the left side of one branch and then the right
//! side of another), and then a use gets its value from a definition that no recording joined with
//! it. Registers can be followed exactly: backward from the use, through calls and returns, to
//! every last definition. So can a function's own locals, which always lie at the same distance
//! from where its frame begins. Other memory cannot, and is left to what was seen.

use ir::{Kind, Var};
use rustc_hash::FxHashSet;

use crate::graph::{Graph, RSP};
use crate::preserve::RegSet;
use crate::recording::Code;

/// Backward steps over executed sites.
pub(crate) struct Reaching<'g> {
    graph: &'g Graph,
    code: &'g [Code],
    /// Sites that a site follows in its frame.
    previous: Vec<Vec<u32>>,
    /// For each function the sites that end a frame which began in it.
    ends: Vec<Vec<u32>>,
    /// Sites that enter a function, by its entry site.
    callers: Vec<Vec<u32>>,
    /// What was asked for already, by site.
    asked: Vec<RegSet>,
    /// Values still to be followed: a register before a site.
    needs: Vec<(u32, Var)>,
    asked_locals: FxHashSet<(u32, i64, u64)>,
    /// The same for locals: distance and size.
    local_needs: Vec<(u32, i64, u64)>,
}

impl<'g> Reaching<'g> {
    /// Prepares the steps.
    pub fn new(graph: &'g Graph, code: &'g [Code]) -> Self {
        let mut previous = vec![Vec::new(); graph.sites.len()];
        for (site, flow) in graph.flow.iter().enumerate() {
            for &next in &flow.next {
                previous[next as usize].push(site as u32);
            }
        }
        let mut callers = vec![Vec::new(); graph.sites.len()];
        for function in &graph.functions {
            if let Some(entry) = function.entry {
                let sites: &mut Vec<u32> = &mut callers[entry as usize];
                sites.extend(function.creators.iter().map(|&op| graph.op_site[op as usize]));
                sites.sort_unstable();
                sites.dedup();
            }
        }
        let asked = vec![RegSet::default(); graph.sites.len()];
        Self {
            graph,
            code,
            previous,
            ends: ends(graph),
            callers,
            asked,
            needs: Vec::new(),
            asked_locals: FxHashSet::default(),
            local_needs: Vec::new(),
        }
    }

    /// An operation is in the slice: what it reads must be, too. Gives the operations of its own
    /// site that define it.
    pub fn uses(&mut self, op: u32, found: &mut Vec<u32>) {
        let site = self.graph.op_site[op as usize];
        let info = self.graph.sites[site as usize];
        let ops = self.graph.ops(self.code, site);
        let index = (op - info.first_op) as usize;
        for var in ops[index].uses() {
            let defined = ops[..index].iter().rposition(|it| it.def() == Some(var));
            match defined {
                Some(at) => found.push(info.first_op + at as u32),
                None if var.is_reg() => self.ask(site, var),
                None => {}
            }
        }
        let it = &ops[index];
        if it.kind == Kind::Call && self.moves(site) {
            self.ask(site, RSP);
        }
        if it.kind == Kind::Load
            && let Some(&Some(distance)) = self.graph.locals.get(&op)
        {
            self.ask_local(site, distance, it.width.bytes());
        }
    }

    fn ask_local(&mut self, site: u32, distance: i64, size: u64) {
        if self.asked_locals.insert((site, distance, size)) {
            self.local_needs.push((site, distance, size));
        }
    }

    /// Follows a local through its function.
    fn follow_local(&mut self, (site, distance, size): (u32, i64, u64), found: &mut Vec<u32>) {
        for at in 0..self.previous[site as usize].len() {
            let before = self.previous[site as usize][at];
            let info = self.graph.sites[before as usize];
            let Some(code) = self.code.get(info.code as usize) else { continue };
            let mut covered = false;
            for (at, op) in code.insn.ops.iter().enumerate().filter(|(_, op)| op.kind == Kind::Store) {
                let number = info.first_op + at as u32;
                let Some(&Some(start)) = self.graph.locals.get(&number) else { continue };
                let (end, wanted) = (start + op.width.bytes().cast_signed(), distance + size.cast_signed());
                if start < wanted && distance < end {
                    found.push(number);
                    covered |= start <= distance && wanted <= end;
                }
            }
            if !covered {
                self.ask_local(before, distance, size);
            }
        }
    }

    /// Whether a call there moves the stack pointer.
    fn moves(&self, site: u32) -> bool {
        let calls = &self.graph.flow[site as usize].calls;
        calls.iter().any(|&(_, callee)| self.graph.functions[callee as usize].moves != 0)
    }

    fn ask(&mut self, site: u32, var: Var) {
        let asked = &mut self.asked[site as usize];
        if !asked.has(var) {
            asked.insert(var);
            self.needs.push((site, var));
        }
    }

    /// Follows one more value; gives the definitions met. Returns false when there is nothing left
    /// to follow.
    pub fn follow(&mut self, found: &mut Vec<u32>) -> bool {
        let Some((site, var)) = self.needs.pop() else {
            let Some(local) = self.local_needs.pop() else { return false };
            self.follow_local(local, found);
            return true;
        };
        for at in 0..self.previous[site as usize].len() {
            let before = self.previous[site as usize][at];
            if self.graph.flow[before as usize].calls.is_empty() {
                self.after(before, var, found);
            } else {
                self.after_call(before, var, found);
            }
        }
        for at in 0..self.callers[site as usize].len() {
            let caller = self.callers[site as usize][at];
            self.after(caller, var, found);
        }
        true
    }

    /// The value of a register after a site's own operations.
    fn after(&mut self, site: u32, var: Var, found: &mut Vec<u32>) {
        let info = self.graph.sites[site as usize];
        let ops = self.graph.ops(self.code, site);
        // What comes behind a branch inside the instruction may not be executed.
        let certain = ops.iter().position(|op| op.kind == Kind::BranchIf).unwrap_or(ops.len());
        let mut always = false;
        for (at, _) in ops.iter().enumerate().filter(|(_, op)| op.def() == Some(var)) {
            found.push(info.first_op + at as u32);
            always |= at < certain;
        }
        if !always {
            self.ask(site, var);
        }
    }

    /// The value of a register when a call has returned, also one that its callee's callee, and so
    /// on, returned from.
    fn after_call(&mut self, site: u32, var: Var, found: &mut Vec<u32>) {
        let (mut calls, mut at) = (vec![site], 0);
        while let Some(&site) = calls.get(at) {
            at += 1;
            if var == RSP && self.moves(site) {
                let ops = self.graph.ops(self.code, site);
                let first = self.graph.sites[site as usize].first_op;
                found.extend(ops.iter().rposition(|op| op.kind == Kind::Call).map(|at| first + at as u32));
                continue;
            }
            for at in 0..self.graph.flow[site as usize].calls.len() {
                let (_, callee) = self.graph.flow[site as usize].calls[at];
                if var == RSP || self.graph.functions[callee as usize].preserved.has(var) {
                    self.ask(site, var);
                    continue;
                }
                for end in 0..self.ends[callee as usize].len() {
                    let end = self.ends[callee as usize][end];
                    if self.graph.flow[end as usize].calls.is_empty() {
                        self.after(end, var, found);
                    } else if !calls.contains(&end) {
                        calls.push(end);
                    }
                }
            }
        }
    }
}

/// For each function the sites at which a frame that began in it ends: its own, and those of the
/// functions it goes on as.
fn ends(graph: &Graph) -> Vec<Vec<u32>> {
    let mut reaches: Vec<Vec<u32>> = vec![Vec::new(); graph.functions.len()];
    for (func, function) in graph.functions.iter().enumerate() {
        for &site in &function.sites {
            reaches[func].extend(graph.flow[site as usize].tails.iter().map(|tail| tail.1));
        }
    }
    (0..graph.functions.len() as u32)
        .map(|func| {
            let (mut all, mut at) = (vec![func], 0);
            while let Some(&next) = all.get(at) {
                for &tail in &reaches[next as usize] {
                    if !all.contains(&tail) {
                        all.push(tail);
                    }
                }
                at += 1;
            }
            let sites = all.iter().flat_map(|&func| &graph.functions[func as usize].sites);
            sites.copied().filter(|&site| graph.flow[site as usize].returns).collect()
        })
        .collect()
}
