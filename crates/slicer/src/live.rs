//! Which registers the slice still uses, at every site: backward liveness over all functions of a
//! slice.
//!
//! Only registers are followed; stores of unseen code are not compared with the slice's loads.

use ir::Class;

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
    /// What each site defines.
    defines: Vec<RegSet>,
}

impl Liveness {
    /// Nothing is live: there is no slice yet.
    #[must_use]
    pub fn new(graph: &Graph, code: &[Code]) -> Self {
        Self {
            before: vec![RegSet::default(); graph.sites.len()],
            at_return: vec![RegSet::default(); graph.functions.len()],
            defines: (0..graph.sites.len()).map(|site| defines(graph, code, site)).collect(),
        }
    }

    /// Follows a slice that has grown: what its operations use.
    pub fn update(&mut self, graph: &Graph, code: &[Code], slice: &Slice) {
        let uses: Vec<RegSet> = (0..graph.sites.len()).map(|site| uses(graph, code, slice, site)).collect();
        loop {
            let mut changed = false;
            for func in (0..graph.functions.len()).filter(|&func| slice.functions[func]) {
                for &site in graph.functions[func].sites.iter().rev() {
                    changed |= self.site(graph, slice, &uses, func, site);
                }
            }
            if !changed {
                return;
            }
        }
    }

    fn entry(&self, graph: &Graph, func: u32) -> RegSet {
        graph.functions[func as usize].entry.map_or(RegSet::default(), |site| self.before[site as usize])
    }

    fn site(&mut self, graph: &Graph, slice: &Slice, uses: &[RegSet], func: usize, site: u32) -> bool {
        let flow = &graph.flow[site as usize];
        let mut changed = false;
        let mut after = RegSet::default();
        for &next in &flow.next {
            after.union(&self.before[next as usize]);
        }
        if flow.returns {
            after.union(&self.at_return[func]);
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
        let mut before = after.without(&self.defines[site as usize]);
        before.union(&uses[site as usize]);
        changed | grow(&mut self.before[site as usize], &before)
    }
}

fn grow(set: &mut RegSet, more: &RegSet) -> bool {
    let old = *set;
    set.union(more);
    old != *set
}

/// What a site's operations in the slice use before the site defines it.
fn uses(graph: &Graph, code: &[Code], slice: &Slice, site: usize) -> RegSet {
    let mut uses = RegSet::default();
    if !slice.sites[site] {
        return uses;
    }
    let info = graph.sites[site];
    let (mut defined, mut conditional) = (RegSet::default(), false);
    for (at, op) in graph.ops(code, site as u32).iter().enumerate() {
        if slice.ops[info.first_op as usize + at] {
            op.uses().filter(|var| var.is_reg() && !defined.has(*var)).for_each(|var| uses.insert(var));
        }
        conditional |= op.class() == Class::Control;
        if let Some(var) = op.def().filter(|var| var.is_reg() && !conditional) {
            defined.insert(var);
        }
    }
    uses
}

/// What a site defines whichever way its instruction goes.
fn defines(graph: &Graph, code: &[Code], site: usize) -> RegSet {
    let mut defines = RegSet::default();
    let certain = graph.ops(code, site as u32).iter().take_while(|op| op.class() != Class::Control);
    certain.filter_map(ir::Op::def).filter(|var| var.is_reg()).for_each(|var| defines.insert(var));
    defines
}
