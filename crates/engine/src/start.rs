//! What a run begins with: memory, registers from training and target, and the cells by which the
//! kernel knows on which processor, and in which process, it runs.

use ir::Program;
use lift::Mode;
use machine::{Reg, VirtAddr};

use crate::outcome::{Outcome, Stopped};
use crate::overlay::Overlay;
use crate::predecode::{Slots, TooLarge};
use crate::process::ProcessPages;
use crate::relocate::Relocation;
use crate::run::{Run, RunError, system_mode};
use crate::segment;
use crate::value::Values;

/// Why a run has no answer.
pub(crate) enum NoAnswer {
    /// It could not begin.
    Error(RunError),
    /// It stopped before the end mark.
    Stopped(Stopped),
}

impl From<RunError> for NoAnswer {
    fn from(error: RunError) -> Self {
        Self::Error(error)
    }
}

impl From<TooLarge> for NoAnswer {
    fn from(error: TooLarge) -> Self {
        Self::Error(error.into())
    }
}

impl From<Stopped> for NoAnswer {
    fn from(stopped: Stopped) -> Self {
        Self::Stopped(stopped)
    }
}

impl NoAnswer {
    /// The same with the addresses of code changed.
    pub fn map_addresses(self, change: impl Fn(u64) -> u64) -> Self {
        match self {
            Self::Stopped(stopped) => Self::Stopped(stopped.map_addresses(change)),
            Self::Error(_) => self,
        }
    }
}

/// How a run ended, if it could begin.
pub(crate) fn outcome(answer: Result<Values, NoAnswer>) -> Result<Outcome, RunError> {
    match answer {
        Ok(values) => Ok(Outcome::Answer(values)),
        Err(NoAnswer::Stopped(stopped)) => Ok(Outcome::Stopped(stopped)),
        Err(NoAnswer::Error(error)) => Err(error),
    }
}

impl<'t> Run<'t> {
    /// The memory of a run of `program` before anything is written: the training process's pages
    /// over the target's memory. `relocation` is where the program was found in the target.
    ///
    /// # Errors
    /// [`Stopped::Limit`]: the process has more pages than the run may have.
    pub fn overlay<'o>(
        &self,
        program: &Program,
        relocation: &Relocation<'_>,
        process: &'o ProcessPages<'o>,
    ) -> Result<Overlay<'o>, Stopped>
    where
        't: 'o,
    {
        let own = process.len();
        if own > self.limits.pages {
            let what = format!(
                "the training process has {own} pages of its own, and a run may have {}",
                self.limits.pages
            );
            return Err(Stopped::Limit { at: program.begin_pc, what });
        }
        let (mode, root) = (relocation.mode(), relocation.root());
        let overlay = Overlay::new(self.memory, mode, root, VirtAddr(program.heap), self.limits.pages);
        let mut overlay = overlay.with_process(process).with_apic(self.env.apic);
        for &(page, kernel) in &process.aliases {
            overlay.add_alias(page, VirtAddr(relocation.to_target(kernel)));
        }
        Ok(overlay)
    }

    /// Gives the cells of the program's per-CPU overrides their values, and the descriptors of its
    /// trainer's segments the trainer's bases.
    ///
    /// # Errors
    /// [`RunError::NoRegister`]; [`Stopped`] when a cell cannot be written.
    pub(crate) fn override_per_cpu(
        &self,
        program: &Program,
        relocation: &Relocation<'_>,
        overlay: &mut Overlay<'_>,
    ) -> Result<(), NoAnswer> {
        segment::give(program, self.regs, overlay);
        for cell in &program.overrides {
            let base = if let Some(number) = cell.descriptor() {
                let table = self.regs.get(Reg::GdtrBase).ok_or(RunError::NoRegister("gdtr_base"))?;
                let address = table.wrapping_add(u64::from(number) * 8);
                let descriptor = overlay.load(VirtAddr(address), 8);
                machine::descriptor::base(
                    descriptor.map_err(|fault| Stopped::access(program.begin_pc, address, &fault))?,
                )
            } else if system_mode(program) == Mode::Bits64 && cell.base == Reg::GsBase as u16 {
                self.kernel_gs_base(&program.signature, relocation.tables(self.memory))?
            } else {
                Reg::from_index(cell.base.into())
                    .and_then(|reg| self.regs.get(reg))
                    .ok_or(RunError::NoRegister("segment base of the per-CPU area"))?
            };
            // Only 32-bit systems have descriptors for per-CPU memory. There the offset may be an
            // address in the kernel's image, and the sum wraps around.
            let mask = if cell.descriptor().is_some() { u64::from(u32::MAX) } else { u64::MAX };
            let address = base.wrapping_add(relocation.to_target(cell.offset.into())) & mask;
            let value = relocation.to_target(cell.value);
            overlay
                .store(VirtAddr(address), u64::from(cell.size), value)
                .map_err(|fault| Stopped::access(program.begin_pc, address, &fault))?;
        }
        Ok(())
    }

    /// Fills the slots of the registers: training's values, relocated where they are addresses in
    /// an image, and the target's values where the system owns the register.
    pub(crate) fn registers(
        &self,
        program: &Program,
        relocation: &Relocation<'_>,
        slots: &mut Slots,
    ) -> Result<(), RunError> {
        for &(reg, value) in &program.registers {
            slots[reg as usize & 255] = relocation.to_target(value);
        }
        for &reg in Reg::OF_SYSTEM {
            if let Some(value) = self.regs.get(reg) {
                slots[reg.index()] = value;
            }
        }
        if system_mode(program) == Mode::Bits64 {
            let tables = relocation.tables(self.memory);
            slots[Reg::KernelGsBase.index()] = self.kernel_gs_base(&program.signature, tables)?;
        }
        Ok(())
    }
}
