//! Builds the dependence graph in one forward walk over each recording.
//!
//! Last-writer tables hold, for each register and each guest-physical byte, the operation that defined it. Physical bytes, because
//! one page is often mapped twice. A user page that is moved to another frame (copy on write) takes its writers along.

use ir::summary::{Action, Place};
use ir::{Arg, Class, Kind, Op, Var};
use lift::Mode;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::frames::Move;
use crate::graph::{Graph, INITIAL, RSP};
use crate::recording::Code;
use crate::replay::{Ended, MemRef};
use crate::summary::{SUMMARY_RESULT, summary_ops};
use crate::walk::{SummaryCall, Visitor};

type Registers = Box<[u32; 256]>;

struct Frame {
    func: u32,
    before: Registers,
    site: Option<u32>,
    /// The operation that called.
    call: Option<u32>,
    /// The caller's.
    bottom: u64,
}

/// Bytes below the stack pointer that a leaf function may use (System V AMD64 ABI 3.2.2).
const RED_ZONE: u64 = 128;

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
    guard: u32,
    /// The stack pointer when the frame began, and now.
    bottom: u64,
    rsp: u64,
    /// Bytes of the process that were read as they were at the begin mark, and were not 0.
    pub read_first: FxHashSet<u64>,
}

impl<'g> Depend<'g> {
    /// About to walk a recording whose instruction `n` is `numbers[n]` in the code table.
    pub fn new(
        graph: &'g mut Graph,
        code: &'g [Code],
        numbers: &'g [u32],
        rsp: u64,
        is_user: &'g dyn Fn(u64) -> bool,
    ) -> Self {
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
            guard: INITIAL,
            bottom: rsp,
            rsp,
            read_first: FxHashSet::default(),
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
                if value >> (8 * n) & 0xff != 0 && (self.is_user)(address & !4095) {
                    self.read_first.insert(address);
                }
            } else if writer != last {
                self.graph.edge(op, writer);
            }
            last = writer;
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

    /// Marks the last writers of a stretch of memory as criteria; `bytes` yields physical addresses.
    pub fn criterion(&mut self, bytes: impl Iterator<Item = u64>) {
        for at in bytes {
            if let Some(page) = self.memory.get(&(at & !4095)) {
                let writer = page[(at & 4095) as usize];
                if writer != INITIAL {
                    self.graph.criteria.insert(writer);
                }
            }
        }
    }

    /// The physical address of a user byte that was accessed.
    #[must_use]
    pub fn user_byte(&self, vaddr: u64) -> Option<u64> {
        self.user_frames.get(&(vaddr & !4095)).map(|frame| frame | vaddr & 4095)
    }

    /// The site of the last instruction walked.
    #[must_use]
    pub fn last_site(&self) -> u32 {
        self.site
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

    /// The running frame ends: what its function preserves is the caller's again.
    fn returned(&mut self) {
        let Some(frame) = self.stack.pop() else { return };
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
            && !mem.io
        {
            if (self.is_user)(mem.vaddr & !4095) {
                self.follow(mem);
            }
            self.local(number, mem.vaddr);
            if op.kind == Kind::Store {
                for n in 0..u64::from(mem.size) {
                    let at = mem.byte(n);
                    self.page(at)[(at & 4095) as usize] = number;
                }
            } else {
                self.graph.addresses.insert(number, mem.vaddr);
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
        let control =
            code.insn.ops.iter().rposition(|op| op.class() == Class::Control).map(|at| site.first_op + at as u32);
        match step_move {
            Move::Stay => {}
            Move::Call(func) => {
                let calls = &mut self.graph.flow[self.site as usize].calls;
                if !calls.contains(&(ended.next, func)) {
                    calls.push((ended.next, func));
                }
                let before = self.before.clone();
                self.stack.push(Frame { func, before, site: Some(self.site), call: control, bottom: self.bottom });
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
                for _ in 0..count {
                    self.returned();
                }
            }
        }
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
