//! The whole run: the trainer's and the kernel's trusted machine code over the target's memory.
//!
//! Code is lifted as it is reached, from the program's own pages and from the training system's
//! companion file, never from the target. The trainer's allocator functions are replaced, and the
//! run ends at the end mark. There is no device, no interrupt and no other CPU. An assertion of the
//! kernel (`ud2`) is stepped over as its handler does when it only warns, and reported.

use ir::program::PageContent;
use ir::system::System;
use ir::{Class, Kind, Op, Program, Summary, Var};
use lift::Mode;
use machine::{GuestMemory, PROCESS_REGS, Reg, RegFile};
use rustc_hash::FxHashMap;

use crate::compact::{Compact, Pool, Slots, TooLarge, slots};
use crate::exec::execute;
use crate::fields::{Inputs, collect, prepare};
use crate::outcome::{Outcome, Stopped};
use crate::place::Placed;
use crate::space::Space;
use crate::spin::Spin;
use crate::start::{Run, RunError, system_mode};
use crate::summary::{show_access, show_summary, summarise};
use crate::watch::{Unwatched, Watch};

/// The end marker (docs/markers.md).
const END_MARK: [u8; 7] = [0x0f, 0x1f, 0x80, 0x02, 0x00, 0x54, 0x56];
/// Instructions in one block at most.
const BLOCK_INSNS: usize = 64;
/// Cached constants past which the cache is dropped.
const POOL_LIMIT: usize = 60_000;

struct Block {
    first: u32,
    last: u32,
    insns: u32,
    /// Where control goes when no operation decided.
    next: u64,
    end: bool,
    summary: Option<Summary>,
}

/// Lifted code, kept from run to run.
#[derive(Default)]
struct Cache {
    blocks: Vec<Block>,
    index: FxHashMap<u64, u32>,
    ops: Vec<Compact>,
    /// Address of the instruction of each operation.
    pcs: Vec<u64>,
    /// Bytes of the instructions of watched runs.
    insns: FxHashMap<u64, Vec<u8>>,
    pool: Pool,
    /// How far away from training's place the kernel was: the code has its addresses.
    slide: u64,
    /// Whether code of modules is in it, which may be elsewhere in another target.
    modules: bool,
}

/// A program made ready for whole runs.
pub struct WholeProgram<'p> {
    program: &'p Program,
    system: &'p System,
    pages: FxHashMap<u64, &'p [u8]>,
    summaries: FxHashMap<u64, Summary>,
    /// Of the trainer's code, and of its system's.
    modes: [Mode; 2],
    cache: Cache,
}

/// What a whole run tells beside its outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WholeReport {
    /// Machine instructions executed.
    pub instructions: u64,
    /// Addresses where the kernel's own assertions fired and were stepped over.
    pub assertions: Vec<u64>,
}

impl<'p> WholeProgram<'p> {
    /// Prepares a program; `system` is the companion file of its training system.
    #[must_use]
    pub fn new(program: &'p Program, system: &'p System) -> Self {
        let pages = program
            .pages
            .iter()
            .filter_map(|page| match &page.content {
                PageContent::Bytes(bytes) => Some((page.addr, bytes.as_slice())),
                _ => None,
            })
            .collect();
        Self {
            program,
            system,
            pages,
            summaries: program.summaries.iter().copied().collect(),
            modes: [if program.bits == 64 { Mode::Bits64 } else { Mode::Bits32 }, system_mode(program)],
            cache: Cache::default(),
        }
    }

    /// Runs over a target.
    ///
    /// # Errors
    /// [`RunError`] when the run cannot begin.
    pub fn run(&mut self, run: &Run<'_>, inputs: &Inputs) -> Result<(Outcome, WholeReport), RunError> {
        self.watched(run, inputs, &mut Unwatched)
    }

    /// The registers a run over a target begins with.
    ///
    /// # Errors
    /// [`RunError`] when the run cannot begin.
    pub fn begin(&self, run: &Run<'_>) -> Result<RegFile, RunError> {
        let mut slots = slots();
        run.registers(self.program, &Placed::find(self.program, run)?, &mut slots)?;
        let mut regs = RegFile::new();
        for &reg in Reg::ALL {
            regs.set(reg, slots[reg.index()]);
        }
        Ok(regs)
    }

