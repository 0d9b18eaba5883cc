//! The target of a run, and why a run may be unable to begin.

use ir::Program;
use lift::Mode;
use machine::paging::PagingMode;
use machine::{EFER_LMA, GuestMemory, Reg, RegFile};

use crate::apic::ApicId;
use crate::limits::Limits;
use crate::predecode::TooLarge;
use crate::variables::InputError;

/// What neither the target's memory nor its registers tell.
#[derive(Clone, Copy, Debug, Default)]
pub struct Environment {
    /// The target's time stamp counter at the pause, in ticks, if it is known.
    pub tsc: Option<u64>,
    /// Whose local APIC the run's processor has.
    pub apic: ApicId,
}

/// A target as a run sees it.
#[derive(Clone, Copy)]
pub struct Run<'t> {
    /// The target's memory.
    pub memory: &'t dyn GuestMemory,
    /// The registers of the target's CPU on which the run takes place.
    pub regs: &'t RegFile,
    /// What is known beside memory and registers.
    pub env: Environment,
    /// The most that the run may use.
    pub limits: Limits,
}

/// Why a run could not begin. What happens after it began is an outcome.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RunError {
    /// An input is missing, unknown or does not fit its type.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The code has more constants or temporaries than the engine has slots for.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// The target's CPU state lacks a register that the run needs.
    #[error("the target's CPU state has no {0}; give a capture that holds it or a --cpu-file")]
    NoRegister(&'static str),
    /// The target's control registers do not tell its paging mode; the text says why.
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
    /// The target's kernel lies at another address, and the program does not know what moves.
    #[error(
        "the target's kernel lies {slide:#x} bytes from where training had it, and the program was trained \
         under one base only"
    )]
    Elsewhere {
        /// The target's address minus training's, modulo 2^64.
        slide: u64,
    },
    /// The interrupt gates lead to the kernel's code, and per-CPU memory to another place.
    #[error(
        "its interrupt gates lead to the kernel's code {slide:#x} bytes from where training had it, but \
         per-CPU memory points to code elsewhere: that may be a copy with other data"
    )]
    Copy {
        /// The target's address minus training's, modulo 2^64.
        slide: u64,
    },
    /// Both GS bases are addresses of the kernel's half, and memory does not tell which is its own.
    #[error(
        "the processor was paused where its GS base may still be the process's, and both it, {active:#x}, \
         and the other, {swapped:#x}, are kernel addresses: the program cannot tell which is the kernel's"
    )]
    GsBase {
        /// The one in use.
        active: u64,
        /// The one that `SWAPGS` swaps in.
        swapped: u64,
    },
    /// A piece of the companion file that was needed is damaged.
    #[error(transparent)]
    Companion(#[from] ir::FileError),
    /// A constant in the kernel's code is not the one training knows, or the image that it names is
    /// not in the target.
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

impl Run<'_> {
    /// The paging mode and the root of the target's page tables.
    ///
    /// # Errors
    /// [`RunError::NoRegister`], [`RunError::Paging`].
    pub fn paging(&self) -> Result<(PagingMode, u64), RunError> {
        let root = self.regs.get(Reg::Cr3).ok_or(RunError::NoRegister("cr3"))?;
        let mode = PagingMode::from_regs(self.regs).map_err(|error| RunError::Paging(error.to_string()))?;
        Ok((mode, root))
    }
}

/// The mode of a program's kernel: 64-bit code where its processor was in long mode, even if the
/// trainer is a 32-bit program.
pub(crate) fn system_mode(program: &Program) -> Mode {
    let efer = program.registers.iter().find(|(reg, _)| *reg == Reg::Efer as u16).map_or(0, |it| it.1);
    if program.bits == 64 || efer & EFER_LMA != 0 { Mode::Bits64 } else { Mode::Bits32 }
}
