//! The code of whole runs: fetched from trusted pages, lifted, predecoded, and cached.
//!
//! The trainer's code comes from the program's own pages, the kernel's from the companion file of
//! the training system, never from the target. Operations whose results are overwritten before
//! anything reads them are left out, unless the run is watched.

use ir::program::PageContent;
use ir::relocation::FixupKind;
use ir::{Class, Kind, Op, Program, Summary, System, Var, Width};
use lift::{Insn, Mode};
use machine::{GuestMemory, Reg, VirtAddr, hash};

use crate::overlay::Overlay;
use crate::predecode::{Pool, Predecoded, Slots, TooLarge};
use crate::relocate::Relocation;
use crate::run::system_mode;
use crate::watch::Watch;

/// The end marker (docs/markers.md).
const END_MARK: [u8; 7] = [0x0f, 0x1f, 0x80, 0x02, 0x00, 0x54, 0x56];
/// The most bytes of an instruction (SDM vol. 2 section 2.3.11).
const INSN_BYTES: usize = 15;
/// The most instructions of a block.
const BLOCK_INSNS: usize = 64;
/// If there are more constants than this, all lifted code is dropped before the next block: the
/// slots for constants are limited.
const POOL_LIMIT: usize = 60_000;
/// The same for operations, so that code which never comes by the same place twice takes no more
/// memory than some 100 MB.
const OPS_LIMIT: usize = 4 << 20;

/// The number of a block, valid until the next one is lifted.
#[derive(Clone, Copy)]
pub(crate) struct BlockId(u32);

/// Instructions that are executed one after the other.
pub(crate) struct Block {
    /// Its operations: the first, and the one behind its last.
    pub first: u32,
    pub last: u32,
    /// How many instructions it has.
    pub insns: u32,
    /// Where control goes if none of its operations decides.
    pub next: u64,
    /// Whether the end mark is here; there are no instructions then.
    pub end: bool,
    /// The allocator function that is here; there are no instructions then.
    pub summary: Option<Summary>,
}

/// Lifted code, kept from run to run.
#[derive(Default)]
struct Cache {
    blocks: Vec<Block>,
    /// Blocks by address.
    index: hash::Map<u64, BlockId>,
    ops: Vec<Predecoded>,
    /// Address of the instruction of each operation.
    pcs: Vec<u64>,
    /// Bytes of the instructions of watched runs, by address.
    insns: hash::Map<u64, Vec<u8>>,
    pool: Pool,
    /// The kernel's slide in the target that the code was lifted for: the code has that target's
    /// addresses.
    slide: u64,
    /// Whether code of modules is in it, which may be elsewhere in another target.
    modules: bool,
    /// Whether it was lifted for watched runs, which need every operation and the bytes.
    watched: bool,
}

/// The trainer's code and what was lifted of all code.
pub(crate) struct Code<'p> {
    /// The trainer's pages, by address.
    pages: hash::Map<VirtAddr, &'p [u8]>,
    /// Its allocator functions, by address.
    summaries: hash::Map<u64, Summary>,
    process_mode: Mode,
    system_mode: Mode,
    cache: Cache,
}

