//! Where a live guest's RAM lies: in physical addresses, in QEMU's blocks, in QEMU's address space,
//! in a file.
//!
//! Three tables are joined. `info mtree -f` says which physical addresses show which part of which
//! block (that is where the hole below 4 GiB and pages switched over to firmware are); `info
//! ramblock` where QEMU has mapped each block; `/proc/PID/maps` which file that is. None of them
//! has a form for programs, so each is read strictly: a line that is not understood leaves memory
//! out or makes its block readable by slower ways only, and never guesses. Only the guest's RAM
//! counts (the back ends that `query-memdev` lists), not video memory and firmware.

use crate::addr::PAGE_SIZE;
use crate::memory::MAX_PHYS;

/// Ranges that one guest may have; real ones have some ten.
const MAX_RANGES: usize = 1 << 16;

/// A range of physical addresses and the part of a block that it shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Range {
    /// First physical address, page aligned.
    pub(super) start: u64,
    /// Bytes, whole pages.
    pub(super) size: u64,
    /// The block's name.
    pub(super) block: String,
    /// Where in the block.
    pub(super) offset: u64,
}

/// The RAM of `info mtree -f`, sorted: what the address space `memory` shows of the named `blocks`.
pub(super) fn ranges(mtree: &str, blocks: &[String]) -> Vec<Range> {
    let mut views =
        mtree.split("FlatView #").filter(|view| view.lines().any(|line| line.starts_with(" AS \"memory\"")));
    let lines = views.next().unwrap_or("").lines();
    let mut ranges: Vec<Range> =
        lines.filter_map(range).filter(|range| blocks.contains(&range.block)).collect();
    ranges.truncate(MAX_RANGES);
    ranges.sort_by_key(|range| range.start);
    ranges.dedup_by(|next, before| next.start < before.start + before.size);
    ranges
}

/// `  0000000000100000-000000000bffffff (prio 0, ram): NAME @0000000000100000`
fn range(line: &str) -> Option<Range> {
    let (addresses, rest) = line.trim().split_once(" (")?;
    let (kind, name) = rest.split_once("): ")?;
    if !matches!(kind.rsplit_once(", ")?.1, "ram" | "rom") {
        return None;
    }
    let (first, last) = addresses.split_once('-')?;
    let (first, last) = (hex(first)?, hex(last)?);
    let mut words = name.split(' ');
    let block = words.next()?.to_owned();
    let offset = match words.next().and_then(|word| word.strip_prefix('@')) {
        Some(digits) => hex(digits)?,
        None => 0,
    };
    // Pages that are RAM only in part do not exist in practice; they count as holes.
    let start = first.checked_next_multiple_of(PAGE_SIZE)?;
    let end = last.checked_add(1)? & !(PAGE_SIZE - 1);
    let offset = offset.checked_add(start - first)?;
    (start < end && end <= MAX_PHYS && offset <= MAX_PHYS).then(|| Range {
        start,
        size: end - start,
        block,
        offset,
    })
}

/// Where QEMU has mapped the block: the HVA column of `info ramblock` (QEMU 7.2 and newer).
pub(super) fn host_address(ramblock: &str, block: &str) -> Option<u64> {
    let mut lines = ramblock.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let header = lines.next()?;
    let wanted = header.contains(&"HVA");
    // NAME, page size, its unit, offset, used, total, HVA
    let words = lines.filter(|_| wanted).find(|words| {
        words.first().is_some_and(|name| *name == block || name.rsplit('/').next() == Some(block))
    })?;
    hex(words.get(6)?.strip_prefix("0x")?)
}

/// A mapping of a process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Mapping {
    /// Whether writes reach the file.
    pub(super) shared: bool,
    /// Where in the file the wanted address is.
    pub(super) offset: u64,
    /// The file's number on its file system; 0 for memory without a file.
    pub(super) inode: u64,
    /// Its path, as `/proc/PID/fd` has it too.
    pub(super) path: String,
}

/// The mapping in `/proc/PID/maps` that holds all of `size` bytes from `address` on.
///
/// Memory without a file may lie in several neighbouring mappings; a file must be in one.
pub(super) fn mapping(maps: &str, address: u64, size: u64) -> Option<Mapping> {
    let end = address.checked_add(size)?;
    let mut at = address;
    for line in maps.lines() {
        let mut words = line.splitn(6, ' ');
        let (from, to) = words.next()?.split_once('-')?;
        let (from, to) = (hex(from)?, hex(to)?);
        if !(from..to).contains(&at) {
            continue;
        }
        let rights = words.next()?;
        let offset = hex(words.next()?)?;
        let inode = words.nth(1)?.parse().ok()?;
        let path = words.next().unwrap_or("").trim_start().to_owned();
        let whole = at == address && to >= end;
        if !rights.starts_with("rw") || (inode != 0 && !whole) {
            return None;
        }
        if to >= end {
            let offset = if whole { offset.checked_add(address - from)? } else { 0 };
            return Some(Mapping { shared: rights.ends_with('s') && whole, offset, inode, path });
        }
        at = to;
    }
    None
}

