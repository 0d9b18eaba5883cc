//! What a run begins with: registers from training and target, limits, the environment's answers.

use ir::Program;
use lift::Mode;
use machine::paging::PagingMode;
use machine::{EFER_LMA, GuestMemory, Reg, RegFile};

use crate::compact::{Slots, TooLarge};
use crate::fields::InputError;
use crate::outcome::Stopped;
use crate::place::Placed;
use crate::segment;

/// The most that a run may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Operations.
    pub fuel: u64,
    /// Pages copied or allocated.
    pub pages: usize,
    /// Nested calls.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { fuel: 400_000_000, pages: 65_536, depth: 10_000 }
    }
}

/// What only the world outside memory knows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Environment {
    /// The target's time stamp counter at the pause, where the capture has it.
    pub tsc: Option<u64>,
}

/// A target as a run sees it.
#[derive(Clone, Copy)]
pub struct Run<'t> {
    /// Its memory.
    pub memory: &'t dyn GuestMemory,
    /// The registers of the CPU whose view is taken.
    pub regs: &'t RegFile,
    /// Clocks and the like.
    pub env: Environment,
    /// Limits.
    pub limits: Limits,
}

/// Why a run could not begin. What happens after it began is an [`crate::Outcome`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RunError {
    /// An input is missing, unknown or does not fit its type.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The program does not fit the engine.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// The target's CPU state lacks a register that the run needs.
    #[error("the target's CPU state has no {0}; give a capture that holds it or a --cpu-file")]
    NoRegister(&'static str),
    /// The target's control registers describe no paging mode that is supported.
    #[error("the target's paging mode is not supported: {0}")]
    Paging(String),
    /// The target does not run the kernel the program was made from.
    #[error(
        "the target runs another kernel: {differing} of {checked} code bytes the program was made from \
         differ or are not there"
    )]
    OtherKernel {
        /// Bytes that differ or cannot be read.
        differing: u64,
        /// Bytes compared.
        checked: u64,
    },
    /// The target's kernel lies elsewhere, and the program does not know what moves.
    #[error(
        "the target's kernel lies {slide:#x} bytes from where training had it, and the program was trained \
         under one base only"
    )]
    Elsewhere {
        /// The distance, modulo 2^64.
        slide: u64,
    },
    /// A constant in the kernel's code is not the one training knows.
    #[error(
        "the target's kernel has another constant in its instruction at {at:#x} (training's address) than \
         training had, and none that training knows to differ"
    )]
    Constant {
        /// Address of the instruction, or the constant itself where the module that it lies in is
        /// not there.
        at: u64,
    },
}

/// Registers whose value at the start is the target's, where it is known: the system's, not the
/// process's.
const FROM_TARGET: &[Reg] = &[
    Reg::Cr0,
    Reg::Cr2,
    Reg::Cr3,
    Reg::Cr4,
    Reg::Cr8,
    Reg::Efer,
    Reg::GdtrBase,
    Reg::GdtrLimit,
    Reg::IdtrBase,
    Reg::IdtrLimit,
    Reg::Ldtr,
    Reg::LdtrBase,
    Reg::Tr,
    Reg::TrBase,
];

/// The code size of a program's system: that of its processor in long mode, whatever the trainer's
/// own.
pub(crate) fn system_mode(program: &Program) -> Mode {
    let efer = program.registers.iter().find(|(reg, _)| *reg == Reg::Efer as u16).map_or(0, |it| it.1);
    if program.bits == 64 || efer & EFER_LMA != 0 { Mode::Bits64 } else { Mode::Bits32 }
}

impl<'t> Run<'t> {
    /// The paging mode and the root of the target's page tables.
    ///
    /// # Errors
    /// [`RunError::NoRegister`], [`RunError::Paging`].
    pub fn paging(&self) -> Result<(PagingMode, u64), RunError> {
        let root = self.regs.get(Reg::Cr3).ok_or(RunError::NoRegister("cr3"))?;
        let mode = PagingMode::from_regs(self.regs).map_err(|error| RunError::Paging(error.to_string()))?;
        Ok((mode, root))
    }

