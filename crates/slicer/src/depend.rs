//! Builds the dependence graph in one forward walk over each recording.
//!
//! Last-writer tables hold, for each register and each guest-physical byte, the operation that
//! defined it. Physical bytes, because one page is often mapped twice. A user page that is moved to
//! another frame (copy on write) takes its writers along.

use ir::summary::{Action, Place};
use ir::{Arg, Class, Kind, Op, Var};
use lift::Mode;
use machine::paging::PagingMode;
use machine::{GuestMemory, PhysAddr, Reg, RegFile};
use rustc_hash::{FxHashMap, FxHashSet};
use trace::Access;

use crate::Error;
use crate::frames::Move;
use crate::graph::{FOREIGN, Graph, INITIAL, RSP};
use crate::mapping::{Content, Mappings};
use crate::preprocess::Kept;
use crate::recording::{Code, Recording};
use crate::replay::{Ended, MemRef};
use crate::snapshot::SnapshotMemory;
use crate::summary::{SUMMARY_RESULT, summary_ops};
use crate::walk::{SummaryCall, Visitor};

type Registers = Box<[u32; 256]>;

struct Frame {
    func: u32,
    before: Registers,
    /// What the general registers held before it.
    values: [u64; 16],
    site: Option<u32>,
    /// The operation that called.
    call: Option<u32>,
    /// The caller's.
    bottom: u64,
}

/// Bytes below the stack pointer that a leaf function may use (System V AMD64 ABI 3.2.2).
const RED_ZONE: u64 = 128;

/// The machine as a recording began.
pub struct Begin<'r> {
    memory: SnapshotMemory<'r>,
    mode: PagingMode,
    regs: &'r RegFile,
}

impl<'r> Begin<'r> {
    /// Of a recording of a guest, or of a whole run over the memory of `training`.
    ///
    /// # Errors
    /// [`Error::Paging`] when the registers do not tell how addresses are translated.
    pub fn new(recording: &'r Recording, training: &'r Recording) -> Result<Self, Error> {
        let regs = recording.begin_regs();
        let mode = PagingMode::from_regs(regs).map_err(|error| Error::Paging(error.to_string()))?;
        let holder = if recording.trace.header().whole_run { training } else { recording };
        Ok(Self { memory: SnapshotMemory::new(holder), mode, regs })
    }
}

/// The visitor that adds one recording to a graph.
pub struct Depend<'g> {
    graph: &'g mut Graph,
    code: &'g [Code],
    /// The recording's instruction numbers in the code table.
    numbers: &'g [u32],
    registers: Registers,
    before: Registers,
    temps: Vec<u32>,
    memory: FxHashMap<u64, Box<[u32; 4096]>>,
    user_frames: FxHashMap<u64, u64>,
    is_user: &'g dyn Fn(u64) -> bool,
    stack: Vec<Frame>,
    func: u32,
    site: u32,
    previous: Option<u32>,
    /// Where the last instruction led.
    next: u64,
    guard: u32,
    /// The stack pointer when the frame began, and now.
    bottom: u64,
    rsp: u64,
    /// Bytes of the process that were read as they were at the begin mark, and were not 0.
    pub read_first: FxHashSet<u64>,
    /// What stores left in memory.
    content: Content<'g>,
    mappings: Mappings,
    /// The root of the page tables now.
    root: u64,
    /// What others stored since the last step over something that was stored before, and whether as
    /// the process itself.
    overwritten: FxHashMap<u64, (u8, bool)>,
    /// The process's own pages at the begin mark, by frame.
    frames: FxHashMap<u64, u64>,
    /// Pages of the process that somebody else filled.
    filled: FxHashSet<u64>,
    /// Other tasks ran before this step.
    switched: bool,
    /// This step loads what a device wrote.
    unexplained: bool,
    values: [u64; 16],
}

impl<'g> Depend<'g> {
    /// About to walk a recording whose instruction `n` is `numbers[n]` in the code table, and whose
    /// process had these pages, by frame.
    pub fn new(
        graph: &'g mut Graph,
        code: &'g [Code],
        numbers: &'g [u32],
        begin: &'g Begin<'g>,
        is_user: &'g dyn Fn(u64) -> bool,
        kept: &Kept,
        frames: FxHashMap<u64, u64>,
    ) -> Self {
        let rsp = begin.regs.get_or_zero(Reg::Rsp);
        Self {
            graph,
            code,
            numbers,
            registers: Box::new([INITIAL; 256]),
            before: Box::new([INITIAL; 256]),
            temps: Vec::new(),
            memory: FxHashMap::default(),
            user_frames: FxHashMap::default(),
            is_user,
            stack: Vec::new(),
            func: 0,
            site: 0,
            previous: None,
            next: 0,
            guard: INITIAL,
            bottom: rsp,
            rsp,
            read_first: FxHashSet::default(),
            content: Content::new(&begin.memory),
            mappings: Mappings::new(begin.mode),
            root: begin.regs.get_or_zero(Reg::Cr3),
            overwritten: FxHashMap::default(),
            frames,
            filled: kept.late_pages.iter().filter(|(_, page)| page.foreign).map(|(&addr, _)| addr).collect(),
            switched: false,
            unexplained: false,
            values: [0; 16],
        }
    }

