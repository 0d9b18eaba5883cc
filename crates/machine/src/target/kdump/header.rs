//! The headers of a kdump-compressed file.
//!
//! Block 0 has the header of "diskdump", whose fields move by the width of the writer's `struct
//! timeval`; then the sub header with the place of the notes; then two bitmaps; then page
//! descriptors. Sources: makedumpfile's `IMPLEMENTATION` and `diskdump_mod.h`;
//! `DiskDumpHeader32/64` and `KdumpSubHeader32/64` of QEMU's `dump.h`.

use super::error::KdumpError;
use crate::addr::PAGE_SIZE;
use crate::memory::MAX_PHYS;
use crate::target::flat::Source;

/// Set in `status` when the writer ran out of room.
const INCOMPLETE: u32 = 0x8;
/// Most bytes that notes of processors take: 4096 of QEMU's take 4 MB.
const MAX_NOTES: u64 = 64 << 20;

/// What the headers say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    /// One more than the last page frame number.
    pub(super) pages: u64,
    /// Place of the first bitmap, in bytes; the second follows it.
    pub(super) bitmaps: u64,
    /// Bytes of each bitmap.
    pub(super) bitmap: u64,
    /// Place of the first page descriptor.
    pub(super) descriptors: u64,
    /// Place and size of the ELF notes.
    pub(super) notes: Option<(u64, usize)>,
    /// The compression flags that the header states; each page has its own.
    pub(super) compression: u32,
    /// The writer could not finish.
    pub(super) incomplete: bool,
    /// A 64-bit header.
    pub(super) is64: bool,
}

/// Where the fields lie: in block 0, and in the sub header.
struct Layout {
    is64: bool,
    /// `status`; the next fields follow it.
    status: usize,
    split: usize,
    /// Place of the notes, and bytes of the field with their size.
    notes: (usize, usize),
    pages: usize,
}

const LAYOUTS: [Layout; 2] = [
    Layout { is64: true, status: 424, split: 12, notes: (48, 8), pages: 96 },
    Layout { is64: false, status: 412, split: 8, notes: (32, 4), pages: 72 },
];
/// Where the machine of the writer's `utsname` is.
const MACHINE: usize = 272;
/// How it begins for machines that Linux can dump and that are not x86. Other names say nothing:
/// QEMU 10 writes "Unknown", earlier versions "x86_64" for 32-bit guests too.
const FOREIGN: [&[u8]; 9] =
    [b"aarch64", b"arm", b"ppc", b"s390", b"riscv", b"mips", b"loongarch", b"sparc", b"ia64"];

/// Reads and checks the headers.
pub(super) fn parse<B: AsRef<[u8]>>(source: &Source<B>) -> Result<Header, KdumpError> {
    let main =
        source.get(0, 460).ok_or(KdumpError::Cut { what: "its header", end: 460, len: source.len() })?;
    let word = |at: usize| u32::from_le_bytes([main[at], main[at + 1], main[at + 2], main[at + 3]]);
    let machine: Vec<u8> = main[MACHINE..].iter().copied().take(65).take_while(|&byte| byte != 0).collect();
    if FOREIGN.iter().any(|name| machine.starts_with(name)) {
        return Err(KdumpError::Machine(String::from_utf8_lossy(&machine).escape_default().to_string()));
    }
    // A 16 MiB guest's 32-bit header has 4096 where the other has the block size, but zero in the
    // fields after it.
    let fits = |layout: &&Layout| {
        let [block, sub, bitmap] = [4, 8, 12].map(|field| word(layout.status + field));
        u64::from(block) == PAGE_SIZE && sub != 0 && bitmap != 0
    };
    let Some(layout) = LAYOUTS.iter().find(fits) else {
        return Err(KdumpError::BlockSize(word(LAYOUTS[0].status + 4)));
    };
    let [status, _, sub, bitmap, pages32] = [0, 4, 8, 12, 16].map(|field| word(layout.status + field));
    let bitmaps = (1 + u64::from(sub)) * PAGE_SIZE;
    let descriptors = bitmaps + u64::from(bitmap) * PAGE_SIZE;
    let cut = |what, end| KdumpError::Cut { what, end, len: source.len() };
    let fields = source.get(PAGE_SIZE, 104).ok_or(cut("its sub header", PAGE_SIZE + 104))?;
    let number =
        |at: usize, size: usize| fields[at..at + size].iter().rev().fold(0, |n, &b| n << 8 | u64::from(b));
    let version = word(8);
    if version >= 2 && number(layout.split, 4) != 0 {
        return Err(KdumpError::Split);
    }
    let pages = if version >= 6 { number(layout.pages, 8) } else { u64::from(pages32) };
    if pages > MAX_PHYS / PAGE_SIZE {
        return Err(KdumpError::TooLarge(pages));
    }
    let half = u64::from(bitmap) / 2 * PAGE_SIZE;
    if half * 8 < pages {
        return Err(KdumpError::Bitmap { bits: half * 8, pages });
    }
    if descriptors > source.len() {
        return Err(cut("its bitmaps", descriptors));
    }
    let (at, width) = layout.notes;
    let notes = (version >= 4).then(|| (number(at, 8), number(at + 8, width))).filter(|&(_, size)| size != 0);
    let notes = match notes {
        Some((at, size)) => {
            let end = at.saturating_add(size);
            if end > source.len() || size > MAX_NOTES {
                return Err(cut("its notes", end));
            }
            Some((at, size as usize))
        }
        None => None,
    };
    Ok(Header {
        pages,
        bitmaps,
        bitmap: half,
        descriptors,
        notes,
        compression: status & 0x27,
        incomplete: status & INCOMPLETE != 0,
        is64: layout.is64,
    })
}
