//! A trace in memory, lifted: what every later stage walks over.
//!
//! Events are flattened into tables indexed by step, so that the stages can go over a recording
//! several times without decoding it again. Lifting happens once for each distinct instruction.
//! What the recording means (interruptions, calls, dependences) is for the stages to find out.

mod access_match;
pub mod replay;
pub mod snapshot;
pub mod stored_memory;

use machine::paging::PagingMode;
use machine::{EFER_LMA, PAGE_SIZE, PhysAddr, Reg, RegFile, VirtAddr};
use trace::{Access, Event, InsnId, Trace};

use crate::error::Error;
use crate::vocabulary::{Code, StepId, Table};
use snapshot::SnapshotMemory;

/// How many vectors are searched for trap gates: those of exceptions, and the first 32 of the
/// system's own (SDM vol. 3 table 6-1).
const VECTORS: u8 = 64;

/// A part of an access that lies in one page.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Its linear address.
    pub vaddr: VirtAddr,
    /// Its physical address.
    pub paddr: PhysAddr,
    /// The accessed bytes that lie there, little-endian; as many as `size` count.
    bytes: [u8; 16],
    /// How many bytes it has.
    size: usize,
}

impl Part {
    /// The bytes that were read or written.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.size]
    }

    /// Physical address of each byte, and the byte.
    pub fn each(&self) -> impl Iterator<Item = (PhysAddr, u8)> {
        (0u64..).zip(self.bytes()).map(|(n, &byte)| (self.paddr.add(n), byte))
    }
}

/// An access page by page. What lies on a second page is left out where the recording does not say
/// where that is.
pub fn parts(access: &Access) -> impl Iterator<Item = Part> {
    let size = usize::from(access.size).min(16);
    let first = size.min((PAGE_SIZE - access.vaddr.offset()) as usize);
    let bytes = access.value.to_le_bytes();
    let part = |from: usize, size: usize, paddr: PhysAddr| {
        let mut own = [0; 16];
        own[..size].copy_from_slice(&bytes[from..from + size]);
        Part { vaddr: access.vaddr.add(from as u64), paddr, bytes: own, size }
    };
    let second = access.next_page.filter(|_| size > first).map(|page| part(first, size - first, page));
    std::iter::once(part(0, first, access.paddr)).chain(second)
}

/// Which addresses are the process's.
pub trait UserMemory {
    /// Whether a page belongs to the process.
    fn is_user(&self, page: VirtAddr) -> bool;

    /// Whether the process had a page at the begin mark.
    fn is_mapped_at_begin(&self, page: VirtAddr) -> bool;
}

/// One executed instruction (for `rep` string instructions: one or more iterations).
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Its instruction, by its number in the trace: an index into [`Recording::code`].
    pub insn: InsnId,
    /// First of its accesses in [`Recording::accesses`]; they end where the next step's begin.
    access: u32,
    /// End of the register changes known before it in [`Recording::regs`]; they begin where the
    /// previous step's end.
    regs: u32,
    /// Whether registers were recorded just before it, even if none had changed.
    record: bool,
}

/// A lifted trace.
pub struct Recording {
    /// The trace file's name.
    pub name: String,
    /// The trace it came from: header, registers, start snapshot.
    pub trace: Trace,
    /// Distinct instructions, by their number in the trace.
    pub code: Vec<Code>,
    /// What was executed, in order.
    pub steps: Table<StepId, Step>,
    /// All accesses, in order.
    accesses: Vec<Access>,
    /// All register changes, in order.
    regs: Vec<(Reg, u64)>,
    /// Handlers that interruptions reach through trap gates, which leave the interrupt flag as it
    /// is.
    trap_handlers: Vec<VirtAddr>,
    /// Set for a whole run over the memory of the recording that it is named for: its inputs if
    /// they differ from that recording's, else empty.
    pub rehearsed: Option<String>,
}

impl Recording {
    /// Reads a trace and lifts its instructions.
    ///
    /// # Errors
    /// [`Error::Trace`] for a damaged trace, [`Error::Lift`] for bytes that are no instruction,
    /// [`Error::Mode`] for code of an unknown mode, [`Error::TooLong`] for steps or accesses that
    /// are too many to be numbered.
    pub fn load(name: &str, trace: Trace) -> Result<Self, Error> {
        let long = trace.begin_regs().get_or_zero(Reg::Efer) & EFER_LMA != 0;
        let mut recording = Self {
            name: name.to_string(),
            code: lift_all(&trace, long)?,
            trace,
            steps: Table::new(),
            accesses: Vec::new(),
            regs: Vec::new(),
            trap_handlers: Vec::new(),
            rehearsed: None,
        };
        recording.read_events()?;
        recording.lift_call_gates(long)?;
        recording.trap_handlers = recording.find_trap_handlers();
        Ok(recording)
    }

    /// Flattens the events of the trace.
    fn read_events(&mut self) -> Result<(), Error> {
        let (mut steps, mut accesses, mut regs) = (Vec::new(), Vec::new(), Vec::new());
        let mut record = false;
        let read = self.trace.for_each_event(|event| {
            match event {
                Event::Regs(changed) => {
                    regs.extend_from_slice(changed);
                    record = true;
                }
                Event::Insn(insn) => steps.push(Step {
                    insn: *insn,
                    access: u32::try_from(accesses.len()).unwrap_or(u32::MAX),
                    regs: u32::try_from(regs.len()).unwrap_or(u32::MAX),
                    record: std::mem::take(&mut record),
                }),
                Event::Access(access) => accesses.push(*access),
            }
            Ok(())
        });
        read.map_err(Error::Trace)?;
        if [accesses.len(), regs.len(), steps.len()].iter().any(|&len| len >= u32::MAX as usize) {
            return Err(Error::TooLong);
        }
        (self.steps, self.accesses, self.regs) = (steps.into(), accesses, regs);
        Ok(())
    }