    /// The environment of a run: where the capture has no time stamp counter, one just past what
    /// the kernel last stored.
    pub(crate) fn environment(
        &self,
        program: &Program,
        placed: &Placed<'_>,
        space: &mut crate::Space<'_>,
    ) -> Environment {
        let stored = program.clock.iter().filter_map(|&cell| space.load(placed.place(cell), 8).ok()).max();
        Environment { tsc: self.env.tsc.or(stored.map(|value| value.wrapping_add(1))) }
    }

    /// Gives the program's view cells their values and its trainer's segments their bases, in the
    /// overlay.
    ///
    /// # Errors
    /// [`RunError::NoRegister`]; the inner one when a cell is not mapped.
    pub(crate) fn view(
        &self,
        program: &Program,
        placed: &Placed<'_>,
        space: &mut crate::Space<'_>,
    ) -> Result<Result<(), Stopped>, RunError> {
        segment::give(program, self.regs, space);
        for cell in &program.view {
            let base = if let Some(number) = cell.descriptor() {
                let table = self.regs.get(Reg::GdtrBase).ok_or(RunError::NoRegister("gdtr_base"))?;
                let address = table.wrapping_add(u64::from(number) * 8);
                match space.load(address, 8) {
                    Ok(descriptor) => machine::descriptor::base(descriptor),
                    Err(fault) => return Ok(Err(Stopped::access(program.begin_pc, address, &fault))),
                }
            } else if system_mode(program) == Mode::Bits64 && cell.base == Reg::GsBase as u16 {
                self.kernel_gs_base()?
            } else {
                Reg::from_index(cell.base.into())
                    .and_then(|reg| self.regs.get(reg))
                    .ok_or(RunError::NoRegister("segment base of the per-CPU area"))?
            };
            // Only 32-bit systems have segments for it. There the offset may be an address in the
            // kernel's image, and the sum wraps around.
            let mask = if cell.descriptor().is_some() { u64::from(u32::MAX) } else { u64::MAX };
            let offset = placed.place(cell.offset.into());
            let address = base.wrapping_add(offset) & mask;
            if let Err(fault) = space.store(address, u64::from(cell.size), placed.place(cell.value)) {
                return Ok(Err(Stopped::access(program.begin_pc, address, &fault)));
            }
        }
        Ok(Ok(()))
    }

    /// Fills the registers.
    pub(crate) fn registers(
        &self,
        program: &Program,
        placed: &Placed<'_>,
        slots: &mut Slots,
    ) -> Result<(), RunError> {
        for &(reg, value) in &program.registers {
            slots[reg as usize & 255] = placed.place(value);
        }
        for &reg in FROM_TARGET {
            if let Some(value) = self.regs.get(reg) {
                slots[reg.index()] = value;
            }
        }
        if system_mode(program) == Mode::Bits64 {
            slots[Reg::KernelGsBase.index()] = self.kernel_gs_base()?;
        }
        Ok(())
    }

    /// The kernel's GS base: in `KERNEL_GS_BASE` while the CPU is in user mode, else in `GS` (SDM
    /// vol. 2, SWAPGS).
    fn kernel_gs_base(&self) -> Result<u64, RunError> {
        let user = self.regs.get(Reg::Cs).unwrap_or(0) & 3 == 3;
        let (active, swapped) = (self.regs.get(Reg::GsBase), self.regs.get(Reg::KernelGsBase));
        let value = if user { swapped } else { active };
        // Between the entry and its SWAPGS a CPU is privileged and still has the process's base:
        // the kernel's is in the upper half.
        let upper = |value: &u64| value >> 63 == 1;
        value
            .filter(upper)
            .or(swapped.filter(upper))
            .or(active.filter(upper))
            .ok_or(RunError::NoRegister("kernel GS base"))
    }
}
