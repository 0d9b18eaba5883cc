//! Builds the dependence graph in one forward walk over each recording.
//!
//! For each operation of each step, an edge goes to the last writers of what it uses. At a return
//! the last writers of callee-saved registers become those before the call. Cost: for each step a
//! copy of all registers' definers, for each operand one look-up and one insertion into a set of
//! edges; four bytes for each byte of the frames that the recording stored into.

use std::ops::Range;

use ir::summary::{Action, ArgumentLocation};
use ir::{Class, Kind, Op, Var};
use lift::Mode;
use machine::paging::PagingMode;
use machine::{Reg, RegFile, VirtAddr};
use rustc_hash::FxHashSet;
use trace::{Access, InsnId};

use super::definer::{Definer, PackedDefiner};
use super::flow_recorder::FlowRecorder;
use super::foreign::{ForeignWrites, OwnPages};
use super::graph::{Body, End, Given, Graph, Locals};
use super::page_tables::PageTables;
use super::pointers::{Here, Pointers};
use super::shadow_memory::ShadowMemory;
use super::stacks::Stacks;
use super::variable_map::{RegisterDefiners, VariableMap};
use crate::context::Transition;
use crate::context::walk::{SummaryCall, Visitor};
use crate::error::Error;
use crate::recording::replay::{Ended, MemRef};
use crate::recording::snapshot::SnapshotMemory;
use crate::recording::stored_memory::StoredMemory;
use crate::recording::{Recording, UserMemory};
use crate::vocabulary::allocator::summary_ops;
use crate::vocabulary::code::Interned;
use crate::vocabulary::{
    CodeTable, ContextId, GENERAL, Id, OpId, RESULT, RegisterValues, STACK_POINTER, SiteId,
};

/// Bytes below the stack pointer that a leaf function may use (System V AMD64 ABI 3.2.2).
const RED_ZONE: u64 = 128;

/// The most bytes of a new allocation whose writers are cleared.
const MAX_ALLOCATION: u64 = 1 << 20;

type GeneralRegisters = [u64; GENERAL];

/// The machine at a recording's begin mark.
pub struct Begin<'r> {
    memory: SnapshotMemory<'r>,
    mode: PagingMode,
    regs: &'r RegFile,
    /// Where the inputs lie.
    inputs: Vec<Range<VirtAddr>>,
    /// Where the outputs lie.
    outputs: Vec<Range<VirtAddr>>,
}

impl<'r> Begin<'r> {
    /// For a recording of a guest, or of a whole run over the memory of `training`.
    ///
    /// # Errors
    /// [`Error::Paging`] when the registers do not tell how addresses are translated.
    pub fn new(recording: &'r Recording, training: &'r Recording) -> Result<Self, Error> {
        let regs = recording.begin_regs();
        let mode = PagingMode::from_regs(regs).map_err(|error| Error::Paging(error.to_string()))?;
        let holder = if recording.is_whole_run() { training } else { recording };
        let range = |it: &trace::Variable| it.addr..it.addr.add(it.size);
        let inputs = recording.trace.header().inputs().map(range).collect();
        let outputs = recording.trace.header().outputs().map(range).collect();
        Ok(Self { memory: SnapshotMemory::new(&holder.trace), mode, regs, inputs, outputs })
    }
}

/// A call that has not returned.
struct Frame {
    context: ContextId,
    /// Definers before the call.
    before: RegisterDefiners,
    /// What the general registers held before it.
    values: GeneralRegisters,
    site: SiteId,
    /// The operation that called.
    call: Option<OpId>,
    /// Address of the first word of the caller's stack frame.
    bottom: VirtAddr,
}

