//! Per-CPU memory: whether an address is that of a processor's, and what such memory says about
//! where the kernel lies.
//!
//! Registers and interrupt gates say where per-CPU memory and the kernel's image are. A process may
//! set a segment base, and whoever can write kernel memory can lead gates to a copy of the kernel
//! in which other data lies. So both are compared with what the memory itself shows: words of the
//! program's signature, and pointers to code. That something looks like per-CPU memory does not
//! make it a processor's: it can be copied, too.

use std::collections::BTreeSet;
use std::ops::Range;

use ir::program::SignatureWord;
use machine::paging::{self, PagingMode};
use machine::{GuestMemory, PAGE_SIZE, PhysAddr, Reg, VirtAddr, hash};

use crate::run::{Run, RunError};

/// How far above its base per-CPU memory is looked at for pointers to code, in bytes.
const REACH: u64 = 256 << 10;
/// So many pointers into an image are enough.
const MANY: usize = 16;
/// Fewer pointers to code say nothing.
const FEW: usize = 8;

/// Page tables, and the memory that they map.
#[derive(Clone, Copy)]
pub(crate) struct Tables<'m> {
    /// The memory.
    pub memory: &'m dyn GuestMemory,
    /// Which sort of page tables they are.
    pub mode: PagingMode,
    /// Their root.
    pub root: u64,
}

impl Tables<'_> {
    /// Where a linear address lies.
    pub(crate) fn place(self, address: u64) -> Option<PhysAddr> {
        let found = paging::translate(self.memory, self.mode, self.root, VirtAddr(address));
        found.ok().map(|found| found.paddr)
    }

    /// How many distinct addresses of the signature are pointed to from where per-CPU memory at
    /// `base` would have it. They are counted instead of the words because leftovers of stacks in
    /// per-CPU memory point many times to the same few, and are gone in the next boot.
    pub(crate) fn count(self, signature: &[SignatureWord], base: u64) -> usize {
        let has = |it: &&SignatureWord| {
            let word = self.place(base.wrapping_add(it.offset.into()));
            let word = word.and_then(|place| self.memory.read_u64(place).ok());
            word == Some(base.wrapping_add(it.points.into()))
        };
        aims(signature.iter().filter(has))
    }

    /// Whether there is per-CPU memory at `base`.
    pub(crate) fn is_per_cpu(self, signature: &[SignatureWord], base: u64) -> bool {
        enough(self.count(signature, base), aims(signature))
    }

    /// Whether the pointers to code in the per-CPU memory at `base` lead into the kernel's image,
    /// taken to be at `image`. Too few pointers do not deny it.
    pub(crate) fn points_into(self, base: u64, image: &Range<u64>) -> bool {
        let mut known: hash::Map<u64, Option<bool>> = hash::Map::default();
        let (mut inside, mut code, mut mapped) = (0, 0, 0);
        for page in (base..base.saturating_add(REACH)).step_by(PAGE_SIZE as usize) {
            let bytes = self.place(page).and_then(|place| self.memory.page(place).ok());
            let words = bytes.iter().flat_map(|bytes| bytes.chunks_exact(8));
            for word in words.map(|word| word.try_into().map_or(0, u64::from_le_bytes)) {
                if word >> 63 == 0 || !self.mode.is_canonical(VirtAddr(word)) {
                    continue;
                }
                let executable = known.entry(word / PAGE_SIZE).or_insert_with(|| {
                    let found = paging::translate(self.memory, self.mode, self.root, VirtAddr(word)).ok()?;
                    Some(found.executable && !found.user)
                });
                mapped += usize::from(executable.is_some());
                if *executable != Some(true) {
                    continue;
                }
                code += 1;
                inside += usize::from(image.contains(&word));
                if inside >= MANY && inside * 2 > code {
                    return true;
                }
            }
        }
        // Where page tables do not tell code from data, most words point to data.
        let untold = code * 2 > mapped && inside >= FEW;
        code < FEW || inside * 2 > code || untold
    }
}

/// How many distinct addresses the words of a signature point to.
pub(crate) fn aims<'s>(signature: impl IntoIterator<Item = &'s SignatureWord>) -> usize {
    signature.into_iter().map(|it| it.points).collect::<BTreeSet<_>>().len()
}

/// Whether so many of all addresses that a signature points to make per-CPU memory.
pub(crate) const fn enough(found: usize, all: usize) -> bool {
    found >= 3 && found * 2 > all
}

impl Run<'_> {
    /// The kernel's GS base: in `KERNEL_GS_BASE` while the CPU is in user mode, else in `GS` (SDM
    /// vol. 2, SWAPGS), except between the entry and its SWAPGS, where a CPU is privileged and
    /// still has the process's base.
    ///
    /// The kernel's is in the upper half. A process's may be too, for with `WRGSBASE` it sets
    /// whatever it likes; then the program's signature decides, and if it cannot, nothing does.
    pub(crate) fn kernel_gs_base(
        &self,
        signature: &[SignatureWord],
        tables: Tables<'_>,
    ) -> Result<u64, RunError> {
        let upper = |value: &u64| value >> 63 == 1;
        let known = [Reg::GsBase, Reg::KernelGsBase].map(|reg| self.regs.get(reg));
        let user = self.regs.get(Reg::Cs).unwrap_or(0) & 3 == 3;
        let fits = |base: &u64| signature.is_empty() || tables.is_per_cpu(signature, *base);
        let found = match known.map(|base| base.filter(upper)) {
            // What is swapped out while a process runs is the kernel's for sure.
            [_, swapped] if user => swapped,
            [Some(active), Some(swapped)] if active == swapped => Some(active),
            [Some(active), Some(swapped)] => match [active, swapped].map(|base| fits(&base)) {
                [true, false] => Some(active),
                [false, true] => Some(swapped),
                _ => return Err(RunError::GsBase { active, swapped }),
            },
            // One that is known to be a process's leaves the other; else it has to show.
            [one, other] => one.or(other).filter(|base| known.iter().all(Option::is_some) || fits(base)),
        };
        found.ok_or(RunError::NoRegister("kernel GS base"))
    }
}
