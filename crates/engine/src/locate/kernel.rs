//! The one kernel in a target's memory: which of the page tables that map it, and of the interrupt
//! tables that lead to it, are tied to it by more than their number.

use std::ops::{ControlFlow, Range};

use ir::Program;
use machine::paging::{self, DEFAULT_WALK_LIMIT, PagingMode};
use machine::{GuestMemory, PhysAddr, Reg, RegFile, VirtAddr};

use super::found::{Hints, LocateError};
use super::processors::processors;
use super::roots::Half;
use crate::limits::Limits;
use crate::per_cpu::{Tables, aims};
use crate::relocate::Relocation;
use crate::run::{Environment, Run, RunError};

/// How many page tables that disagree are looked at closely, by a pass over memory for each; what
/// is beyond counts as good as those, so that a hostile target costs no more.
const MOST_HALVES: usize = 8;

/// Where an interrupt table is, and where it leads.
#[derive(Clone, Copy)]
pub(super) struct Image {
    /// Its handlers' addresses minus training's, modulo 2^64.
    pub slide: u64,
    pub interrupts: PhysAddr,
}

/// Page tables that map the kernel's code where an interrupt table leads.
pub(super) struct Candidate {
    pub image: Image,
    pub half: Half,
}

/// A candidate, and the processors that it leads to.
pub(super) struct Kernel {
    pub image: Image,
    pub half: Half,
    /// Their registers; empty where nobody looked for them.
    pub cpus: Vec<RegFile>,
    /// As in [`Located::signature`](super::found::Located::signature).
    pub signature: Option<(usize, usize)>,
}

impl Kernel {
    /// What one candidate leads to; `None` if to no processor.
    fn new(program: &Program, memory: &dyn GuestMemory, hints: Hints, candidate: Candidate) -> Option<Self> {
        let Candidate { image, half } = candidate;
        let tables = Tables { memory, mode: half.mode, root: half.roots[0] };
        let (bases, signature) = match hints.gs_base {
            Some(base) => (vec![base], None),
            None => {
                let found = processors(tables, &program.signature, &range(program, image.slide));
                let least = found.values().min().copied()?;
                (found.into_keys().collect(), Some((least, aims(&program.signature))))
            }
        };
        let interrupts = linear(tables, image.interrupts);
        let cpus = bases.into_iter().map(|base| registers(program, tables, interrupts, base)).collect();
        Some(Self { image, half, cpus, signature })
    }

    /// Whether a run finds the program's kernel there: its interrupt table is mapped, all its code
    /// is there, and per-CPU memory points into it.
    fn is_tied(&self, program: &Program, memory: &dyn GuestMemory) -> bool {
        self.cpus.iter().filter(|regs| regs.get(Reg::IdtrBase).is_some()).any(|regs| {
            let (env, limits) = (Environment::default(), Limits::default());
            match Relocation::find(program, &Run { memory, regs, env, limits }) {
                Ok(found) => found.slide() == self.image.slide,
                // It is that kernel; that the program cannot run there is said when it is to.
                Err(RunError::Elsewhere { slide }) => slide == self.image.slide,
                Err(error) => matches!(error, RunError::Constant { .. }),
            }
        })
    }

    /// Whether both cannot be views of one kernel.
    fn contradicts(&self, other: &Self) -> bool {
        self.image.slide != other.image.slide || self.half.contradicts(&other.half)
    }
}

/// The one kernel that the candidates lead to.
pub(super) fn the_kernel(
    program: &Program,
    memory: &dyn GuestMemory,
    hints: Hints,
    candidates: Vec<Candidate>,
) -> Result<Kernel, LocateError> {
    if candidates.is_empty() {
        return Err(LocateError::Tables);
    }
    let several = candidates.len() > 1;
    let mut kernels: Vec<Kernel> = Vec::new();
    for (at, candidate) in candidates.into_iter().enumerate() {
        if at >= MOST_HALVES {
            let Candidate { image, half } = candidate;
            kernels.push(Kernel { image, half, cpus: Vec::new(), signature: None });
            continue;
        }
        let kernel = Kernel::new(program, memory, hints, candidate);
        kernels.extend(kernel.filter(|kernel| !several || kernel.is_tied(program, memory)));
    }
    let explained = |kernel: &Kernel| kernels.iter().any(|it| kernel.half.is_explained_by(&it.half));
    let mut keep: Vec<bool> = kernels.iter().map(|kernel| !explained(kernel)).collect();
    kernels.retain(|_| keep.remove(0));
    let mut kernels = kernels.into_iter();
    let first = kernels.next().filter(|first| !first.cpus.is_empty()).ok_or(LocateError::Processors)?;
    match kernels.find(|other| first.contradicts(other)) {
        Some(other) => Err(LocateError::Ambiguous(first.half.roots[0], other.half.roots[0])),
        None => Ok(first),
    }
}

/// Where the program's kernel image is in the target.
fn range(program: &Program, slide: u64) -> Range<u64> {
    let image = program.relocations.images.first();
    image.map_or(0..0, |image| image.start.wrapping_add(slide)..image.end.wrapping_add(slide))
}

/// A linear address in the kernel's half that is mapped to a physical one.
fn linear(tables: Tables<'_>, at: PhysAddr) -> Option<u64> {
    let Tables { memory, mode, root } = tables;
    let mut found = None;
    let half = VirtAddr(1 << (mode.linear_bits() - 1));
    paging::walk(memory, mode, root, half..=VirtAddr(u64::MAX), DEFAULT_WALK_LIMIT, &mut |mapping| {
        let offset = at.0.wrapping_sub(mapping.paddr.0);
        if mapping.user || offset >= mapping.size {
            return ControlFlow::Continue(());
        }
        found = Some(mapping.vaddr.0.wrapping_add(offset));
        ControlFlow::Break(())
    });
    found
}

/// The registers of the processor whose per-CPU memory is at `base`. Control registers are
/// training's, except for the depth of the page tables; `interrupts` is the interrupt table.
fn registers(program: &Program, tables: Tables<'_>, interrupts: Option<u64>, base: u64) -> RegFile {
    let Tables { mode, root, .. } = tables;
    const LA57: u64 = 1 << 12;
    let trained = |reg: Reg, otherwise: u64| {
        program.registers.iter().find(|(it, _)| *it == reg as u16).map_or(otherwise, |(_, value)| *value)
    };
    let mut regs = RegFile::default();
    // Protection, paging, write protection; physical address extension; long mode, no-execute pages
    // (SDM vol. 3 section 2.5).
    regs.set(Reg::Cr0, trained(Reg::Cr0, 0x8001_0001));
    let depth = if mode == PagingMode::Level5 { LA57 } else { 0 };
    regs.set(Reg::Cr4, trained(Reg::Cr4, 0x20) & !LA57 | depth);
    regs.set(Reg::Efer, trained(Reg::Efer, 0xd01));
    regs.set(Reg::Cr3, root);
    if let Some(interrupts) = interrupts {
        regs.set(Reg::IdtrBase, interrupts);
    }
    regs.set(Reg::GsBase, base);
    regs.set(Reg::KernelGsBase, base);
    regs
}
