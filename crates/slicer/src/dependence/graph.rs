//! The static dependence graph of all recordings together.
//!
//! A *site* is an instruction in a context; its operations have consecutive ids. An edge says that
//! in some recording an instance of one operation used what an instance of the other defined: the
//! second approach of Agrawal and Horgan ("Dynamic Program Slicing", PLDI 1990), with operations
//! for statements. Because an executable slice (Korel and Laski, "Dynamic Program Slicing", IPL
//! 1988) is closed (when an operation is in, all its instances are), reachability over these edges
//! is the closed dynamic slice: no dynamic graph needs to be kept.

use ir::Op;
use machine::VirtAddr;
use rustc_hash::{FxHashMap, FxHashSet};

use super::definer::{Definer, PackedDefiner};
use super::flow::Flow;
use super::stacks::Depth;
use crate::context::Convention;
use crate::vocabulary::{Code, CodeTable, ContextId, Id, InsnId, OpId, SiteId, Table};

/// What a site executes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Body {
    /// An instruction.
    Insn(InsnId),
    /// The operations that stand for an allocator function; see [`Context::summary`].
    Allocator,
}

/// An instruction in a context.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    /// The context.
    pub context: ContextId,
    /// What it executes.
    pub body: Body,
    /// Its first operation.
    pub first_op: OpId,
    /// How many operations it has.
    pub ops: u32,
}

impl Site {
    /// The operation with this index among the site's.
    #[must_use]
    pub const fn op(&self, index: usize) -> OpId {
        self.first_op.add(index)
    }

    /// The index of one of its operations.
    #[must_use]
    pub fn index_of(&self, op: OpId) -> usize {
        op.index() - self.first_op.index()
    }
}

/// A context's part of the graph.
#[derive(Clone, Default, Debug)]
pub struct Context {
    /// Its first site; `None` if it has none, as an allocator function that never returned, and
    /// what allocator functions call.
    pub entry: Option<SiteId>,
    /// Its sites in order of discovery.
    pub sites: Vec<SiteId>,
    /// Control operations that enter it: calls and tail jumps.
    pub call_sites: FxHashSet<OpId>,
    /// How it leaves its caller's registers.
    pub convention: Convention,
    /// The operations that stand for its body, if it is an allocator function.
    pub summary: Vec<Op>,
}

/// Where an operation accesses its own function's stack frame, or where the stack pointer is in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Locals {
    /// Always at this distance in bytes from the frame's first word.
    At(i64),
    /// Not always at the same distance, or not always in the frame.
    Varying,
}

impl Locals {
    /// What is known after one more sighting.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        if self == other { self } else { Self::Varying }
    }
}

/// What an operation used that no operation of the recording defined, apart from the process's own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Given {
    /// Memory of the system, or a page that the system shows to its processes.
    Memory,
    /// A register of the system.
    Register,
    /// A device.
    Device,
    /// The input with this number.
    Input(usize),
}

/// Where a recording ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct End {
    /// The site after which the end mark comes; a call if its callee just returned.
    pub site: SiteId,
    /// The end mark's address.
    pub pc: VirtAddr,
}

/// The graph.
#[derive(Clone, Default)]
pub struct Graph {
    /// The trainer is not 64-bit code: words on its stack have 32 bits.
    pub narrow: bool,
    /// All sites.
    pub sites: Table<SiteId, Site>,
    /// What was seen of each site's control flow.
    pub flow: Table<SiteId, Flow>,
    /// The contexts.
    pub contexts: Table<ContextId, Context>,
    /// Site of each operation.
    pub op_site: Table<OpId, SiteId>,
    /// Whether an operation was ever executed: what follows a branch inside an instruction may not
    /// have been.
    pub executed: Table<OpId, bool>,
    /// For each load and store that was executed, where in its function's own stack frame it
    /// accesses.
    pub locals: FxHashMap<OpId, Locals>,
    /// Where the stack pointer is before each site in its function's frame; `None` if that was not
    /// seen.
    pub depths: Table<SiteId, Option<Locals>>,
    /// Linear address of each load's last instance.
    pub addresses: FxHashMap<OpId, VirtAddr>,
    /// Loads whose last instance read the process's own memory.
    pub own: FxHashSet<OpId>,
    /// Stores in code that no recording executed: they belong to every slice.
    pub unexecuted_stores: Vec<OpId>,
    /// Operations that wrote a declared output.
    pub criteria: FxHashSet<OpId>,
    /// The addresses of declared outputs: first one, and the one behind the last.
    pub declared: FxHashSet<(u64, u64)>,
    /// For each output, by its number, the criteria that wrote it.
    pub outputs: Vec<FxHashSet<OpId>>,
    /// Operations that use what was there before the begin mark, and what that was.
    pub given: FxHashSet<(OpId, Given)>,
    /// Loads from devices that the process has mapped.
    pub devices: FxHashSet<OpId>,
    /// Operations that use what is [`Definer::Foreign`], and the number of the first recording in
    /// which they do.
    pub foreign: FxHashMap<OpId, usize>,
    /// Stores that may write what a load reads, although no recording joined the two.
    pub may: FxHashMap<OpId, FxHashSet<OpId>>,
    /// Operations that give the code a new stack in the system's memory, and how far down it goes
    /// there.
    pub stacks: FxHashMap<OpId, Depth>,
    /// How many recordings are in the graph.
    pub recordings: usize,
    /// Where the last recording that was added ends.
    pub end: Option<End>,
    index: FxHashMap<(ContextId, Body), SiteId>,
    /// User (upper half) and definer in one word, for speed: each operand of each step is looked up
    /// here.
    edges: FxHashSet<u64>,
}

