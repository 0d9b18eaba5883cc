//! Where programs begin: the training system and process at a recording's begin mark.
//!
//! A whole run needs no more than this. A program with a slice takes its registers and pages from
//! here.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use ir::program::{Count, Elem, FuncId, PerCpuOverride, Program, Provenance, Variable};
use ir::{Summary, System};
use machine::{GuestMemory, PhysAddr, Reg, RegFile, VirtAddr};
use rustc_hash::FxHashSet;
use trace::{IdleCell, Length, VarType};

use super::address_space::AddressSpace;
use super::context_cells::ContextCells;
use super::process_pages::{heap, process_pages};
use super::relocation::Relocations;
use super::shared_code::serves;
use super::tables::Tables;
use super::whole_context::{Boots, OtherBoot, whole};
use super::{execution_context, integrity, levels, switches};
use crate::error::Error;
use crate::filter::{Retained, filter};
use crate::recording::replay::{Blind, Replay};
use crate::recording::{Recording, parts};
use crate::vocabulary::{BuildOptions, Id, StepId};

/// A recording's begin mark.
pub struct Start<'r> {
    recording: &'r Recording,
    /// The process's address space at the begin mark.
    pub(crate) space: AddressSpace<'r>,
    /// The recording without its interruptions.
    pub(crate) retained: Retained,
    system: OnceCell<System>,
    time_stamp: OnceCell<Option<u64>>,
    relocations: OnceCell<Relocations>,
    /// The other boot's idle processor, where moves were learned.
    other_idle: OnceCell<Vec<IdleCell>>,
    context_cells: OnceCell<ContextCells>,
}

impl<'r> Start<'r> {
    /// Reads a recording's start snapshot and cuts its interruptions.
    ///
    /// # Errors
    /// [`Error`] when the snapshot's page tables cannot be used, interruptions or other tasks
    /// cannot be cut, or nothing was recorded.
    pub fn new(recording: &'r Recording) -> Result<Self, Error> {
        let space = AddressSpace::new(recording)?;
        let retained = filter(recording, &space)?;
        if retained.steps.is_empty() {
            return Err(Error::nothing_executed());
        }
        Ok(Self {
            recording,
            space,
            retained,
            system: OnceCell::new(),
            time_stamp: OnceCell::new(),
            relocations: OnceCell::new(),
            other_idle: OnceCell::new(),
            context_cells: OnceCell::new(),
        })
    }

    /// Learns what moves from a recording of the same kernel at another address, whatever it
    /// recorded. To be called before anything is built.
    ///
    /// # Errors
    /// [`Error::Bases`] when nothing can be learned from it.
    pub fn learn_moves(&self, other: &Recording) -> Result<(), Error> {
        let learned = Relocations::learn(&self.space.mappings, &AddressSpace::new(other)?.mappings)?;
        let idle = other.trace.header().idle.clone();
        let set = self.relocations.set(learned).is_ok() && self.other_idle.set(idle).is_ok();
        if set { Ok(()) } else { Err(Error::Bases("the program was begun without it".into())) }
    }

    /// What differs in another boot.
    pub(crate) fn relocations(&self) -> &Relocations {
        self.relocations.get_or_init(|| Relocations::single(&self.space.mappings))
    }