/// The visitor that adds one recording to a graph.
pub struct DependenceRecorder<'g> {
    graph: &'g mut Graph,
    code: &'g CodeTable,
    /// The recording's instructions in the code table.
    insns: &'g Interned,
    user: &'g dyn UserMemory,
    /// Pages of the process that the system shows to all of them.
    shown: &'g FxHashSet<VirtAddr>,
    inputs: &'g [Range<VirtAddr>],
    outputs: &'g [Range<VirtAddr>],
    variables: VariableMap,
    memory: ShadowMemory,
    /// What stores left in memory.
    content: StoredMemory<'g>,
    page_tables: PageTables,
    foreign: ForeignWrites,
    pointers: Pointers,
    stacks: Stacks,
    flow: FlowRecorder,
    frames: Vec<Frame>,
    /// The running site.
    site: SiteId,
    /// Definers before the running instruction, and what the general registers hold.
    before: RegisterDefiners,
    values: GeneralRegisters,
    /// The branch inside the running instruction that its further operations depend on.
    guard: Option<OpId>,
    /// The first word of the running function's frame, and the stack pointer.
    bottom: VirtAddr,
    stack: VirtAddr,
    /// The root of the page tables now: CR3's value.
    root: u64,
    /// Bytes of the process that were read as they were at the begin mark, and were not 0.
    read_first: FxHashSet<VirtAddr>,
}

impl<'g> DependenceRecorder<'g> {
    /// About to walk a recording whose process has pages to itself (`own`) and others that the
    /// system shows to all processes (`shown`).
    pub fn new(
        graph: &'g mut Graph,
        code: &'g CodeTable,
        insns: &'g Interned,
        begin: &'g Begin<'g>,
        user: &'g dyn UserMemory,
        shown: &'g FxHashSet<VirtAddr>,
        own: OwnPages,
    ) -> Self {
        let variables = VariableMap::new();
        let stack = VirtAddr(begin.regs.get_or_zero(Reg::Rsp));
        Self {
            graph,
            code,
            insns,
            user,
            shown,
            inputs: &begin.inputs,
            outputs: &begin.outputs,
            before: Box::new(*variables.registers()),
            variables,
            memory: ShadowMemory::default(),
            content: StoredMemory::new(&begin.memory),
            page_tables: PageTables::new(begin.mode),
            foreign: ForeignWrites::new(own),
            pointers: Pointers::new(begin.regs),
            stacks: Stacks::new(stack),
            flow: FlowRecorder::default(),
            frames: Vec::new(),
            site: SiteId::new(0),
            values: [0; GENERAL],
            guard: None,
            bottom: stack,
            stack,
            root: begin.regs.get_or_zero(Reg::Cr3),
            read_first: FxHashSet::default(),
        }
    }

    /// The walk is over: takes the last writers of the outputs as criteria too, whatever address
    /// they wrote by, and notes where the recording ends.
    ///
    /// # Errors
    /// [`Error::OutputRead`] and [`Error::Foreign`] for outputs that a program cannot give,
    /// [`Error::Trace`] for a damaged snapshot.
    pub fn finish(self, recording: &Recording, begin: &Begin<'_>) -> Result<(), Error> {
        let count = self.outputs.len().max(self.graph.outputs.len());
        self.graph.outputs.resize_with(count, FxHashSet::default);
        for (number, output) in recording.trace.header().outputs().enumerate() {
            self.graph.declared.insert((output.addr.0, output.addr.0.saturating_add(output.size)));
            let bytes = || (0..output.size).map(|at| output.addr.add(at));
            if bytes().any(|at| self.read_first.contains(&at)) {
                return Err(Error::OutputRead { name: output.name.clone() });
            }
            for at in bytes().filter_map(|at| self.memory.user_byte(at)) {
                match self.memory.writer(at).unpack() {
                    Definer::Initial => {}
                    Definer::Foreign => {
                        let name = recording.name.clone();
                        return Err(Error::Foreign { name, what: format!("the output {}", output.name) });
                    }
                    Definer::Op(writer) => self.graph.writes_output(number, writer),
                }
            }
        }
        self.pointers.objects.finish(self.graph);
        let (site, pc) = self.flow.position();
        self.graph.recordings += 1;
        self.graph.end = Some(End { site: site.unwrap_or(self.site), pc });
        begin.memory.intact()
    }