    /// The same recording, marked as a whole run over the memory of the recording that it is named
    /// for; `inputs` are its inputs if they differ from that recording's, else empty.
    #[must_use]
    pub fn into_rehearsal(self, inputs: String) -> Self {
        Self { rehearsed: Some(inputs), ..self }
    }

    fn find_trap_handlers(&self) -> Vec<VirtAddr> {
        let regs = self.begin_regs();
        let (Ok(mode), Some(root), Some(base)) =
            (PagingMode::from_regs(regs), regs.get(Reg::Cr3), regs.get(Reg::IdtrBase))
        else {
            return Vec::new();
        };
        let handlers = machine::trap_handlers(&SnapshotMemory::new(&self.trace), mode, root, base, VECTORS);
        handlers.into_iter().map(VirtAddr).collect()
    }

    /// Lifts those far calls again that went through a call gate. Such a call is known by its first
    /// access, in which the processor reads the gate's descriptor.
    fn lift_call_gates(&mut self, long: bool) -> Result<(), Error> {
        let mut seen = vec![false; self.code.len()];
        for step in self.steps.ids() {
            let at = self.steps[step].insn.0 as usize;
            if std::mem::replace(&mut seen[at], true) || !matches!(self.code[at].bytes.first(), Some(0x9a)) {
                continue;
            }
            let high = match self.accesses_of(step) {
                [low, high, ..] if !low.store && !high.store && low.size == 4 => high.value as u32,
                [both, ..] if !both.store && both.size == 8 => (both.value >> 32) as u32,
                _ => continue,
            };
            let code = &mut self.code[at];
            let gate = &mut |_| lift::is_call_gate(high);
            code.insn =
                lift::lift_process(code.mode, long, code.insn.pc, &code.bytes, gate).map_err(Error::Lift)?;
        }
        Ok(())
    }

    /// The accesses of a step.
    #[must_use]
    pub fn accesses_of(&self, step: StepId) -> &[Access] {
        let start = self.steps[step].access as usize;
        let end = self.steps.get(step.next()).map_or(self.accesses.len(), |next| next.access as usize);
        &self.accesses[start..end]
    }

    /// The registers that changed since the previous step's record, read just before this step.
    #[must_use]
    pub fn regs_before(&self, step: StepId) -> &[(Reg, u64)] {
        let start = step.previous().map_or(0, |before| self.steps[before].regs as usize);
        &self.regs[start..self.steps[step].regs as usize]
    }

    /// All register changes of the recording, in order.
    #[must_use]
    pub fn all_regs(&self) -> &[(Reg, u64)] {
        &self.regs
    }

    /// Whether registers were recorded just before this step.
    #[must_use]
    pub fn has_record(&self, step: StepId) -> bool {
        self.steps[step].record
    }

    /// The instruction a step executes.
    #[must_use]
    pub fn code_of(&self, step: StepId) -> &Code {
        &self.code[self.steps[step].insn.0 as usize]
    }

    /// The address of a step's instruction.
    #[must_use]
    pub fn pc(&self, step: StepId) -> VirtAddr {
        self.code_of(step).pc()
    }

    /// Whether an interruption reaches this handler through a trap gate.
    #[must_use]
    pub fn is_trap_handler(&self, handler: VirtAddr) -> bool {
        self.trap_handlers.contains(&handler)
    }

    /// Whether its system runs in long mode, whatever the trainer.
    #[must_use]
    pub fn is_long(&self) -> bool {
        self.begin_regs().get_or_zero(Reg::Efer) & EFER_LMA != 0
    }

    /// Whether the trainer is 64-bit code.
    #[must_use]
    pub fn is_wide(&self) -> bool {
        self.trace.header().mode_bits == 64
    }

    /// Whether it is a whole run written down as a trace, not a recording of a guest.
    #[must_use]
    pub fn is_whole_run(&self) -> bool {
        self.trace.header().whole_run
    }

    /// Registers at the begin mark.
    #[must_use]
    pub fn begin_regs(&self) -> &RegFile {
        self.trace.begin_regs()
    }
}

/// The distinct instructions of a trace, lifted; `long` if its system runs in long mode.
fn lift_all(trace: &Trace, long: bool) -> Result<Vec<Code>, Error> {
    let (begin, half) = (trace.begin_regs().get_or_zero(Reg::Rip), if long { 63 } else { 31 });
    let lifted = trace.insns().iter().map(|insn| {
        let mode = lift::Mode::from_bits(u32::from(insn.mode_bits)).ok_or(Error::Mode(insn.mode_bits))?;
        // Only a process's software interrupts become calls: a system rarely executes any, and
        // those look like interruptions.
        let process = insn.pc.0 >> half == begin >> half;
        let lifted = if process {
            lift::lift_process(mode, long, insn.pc.0, insn.bytes(), &mut |_| false)
        } else {
            lift::lift(mode, insn.pc.0, insn.bytes())
        };
        let insn_bytes = insn.bytes().to_vec();
        Ok(Code { insn: lifted.map_err(Error::Lift)?, bytes: insn_bytes, mode })
    });
    lifted.collect()
}