fn hex(digits: &str) -> Option<u64> {
    u64::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MTREE: &str = "FlatView #0\n AS \"I/O\", root: io\n Root memory region: io\n  \
        0000000000000000-0000000000000007 (prio 0, i/o): dma-chan\n\nFlatView #1\n \
        AS \"memory\", root: system\n \
        AS \"cpu-memory-0\", root: system\n Root memory region: system\n  \
        0000000000000000-00000000000c2fff (prio 0, ram): ram KVM\n  \
        00000000000c3000-00000000000e7fff (prio 0, rom): ram @00000000000c3000 KVM\n  \
        00000000000e8000-000000007fffffff (prio 0, ram): ram @00000000000e8000\n  \
        00000000fd000000-00000000fdffffff (prio 1, ram): vga.vram\n  \
        00000000fec00000-00000000fec00fff (prio 0, i/o): ioapic\n  \
        00000000fffc0000-00000000ffffffff (prio 0, rom): pc.bios\n  \
        0000000100000000-00000001ffffffff (prio 0, ram): ram @0000000080000000\n\nFlatView #2\n \
        AS \"cpu-smm-0\"\n  \
        0000000000000000-00000000ffffffff (prio 0, ram): ram\n";

    #[test]
    fn the_hole_below_4_gib_is_where_it_is() {
        let found = ranges(MTREE, &["ram".to_owned()]);
        let short: Vec<_> = found.iter().map(|range| (range.start, range.size, range.offset)).collect();
        assert_eq!(
            short,
            [
                (0, 0xc3000, 0),
                (0xc3000, 0x25000, 0xc3000),
                (0xe8000, 0x7ff1_8000, 0xe8000),
                (0x1_0000_0000, 0x1_0000_0000, 0x8000_0000),
            ]
        );
    }

    #[test]
    fn strange_lines_leave_memory_out() {
        let view = |line: &str| format!("FlatView #0\n AS \"memory\", root: system\n{line}\n");
        for line in [
            "  0-fff (prio 0, ram): ram @zz",
            "  +0-fff (prio 0, ram): ram",
            "  0000-ffffffffffffffff (prio 0, ram): ram",
            "  1000-0fff (prio 0, ram): ram",
            "  0800-17ff (prio 0, ram): ram",
            "  0-fff (prio 0, ram) ram",
            "  0-fff (prio 0, ram): other",
        ] {
            assert_eq!(ranges(&view(line), &["ram".to_owned()]), [], "{line}");
        }
        let partial = ranges(&view("  0800-27ff (prio 0, ram): ram @100000"), &["ram".to_owned()]);
        assert_eq!((partial[0].start, partial[0].size, partial[0].offset), (0x1000, 0x1000, 0x10_0800));
    }

    #[test]
    fn blocks_have_host_addresses() {
        let table = "              Block Name    PSize              Offset               Used  \
            \x20           Total                HVA  RO\n\
            \x20 /objects/ram    4 KiB  0x0000000000000000 0x000000000c000000 \
            0x000000000c000000 0x00007fe9c3fff000  rw\n";
        assert_eq!(host_address(table, "ram"), Some(0x7fe9_c3ff_f000));
        assert_eq!(host_address(table, "am"), None);
        assert_eq!(host_address(&table.replace("HVA", "RO"), "ram"), None);
    }

    #[test]
    fn mappings_hold_all_or_nothing() {
        let maps = "7f00-7f10 rw-s 00000100 00:01 1203                       \
            /memfd:memory-backend-memfd (deleted)\n\
            8000-9000 rw-p 00000000 00:00 0 \n9000-a000 rw-p 00000000 00:00 0 \n\
            a000-b000 rw-p 00000000 fe:00 7 /tmp/x\n";
        let shared = mapping(maps, 0x7f08, 8).unwrap();
        assert_eq!((shared.shared, shared.offset, shared.inode), (true, 0x108, 1203));
        assert_eq!(shared.path, "/memfd:memory-backend-memfd (deleted)");
        assert_eq!(mapping(maps, 0x7f08, 9), None);
        assert_eq!(mapping(maps, 0x8800, 0x1000).unwrap().inode, 0);
        assert_eq!(mapping(maps, 0x9800, 0x1000), None);
        assert!(!mapping(maps, 0xa000, 0x1000).unwrap().shared);
    }
}