    fn page(&mut self, paddr: u64) -> &mut [u32; 4096] {
        self.memory.entry(paddr & !4095).or_insert_with(|| Box::new([INITIAL; 4096]))
    }

    /// Follows a user page into a new frame.
    fn follow(&mut self, mem: &MemRef) {
        let (vpage, frame) = (mem.vaddr & !4095, mem.paddr & !4095);
        if let Some(old) = self.user_frames.insert(vpage, frame)
            && old != frame
            && let Some(writers) = self.memory.get(&old).cloned()
        {
            self.memory.insert(frame, writers);
        }
    }

    fn definer(&self, var: Var) -> u32 {
        if var.is_reg() {
            self.registers[var.0 as usize & 255]
        } else {
            self.temps.get((var.0 - Var::FIRST_TEMP) as usize).copied().unwrap_or(INITIAL)
        }
    }

    fn define(&mut self, var: Var, op: u32) {
        if var.is_reg() {
            self.registers[var.0 as usize & 255] = op;
        } else {
            let at = (var.0 - Var::FIRST_TEMP) as usize;
            if self.temps.len() <= at {
                self.temps.resize(at + 1, INITIAL);
            }
            self.temps[at] = op;
        }
    }

    fn use_var(&mut self, op: u32, var: Var) {
        let definer = self.definer(var);
        self.graph.edge(op, definer);
    }

    fn use_memory(&mut self, op: u32, mem: &MemRef, value: u64) {
        let mut last = INITIAL;
        for n in 0..u64::from(mem.size) {
            let at = mem.byte(n);
            let writer = self.memory.get(&(at & !4095)).map_or(INITIAL, |page| page[(at & 4095) as usize]);
            if writer == INITIAL {
                let address = mem.vaddr.wrapping_add(n);
                if self.filled.contains(&(address & !4095)) {
                    self.graph.edge(op, FOREIGN);
                }
                if value >> (8 * n) & 0xff != 0 && (self.is_user)(address & !4095) {
                    self.read_first.insert(address);
                }
            } else if writer != last {
                self.graph.edge(op, writer);
            }
            last = writer;
        }
    }

    /// After others' steps: what they left changed is theirs. What an interruption changes in the
    /// system is the system's state, as in the target.
    fn settle(&mut self) {
        for (paddr, (byte, own)) in std::mem::take(&mut self.overwritten) {
            let at = (paddr & 4095) as usize;
            let changed = self.content.page(PhysAddr(paddr)).is_ok_and(|page| page[at] != byte);
            if changed && (own || self.switched) {
                self.page(paddr)[at] = FOREIGN;
            }
        }
    }

    /// Notes an access to the running function's own stack frame.
    fn local(&mut self, op: u32, vaddr: u64) {
        let own = vaddr < self.bottom && vaddr >= self.rsp.wrapping_sub(RED_ZONE);
        let distance = own.then(|| vaddr.wrapping_sub(self.bottom).cast_signed());
        let known = self.graph.locals.entry(op).or_insert(distance);
        if *known != distance {
            *known = None;
        }
    }

    /// Marks the last writers of a stretch of memory as criteria; `bytes` yields physical
    /// addresses. Whether all of them are the recording's own.
    #[must_use]
    pub fn criterion(&mut self, bytes: impl Iterator<Item = u64>) -> bool {
        for at in bytes {
            if let Some(page) = self.memory.get(&(at & !4095)) {
                let writer = page[(at & 4095) as usize];
                if writer == FOREIGN {
                    return false;
                }
                if writer != INITIAL {
                    self.graph.criteria.insert(writer);
                }
            }
        }
        true
    }

    /// The physical address of a user byte that was accessed.
    #[must_use]
    pub fn user_byte(&self, vaddr: u64) -> Option<u64> {
        self.user_frames.get(&(vaddr & !4095)).map(|frame| frame | vaddr & 4095)
    }

    /// The site after which the end mark comes, a call if its callee just returned, and the mark's
    /// address.
    #[must_use]
    pub fn end(&self) -> (u32, u64) {
        (self.previous.unwrap_or(self.site), self.next)
    }