    /// Runs over a target and shows every step.
    ///
    /// # Errors
    /// [`RunError`] when the run cannot begin.
    pub fn watched<W: Watch>(
        &mut self,
        run: &Run<'_>,
        inputs: &Inputs,
        watch: &mut W,
    ) -> Result<(Outcome, WholeReport), RunError> {
        let placed = Placed::find(self.program, run)?;
        let mut kernel = Kernel {
            placed: placed.system(self.system),
            system: self.system,
            memory: run.memory,
            modules: false,
        };
        // What was lifted for another target has that one's addresses, and the constants that its
        // kernel wrote into its code.
        let varies =
            self.system.placement().fields.iter().any(|field| field.change == ir::place::Change::Patched);
        if self.cache.slide != placed.slide() || varies || self.cache.modules {
            self.cache = Cache { slide: placed.slide(), ..Cache::default() };
        }
        let mut space = Space::new(run.memory, &placed, self.program, run.limits.pages);
        let mut report = WholeReport::default();
        let ended = match prepare(self.program, inputs, &mut space) {
            Ok(()) => match run.view(self.program, &placed, &mut space)? {
                Ok(()) => {
                    let ended = self.execute(run, &placed, &mut kernel, &mut space, &mut report, watch)?;
                    report.assertions.iter_mut().for_each(|at| *at = kernel.placed.reported(*at));
                    ended.map_err(|stopped| stopped.map_addresses(|at| kernel.placed.reported(at)))
                }
                Err(stopped) => Err(stopped),
            },
            Err(stopped) => Err(stopped),
        };
        // Help that the trainer had in training, another task's or a device's, it has not got here.
        let ended = ended.and_then(|at| match &self.program.provenance.unrepeated {
            Some(why) => Err(Stopped::Unrepeated { at, why: why.clone() }),
            None => Ok(at),
        });
        let outcome = ended
            .and_then(|end| collect(self.program, end, &mut space))
            .map_or_else(Outcome::Stopped, Outcome::Answer);
        Ok((outcome, report))
    }

