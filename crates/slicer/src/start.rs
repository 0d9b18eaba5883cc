//! Where programs begin: the training system and process at a recording's begin mark.
//!
//! A whole run needs no more than this, a slice takes its registers and pages from it.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use ir::program::{Count, Elem, Field, FuncId, PageContent, Program, Provenance, UserPage, ViewCell};
use ir::{Summary, System};
use machine::{GuestMemory, Reg, RegFile};
use rustc_hash::FxHashSet;
use trace::{Length, VarType, Variable};

use crate::Error;
use crate::build::{BuildOptions, nothing_executed};
use crate::preprocess::{Kept, preprocess};
use crate::recording::Recording;
use crate::relocate::Relocations;
use crate::replay::{Blind, Replay};
use crate::snapshot::AddressSpace;

/// Room left between the process's highest page near its code and run-time allocations.
const HEAP_GAP: u64 = 256 << 20;

/// A recording's begin mark.
pub struct Start<'r> {
    pub(crate) recording: &'r Recording,
    pub(crate) space: AddressSpace<'r>,
    pub(crate) kept: Kept,
    system: OnceCell<System>,
    relocations: OnceCell<Relocations>,
}

impl<'r> Start<'r> {
    /// Reads a recording's start snapshot and cuts its interruptions.
    ///
    /// # Errors
    /// [`Error`] when the snapshot's page tables cannot be used, or nothing was recorded.
    pub fn new(recording: &'r Recording) -> Result<Self, Error> {
        let space = AddressSpace::new(recording)?;
        let kept = preprocess(recording, &space.begin_pages(), &|page| space.is_user(page))?;
        if kept.steps.is_empty() {
            return Err(nothing_executed());
        }
        Ok(Self { recording, space, kept, system: OnceCell::new(), relocations: OnceCell::new() })
    }

    /// Learns what moves from a recording of the same kernel at another address, whatever it
    /// recorded. To be called before anything is built.
    ///
    /// # Errors
    /// [`Error::Bases`] when nothing can be learned from it.
    pub fn learn_moves(&self, other: &Recording) -> Result<(), Error> {
        let learned = Relocations::learn(&self.space, &AddressSpace::new(other)?)?;
        self.relocations.set(learned).map_err(|_| Error::Bases("the program was begun without it".into()))
    }

    /// What is another in another boot.
    pub(crate) fn relocations(&self) -> &Relocations {
        self.relocations.get_or_init(|| Relocations::single(&self.space))
    }

    /// The recording.
    #[must_use]
    pub const fn recording(&self) -> &'r Recording {
        self.recording
    }

    /// The training system's memory at the begin mark.
    #[must_use]
    pub fn memory(&self) -> &dyn GuestMemory {
        &self.space.memory
    }

    /// Its registers.
    #[must_use]
    pub fn registers(&self) -> &RegFile {
        self.recording.begin_regs()
    }

    /// The training system's trusted code.
    pub fn system(&self) -> &System {
        self.system.get_or_init(|| {
            let mut system = self.space.system();
            system.set_placement(self.relocations().placement.clone());
            system
        })
    }

    /// The program without a slice: all that a whole run needs.
    #[must_use]
    pub fn program(&self, options: &BuildOptions) -> Program {
        let header = self.recording.trace.header();
        let pages = user_pages(self.recording, &self.space, &self.kept);
        let mut summaries: Vec<(u64, Summary)> =
            options.summaries.iter().map(|(&addr, &summary)| (addr, summary)).collect();
        summaries.sort_unstable_by_key(|summary| summary.0);
        Program {
            name: header.program.clone(),
            bits: if header.mode_bits == 64 { 64 } else { 32 },
            entry: FuncId(0),
            functions: Vec::new(),
            inputs: header.inputs().map(field).collect(),
            outputs: header.outputs().map(field).collect(),
            registers: self.registers().known().map(|(reg, value)| (reg as u16, value)).collect(),
            begin_pc: self.recording.pc(self.kept.steps[0] as usize),
            heap: heap(&pages, self.recording.pc(0)),
            summaries,
            code: Vec::new(),
            system: self.system().hash(),
            clock: Vec::new(),
            view: options.view.clone(),
            anchors: self.relocations().anchors.clone(),
            placement: self.relocations().of_program(&[], Vec::new()),
            pages,
            provenance: Provenance::default(),
        }
    }

    /// The bytes of declared outputs that the recorded code wrote, by address: what it last wrote
    /// there.
    #[must_use]
    pub fn written_outputs(&self) -> BTreeMap<u64, u8> {
        written_outputs(self.recording, self.kept.steps.iter().copied())
    }

    /// The declared inputs, with the bytes that the recorded code began with.
    #[must_use]
    pub fn inputs(&self) -> Vec<(Field, Vec<u8>)> {
        let bytes = |input: &Variable| self.space.read(input.addr.0, input.size as usize);
        self.recording.trace.header().inputs().map(|input| (field(input), bytes(input))).collect()
    }

    /// What the recorded code read from the time stamp counter first, if it did.
    #[must_use]
    pub fn time_stamp(&self) -> Option<u64> {
        let recording = self.recording;
        let reads =
            |step: u32| recording.code_of(step as usize).insn.ops.iter().any(|op| op.kind == ir::Kind::Tsc);
        let at = self.kept.steps.iter().copied().find(|&step| reads(step))? as usize;
        if at + 1 >= recording.steps.len() {
            return None;
        }
        let mut replay = Replay::new(recording);
        for step in 0..=at {
            replay.step(step, &mut Blind);
        }
        replay.adopt(at + 1);
        let half = |reg: Reg| replay.regs[reg.index()] & 0xffff_ffff;
        Some(half(Reg::Rdx) << 32 | half(Reg::Rax))
    }

    /// The cells by which the recorded code found out in which context it ran, with what they hold
    /// in an idle one: see [`crate::view`]. Empty if the recorder did not see the processor idle,
    /// or the code read no such cell.
    #[must_use]
    pub fn view_cells(&self) -> Vec<ViewCell> {
        crate::view::cells(self.recording, &self.kept, &|addr| {
            self.relocations().in_kernel(&self.space, addr)
        })
    }
}