    /// The process's last writers of a stretch of memory.
    fn use_writers(&mut self, op: u32, from: u64, count: u64) {
        let mut writers: Vec<u32> = (0..count)
            .filter_map(|n| self.user_byte(from.wrapping_add(n)))
            .filter_map(|at| self.memory.get(&(at & !4095)).map(|page| page[(at & 4095) as usize]))
            .filter(|writer| *writer != INITIAL)
            .collect();
        writers.dedup();
        writers.into_iter().for_each(|writer| self.graph.edge(op, writer));
    }

    /// The running frame ends: what its function preserves is the caller's again. What the general
    /// registers held before it.
    fn returned(&mut self) -> Option<[u64; 16]> {
        let frame = self.stack.pop()?;
        self.bottom = frame.bottom;
        let function = &self.graph.functions[frame.func as usize];
        let (preserved, moves) = (function.preserved, function.moves);
        for var in preserved.iter() {
            self.registers[var.0 as usize] = frame.before[var.0 as usize];
        }
        if let (true, Some(call)) = (moves != 0, frame.call) {
            // A call of such a function moves the stack pointer, and has it from its caller.
            self.graph.edge(call, frame.before[RSP.0 as usize]);
            self.registers[RSP.0 as usize] = call;
        }
        self.previous = frame.site;
        Some(frame.values)
    }

    fn enter(&mut self, func: u32, creator: Option<u32>) {
        if let Some(op) = creator {
            self.graph.functions[func as usize].creators.insert(op);
        }
        self.previous = None;
    }
}

