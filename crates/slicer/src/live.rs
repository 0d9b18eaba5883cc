//! Which registers the slice still uses, at every site: backward liveness over all functions of a slice.
//!
//! Only registers are followed; stores of unseen code are not compared with the slice's loads.

use ir::{Arg, Class};

use crate::graph::Graph;
use crate::preserve::RegSet;
use crate::recording::Code;
use crate::slice::Slice;

/// Live registers.
pub struct Liveness {
    /// Before each site.
    pub before: Vec<RegSet>,
    /// When each function returns: what some caller uses.
    pub at_return: Vec<RegSet>,
}

/// What a site's own operations use before they define it, and what they define.
struct Local {
    uses: RegSet,
    defines: RegSet,
}

impl Liveness {
    /// Computes liveness of what the slice's operations use.
    #[must_use]
    pub fn compute(graph: &Graph, code: &[Code], slice: &Slice) -> Self {
        let local: Vec<Local> = (0..graph.sites.len()).map(|site| local(graph, code, slice, site)).collect();
        let mut live = Self {
            before: vec![RegSet::default(); graph.sites.len()],
            at_return: vec![RegSet::default(); graph.functions.len()],
        };
        loop {
            let mut changed = false;
            for func in (0..graph.functions.len()).filter(|&func| slice.functions[func]) {
                for &site in graph.functions[func].sites.iter().rev() {
                    changed |= live.update(graph, slice, &local, func, site);
                }
            }
            if !changed {
                return live;
            }
        }
    }

    fn entry(&self, graph: &Graph, func: u32) -> RegSet {
        graph.functions[func as usize].entry.map_or(RegSet::default(), |site| self.before[site as usize])
    }

    fn update(&mut self, graph: &Graph, slice: &Slice, local: &[Local], func: usize, site: u32) -> bool {
        let flow = &graph.flow[site as usize];
        let mut changed = false;
        let mut after = RegSet::default();
        for &next in &flow.next {
            after.union(&self.before[next as usize]);
        }
        let beyond = after;
        if !flow.calls.is_empty() {
            after = RegSet::default();
            for &(_, callee) in &flow.calls {
                let preserved = graph.functions[callee as usize].preserved;
                let given = beyond.without(&preserved);
                changed |= grow(&mut self.at_return[callee as usize], &given);
                after.union(&beyond.without(&given));
                if slice.functions[callee as usize] {
                    after.union(&self.entry(graph, callee));
                }
            }
        }
        for &(_, tail) in &flow.tails {
            let back = self.at_return[func];
            changed |= grow(&mut self.at_return[tail as usize], &back);
            after.union(&self.entry(graph, tail));
        }
        if flow.returns {
            after.union(&self.at_return[func]);
        }
        let mut before = after.without(&local[site as usize].defines);
        before.union(&local[site as usize].uses);
        changed | grow(&mut self.before[site as usize], &before)
    }
}

fn grow(set: &mut RegSet, more: &RegSet) -> bool {
    let old = *set;
    set.union(more);
    old != *set
}

fn local(graph: &Graph, code: &[Code], slice: &Slice, site: usize) -> Local {
    let info = graph.sites[site];
    let mut result = Local { uses: RegSet::default(), defines: RegSet::default() };
    let Some(code) = code.get(info.code as usize) else { return result };
    let mut conditional = false;
    for (at, op) in code.insn.ops.iter().enumerate() {
        if slice.ops[info.first_op as usize + at] {
            for arg in op.args() {
                if let Arg::Var(var) = arg
                    && var.is_reg()
                    && !result.defines.has(*var)
                {
                    result.uses.insert(*var);
                }
            }
        }
        conditional |= op.class() == Class::Control;
        if let Some(var) = op.def().filter(|var| var.is_reg())
            && !conditional
        {
            result.defines.insert(var);
        }
    }
    result
}