fn field(variable: &Variable) -> Field {
    let scalar = |scalar: trace::Scalar| {
        let size = scalar.size() as u8;
        if scalar.is_signed() { Elem::Signed(size) } else { Elem::Unsigned(size) }
    };
    let (elem, count) = match &variable.ty {
        VarType::Scalar(it) => (scalar(*it), Count::One),
        VarType::CStr { capacity } => (Elem::Char, Count::Fixed(u64::from(*capacity))),
        VarType::Array { element, capacity, length } => {
            let max = u64::from(*capacity);
            let count = match length {
                Length::Fixed => Count::Fixed(max),
                Length::Field(name) => Count::Field { name: name.clone(), max },
            };
            (scalar(*element), count)
        }
    };
    Field { name: variable.name.clone(), elem, count, addr: variable.addr.0 }
}

/// The bytes of declared outputs that some steps of a recording wrote.
fn written_outputs(recording: &Recording, steps: impl Iterator<Item = u32>) -> BTreeMap<u64, u8> {
    let outputs: Vec<(u64, u64)> = recording
        .trace
        .header()
        .outputs()
        .map(|output| (output.addr.0, output.addr.0 + output.size))
        .collect();
    let mut written = BTreeMap::new();
    for step in steps {
        for access in recording.accesses_of(step as usize).iter().filter(|access| access.store) {
            let end = access.vaddr.0.wrapping_add(u64::from(access.size));
            if outputs.iter().any(|&(from, to)| access.vaddr.0 < to && from < end) {
                for (at, byte) in (0..u64::from(access.size)).zip(access.value.to_le_bytes()) {
                    let address = access.vaddr.0 + at;
                    if outputs.iter().any(|&(from, to)| (from..to).contains(&address)) {
                        written.insert(address, byte);
                    }
                }
            }
        }
    }
    written
}

/// The bytes of declared outputs that a whole run's recording wrote.
#[must_use]
pub fn outputs_of_run(recording: &Recording) -> BTreeMap<u64, u8> {
    written_outputs(recording, 0..recording.steps.len() as u32)
}

/// All pages of the process, those it gained after the begin mark included.
fn user_pages(recording: &Recording, space: &AddressSpace<'_>, kept: &Kept) -> Vec<UserPage> {
    let mut pages: Vec<UserPage> = Vec::new();
    for &addr in space.user.keys() {
        let content = match space.shared.get(&addr) {
            Some(&alias) => PageContent::Kernel(alias),
            None => {
                let bytes = space.read(addr, 4096);
                if bytes.len() != 4096 {
                    continue;
                }
                content(bytes)
            }
        };
        pages.push(UserPage { addr, content });
    }
    let executed: FxHashSet<u64> = recording.code.iter().map(|code| code.insn.pc & !4095).collect();
    for (&addr, late) in &kept.late_pages {
        let window =
            if late.written || executed.contains(&addr) { None } else { space.kernel_alias(late.frame) };
        let content = window.map_or_else(|| content(late.content.to_vec()), PageContent::Kernel);
        pages.push(UserPage { addr, content });
    }
    // Output buffers may lie on pages that training never touched.
    let present: FxHashSet<u64> = pages.iter().map(|page| page.addr).collect();
    let mut missing = FxHashSet::default();
    for variable in &recording.trace.header().variables {
        let (start, end) = (variable.addr.0 & !4095, variable.addr.0.saturating_add(variable.size));
        missing.extend((start..end).step_by(4096).filter(|page| !present.contains(page)));
    }
    pages.extend(missing.into_iter().map(|addr| UserPage { addr, content: PageContent::Zero }));
    pages.sort_unstable_by_key(|page| page.addr);
    pages.dedup_by_key(|page| page.addr);
    pages
}

fn content(bytes: Vec<u8>) -> PageContent {
    if bytes.iter().all(|&byte| byte == 0) { PageContent::Zero } else { PageContent::Bytes(bytes) }
}

/// A free stretch above the pages around the process's code.
fn heap(pages: &[UserPage], begin: u64) -> u64 {
    let near = pages.iter().map(|page| page.addr).filter(|addr| addr.abs_diff(begin) < 1 << 30).max();
    let start = near.unwrap_or(begin & !4095) + 4096 + HEAP_GAP;
    let above = pages.iter().map(|page| page.addr).find(|&addr| addr >= start);
    match above {
        Some(next) if next - start < HEAP_GAP => near.unwrap_or(begin & !4095) + 4096,
        _ => start,
    }
}