    fn use_variable(&mut self, op: OpId, var: Var) {
        let definer = self.variables.definer(var);
        if definer == PackedDefiner::INITIAL && is_of_system(var) {
            self.graph.given.insert((op, Given::Register));
        }
        self.graph.depend(op, definer);
    }

    /// An operation loads a byte that is as it was at the begin mark. Returns whether it is the
    /// process's own.
    fn use_given(&mut self, op: OpId, address: VirtAddr) -> bool {
        if !self.user.is_user(address.page()) || self.shown.contains(&address.page()) {
            self.graph.given.insert((op, Given::Memory));
            return false;
        }
        if let Some(input) = self.inputs.iter().position(|input| input.contains(&address)) {
            self.graph.given.insert((op, Given::Input(input)));
        }
        true
    }

    /// An operation loads the bytes that an operand names.
    fn use_memory(&mut self, op: OpId, mem: &MemRef, value: u64) {
        let mut last = PackedDefiner::INITIAL;
        for (n, at) in mem.bytes().enumerate() {
            let writer = self.memory.writer(at);
            if writer == PackedDefiner::INITIAL {
                let address = mem.vaddr.add(n as u64);
                if self.foreign.is_filled(address.page()) {
                    self.graph.depend(op, PackedDefiner::FOREIGN);
                }
                if self.use_given(op, address) && value >> (8 * n) & 0xff != 0 {
                    self.read_first.insert(address);
                }
            } else if writer != last {
                self.graph.depend(op, writer);
            }
            last = writer;
        }
    }

    /// An operation uses `count` bytes of the process from an address on.
    fn use_writers(&mut self, op: OpId, from: VirtAddr, count: u64) {
        let mut last = PackedDefiner::INITIAL;
        for n in 0..count {
            let Some(at) = self.memory.user_byte(from.add(n)) else { continue };
            let writer = self.memory.writer(at);
            if writer != last {
                self.graph.depend(op, writer);
            }
            last = writer;
        }
    }

    /// Notes an access to the running function's own stack frame.
    fn note_local(&mut self, op: OpId, vaddr: VirtAddr) {
        let own = vaddr < self.bottom && vaddr.0 >= self.stack.0.wrapping_sub(RED_ZONE);
        let now = match own {
            true => Locals::At(vaddr.0.wrapping_sub(self.bottom.0).cast_signed()),
            false => Locals::Varying,
        };
        let known = self.graph.locals.entry(op).or_insert(now);
        *known = known.and(now);
    }

    /// Notes where the stack pointer is before the site.
    fn note_depth(&mut self) {
        let now = Locals::At(self.stack.0.wrapping_sub(self.bottom.0).cast_signed());
        let known = &mut self.graph.depths[self.site];
        *known = Some(known.map_or(now, |known| known.and(now)));
    }

    /// An operation accesses memory.
    fn access(&mut self, number: OpId, op: &Op, value: u64, mem: &MemRef) {
        let user = self.user.is_user(mem.vaddr.page());
        if mem.io {
            if op.kind == Kind::Load {
                self.graph.given.insert((number, Given::Device));
                if user {
                    self.graph.devices.insert(number);
                }
            }
            return;
        }
        if user {
            self.memory.follow(mem);
        } else {
            let definers = self.page_tables.definers(self.root, mem.vaddr, &self.content, &self.memory);
            definers.iter().for_each(|&definer| self.graph.depend(number, definer));
        }
        self.note_local(number, mem.vaddr);
        if op.kind == Kind::Store {
            // What is written later in every recording may be the last on another path.
            let behind = mem.vaddr.add(mem.size.into());
            for (output, range) in self.outputs.iter().enumerate() {
                if user && mem.vaddr < range.end && range.start < behind {
                    self.graph.writes_output(output, number);
                }
            }
            for (n, at) in mem.bytes().enumerate() {
                self.memory.set(at, PackedDefiner::op(number));
                self.content.page_mut(at)[at.offset() as usize] = (value >> (8 * n)) as u8;
            }
            mem.pages().for_each(|(_, frame)| self.page_tables.stored(frame));
        } else {
            self.graph.addresses.insert(number, mem.vaddr);
            if user {
                self.graph.own.insert(number);
            } else {
                self.graph.own.remove(&number);
            }
            if self.foreign.is_unexplained() {
                self.graph.depend(number, PackedDefiner::FOREIGN);
            }
            self.use_memory(number, mem, value);
        }
    }

