//! A trace in memory, lifted: what every later stage walks over.
//!
//! Events are flattened into arrays indexed by step, so that the stages can go over a recording
//! several times without decoding it again. Lifting happens once for each distinct instruction.

use machine::paging::PagingMode;
use machine::{EFER_LMA, Reg, RegFile};
use rustc_hash::FxHashMap;
use trace::{Access, Event, Trace};

use crate::Error;
use crate::snapshot::SnapshotMemory;

/// Vectors of exceptions, and the system's own first ones (SDM vol. 3 table 6-1).
const VECTORS: u8 = 64;

/// One executed instruction (for `rep` string instructions: one or more iterations).
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Index into [`Recording::code`].
    pub code: u32,
    /// First of its accesses in [`Recording::accesses`]; they end where the next step's begin.
    pub access: u32,
    /// End of the register changes known before it in [`Recording::regs`]; they begin where the
    /// previous step's end.
    pub regs: u32,
    /// Whether registers were recorded just before it, even if none had changed.
    pub record: bool,
}

/// A distinct instruction.
#[derive(Clone, Debug)]
pub struct Code {
    /// Its lifted form.
    pub insn: lift::Insn,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// 16, 32 or 64.
    pub mode: lift::Mode,
}

/// A lifted trace.
pub struct Recording {
    /// The trace file's name.
    pub name: String,
    /// The trace it came from: header, registers, start snapshot.
    pub trace: Trace,
    /// Distinct instructions.
    pub code: Vec<Code>,
    /// What was executed, in order.
    pub steps: Vec<Step>,
    /// All accesses, in order.
    pub accesses: Vec<Access>,
    /// All register changes, in order.
    pub regs: Vec<(Reg, u64)>,
    /// Handlers that interruptions reach through trap gates, which leave IF as it is.
    pub trap_handlers: Vec<u64>,
    /// Set if it is a whole run over the memory of the recording it is named for: its inputs where
    /// they were others.
    pub rehearsed: Option<String>,
}

impl Recording {
    /// Reads a trace and lifts its instructions.
    ///
    /// # Errors
    /// [`Error::Trace`] for a damaged trace, [`Error::Lift`] for bytes that are no instruction.
    pub fn load(name: &str, trace: Trace) -> Result<Self, Error> {
        let mut code = Vec::with_capacity(trace.insns().len());
        let long = trace.begin_regs().get_or_zero(Reg::Efer) & EFER_LMA != 0;
        let (begin, half) = (trace.begin_regs().get_or_zero(Reg::Rip), if long { 63 } else { 31 });
        for insn in trace.insns() {
            let mode = lift::Mode::from_bits(u32::from(insn.mode_bits)).ok_or(Error::Mode(insn.mode_bits))?;
            // A system's own software interrupts are seldom, and look like interruptions.
            let process = insn.pc.0 >> half == begin >> half;
            let lifted = if process {
                lift::lift_process(mode, long, insn.pc.0, insn.bytes(), &mut |_| false)
            } else {
                lift::lift(mode, insn.pc.0, insn.bytes())
            };
            let lifted = lifted.map_err(Error::Lift)?;
            code.push(Code { insn: lifted, bytes: insn.bytes().to_vec(), mode });
        }
        let (mut steps, mut accesses, mut regs) = (Vec::new(), Vec::new(), Vec::new());
        let mut record = false;
        trace
            .for_each_event(|event| {
                match event {
                    Event::Regs(changed) => {
                        regs.extend_from_slice(changed);
                        record = true;
                    }
                    Event::Insn(id) => steps.push(Step {
                        code: id.0,
                        access: u32::try_from(accesses.len()).unwrap_or(u32::MAX),
                        regs: u32::try_from(regs.len()).unwrap_or(u32::MAX),
                        record: std::mem::take(&mut record),
                    }),
                    Event::Access(access) => accesses.push(*access),
                }
                Ok(())
            })
            .map_err(Error::Trace)?;
        if accesses.len() >= u32::MAX as usize
            || regs.len() >= u32::MAX as usize
            || steps.len() >= u32::MAX as usize
        {
            return Err(Error::TooLong);
        }
        let mut recording = Self {
            name: name.to_string(),
            trace,
            code,
            steps,
            accesses,
            regs,
            trap_handlers: Vec::new(),
            rehearsed: None,
        };
        recording.call_gates(long)?;
        recording.trap_handlers = recording.find_trap_handlers();
        Ok(recording)
    }