impl<'p> Code<'p> {
    pub fn new(program: &'p Program) -> Self {
        let bytes = |content: &'p PageContent| match content {
            PageContent::Bytes(bytes) => Some(bytes.as_slice()),
            PageContent::Zero | PageContent::Kernel(_) => None,
        };
        let pages = program.pages.iter();
        Self {
            pages: pages.filter_map(|page| Some((VirtAddr(page.addr), bytes(&page.content)?))).collect(),
            summaries: program.summaries.iter().copied().collect(),
            process_mode: if program.bits == 64 { Mode::Bits64 } else { Mode::Bits32 },
            system_mode: system_mode(program),
            cache: Cache::default(),
        }
    }

    /// Drops the lifted code if it may not hold in this target: the kernel lies elsewhere, the code
    /// has constants that a kernel writes into it in each boot, it has code of modules, or it was
    /// lifted for runs that are watched and this is not, or the other way round.
    pub fn begin<W: Watch>(&mut self, kernel: &KernelCode<'_>) {
        let varies = kernel.system.relocations().fixups.iter().any(|fixup| fixup.kind == FixupKind::Patched);
        let slide = kernel.relocation.slide();
        let other = self.cache.slide != slide || self.cache.watched != W::ON;
        if other || varies || self.cache.modules {
            self.cache = Cache { slide, watched: W::ON, ..Cache::default() };
        }
    }

    /// Writes the constants of all lifted code into their slots.
    pub fn fill(&self, slots: &mut Slots) {
        self.cache.pool.fill(slots, 0);
    }

    /// The mode of the trainer's code.
    pub const fn process_mode(&self) -> Mode {
        self.process_mode
    }

    /// The mode of the code at an address.
    pub fn mode(&self, pc: u64) -> Mode {
        if self.is_process(pc) { self.process_mode } else { self.system_mode }
    }

    /// Whether the code at an address is the trainer's.
    pub fn is_process(&self, pc: u64) -> bool {
        self.pages.contains_key(&VirtAddr(pc).page())
    }

    /// The block at an address; `None` if there is no trusted code.
    ///
    /// # Errors
    /// [`TooLarge`]: its constants have no slots.
    #[inline(always)]
    pub fn find<W: Watch>(
        &mut self,
        kernel: &mut KernelCode<'_>,
        pc: u64,
        slots: &mut Slots,
        overlay: &mut Overlay<'_>,
    ) -> Result<Option<BlockId>, TooLarge> {
        match self.cache.index.get(&pc) {
            Some(&block) => Ok(Some(block)),
            None => self.lift_block::<W>(kernel, pc, slots, overlay),
        }
    }

    #[inline(always)]
    pub fn block(&self, block: BlockId) -> &Block {
        &self.cache.blocks[block.0 as usize]
    }

    /// The operations of a block, and the addresses of their instructions.
    #[inline(always)]
    pub fn ops(&self, block: &Block) -> (&[Predecoded], &[u64]) {
        let range = block.first as usize..block.last as usize;
        (&self.cache.ops[range.clone()], &self.cache.pcs[range])
    }

    /// The bytes of an instruction that was lifted for a watched run.
    pub fn insn_bytes(&self, pc: u64) -> &[u8] {
        self.cache.insns.get(&pc).map_or(&[], Vec::as_slice)
    }

    /// Code bytes at an address: up to 15, fewer at the end of what is known.
    fn fetch(&self, kernel: &mut KernelCode<'_>, pc: u64) -> Vec<u8> {
        if !self.is_process(pc) {
            return kernel.fetch(pc);
        }
        let byte = |address: VirtAddr| self.pages.get(&address.page())?.get(address.offset() as usize);
        (0..INSN_BYTES as u64).map_while(|at| byte(VirtAddr(pc).add(at)).copied()).collect()
    }

    /// Lifts an instruction of the trainer. The target's descriptor tables tell whether a far call
    /// leads through a gate into the system.
    fn lift_process(
        &self,
        pc: u64,
        bytes: &[u8],
        slots: &Slots,
        overlay: &mut Overlay<'_>,
    ) -> Result<Insn, lift::LiftError> {
        let mut gate = |selector: u16| {
            let table = slots[if selector & 4 != 0 { Reg::LdtrBase } else { Reg::GdtrBase }.index()];
            let high = VirtAddr(table).add(u64::from(selector & 0xfff8) + 4);
            overlay.load(high, 4).is_ok_and(|high| lift::is_call_gate(high as u32))
        };
        lift::lift_process(self.process_mode, self.system_mode == Mode::Bits64, pc, bytes, &mut gate)
    }

    #[cold]
    fn lift_block<W: Watch>(
        &mut self,
        kernel: &mut KernelCode<'_>,
        start: u64,
        slots: &mut Slots,
        overlay: &mut Overlay<'_>,
    ) -> Result<Option<BlockId>, TooLarge> {
        if self.cache.pool.len() > POOL_LIMIT || self.cache.ops.len() > OPS_LIMIT {
            self.cache = Cache { slide: self.cache.slide, ..Cache::default() };
        }
        let mut insns = Vec::new();
        let (mut pc, mut end) = (start, false);
        let summary = self.summaries.get(&start).copied();
        while summary.is_none() && insns.len() < BLOCK_INSNS {
            if self.summaries.contains_key(&pc) {
                break;
            }
            let bytes = self.fetch(kernel, pc);
            if bytes.starts_with(&END_MARK) {
                end = insns.is_empty();
                break;
            }
            let lifted = if self.is_process(pc) {
                self.lift_process(pc, &bytes, slots, overlay)
            } else {
                lift::lift(self.system_mode, pc, &bytes)
            };
            let Ok(insn) = lifted else { break };
            pc = pc.wrapping_add(u64::from(insn.len));
            let ends = insn.ops.last().is_some_and(|op| op.class() == Class::Control);
            if W::ON {
                self.cache.insns.insert(insn.pc, bytes[..usize::from(insn.len)].to_vec());
            }
            insns.push(insn);
            if ends {
                break;
            }
        }
        if insns.is_empty() && !end && summary.is_none() {
            return Ok(None);
        }
        let known = self.cache.pool.len();
        let (first, last) = self.predecode::<W>(&insns)?;
        self.cache.pool.fill(slots, known);
        let block = BlockId(self.cache.blocks.len() as u32);
        self.cache.blocks.push(Block { first, last, insns: insns.len() as u32, next: pc, end, summary });
        self.cache.index.insert(start, block);
        self.cache.modules |= kernel.modules;
        Ok(Some(block))
    }

    /// Adds the operations of a block. Returns the first, and the one behind the last.
    fn predecode<W: Watch>(&mut self, insns: &[Insn]) -> Result<(u32, u32), TooLarge> {
        let first = self.cache.ops.len() as u32;
        for (insn, keep) in insns.iter().zip(useful(insns)) {
            // A watched run is sliced later and needs all operations.
            let ops = insn.ops.iter().zip(keep).filter(|(_, keep)| *keep || W::ON).map(|(op, _)| op);
            let nothing = Op::new(Kind::Mov, Width::B64, Var::NONE, &[0.into()]);
            // In a watched run an instruction that does nothing is a step too.
            let filler = (W::ON && insn.ops.is_empty()).then_some(&nothing);
            for op in ops.chain(filler) {
                let op = self.cache.pool.op(op)?;
                self.cache.ops.push(op);
                self.cache.pcs.push(insn.pc);
            }
        }
        Ok((first, self.cache.ops.len() as u32))
    }
}