impl Visitor for Depend<'_> {
    fn begin(&mut self, func: u32, code: u32, _: Mode) {
        let number = self.numbers[code as usize];
        let ops = self.code[number as usize].insn.ops.len();
        self.site = self.graph.site(func, number, ops);
        self.func = func;
        self.graph.instances[self.site as usize] += 1;
        if let Some(previous) = self.previous {
            let next = &mut self.graph.flow[previous as usize].next;
            if !next.contains(&self.site) {
                next.push(self.site);
            }
        }
        self.previous = Some(self.site);
        *self.before = *self.registers;
        self.guard = INITIAL;
        self.settle();
    }

    fn op(&mut self, index: usize, op: &Op, value: u64, mem: Option<MemRef>) {
        let number = self.graph.sites[self.site as usize].first_op + index as u32;
        self.graph.executed[number as usize] = true;
        if index == 0 {
            // Another iteration of a string instruction.
            self.guard = INITIAL;
        }
        for var in op.uses() {
            self.use_var(number, var);
        }
        self.graph.edge(number, self.guard);
        if let Some(mem) = &mem
            && mem.io
            && op.kind == Kind::Load
            && (self.is_user)(mem.vaddr & !4095)
        {
            self.graph.devices.insert(number);
        }
        if let Some(mem) = &mem
            && !mem.io
        {
            if (self.is_user)(mem.vaddr & !4095) {
                self.follow(mem);
            } else {
                let makers = self.mappings.makers(self.root, mem.vaddr, &self.content, &self.memory);
                makers.iter().for_each(|&maker| self.graph.edge(number, maker));
            }
            self.local(number, mem.vaddr);
            if op.kind == Kind::Store {
                for n in 0..u64::from(mem.size) {
                    let at = mem.byte(n);
                    self.page(at)[(at & 4095) as usize] = number;
                    self.content.page_mut(at & !4095)[(at & 4095) as usize] = (value >> (8 * n)) as u8;
                }
                self.mappings.stored(mem.paddr & !4095);
            } else {
                self.graph.addresses.insert(number, mem.vaddr);
                if self.unexplained {
                    self.graph.edge(number, FOREIGN);
                }
                self.use_memory(number, mem, value);
            }
        }
        if let Some(var) = op.def() {
            self.define(var, number);
        }
        if op.kind == Kind::BranchIf {
            self.guard = number;
        }
    }

    fn end(&mut self, step_move: Move, ended: &Ended, regs: &[u64; 256]) {
        self.rsp = regs[RSP.0 as usize];
        self.root = regs[Reg::Cr3.index()];
        self.next = ended.next;
        let site = self.graph.sites[self.site as usize];
        let code = &self.code[site.code as usize];
        let repeats = |op: &Op| op.kind == Kind::BranchIf && op.args[1] == Arg::Const(code.insn.pc);
        if code.insn.ops.iter().any(repeats) {
            // A string instruction repeats itself: one more iteration is never new code.
            let next = &mut self.graph.flow[self.site as usize].next;
            if !next.contains(&self.site) {
                next.push(self.site);
            }
        }
        let control = code
            .insn
            .ops
            .iter()
            .rposition(|op| op.class() == Class::Control)
            .map(|at| site.first_op + at as u32);
        self.unexplained = false;
        let switched = std::mem::take(&mut self.switched);
        match step_move {
            Move::Stay => {}
            Move::Call(func) => {
                let calls = &mut self.graph.flow[self.site as usize].calls;
                if !calls.contains(&(ended.next, func)) {
                    calls.push((ended.next, func));
                }
                let before = self.before.clone();
                let values = self.values;
                let frame =
                    Frame { func, before, values, site: Some(self.site), call: control, bottom: self.bottom };
                self.stack.push(frame);
                self.bottom = self.rsp;
                self.enter(func, control);
            }
            Move::Tail(func) => {
                let tails = &mut self.graph.flow[self.site as usize].tails;
                if !tails.contains(&(ended.next, func)) {
                    tails.push((ended.next, func));
                }
                self.enter(func, control);
            }
            Move::Return(count) => {
                self.graph.flow[self.site as usize].returns = true;
                for left in (0..count).rev() {
                    let Some(values) = self.returned() else { return };
                    if let (true, Some(call)) = (left > 0, self.previous) {
                        // Its callee went out of the system, or further up, without coming back
                        // here.
                        self.graph.flow[call as usize].returns = true;
                    }
                    if switched {
                        // What the call leaves in a register comes from others, unless it gave the
                        // register back.
                        let changed = (0..16).filter(|&at| at != RSP.0 as usize && values[at] != regs[at]);
                        changed.for_each(|at| self.registers[at] = FOREIGN);
                    }
                }
            }
        }
        self.values.copy_from_slice(&regs[..16]);
    }

    fn passes(&mut self, accesses: &[Access], here: bool) {
        for access in accesses.iter().filter(|access| access.store && !access.io) {
            let frame = access.paddr.page().0;
            // By another process in memory that both have, or by the system through an address of
            // its own.
            let shared = self.frames.get(&frame).copied();
            let shared =
                shared.filter(|page| *self.user_frames.entry(*page).or_insert(frame) == frame).is_some();
            for n in 0..u64::from(access.size) {
                let paddr = access.paddr.0.wrapping_add(n);
                let addressed = (self.is_user)(access.vaddr.page().0) && here;
                if addressed {
                    self.user_frames.entry(access.vaddr.page().0).or_insert(frame);
                }
                let own = addressed || shared;
                let written = self
                    .memory
                    .get(&(paddr & !4095))
                    .is_some_and(|page| page[(paddr & 4095) as usize] != INITIAL);
                if written {
                    self.overwritten.insert(paddr, ((access.value >> (8 * n)) as u8, own));
                } else if own {
                    self.page(paddr)[(paddr & 4095) as usize] = FOREIGN;
                }
            }
        }
    }

    fn switched(&mut self) {
        self.switched = true;
    }

    fn unexplained(&mut self) {
        self.unexplained = true;
    }

    fn summary(&mut self, func: u32, call: &SummaryCall) {
        if self.stack.is_empty() {
            return;
        }
        let ops = summary_ops(&call.summary, self.graph.narrow);
        let site = self.graph.summary_site(func, &ops);
        self.graph.instances[site as usize] += 1;
        self.graph.flow[site as usize].returns = true;
        self.graph.mark_executed(site);
        let first = self.graph.sites[site as usize].first_op;
        let fails = call.summary.fails.map(|(place, _)| place);
        let mut loaded = call.summary.args().iter().copied().chain(fails).filter_map(|place| match place {
            Place::Stack(distance) => Some(call.stack.wrapping_add(distance.into())),
            Place::Register(_) => None,
        });
        self.temps.clear();
        for (index, op) in ops.iter().enumerate() {
            for var in op.uses() {
                self.use_var(first + index as u32, var);
            }
            if op.kind == Kind::Load
                && let Some(from) = loaded.next()
            {
                self.use_writers(first + index as u32, from, op.width.bytes());
            }
            if let Some(var) = op.def() {
                self.define(var, first + index as u32);
            }
        }
        self.returned();
        // What the new memory holds comes from the allocation: zeros, or what the old one held.
        let definer = self.registers[SUMMARY_RESULT.0 as usize];
        let size = match call.summary.action {
            Action::Calloc => call.args[0].saturating_mul(call.args[1]),
            Action::Realloc => {
                self.use_writers(definer, call.args[0], call.args[1].min(1 << 20));
                call.args[1]
            }
            Action::Malloc => call.args[0],
            Action::Free | Action::Release => 0,
        };
        for n in 0..size.min(1 << 20) {
            if let Some(at) = self.user_byte(call.result.wrapping_add(n)) {
                self.page(at)[(at & 4095) as usize] = INITIAL;
            }
        }
    }
}