    /// The recording.
    #[must_use]
    pub const fn recording(&self) -> &'r Recording {
        self.recording
    }

    /// The training system's memory at the begin mark.
    #[must_use]
    pub fn memory(&self) -> &dyn GuestMemory {
        &self.space.mappings.memory
    }

    /// Its registers.
    #[must_use]
    pub fn registers(&self) -> &RegFile {
        self.recording.begin_regs()
    }

    /// The training system's trusted code.
    pub fn system(&self) -> &System {
        self.system.get_or_init(|| self.own_system())
    }

    /// The same as the snapshot has it.
    fn own_system(&self) -> System {
        let mut system = self.space.system();
        let relocations = self.relocations();
        let single = || integrity::learn(&self.space.mappings, &relocations.table, None);
        let integrity = relocations.integrity.clone().unwrap_or_else(single);
        let mut table = relocations.table.clone();
        switches::add(self.space.mappings.lift_mode(), &system, &integrity, &mut table);
        system.set_integrity(integrity);
        system.set_relocations(table);
        system
    }

    /// Takes the trusted code from the first of these that serves this recording as well, so that
    /// its program needs no copy of its own; after [`Start::learn_moves`], and before anything is
    /// built.
    pub fn share(&self, others: &[System]) {
        let mine = self.own_system();
        let tables = Tables::of(&self.space.mappings);
        let executed = self.recording.code.iter().map(|code| code.pc().page()).collect();
        let found = others.iter().find(|other| serves(&mine, other, &tables, &executed));
        // It is set once.
        let _ = self.system.set(found.cloned().unwrap_or(mine));
    }

    /// The pages of the process that the kernel shows to all processes.
    pub(crate) fn shown_pages(&self) -> FxHashSet<VirtAddr> {
        let late = self.retained.late_pages.iter();
        let late = late.filter(|(page, late)| self.space.shown(self.recording, **page, late).is_some());
        self.space.shared.keys().copied().chain(late.map(|(&page, _)| page)).collect()
    }

    /// The program without a slice: all that a whole run needs.
    #[must_use]
    pub fn program(&self, options: &BuildOptions) -> Program {
        let header = self.recording.trace.header();
        let pages = process_pages(self.recording, &self.space, &self.retained);
        let mut summaries: Vec<(u64, Summary)> =
            options.summaries.iter().map(|(addr, &summary)| (addr.0, summary)).collect();
        summaries.sort_unstable_by_key(|summary| summary.0);
        let first = self.retained.steps.values()[0];
        Program {
            name: header.program.clone(),
            bits: if header.mode_bits == 64 { 64 } else { 32 },
            entry: FuncId(0),
            functions: Vec::new(),
            inputs: header.inputs().map(declared).collect(),
            outputs: header.outputs().map(declared).collect(),
            registers: self.registers().known().map(|(reg, value)| (reg as u16, value)).collect(),
            begin_pc: self.recording.pc(first).0,
            heap: heap(&pages, self.recording.pc(StepId::new(0))),
            summaries,
            code: Vec::new(),
            system: self.system().hash(),
            clock: Vec::new(),
            overrides: options.overrides.clone(),
            signature: self.relocations().signature.clone(),
            dependences: Vec::new(),
            relocations: self.relocations().of_program(&[], Vec::new()),
            pages,
            provenance: Provenance::default(),
        }
    }

    /// The bytes of declared outputs that the recorded code wrote, by address: what it last wrote
    /// there.
    #[must_use]
    pub fn written_outputs(&self) -> BTreeMap<VirtAddr, u8> {
        written_outputs(self.recording, self.retained.steps.values().iter().copied())
    }

    /// The bytes of memory that interruptions and other tasks changed between the marks. A run over
    /// the memory of the begin mark reads them as they were before.
    #[must_use]
    pub fn changed_by_others(&self) -> FxHashSet<PhysAddr> {
        let own: FxHashSet<StepId> = self.retained.steps.values().iter().copied().collect();
        let others = self.recording.steps.ids().filter(|step| !own.contains(step));
        let stores = others.flat_map(|step| self.recording.accesses_of(step));
        let parts = stores.filter(|access| access.store && !access.io).flat_map(parts);
        let before = |at: PhysAddr| self.memory().page(at.page()).ok().map(|page| page[at.offset() as usize]);
        let bytes = parts.flat_map(|part| part.each().collect::<Vec<_>>());
        bytes.filter(|&(at, value)| before(at) != Some(value)).map(|(at, _)| at).collect()
    }

    /// The declared inputs, with the bytes that the recorded code began with.
    #[must_use]
    pub fn inputs(&self) -> Vec<(Variable, Vec<u8>)> {
        let bytes = |input: &trace::Variable| self.space.read(input.addr, input.size as usize);
        self.recording.trace.header().inputs().map(|input| (declared(input), bytes(input))).collect()
    }

    /// What the recorded code first read from the time stamp counter, if it did.
    #[must_use]
    pub fn time_stamp(&self) -> Option<u64> {
        *self.time_stamp.get_or_init(|| self.first_time_stamp())
    }

    fn first_time_stamp(&self) -> Option<u64> {
        let recording = self.recording;
        let reads = |step: StepId| recording.code_of(step).insn.ops.iter().any(|op| op.kind == ir::Kind::Tsc);
        let at = self.retained.steps.values().iter().copied().find(|&step| reads(step))?;
        recording.steps.get(at.next())?;
        let mut replay = Replay::new(recording);
        for step in recording.steps.ids().take_while(|&step| step <= at) {
            replay.step(step, &mut Blind);
        }
        replay.adopt(at.next());
        let half = |reg: Reg| replay.regs[reg] & 0xffff_ffff;
        Some(half(Reg::Rdx) << 32 | half(Reg::Rax))
    }

    /// The per-CPU cells by which the recorded code found out in whose context it ran.
    #[must_use]
    pub fn context_cells(&self) -> &ContextCells {
        self.context_cells.get_or_init(|| {
            let (pointers, counters) = execution_context::seen(self.recording, &self.retained);
            ContextCells::new(pointers, counters, levels::levels(self.recording, &self.retained))
        })
    }

    /// What the cells by which code finds out in whose context it runs hold in an idle one, levels
    /// aside: those that this recording shows, and `beside`, which others of its boot do. Empty if
    /// the recorder did not see the processor idle, or the recorded code itself read no such cell.
    ///
    /// # Errors
    /// Why what is known of the idle context is not all of it, so that no program can run in it.
    pub fn per_cpu_overrides(&self, beside: &ContextCells) -> Result<Vec<PerCpuOverride>, &'static str> {
        let relocations = self.relocations();
        let in_kernel = |addr| relocations.in_kernel(&self.space, addr);
        let slide = |address| relocations.slide_at(address).unwrap_or(0);
        let other = relocations.kernel_slide().zip(self.other_idle.get());
        let other = other.map(|(kernel, idle)| OtherBoot { slide: &slide, kernel, idle });
        let boots = Boots { in_kernel: &in_kernel, other };
        let own = self.context_cells();
        if own.pointers.is_empty() && own.counters.is_empty() {
            return Ok(Vec::new());
        }
        let cells = own.and(&beside.within(&in_kernel));
        whole(&cells.pointers, cells.counters, &boots, self.recording.is_long())
    }
}