    fn find_trap_handlers(&self) -> Vec<u64> {
        let regs = self.begin_regs();
        match (PagingMode::from_regs(regs), regs.get(Reg::Cr3), regs.get(Reg::IdtrBase)) {
            (Ok(mode), Some(root), Some(base)) => {
                machine::trap_handlers(&SnapshotMemory::new(self), mode, root, base, VECTORS)
            }
            _ => Vec::new(),
        }
    }

    /// Lifts a process's far calls again that went through a call gate: the first thing the
    /// processor reads is the descriptor.
    fn call_gates(&mut self, long: bool) -> Result<(), Error> {
        let mut seen = vec![false; self.code.len()];
        for step in 0..self.steps.len() {
            let at = self.steps[step].code as usize;
            if std::mem::replace(&mut seen[at], true) || !matches!(self.code[at].bytes.first(), Some(0x9a)) {
                continue;
            }
            let high = match self.accesses_of(step) {
                [low, high, ..] if !low.store && !high.store && low.size == 4 => high.value as u32,
                [both, ..] if !both.store && both.size == 8 => (both.value >> 32) as u32,
                _ => continue,
            };
            let code = &mut self.code[at];
            code.insn = lift::lift_process(code.mode, long, code.insn.pc, &code.bytes, &mut |_| {
                lift::is_call_gate(high)
            })
            .map_err(Error::Lift)?;
        }
        Ok(())
    }

    /// The accesses of a step.
    #[must_use]
    pub fn accesses_of(&self, step: usize) -> &[Access] {
        let start = self.steps[step].access as usize;
        let end = self.steps.get(step + 1).map_or(self.accesses.len(), |next| next.access as usize);
        &self.accesses[start..end]
    }

    /// The registers that changed since the previous step's record, read just before this step.
    #[must_use]
    pub fn regs_before(&self, step: usize) -> &[(Reg, u64)] {
        let start = if step == 0 { 0 } else { self.steps[step - 1].regs as usize };
        &self.regs[start..self.steps[step].regs as usize]
    }

    /// Whether registers were recorded just before this step.
    #[must_use]
    pub fn has_record(&self, step: usize) -> bool {
        self.steps[step].record
    }

    /// The instruction a step executes.
    #[must_use]
    pub fn code_of(&self, step: usize) -> &Code {
        &self.code[self.steps[step].code as usize]
    }

    /// The address of a step's instruction.
    #[must_use]
    pub fn pc(&self, step: usize) -> u64 {
        self.code_of(step).insn.pc
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

    /// Registers at the begin mark.
    #[must_use]
    pub fn begin_regs(&self) -> &RegFile {
        self.trace.begin_regs()
    }
}

/// Gives instructions that several recordings share (same address, bytes and mode) one number.
#[derive(Clone, Default)]
pub struct CodeTable {
    index: FxHashMap<(u64, Vec<u8>), u32>,
    /// The instructions by number.
    pub code: Vec<Code>,
}

impl CodeTable {
    /// The number of an instruction, which may be new.
    pub fn add(&mut self, code: Code) -> u32 {
        *self.index.entry((code.insn.pc, code.bytes.clone())).or_insert_with(|| {
            self.code.push(code);
            u32::try_from(self.code.len() - 1).unwrap_or(u32::MAX)
        })
    }

    /// The numbers of a recording's instructions, in their order there.
    pub fn intern(&mut self, recording: &Recording) -> Vec<u32> {
        recording.code.iter().map(|code| self.add(code.clone())).collect()
    }
}