    /// Runs to the end mark, whose address is the result.
    fn execute<W: Watch>(
        &mut self,
        run: &Run<'_>,
        placed: &Placed<'_>,
        kernel: &mut Kernel<'_>,
        space: &mut Space<'_>,
        report: &mut WholeReport,
        watch: &mut W,
    ) -> Result<Result<u64, Stopped>, RunError> {
        let mut slots = slots();
        self.cache.pool.fill(&mut slots, 0);
        run.registers(self.program, placed, &mut slots)?;
        let env = run.environment(self.program, placed, space);
        let (mut show, mut spin) = (Show::default(), Spin::new());
        let mut process = PROCESS_REGS.map(|reg| slots[reg.index()]);
        let mut system: Option<Inside> = None;
        let (mut pc, mut from, mut used) = (self.program.begin_pc, self.program.begin_pc, 0u64);
        loop {
            let block = match self.cache.index.get(&pc) {
                Some(&block) => block,
                None => match self.lift_block::<W>(kernel, pc, &mut slots, space)? {
                    Some(block) => block,
                    None => return Ok(Err(Stopped::NoCode { at: from, to: pc })),
                },
            };
            let block = &self.cache.blocks[block as usize];
            if block.end {
                return Ok(Ok(pc));
            }
            used += u64::from(block.last - block.first) + 1;
            if spin.is_waiting(pc, 0, &slots, space) {
                return Ok(Err(Stopped::Blocked { at: pc }));
            }
            if used > run.limits.fuel {
                return Ok(Err(Stopped::OutOfFuel { at: pc, used }));
            }
            if let Some(summary) = block.summary {
                let slot = slots[Reg::Rsp.index()];
                match summarise(&summary, &mut slots, space, self.modes[0]) {
                    Ok(next) => {
                        if W::ON {
                            show_summary(
                                watch,
                                (pc, &summary),
                                slot,
                                next,
                                general(&slots),
                                space,
                                self.modes[0],
                            );
                        }
                        (from, pc) = (pc, next);
                    }
                    Err(fault) => {
                        return Ok(Err(Stopped::access(pc, slots[Reg::Rsp.index()], &fault)));
                    }
                }
                continue;
            }
            from = pc;
            pc = block.next;
            let (first, last) = (block.first as usize, block.last as usize);
            report.instructions += u64::from(block.insns);
            for (at, op) in self.cache.ops[first..last].iter().enumerate() {
                if W::ON {
                    let at_pc = self.cache.pcs[first + at];
                    show.step(watch, at == 0, at_pc, self.mode(at_pc), &self.cache.insns, &slots);
                }
                match op.kind {
                    Kind::BranchIf => {
                        if slots[op.a as usize] != 0 {
                            pc = slots[op.b as usize];
                            break;
                        }
                    }
                    Kind::Jump => {
                        pc = slots[op.a as usize];
                        break;
                    }
                    Kind::Call => {
                        pc = slots[op.a as usize];
                        if let Some(system) = &mut system {
                            system.calls(slots[Reg::Rsp.index()]);
                        }
                        break;
                    }
                    Kind::Ret if system.is_none() || slots[Reg::Cpl.index()] != 3 => {
                        pc = slots[op.a as usize];
                        if let Some(system) = &mut system {
                            system.returns(slots[Reg::Rsp.index()]);
                        }
                        break;
                    }
                    Kind::SysEnter => {
                        pc = slots[op.a as usize];
                        let landing = slots[Reg::Rsp.index()] == slots[Reg::SysenterEsp.index()];
                        let back = (!landing).then_some(slots[op.b as usize]);
                        system = Some(Inside { back, open: Vec::new(), own: true });
                        process = PROCESS_REGS.map(|reg| slots[reg.index()]);
                        break;
                    }
                    // A far return to the process's privilege leaves the system too.
                    Kind::SysExit | Kind::Ret => {
                        pc = slots[op.a as usize];
                        let process_code = self.pages.contains_key(&(pc & !4095));
                        if process_code || slots[Reg::Cpl.index()] == 3 {
                            // Signals' handlers too: the target's are not the trainer's.
                            if !system.take().is_some_and(|system| system.goes_back(pc)) {
                                return Ok(Err(Stopped::Switched { at: self.cache.pcs[first + at], to: pc }));
                            }
                        }
                        if process_code {
                            // The target's kernel knows nothing of the trainer: if it switched
                            // tasks, these are another one's.
                            PROCESS_REGS
                                .iter()
                                .zip(process)
                                .for_each(|(reg, value)| slots[reg.index()] = value);
                        }
                        break;
                    }
                    Kind::Trap => {
                        let vector = slots[op.a as usize] as u8;
                        let place = self.cache.pcs[first + at];
                        if vector != 6 || self.pages.contains_key(&(place & !4095)) {
                            return Ok(Err(Stopped::Exception { at: place, vector }));
                        }
                        if report.assertions.len() < 64 {
                            report.assertions.push(place);
                        }
                        pc = slots[op.b as usize];
                        break;
                    }
                    Kind::Halt => return Ok(Err(Stopped::Blocked { at: self.cache.pcs[first + at] })),
                    Kind::Unsupported => {
                        let name = lift::mnemonic_name(slots[op.a as usize]);
                        return Ok(Err(Stopped::Unsupported { at: self.cache.pcs[first + at], name }));
                    }
                    _ => {
                        let address = slots[op.a as usize];
                        if let Err(stopped) = execute(op, &mut slots, space, &env, self.cache.pcs[first + at])
                        {
                            return Ok(Err(stopped));
                        }
                        if W::ON {
                            show.done(watch, op, address, &slots, space);
                        }
                    }
                }
            }
        }
    }

    /// The mode of the code at an address.
    fn mode(&self, pc: u64) -> Mode {
        self.modes[usize::from(!self.pages.contains_key(&(pc & !4095)))]
    }

    /// Code bytes at an address: 0 to 15, fewer at the end of what is known.
    fn fetch(&self, kernel: &mut Kernel<'_>, pc: u64) -> Vec<u8> {
        if !self.pages.contains_key(&(pc & !4095)) {
            return kernel.fetch(pc);
        }
        let mut bytes = Vec::with_capacity(15);
        for at in 0..15 {
            let address = pc.wrapping_add(at);
            match self.pages.get(&(address & !4095)).and_then(|page| page.get((address & 4095) as usize)) {
                Some(&byte) => bytes.push(byte),
                None => break,
            }
        }
        bytes
    }