impl Graph {
    /// A graph without sites, for contexts with these conventions. `narrow`: the trainer is not
    /// 64-bit code.
    #[must_use]
    pub fn new(narrow: bool, conventions: Table<ContextId, Convention>) -> Self {
        let context = |&convention: &Convention| Context { convention, ..Context::default() };
        Self { narrow, contexts: conventions.values().iter().map(context).collect(), ..Self::default() }
    }

    /// The site of a body with `ops` operations in a context, made when new.
    pub fn site(&mut self, context: ContextId, body: Body, ops: usize) -> SiteId {
        if let Some(&site) = self.index.get(&(context, body)) {
            return site;
        }
        let first_op = OpId::new(self.op_site.len());
        let site = self.sites.push(Site { context, body, first_op, ops: ops as u32 });
        self.op_site.resize(self.op_site.len() + ops, site);
        self.executed.resize(self.op_site.len(), false);
        self.flow.push(Flow::default());
        self.depths.push(None);
        self.index.insert((context, body), site);
        let it = &mut self.contexts[context];
        it.entry.get_or_insert(site);
        it.sites.push(site);
        site
    }

    /// The one site of an allocator function.
    pub fn allocator_site(&mut self, context: ContextId, ops: &[Op]) -> SiteId {
        self.contexts[context].summary = ops.to_vec();
        self.site(context, Body::Allocator, ops.len())
    }

    /// The site of an instruction in a context, if there is one.
    #[must_use]
    pub fn find(&self, context: ContextId, insn: InsnId) -> Option<SiteId> {
        self.index.get(&(context, Body::Insn(insn))).copied()
    }

    /// The instruction of a site; `None` for an allocator function's.
    #[must_use]
    pub fn code<'c>(&self, code: &'c CodeTable, site: SiteId) -> Option<&'c Code> {
        match self.sites[site].body {
            Body::Insn(insn) => Some(code.get(insn)),
            Body::Allocator => None,
        }
    }

    /// The operations of a site.
    #[must_use]
    pub fn ops<'g>(&'g self, code: &'g CodeTable, site: SiteId) -> &'g [Op] {
        match self.code(code, site) {
            Some(code) => &code.insn.ops,
            None => &self.contexts[self.sites[site].context].summary,
        }
    }

    /// An operation wrote some of the output with this number.
    pub fn writes_output(&mut self, output: usize, writer: OpId) {
        if self.outputs.len() <= output {
            self.outputs.resize_with(output + 1, FxHashSet::default);
        }
        self.criteria.insert(writer);
        self.outputs[output].insert(writer);
    }

    /// All of a site's operations count as executed.
    pub fn mark_executed(&mut self, site: SiteId) {
        let it = self.sites[site];
        let first = it.first_op.index();
        self.executed.values_mut()[first..first + it.ops as usize].fill(true);
    }

    /// Adds "`user` uses what `definer` defined".
    #[inline]
    pub fn depend(&mut self, user: OpId, definer: PackedDefiner) {
        match definer.unpack() {
            Definer::Initial => {}
            Definer::Foreign => {
                self.foreign.entry(user).or_insert(self.recordings);
            }
            Definer::Op(definer) => self.edge(user, definer),
        }
    }

    /// Adds "`user` depends on `definer`".
    #[inline]
    pub fn edge(&mut self, user: OpId, definer: OpId) {
        self.edges.insert((user.index() as u64) << 32 | definer.index() as u64);
    }

    /// All edges by user.
    #[must_use]
    pub fn adjacency(&self) -> Adjacency {
        let mut edges: Vec<u64> = self.edges.iter().copied().collect();
        edges.sort_unstable();
        let mut start = vec![0u32; self.op_site.len() + 1];
        for edge in &edges {
            start[(edge >> 32) as usize + 1] += 1;
        }
        for at in 1..start.len() {
            start[at] += start[at - 1];
        }
        Adjacency { start, definers: edges.iter().map(|&edge| OpId::new(edge as u32 as usize)).collect() }
    }
}

/// Edges by user, in compressed sparse rows.
pub struct Adjacency {
    start: Vec<u32>,
    definers: Vec<OpId>,
}

impl Adjacency {
    /// What an operation depends on, ascending.
    #[must_use]
    pub fn of(&self, op: OpId) -> &[OpId] {
        &self.definers[self.start[op.index()] as usize..self.start[op.index() + 1] as usize]
    }
}
