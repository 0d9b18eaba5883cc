//! The formats by name, and when the format that a file's first bytes show is not believed.
//!
//! Whoever controls a guest can write an ELF header, or that of any other format, at physical
//! address 0. A file of raw RAM then looks like such a dump, whose addresses, registers and bytes
//! the guest chose. Nothing in the bytes tells the two apart for sure, so a file that could be
//! either is refused until the user says which it is. What tells most dumps apart without a
//! question is their size: RAM has whole pages, and mostly whole MiB; behind headers and notes of
//! any size whole pages of RAM make a file of neither. Raw RAM that ends elsewhere, at a hole or
//! where somebody stopped, has whole pages at least. Of the formats whose files may have whole
//! pages too such a file is believed where nothing else speaks for raw RAM, and a remark says so.

use std::ops::Range;

use crate::addr::PAGE_SIZE;

/// A format that is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// ELF cores of 32 and 64 bit.
    Elf,
    /// Compressed kdumps, flattened or not.
    Kdump,
    /// What the LiME module writes.
    Lime,
    /// What AVML writes with compression.
    Avml,
    /// Suspended machines and snapshots of VMware.
    Vmware,
    /// Migration streams of QEMU, bare or as `virsh save` writes them.
    Migration,
    /// Nothing but RAM.
    Raw,
}

impl Format {
    /// All of them, in the order of docs/targets.md.
    pub const ALL: [Self; 7] =
        [Self::Elf, Self::Kdump, Self::Lime, Self::Avml, Self::Vmware, Self::Migration, Self::Raw];

    /// What a user calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Elf => "elf",
            Self::Kdump => "kdump",
            Self::Lime => "lime",
            Self::Avml => "avml",
            Self::Vmware => "vmware",
            Self::Migration => "migration",
            Self::Raw => "raw",
        }
    }

    /// What it is called in a sentence.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Elf => "an ELF core",
            Self::Kdump => "a kdump",
            Self::Lime => "a LiME capture",
            Self::Avml => "an AVML capture",
            Self::Vmware => "a VMware snapshot",
            Self::Migration => "a migration stream",
            Self::Raw => "raw RAM",
        }
    }

    /// The format with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }
}

/// Why a file that begins as a dump may be raw RAM in which the guest wrote that beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Doubt {
    /// A dump's headers are not part of the memory that it holds.
    #[error("the memory that they describe includes them")]
    Covered,
    /// The size of RAM.
    #[error("the file has {0} MiB exactly, as raw RAM has")]
    Size(u64),
    /// Whole pages, where dumps have other sizes, or where processors lie beside the file.
    #[error("the file has {0} pages exactly, as raw RAM has")]
    Pages(u64),
    /// Whole pages, of which the dump leaves some unexplained.
    #[error("they account for {described} of its {len} bytes, which are whole pages, as raw RAM has")]
    Unexplained {
        /// Bytes that are headers or memory.
        described: u64,
        /// Bytes of the file.
        len: u64,
    },
}

/// What of its file a dump says that it consists of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Claims {
    /// Bytes that are headers, notes or memory.
    pub(super) described: u64,
    /// Memory lies where headers do.
    pub(super) covered: bool,
}

/// Whole MiB, as hypervisors give RAM.
const UNIT: u64 = 1 << 20;

impl Claims {
    /// Those of a dump that ends where it says.
    pub(super) const fn all(len: u64) -> Self {
        Self { described: len, covered: false }
    }

    /// Those of headers and memory at these places of a file of `len` bytes.
    pub(super) fn of(headers: &[Range<u64>], memory: impl Iterator<Item = Range<u64>>, len: u64) -> Self {
        let clipped = |range: Range<u64>| range.start.min(len)..range.end.min(len);
        let mut parts: Vec<Range<u64>> = memory.map(clipped).collect();
        let meet = |a: &Range<u64>, b: &Range<u64>| a.start < b.end && b.start < a.end;
        let covered = headers.iter().any(|header| parts.iter().any(|part| meet(header, part)));
        parts.extend(headers.iter().cloned().map(clipped));
        parts.sort_by_key(|part| part.start);
        let (mut described, mut end) = (0, 0);
        for part in parts {
            described += part.end.saturating_sub(part.start.max(end));
            end = end.max(part.end);
        }
        Self { described, covered }
    }

    /// Whether a file of `len` bytes may as well be raw RAM; `pages` is whether whole pages are
    /// enough to say so.
    pub(super) fn doubt(self, len: u64, pages: bool) -> Option<Doubt> {
        let Self { described, covered } = self;
        if covered {
            return Some(Doubt::Covered);
        }
        if len.is_multiple_of(UNIT) {
            return Some(Doubt::Size(len / UNIT));
        }
        if !len.is_multiple_of(PAGE_SIZE) {
            return None;
        }
        let most = described >= len - len / 16;
        let unexplained = (!most).then_some(Doubt::Unexplained { described, len });
        unexplained.or(pages.then_some(Doubt::Pages(len / PAGE_SIZE)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found() {
        for format in Format::ALL {
            assert_eq!(Format::from_name(format.name()), Some(format));
        }
        assert_eq!(Format::from_name("qcow2"), None);
    }

    #[test]
    fn what_could_be_raw_ram_is_doubted() {
        let headers = [0..64, 64..200];
        let of = |memory: &[(u64, u64)], len| {
            Claims::of(&headers, memory.iter().map(|&(from, to)| from..to), len).doubt(len, false)
        };
        // What genuine dumps are like: odd sizes, or whole pages that are all accounted for.
        assert_eq!(of(&[(200, 4296), (200, 1000)], 4296), None);
        assert_eq!(of(&[(0x1000, 0x2_5000)], 0x2_5000), None);
        assert_eq!(of(&[(4000, 5000)], 300_001), None);
        assert_eq!(of(&[(199, 0x2000)], 0x2001), Some(Doubt::Covered));
        assert_eq!(of(&[(0x1000, 3 << 20)], 3 << 20), Some(Doubt::Size(3)));
        let (described, len) = (200 + 0x1000, 0x5000);
        assert_eq!(of(&[(0x1000, 0x2000)], 0x5000), Some(Doubt::Unexplained { described, len }));
        assert_eq!(of(&[(0x1000, u64::MAX)], 0x2_5000), None, "but it is cut off");
        let all = |len| Claims::all(len).doubt(len, true);
        assert_eq!((all(0x2_5000), all(0x2_5001)), (Some(Doubt::Pages(0x25)), None));
    }
}
