//! Where a machine's RAM lies in its physical addresses, for bytes that are nothing but that RAM.
//!
//! A back-end file of a guest's memory, or the RAM in a migration stream, has no hole in it: what
//! does not fit below the devices' addresses goes on at 4 GiB, and the bytes do not say where the
//! cut is. It is one that the user names, that of a machine type of QEMU, or the one of those that
//! the processor's page tables agree with. Where the boundary is between RAM and devices is the
//! board's, not the operating system's. Sources: `pc_init1` in QEMU's `hw/i386/pc_piix.c`,
//! `pc_q35_init` in `pc_q35.c`, `microvm_memory_init` in `microvm.c`.

use std::fmt;

use super::cpu::Cpu;
use crate::addr::{PAGE_SIZE, PhysAddr, VirtAddr};
use crate::memory::{GuestMemory, MAX_PHYS, Segment};
use crate::paging::{self, PagingMode, WalkSummary};
use crate::reg::Reg;

/// RAM and where its bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RamRange {
    /// First physical address.
    pub start: u64,
    /// One past the last.
    pub end: u64,
    /// Where the first byte is: in the file, or in the RAM of a stream.
    pub offset: u64,
}

impl fmt::Display for RamRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}@{:#x}", self.start, self.end, self.offset)
    }
}

impl RamRange {
    /// The same for memory in a file.
    pub(super) fn segment(self) -> Segment {
        Segment { start: PhysAddr(self.start), size: self.end - self.start, offset: self.offset }
    }
}

/// How RAM is placed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Placement {
    /// Byte n is at physical address n.
    Flat,
    /// As a board does it.
    Board(Board),
    /// As somebody says.
    Ranges(Vec<RamRange>),
}

/// Boards of QEMU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Board {
    /// `-machine pc`.
    Pc,
    /// `-machine q35`.
    Q35,
    /// `-machine microvm`.
    Microvm,
}

/// Where what does not fit goes on.
const HIGH: u64 = 1 << 32;
const MIB: u64 = 1 << 20;
/// The screen of the first PCs lies over RAM.
const SCREEN: (u64, u64) = (0xa_0000, 0xc_0000);

impl Board {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pc, Self::Q35, Self::Microvm];

    /// What QEMU and users call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pc => "pc",
            Self::Q35 => "q35",
            Self::Microvm => "microvm",
        }
    }

    /// The board of the machine that a stream names, such as `pc-i440fx-9.2`.
    pub(super) fn of_machine(machine: &str) -> Option<Self> {
        match machine {
            "microvm" => Some(Self::Microvm),
            _ if machine == "q35" || machine.starts_with("pc-q35-") => Some(Self::Q35),
            _ if machine == "pc" || machine.starts_with("pc-i440fx-") => Some(Self::Pc),
            _ => None,
        }
    }

    /// Bytes of RAM that lie below 4 GiB, of `size` in all.
    fn low(self, size: u64) -> u64 {
        let (most, else_low) = match self {
            Self::Pc => (3584 * MIB, 3072 * MIB),
            Self::Q35 => (2816 * MIB, 2048 * MIB),
            Self::Microvm => (3072 * MIB + 1, 3072 * MIB),
        };
        if size >= most { else_low } else { size }
    }

    /// Whether it places `size` bytes in other ways than one behind the other.
    fn splits(self, size: u64) -> bool {
        self.low(size) < size
    }

    /// Where `size` bytes of RAM lie, of which byte 0 is at `offset` 0.
    fn ranges(self, size: u64) -> Vec<RamRange> {
        let low = self.low(size);
        let mut ranges = match self {
            Self::Microvm => vec![RamRange { start: 0, end: low, offset: 0 }],
            _ => vec![
                RamRange { start: 0, end: low.min(SCREEN.0), offset: 0 },
                RamRange { start: SCREEN.1, end: low, offset: SCREEN.1 },
            ],
        };
        ranges.push(RamRange { start: HIGH, end: HIGH.saturating_add(size - low), offset: low });
        ranges.retain(|range| range.start < range.end);
        ranges
    }
}

/// Why ranges that somebody names are none.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PlacementError {
    /// Empty, backwards, not of whole pages or too far up.
    #[error("the range {0} is not of whole pages that lie one behind the other below 2^52")]
    Impossible(RamRange),
    /// Two ranges with the same addresses.
    #[error("two ranges hold physical address {0}")]
    Overlap(PhysAddr),
    /// A range that lies behind the end of the bytes.
    #[error("the range {range} ends behind the RAM, which has {len:#x} bytes")]
    Behind {
        /// The range.
        range: RamRange,
        /// Bytes that there are.
        len: u64,
    },
    /// No ranges.
    #[error("no range is named")]
    None,
}

impl Placement {
    /// Where `len` bytes of RAM lie, sorted. With `partial`, ranges may reach beyond them.
    pub(super) fn ranges(&self, len: u64, partial: bool) -> Result<Vec<RamRange>, PlacementError> {
        let mut ranges = match self {
            Self::Flat => vec![RamRange { start: 0, end: len, offset: 0 }],
            Self::Board(board) => board.ranges(len),
            Self::Ranges(ranges) => ranges.clone(),
        };
        ranges.sort_by_key(|range| range.start);
        if ranges.is_empty() {
            return Err(PlacementError::None);
        }
        for &range in &ranges {
            let RamRange { start, end, offset } = range;
            let whole = [start, end, offset].iter().all(|at| at.is_multiple_of(PAGE_SIZE));
            if start >= end || end > MAX_PHYS || !whole {
                return Err(PlacementError::Impossible(range));
            }
            if offset.checked_add(end - start).is_none_or(|end| end > len) && !partial {
                return Err(PlacementError::Behind { range, len });
            }
        }
        match ranges.windows(2).find(|pair| pair[1].start < pair[0].end) {
            Some(pair) => Err(PlacementError::Overlap(PhysAddr(pair[1].start))),
            None => Ok(ranges),
        }
    }
}