/// The trusted kernel code as it is in one target.
pub(crate) struct KernelCode<'s> {
    /// Where the target has the companion file's images.
    pub relocation: Relocation<'s>,
    system: &'s System,
    memory: &'s dyn GuestMemory,
    /// Whether modules were looked for, which is done when one is first reached.
    modules: bool,
}

impl<'s> KernelCode<'s> {
    /// The code in a companion file; `program` is the relocation of a program that was made in its
    /// system.
    pub fn new(system: &'s System, memory: &'s dyn GuestMemory, program: &Relocation<'_>) -> Self {
        Self { relocation: program.system(system), system, memory, modules: false }
    }

    /// Code bytes at an address of the target: up to 15, fewer at the end of what is known.
    fn fetch(&mut self, pc: u64) -> Vec<u8> {
        let first = self.system.relocations().images.first();
        let in_kernel = |address: u64| first.is_some_and(|image| image.holds(address));
        let mut from = self.relocation.to_training(pc);
        if !from.is_some_and(in_kernel) && !self.modules {
            self.modules = true;
            self.relocation.find_modules(self.system, self.memory);
            from = self.relocation.to_training(pc);
        }
        let Some(from) = from else { return Vec::new() };
        self.relocation.trusted(self.system, from, INSN_BYTES, self.memory)
    }
}

/// Which operations of a block are needed, by instruction and operation. An operation is not needed
/// if its result is overwritten before anything reads it, as most flags are.
fn useful(insns: &[Insn]) -> Vec<Vec<bool>> {
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
                    // A division may fault, so it is needed even if nobody reads its result.
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
