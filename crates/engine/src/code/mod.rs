//! The code of whole runs: fetched from trusted pages, lifted, predecoded, and cached.
//!
//! The trainer's code comes from the program's own pages, the kernel's from the companion file of
//! the training system, never from the target. Operations whose results are overwritten before
//! anything reads them are left out, unless the run is watched.
//!
//! Code that was lifted is the same for all runs over one target ([`Cache`]). One exception there
//! is: a far call of the trainer's may go through a gate in a descriptor table, which a run may
//! have written itself; blocks that depend on that are the run's own.

mod block;
mod cache;
mod compiled;
mod departures;
mod kernel;
mod redirected;
mod useful;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use ir::{Class, Kind, Op, Program, Summary, Var, Width};
use lift::{Insn, Mode};
use machine::{Reg, VirtAddr, hash};

pub(crate) use block::Block;
use block::Owner;
pub(crate) use cache::{AtHand, Cache};
pub(crate) use compiled::{Batch, Machine, Translation};
pub use departures::Departures;
use kernel::INSN_BYTES;
pub(crate) use kernel::{Kernel, Window};
pub(crate) use redirected::{Given, restore};
use useful::useful;

use crate::limits::Deadline;
use crate::overlay::Overlay;
use crate::predecode::{Constants, Slots, TooLarge};
use crate::process::ProcessPages;
use crate::run::system_mode;
use crate::watch::Watch;

/// The end marker (docs/markers.md).
const END_MARK: [u8; 7] = [0x0f, 0x1f, 0x80, 0x02, 0x00, 0x54, 0x56];
/// The most instructions of a block.
const BLOCK_INSNS: usize = 64;

/// The trainer's own code.
pub(crate) struct Own<'p> {
    /// Its pages.
    pub process: ProcessPages<'p>,
    /// Its allocator functions, by address.
    summaries: BTreeMap<u64, Summary>,
    process_mode: Mode,
    system_mode: Mode,
    /// From the first of all that code to its end.
    reach: Range<u64>,
}

impl<'p> Own<'p> {
    pub fn new(program: &'p Program) -> Self {
        let process = ProcessPages::new(program);
        let summaries: BTreeMap<u64, Summary> = program.summaries.iter().copied().collect();
        let mut reach = process.reach();
        if let (Some((first, _)), Some((last, _))) = (summaries.first_key_value(), summaries.last_key_value())
        {
            reach = reach.start.min(*first)..reach.end.max(last.saturating_add(1));
        }
        Self {
            process,
            summaries,
            reach,
            process_mode: if program.bits == 64 { Mode::Bits64 } else { Mode::Bits32 },
            system_mode: system_mode(program),
        }
    }

    /// The mode of the trainer's code.
    pub const fn process_mode(&self) -> Mode {
        self.process_mode
    }

    /// The mode of the system's code.
    pub const fn system_mode(&self) -> Mode {
        self.system_mode
    }

    /// The mode of the code at an address.
    pub fn mode(&self, pc: u64) -> Mode {
        if self.process.is_code(pc) { self.process_mode } else { self.system_mode }
    }

    /// Whether any of it may be in a range.
    #[inline(always)]
    const fn may_meet(&self, range: &Range<u64>) -> bool {
        self.reach.start < range.end && range.start < self.reach.end
    }

    /// Whether any of the code from `start` up to `end`, which is near, is the trainer's or
    /// replaced for it.
    fn touches(&self, start: u64, end: u64) -> bool {
        // Code may go around the end of the address space.
        let summary = start > end || self.summaries.range(start..end).next().is_some();
        summary || self.process.is_code(start) || self.process.is_code(end.wrapping_sub(1))
    }
}

/// The code that a run executes.
#[derive(Clone, Copy)]
pub(crate) struct Code<'c, 's> {
    pub own: &'c Own<'c>,
    pub kernel: &'c Kernel<'s>,
    pub cache: &'c Cache,
    /// Whose blocks in the cache are the kernel's.
    pub system: u32,
    /// Whose are the trainer's.
    pub trainer: u32,
}

/// What decides about a block that is lifted for a run.
pub(crate) struct Lifting<'r, 'o> {
    pub slots: &'r Slots,
    pub overlay: &'r mut Overlay<'o>,
    /// Blocks that only this run may use.
    pub private: &'r mut hash::Map<u64, Arc<Translation>>,
    /// The code that was looked at last.
    pub window: &'r mut Window,
    /// When modules are no longer looked for.
    pub deadline: Deadline,
}

impl Code<'_, '_> {
    /// The block at an address; `None` if there is no trusted code, or the time is over.
    ///
    /// # Errors
    /// [`TooLarge`]: its constants have no slots.
    #[cold]
    pub fn block<W: Watch>(
        &self,
        pc: u64,
        lifting: &mut Lifting<'_, '_>,
    ) -> Result<Option<Arc<Translation>>, TooLarge> {
        if let Some(block) = lifting.private.get(&pc) {
            return Ok(Some(Arc::clone(block)));
        }
        let (system, trainer) = (Owner(self.system, W::ON), Owner(self.trainer, W::ON));
        let usable = |it: &Arc<Translation>| !self.own.touches(pc, it.block.next);
        if let Some(block) = self.cache.get(system, pc).filter(usable) {
            return Ok(Some(block));
        }
        if let Some(block) = self.cache.get(trainer, pc) {
            return Ok(Some(block));
        }
        let Some(block) = self.lift::<W>(pc, lifting)? else { return Ok(None) };
        if block.private {
            let translation = Arc::new(Translation::new(trainer, block));
            lifting.private.insert(pc, Arc::clone(&translation));
            return Ok(Some(translation));
        }
        let of_system = block.insns > 0 && !self.own.touches(pc, block.next);
        Ok(Some(self.cache.add(if of_system { system } else { trainer }, block)))
    }