    /// The running frame ends: the registers that its function gives back have the caller's
    /// definers again. Returns what the general registers held before the call.
    fn close_frame(&mut self) -> Option<GeneralRegisters> {
        let frame = self.frames.pop()?;
        self.bottom = frame.bottom;
        let convention = self.graph.contexts[frame.context].convention;
        for var in convention.callee_saved.iter() {
            self.variables.set(var, frame.before[var]);
        }
        if let (true, Some(call)) = (convention.stack_delta != 0, frame.call) {
            // Such a call defines the stack pointer, and uses the one before it.
            self.graph.depend(call, frame.before[STACK_POINTER]);
            self.variables.define(STACK_POINTER, call);
        }
        self.flow.returned_to(Some(frame.site));
        Some(frame.values)
    }

    /// Frames are closed by a return; `switched` if other tasks ran meanwhile.
    fn close_frames(&mut self, count: u32, switched: bool, regs: &RegisterValues) {
        self.graph.flow[self.site].returns = true;
        for left in (0..count).rev() {
            let Some(values) = self.close_frame() else { return };
            if let (true, Some(call)) = (left > 0, self.flow.waiting_call()) {
                self.graph.flow[call].returns = true;
            }
            if switched {
                // What the call leaves in a register is foreign, unless the register is as before
                // the call.
                let general = (0..GENERAL as u16).map(Var).filter(|&var| var != STACK_POINTER);
                for var in general.filter(|&var| values[var.0 as usize] != regs[var]) {
                    self.variables.set(var, PackedDefiner::FOREIGN);
                }
            }
        }
    }

    /// New memory has no writer: what was stored there before the allocation is not what its loads
    /// read. A reallocation itself uses the last writers of the old memory.
    fn clear_allocation(&mut self, call: &SummaryCall) {
        let size = match call.summary.action {
            Action::Calloc => call.args[0].saturating_mul(call.args[1]),
            Action::Realloc => {
                if let Definer::Op(definer) = self.variables.definer(RESULT).unpack() {
                    self.use_writers(definer, VirtAddr(call.args[0]), call.args[1].min(MAX_ALLOCATION));
                }
                call.args[1]
            }
            Action::Malloc => call.args[0],
            Action::Free | Action::Release => 0,
        };
        for n in 0..size.min(MAX_ALLOCATION) {
            if let Some(at) = self.memory.user_byte(VirtAddr(call.result).add(n)) {
                self.memory.set(at, PackedDefiner::INITIAL);
            }
        }
    }
}

/// Whether a register is the system's and not the process's: a run has the target's value of it.
fn is_of_system(var: Var) -> bool {
    let mut of_system = Reg::OF_SYSTEM.iter().chain(&[Reg::KernelGsBase]);
    of_system.any(|&reg| var == Var(reg as u16))
}