    fn lift_block<W: Watch>(
        &mut self,
        kernel: &mut Kernel<'_>,
        start: u64,
        slots: &mut Slots,
        space: &mut Space<'_>,
    ) -> Result<Option<u32>, TooLarge> {
        if self.cache.pool.values.len() > POOL_LIMIT {
            self.cache = Cache { slide: self.cache.slide, ..Cache::default() };
        }
        let known = self.cache.pool.values.len();
        let mut insns = Vec::new();
        let (mut pc, mut end, mut summary) = (start, false, None);
        loop {
            if insns.is_empty() {
                summary = self.summaries.get(&pc).copied();
            } else if self.summaries.contains_key(&pc) {
                break;
            }
            let bytes = self.fetch(kernel, pc);
            if summary.is_some() {
                break;
            }
            if bytes.starts_with(&END_MARK) {
                end = insns.is_empty();
                break;
            }
            let lifted = if self.pages.contains_key(&(pc & !4095)) {
                let mut gate = |selector: u16| {
                    let table = slots[if selector & 4 != 0 { Reg::LdtrBase } else { Reg::GdtrBase }.index()];
                    let high = table.wrapping_add(u64::from(selector & 0xfff8) + 4);
                    space.load(high, 4).is_ok_and(|high| lift::is_call_gate(high as u32))
                };
                lift::lift_process(self.modes[0], self.modes[1] == Mode::Bits64, pc, &bytes, &mut gate)
            } else {
                lift::lift(self.modes[1], pc, &bytes)
            };
            let Ok(insn) = lifted else { break };
            pc = pc.wrapping_add(u64::from(insn.len));
            let ends = insn.ops.last().is_some_and(|op| op.class() == Class::Control);
            if W::ON {
                self.cache.insns.insert(insn.pc, bytes[..usize::from(insn.len)].to_vec());
            }
            insns.push(insn);
            if ends || insns.len() >= BLOCK_INSNS {
                break;
            }
        }
        if insns.is_empty() && !end && summary.is_none() {
            return Ok(None);
        }
        let first = self.cache.ops.len() as u32;
        for (insn, keep) in insns.iter().zip(useful(&insns)) {
            // What is sliced later must be there as it is.
            let ops = insn.ops.iter().zip(keep).filter(|(_, keep)| *keep || W::ON).map(|(op, _)| op);
            let nothing = Op::new(Kind::Mov, ir::Width::B64, Var::NONE, &[0.into()]);
            // An instruction that does nothing is a step too.
            let filler = (W::ON && insn.ops.is_empty()).then_some(&nothing);
            for op in ops.chain(filler) {
                let op = self.cache.pool.op(op)?;
                self.cache.ops.push(op);
                self.cache.pcs.push(insn.pc);
            }
        }
        self.cache.pool.fill(slots, known.min(self.cache.pool.values.len()));
        let block = self.cache.blocks.len() as u32;
        let last = self.cache.ops.len() as u32;
        self.cache.blocks.push(Block { first, last, insns: insns.len() as u32, next: pc, end, summary });
        self.cache.index.insert(start, block);
        self.cache.modules |= kernel.modules;
        Ok(Some(block))
    }
}

/// The system call that a run is in.
struct Inside {
    /// Where it returns to; `sysenter` does not say.
    back: Option<u64>,
    /// The stack pointers of its calls that have not returned.
    open: Vec<u64>,
    /// Whether the last return was one of them. Another task returns from calls that this run never
    /// made.
    own: bool,
}

/// A return leaves the stack pointer less than this above its call's: the function may take
/// arguments off the stack.
const POPPED: u64 = 4096;
/// Calls without a return are followed up to here.
const MAX_OPEN: usize = 1 << 16;

impl Inside {
    fn calls(&mut self, stack: u64) {
        if self.open.len() == MAX_OPEN {
            self.open.clear();
        }
        self.open.push(stack);
    }

    fn returns(&mut self, stack: u64) {
        let call = self.open.iter().rposition(|&call| call < stack && stack - call < POPPED);
        self.own = call.is_some();
        self.open.truncate(call.unwrap_or(self.open.len()));
    }