fn declared(variable: &trace::Variable) -> Variable {
    let scalar = |scalar: trace::Scalar| {
        let size = scalar.size() as u8;
        if scalar.is_signed() { Elem::Signed(size) } else { Elem::Unsigned(size) }
    };
    let count = |capacity: u32, length: &Length| {
        let max = u64::from(capacity);
        match length {
            Length::Fixed => Count::Fixed(max),
            Length::Field(name) => Count::Variable { name: name.clone(), max },
        }
    };
    let (elem, count) = match &variable.ty {
        VarType::Scalar(it) => (scalar(*it), Count::One),
        VarType::CStr { capacity } => (Elem::Char, Count::Fixed(u64::from(*capacity))),
        VarType::Array { element, capacity, length } => (scalar(*element), count(*capacity, length)),
        VarType::Bytes { capacity, length } => (Elem::Byte, count(*capacity, length)),
    };
    Variable { name: variable.name.clone(), elem, count, addr: variable.addr.0 }
}

/// The bytes of declared outputs that some steps of a recording wrote.
fn written_outputs(recording: &Recording, steps: impl IntoIterator<Item = StepId>) -> BTreeMap<VirtAddr, u8> {
    let outputs: Vec<_> = recording.trace.header().outputs().collect();
    let mut written = BTreeMap::new();
    for step in steps {
        for access in recording.accesses_of(step).iter().filter(|access| access.store) {
            for (at, byte) in (0..u64::from(access.size)).zip(access.value.to_le_bytes()) {
                let address = access.vaddr.add(at);
                if outputs.iter().any(|output| address.0.wrapping_sub(output.addr.0) < output.size) {
                    written.insert(address, byte);
                }
            }
        }
    }
    written
}

/// The bytes of declared outputs that a whole run's recording wrote, by address: what it last wrote
/// there.
#[must_use]
pub fn outputs_of_run(recording: &Recording) -> BTreeMap<VirtAddr, u8> {
    written_outputs(recording, recording.steps.ids())
}