impl Visitor for DependenceRecorder<'_> {
    fn begin(&mut self, context: ContextId, insn: InsnId, _: Mode) {
        let insn = self.insns.of(insn);
        let ops = self.code.get(insn).insn.ops.len();
        self.site = self.graph.site(context, Body::Insn(insn), ops);
        self.note_depth();
        self.flow.enter_site(self.graph, self.site);
        *self.before = *self.variables.registers();
        self.guard = None;
        self.foreign.settle(&mut self.memory, &self.content);
    }

    fn op(&mut self, index: usize, op: &Op, value: u64, mem: Option<MemRef>) {
        let number = self.graph.sites[self.site].op(index);
        self.graph.executed[number] = true;
        if index == 0 {
            // Another iteration of a string instruction.
            self.guard = None;
        }
        for var in op.uses() {
            self.use_variable(number, var);
        }
        if let Some(guard) = self.guard {
            self.graph.edge(number, guard);
        }
        if let Some(mem) = &mem {
            self.access(number, op, value, mem);
        }
        let here = Here { context: self.graph.sites[self.site].context, bottom: self.bottom.0 };
        self.pointers.op(number, op, value, mem.as_ref(), here);
        self.stacks.op(number, op, value);
        if let Some(var) = op.def() {
            self.variables.define(var, number);
        }
        if op.kind == Kind::BranchIf {
            self.guard = Some(number);
        }
    }

    fn end(&mut self, transition: Transition, ended: &Ended, regs: &RegisterValues) {
        self.stack = VirtAddr(regs[Reg::Rsp]);
        self.root = regs[Reg::Cr3];
        let site = self.graph.sites[self.site];
        let (mut control, mut repeats) = (None, false);
        if let Some(code) = self.graph.code(self.code, self.site) {
            let last = code.insn.ops.iter().rposition(|op| op.class() == Class::Control);
            control = last.map(|at| site.op(at));
            repeats = code.repeats_itself();
        }
        self.flow.leave_site(self.graph, self.site, ended.next, repeats);
        self.foreign.set_unexplained(false);
        let switched = self.foreign.take_switched();
        match transition {
            Transition::Stay => {}
            Transition::Call(context) => {
                let (before, values, bottom) = (self.before.clone(), self.values, self.bottom);
                self.frames.push(Frame { context, before, values, site: self.site, call: control, bottom });
                self.bottom = self.stack;
                self.flow.call(self.graph, self.site, context, control);
            }
            Transition::Tail(context) => self.flow.tail_call(self.graph, self.site, context, control),
            Transition::Return(count) => self.close_frames(count, switched, regs),
        }
        self.pointers.settle(regs, GENERAL as u16);
        self.stacks.settle(regs, self.user, &mut self.graph.stacks);
        self.values = std::array::from_fn(|at| regs[Var(at as u16)]);
    }

    fn passes(&mut self, accesses: &[Access], here: bool) {
        self.foreign.passes(accesses, here, &mut self.memory, self.user);
    }

    fn switched(&mut self) {
        self.foreign.switched();
    }

    fn unexplained(&mut self) {
        self.foreign.set_unexplained(true);
    }

    fn summary(&mut self, context: ContextId, call: &SummaryCall) {
        if self.frames.is_empty() {
            return;
        }
        let ops = summary_ops(&call.summary, self.graph.narrow);
        let site = self.graph.allocator_site(context, &ops);
        self.graph.flow[site].returns = true;
        self.graph.mark_executed(site);
        let fails = call.summary.fails.map(|(location, _)| location);
        let mut loaded =
            call.summary.args().iter().copied().chain(fails).filter_map(|location| match location {
                ArgumentLocation::Stack(distance) => Some(call.stack.add(distance.into())),
                ArgumentLocation::Register(_) => None,
            });
        self.variables.clear_temps();
        for (index, op) in ops.iter().enumerate() {
            let number = self.graph.sites[site].op(index);
            for var in op.uses() {
                self.use_variable(number, var);
            }
            if op.kind == Kind::Load
                && let Some(from) = loaded.next()
            {
                self.use_writers(number, from, op.width.bytes());
            }
            if let Some(var) = op.def() {
                self.variables.define(var, number);
            }
        }
        self.close_frame();
        self.clear_allocation(call);
    }
}