    /// Whether a run may execute the machine code of a block that it has found, and what that leads
    /// to.
    pub fn may_execute(&self, machine: &Machine) -> bool {
        // All trainers share the kernel's blocks; one of them may have code where those lie.
        machine.owner.0 != self.system || !self.own.may_meet(&machine.range)
    }

    /// Lifts the block at an address.
    fn lift<W: Watch>(&self, start: u64, lifting: &mut Lifting<'_, '_>) -> Result<Option<Block>, TooLarge> {
        let mut block = Block { start, summary: self.own.summaries.get(&start).copied(), ..Block::default() };
        let (mut insns, mut pc) = (Vec::new(), start);
        let (mut modules, mut patched) = (false, false);
        while block.summary.is_none() && insns.len() < BLOCK_INSNS {
            if self.own.summaries.contains_key(&pc) {
                break;
            }
            let own = self.own.process.is_code(pc);
            let mut bytes = [0; INSN_BYTES];
            let count = if own {
                put(&mut bytes, &self.own.process.code(pc, INSN_BYTES))
            } else {
                let Some(code) = self.kernel.fetch(pc, lifting.window, lifting.deadline) else {
                    return Ok(None);
                };
                let count = put(&mut bytes, code);
                modules |= lifting.window.modules;
                patched |= lifting.window.patched;
                count
            };
            let bytes = &bytes[..count];
            if bytes.starts_with(&END_MARK) {
                block.end = insns.is_empty();
                break;
            }
            let lifted = match own {
                true => self.lift_process(pc, bytes, lifting, &mut block.private),
                false => lift::lift(self.own.system_mode, pc, bytes),
            };
            let Ok(insn) = lifted else { break };
            // A decision is a jump or does nothing: one operation at most.
            if !own && insn.ops.len() <= 1 {
                self.kernel.note(pc, lifting.window);
            }
            if W::ON {
                let offset = pc.wrapping_sub(start) as u16;
                block.bytes.push((offset, bytes[..usize::from(insn.len)].into()));
            }
            pc = pc.wrapping_add(u64::from(insn.len));
            let ends = insn.ops.last().is_some_and(|op| op.class() == Class::Control);
            insns.push(insn);
            if ends {
                break;
            }
        }
        if insns.is_empty() && !block.end && block.summary.is_none() {
            return Ok(None);
        }
        (block.next, block.insns) = (pc, insns.len() as u32);
        (block.modules, block.varies) = (modules, modules || patched);
        predecode::<W>(&mut block, &insns)?;
        Ok(Some(block))
    }

    /// Lifts an instruction of the trainer. The target's descriptor tables tell whether a far call
    /// leads through a gate into the system; `asked` says whether they were looked at.
    fn lift_process(
        &self,
        pc: u64,
        bytes: &[u8],
        lifting: &mut Lifting<'_, '_>,
        asked: &mut bool,
    ) -> Result<Insn, lift::LiftError> {
        let Lifting { slots, overlay, .. } = lifting;
        let mut gate = |selector: u16| {
            *asked = true;
            let table = slots[if selector & 4 != 0 { Reg::LdtrBase } else { Reg::GdtrBase }.index()];
            let high = VirtAddr(table).add(u64::from(selector & 0xfff8) + 4);
            overlay.load(high, 4).is_ok_and(|high| lift::is_call_gate(high as u32))
        };
        lift::lift_process(self.own.process_mode, self.own.system_mode == Mode::Bits64, pc, bytes, &mut gate)
    }
}

/// Copies what there is of an instruction; how many bytes that is.
fn put(bytes: &mut [u8; INSN_BYTES], code: &[u8]) -> usize {
    let count = code.len().min(INSN_BYTES);
    bytes[..count].copy_from_slice(&code[..count]);
    count
}

/// Gives a block the operations of its instructions.
fn predecode<W: Watch>(block: &mut Block, insns: &[Insn]) -> Result<(), TooLarge> {
    let (mut ops, mut offsets, mut constants) = (Vec::new(), Vec::new(), Constants::default());
    for (insn, keep) in insns.iter().zip(useful(insns)) {
        // A watched run is sliced later and needs all operations.
        let kept = insn.ops.iter().zip(keep).filter(|(_, keep)| *keep || W::ON).map(|(op, _)| op);
        let nothing = Op::new(Kind::Mov, Width::B64, Var::NONE, &[0.into()]);
        // In a watched run an instruction that does nothing is a step too.
        let filler = (W::ON && insn.ops.is_empty()).then_some(&nothing);
        for op in kept.chain(filler) {
            ops.push(constants.op(op)?);
            offsets.push(insn.pc.wrapping_sub(block.start) as u16);
        }
    }
    (block.ops, block.offsets) = (ops.into(), offsets.into());
    block.constants = constants.0.into();
    Ok(())
}