    /// Whether it ends with a return to `pc` of the task that made it: another one may go on at the
    /// same place.
    fn goes_back(&self, pc: u64) -> bool {
        self.back.is_none_or(|back| back == pc) && self.own
    }
}

/// The trusted kernel code as it is in one target.
struct Kernel<'s> {
    placed: Placed<'s>,
    system: &'s System,
    memory: &'s dyn GuestMemory,
    /// Whether modules were looked for, which is done when one is first reached.
    modules: bool,
}

impl Kernel<'_> {
    /// Code bytes at an address of the target: 0 to 15, fewer at the end of what is known.
    fn fetch(&mut self, pc: u64) -> Vec<u8> {
        let first = self.system.placement().images.first();
        let in_kernel = |address: u64| first.is_some_and(|image| image.holds(address));
        let mut from = self.placed.training(pc);
        if !from.is_some_and(in_kernel) && !self.modules {
            self.modules = true;
            self.placed.find_modules(self.system, self.memory, true);
            from = self.placed.training(pc);
        }
        let Some(from) = from else { return Vec::new() };
        self.placed.trusted(self.system, from, 15, self.memory)
    }
}

/// Shows steps.
#[derive(Default)]
struct Show {
    /// The instruction shown last has a result that nothing determines.
    undetermined: bool,
    /// Its address.
    shown: u64,
}

impl Show {
    /// Before an operation of the instruction at `pc`.
    fn step<W: Watch>(
        &mut self,
        watch: &mut W,
        first: bool,
        pc: u64,
        mode: Mode,
        insns: &FxHashMap<u64, Vec<u8>>,
        slots: &Slots,
    ) {
        if !first && self.shown == pc {
            return;
        }
        if std::mem::take(&mut self.undetermined) {
            watch.registers(&general(slots));
        }
        self.shown = pc;
        watch.insn(pc, mode, insns.get(&pc).map_or(&[], Vec::as_slice));
    }

    /// After an operation whose first operand was `address`.
    fn done<W: Watch>(
        &mut self,
        watch: &mut W,
        op: &Compact,
        address: u64,
        slots: &Slots,
        space: &mut Space<'_>,
    ) {
        self.undetermined |= op.kind.class() == Class::Nondet;
        let size = op.width.bytes();
        let value = match op.kind {
            Kind::Load => slots[op.dst as usize],
            Kind::Store => slots[op.b as usize] & op.width.mask(),
            _ => return,
        };
        show_access(watch, op.kind == Kind::Store, address, size, value, space);
    }
}

fn general(slots: &Slots) -> [(Reg, u64); 16] {
    std::array::from_fn(|at| (Reg::gpr(at), slots[Reg::gpr(at).index()]))
}

/// Which operations of a block matter: results that are overwritten before anything reads them do
/// not. Most flags are such.
fn useful(insns: &[lift::Insn]) -> Vec<Vec<bool>> {
    let mut live = [true; 256];
    let mut kept: Vec<Vec<bool>> = insns
        .iter()
        .rev()
        .map(|insn| {
            let mut temps = vec![false; 64];
            let mut keep = vec![true; insn.ops.len()];
            for (at, op) in insn.ops.iter().enumerate().rev() {
                if op.class() == Class::Control {
                    live = [true; 256];
                }
                if op.class() == Class::Pure
                    && let Some(var) = op.def()
                {
                    let wanted = if var.is_reg() {
                        std::mem::replace(&mut live[var.0 as usize & 255], false)
                    } else {
                        temps.get((var.0 - Var::FIRST_TEMP) as usize).copied().unwrap_or(true)
                    };
                    // A division may fault; its result is not all it does.
                    let faults = matches!(op.kind, Kind::DivU | Kind::DivS | Kind::RemU | Kind::RemS);
                    if !wanted && !faults {
                        keep[at] = false;
                        continue;
                    }
                }
                for var in op.uses() {
                    if var.is_reg() {
                        live[var.0 as usize & 255] = true;
                    } else {
                        let temp = (var.0 - Var::FIRST_TEMP) as usize;
                        if temps.len() <= temp {
                            temps.resize(temp + 1, true);
                        }
                        temps[temp] = true;
                    }
                }
            }
            keep
        })
        .collect();
    kept.reverse();
    kept
}