/// The ways in which `len` bytes may be placed, one behind the other first. One where all boards
/// do the same.
pub(super) fn candidates(len: u64) -> Vec<Placement> {
    let boards = [Board::Pc, Board::Q35].into_iter().filter(|board| board.splits(len));
    [Placement::Flat].into_iter().chain(boards.map(Placement::Board)).collect()
}

/// Pages and tables of a processor that are looked at.
const LOOKED_AT: u64 = 1 << 20;
/// Tables of a wrong placement that have to be wrong at least, and how many times as many as of the
/// right one.
const LEAST_WRONG: u64 = 4;
const TIMES: u64 = 8;

/// The one of several memories that a processor's page tables agree with: where a table lies above
/// 4 GiB, only the right placement has a table there. `None` if they do not tell.
pub(super) fn agreed<M: GuestMemory>(memories: &[M], cpu: &Cpu) -> Option<usize> {
    let mode = PagingMode::from_regs(&cpu.regs).ok()?;
    let cr3 = cpu.regs.get(Reg::Cr3)?;
    let wrong: Vec<u64> = memories
        .iter()
        .map(|memory| {
            let (mut pages, mut outside) = (0u64, 0);
            let ranges = memory.ranges();
            let all = VirtAddr(0)..=VirtAddr(u64::MAX);
            let summary: WalkSummary = paging::walk(memory, mode, cr3, all, LOOKED_AT, &mut |page| {
                // Addresses of devices are few; behind all RAM and 4 GiB there are hardly any.
                let last = ranges.last().map_or(0, |range| range.end.0).max(HIGH);
                pages += 1;
                outside += u64::from(page.paddr.0 >= last);
                std::ops::ControlFlow::Continue(())
            });
            summary.skipped + outside + if pages == 0 { LOOKED_AT } else { 0 }
        })
        .collect();
    let best = (0..wrong.len()).min_by_key(|&i| wrong[i])?;
    let second = (0..wrong.len()).filter(|&i| i != best).map(|i| wrong[i]).min()?;
    (second >= LEAST_WRONG && second / TIMES >= wrong[best]).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn boards_place_ram_as_qemu_does() {
        let at = |board: Board, size| {
            board.ranges(size).iter().map(|it| (it.start, it.end, it.offset)).collect::<Vec<_>>()
        };
        let low = (0, 0xa_0000, 0);
        assert_eq!(at(Board::Pc, 3 * GIB + GIB / 4), [low, (0xc_0000, 0xd000_0000, 0xc_0000)]);
        assert_eq!(
            at(Board::Pc, 4 * GIB),
            [low, (0xc_0000, 0xc000_0000, 0xc_0000), (HIGH, HIGH + GIB, 0xc000_0000)]
        );
        assert_eq!(at(Board::Q35, 2 * GIB + GIB / 2), [low, (0xc_0000, 0xa000_0000, 0xc_0000)]);
        assert_eq!(
            at(Board::Q35, 2816 * MIB),
            [low, (0xc_0000, 0x8000_0000, 0xc_0000), (HIGH, HIGH + 768 * MIB, 0x8000_0000)]
        );
        assert_eq!(at(Board::Microvm, 4 * GIB), [(0, 3 * GIB, 0), (HIGH, HIGH + GIB, 3 * GIB)]);
        assert_eq!(at(Board::Pc, 1 << 19), [(0, 1 << 19, 0)]);
        assert_eq!(Board::of_machine("pc-q35-rhel9.4.0"), Some(Board::Q35));
        assert_eq!(Board::of_machine("pc-i440fx-10.0"), Some(Board::Pc));
        assert_eq!(Board::of_machine("isapc"), None);
        assert_eq!(candidates(2 * GIB), [Placement::Flat]);
        assert_eq!(candidates(3 * GIB), [Placement::Flat, Placement::Board(Board::Q35)]);
        assert_eq!(candidates(4 * GIB).len(), 3);
    }

    #[test]
    fn ranges_that_cannot_be_are_refused() {
        let range = |start, end, offset| RamRange { start, end, offset };
        let of = |ranges: &[RamRange], partial| Placement::Ranges(ranges.to_vec()).ranges(0x4000, partial);
        let (high, low) = (range(0x10000, 0x12000, 0x2000), range(0, 0x2000, 0));
        assert_eq!(of(&[high, low], false), Ok(vec![low, high]));
        for wrong in [range(0, 0, 0), range(0x2000, 0x1000, 0), range(0, 0x1001, 0), range(0, 0x1000, 8)] {
            assert_eq!(of(&[wrong], true), Err(PlacementError::Impossible(wrong)));
        }
        let far = range(MAX_PHYS, MAX_PHYS + 0x1000, 0);
        assert_eq!(of(&[far], true), Err(PlacementError::Impossible(far)));
        assert_eq!(
            of(&[low, range(0x1000, 0x3000, 0)], false),
            Err(PlacementError::Overlap(PhysAddr(0x1000)))
        );
        let behind = range(0, 0x5000, 0);
        assert_eq!(of(&[behind], false), Err(PlacementError::Behind { range: behind, len: 0x4000 }));
        assert_eq!(of(&[behind], true), Ok(vec![behind]));
        assert!(of(&[range(0, 0x1000, !0xfff)], false).is_err());
        assert_eq!(of(&[], false), Err(PlacementError::None));
    }
}
