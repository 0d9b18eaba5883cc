//! The static dependence graph of all recordings together.
//!
//! A *site* is an instruction in a function; its operations have consecutive numbers. An edge says
//! that in some recording an instance of one operation used what an instance of the other defined.
//! Because a slice is closed (when an operation is in, all its instances are), reachability over
//! these edges is the closed dynamic slice: no dynamic graph needs to be kept.

use ir::{Op, Var};
use machine::Reg;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::preserve::RegSet;
use crate::recording::Code;

/// "No operation": the value was there at the begin mark.
pub const INITIAL: u32 = u32::MAX;

/// "Somebody else": another thread or process, a signal's handler, or a device wrote the value
/// between the marks.
pub const FOREIGN: u32 = u32::MAX - 1;

/// An instruction in a function.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    /// The function.
    pub func: u32,
    /// The instruction in the code table.
    pub code: u32,
    /// Number of its first operation.
    pub first_op: u32,
    /// How many operations it has.
    pub ops: u32,
}

/// What was seen of a site's control flow.
#[derive(Clone, Default, Debug)]
pub struct Flow {
    /// Sites that followed in the same frame.
    pub next: Vec<u32>,
    /// Functions that the frame went on as, by address.
    pub tails: Vec<(u64, u32)>,
    /// Functions that were called, by address.
    pub calls: Vec<(u64, u32)>,
    /// Whether it ended the frame; of a call, whether what it called ended this frame, too.
    pub returns: bool,
}

/// A function's part of the graph.
#[derive(Clone, Default, Debug)]
pub struct Function {
    /// Its first site; `None` for a summarised function without one.
    pub entry: Option<u32>,
    /// Its sites in order of discovery.
    pub sites: Vec<u32>,
    /// Control operations that enter it: calls and tail jumps.
    pub creators: FxHashSet<u32>,
    /// What it preserves; the stack pointer even if it moves it.
    pub preserved: RegSet,
    /// How far above the caller's stack pointer it leaves it: a function that takes its arguments
    /// off the stack.
    pub moves: i64,
    /// The operations that stand for its body, if it is summarised.
    pub summary: Vec<Op>,
}

/// The graph.
#[derive(Clone, Default)]
pub struct Graph {
    /// The trainer is not 64-bit code: words on its stack have 32 bits.
    pub narrow: bool,
    /// Sites by number.
    pub sites: Vec<Site>,
    index: FxHashMap<(u32, u32), u32>,
    /// Site of each operation.
    pub op_site: Vec<u32>,
    /// Whether an operation was ever executed: what follows a branch inside an instruction may not
    /// have been.
    pub executed: Vec<bool>,
    /// Loads and stores of a function's own locals, by operation: distance from the frame's first
    /// word. `None` if it was not always the same.
    pub locals: FxHashMap<u32, Option<i64>>,
    edges: FxHashSet<u64>,
    /// Flow by site.
    pub flow: Vec<Flow>,
    /// Functions by number.
    pub functions: Vec<Function>,
    /// Kept instances of each site, over all recordings.
    pub instances: Vec<u64>,
    /// The site after which the end mark comes, and the mark's address.
    pub end: Option<(u32, u64)>,
    /// Linear address of each load's last instance.
    pub addresses: FxHashMap<u32, u64>,
    /// Stores in code that no recording executed: they belong to every slice of their function.
    pub forced: Vec<u32>,
    /// Operations that defined outputs.
    pub criteria: FxHashSet<u32>,
    /// Loads from devices that the process has mapped.
    pub devices: FxHashSet<u32>,
    /// Operations that use what is [`FOREIGN`].
    pub foreign: FxHashSet<u32>,
}

impl Graph {
    /// The site of an instruction in a function, made when new.
    pub fn site(&mut self, func: u32, code: u32, ops: usize) -> u32 {
        if let Some(&site) = self.index.get(&(func, code)) {
            return site;
        }
        let site = self.sites.len() as u32;
        let first_op = self.op_site.len() as u32;
        self.sites.push(Site { func, code, first_op, ops: ops as u32 });
        self.op_site.resize(self.op_site.len() + ops, site);
        self.executed.resize(self.op_site.len(), false);
        self.flow.push(Flow::default());
        self.instances.push(0);
        self.index.insert((func, code), site);
        let function = &mut self.functions[func as usize];
        function.entry.get_or_insert(site);
        function.sites.push(site);
        site
    }

    /// The one site of a summarised function: its code is past every instruction's number.
    pub fn summary_site(&mut self, func: u32, ops: &[Op]) -> u32 {
        self.functions[func as usize].summary = ops.to_vec();
        self.site(func, u32::MAX, ops.len())
    }

    /// The operations of a site.
    #[must_use]
    pub fn ops<'g>(&'g self, code: &'g [Code], site: u32) -> &'g [Op] {
        let info = &self.sites[site as usize];
        code.get(info.code as usize)
            .map_or(&self.functions[info.func as usize].summary, |code| &code.insn.ops)
    }

    /// All of a site's operations count as executed.
    pub fn mark_executed(&mut self, site: u32) {
        let info = self.sites[site as usize];
        self.executed[info.first_op as usize..(info.first_op + info.ops) as usize].fill(true);
    }

    /// The site of an instruction in a function, if it was executed there.
    #[must_use]
    pub fn find(&self, func: u32, code: u32) -> Option<u32> {
        self.index.get(&(func, code)).copied()
    }

    /// Adds "`user` uses what `definer` defines".
    #[inline]
    pub fn edge(&mut self, user: u32, definer: u32) {
        if definer == FOREIGN {
            self.foreign.insert(user);
        } else if definer != INITIAL {
            self.edges.insert(u64::from(user) << 32 | u64::from(definer));
        }
    }

    /// All edges by user: offsets and definers.
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
        Adjacency { start, definers: edges.iter().map(|&edge| edge as u32).collect() }
    }

    /// Number of edges.
    #[must_use]
    pub fn edge_count(&self) -> usize {
        self.edges.len()
    }
}

/// Edges in compressed rows.
pub struct Adjacency {
    start: Vec<u32>,
    definers: Vec<u32>,
}

impl Adjacency {
    /// What an operation depends on.
    #[must_use]
    pub fn of(&self, op: u32) -> &[u32] {
        &self.definers[self.start[op as usize] as usize..self.start[op as usize + 1] as usize]
    }
}

/// The stack pointer as the IR names it.
pub const RSP: Var = Var(Reg::Rsp as u16);
