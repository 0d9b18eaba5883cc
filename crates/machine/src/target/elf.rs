//! ELF cores of a whole machine, as QEMU's `dump-guest-memory` and VirtualBox's `dumpvmcore` write
//! them: `PT_LOAD` segments with physical addresses and one note per processor.
//!
//! 32-bit files (guests below 4 GiB that are not in long mode) and 64-bit ones are read alike, also
//! with more than 65534 segments. Only bytes that are in the file count as RAM: what a segment
//! claims beyond its file size is a device's range, a hole. Cores of processes have no such notes
//! and are refused for that reason; cores of Xen, which have sections only, by their name.

use object::Endianness;
use object::elf::{self, FileHeader32, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};

use super::cpu::Cpu;
use super::error::TargetCause;
use super::foreign;
use super::format::Claims;
use super::notes;
use crate::addr::PhysAddr;
use crate::memory::Segment;

/// The first bytes of every ELF file.
pub(super) const MAGIC: [u8; 4] = *b"\x7fELF";

/// What a core's headers say.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) segments: Vec<Segment>,
    pub(super) cpus: Vec<Cpu>,
    pub(super) format: &'static str,
    pub(super) claims: Claims,
}

/// Reads the headers of a core; processors only if `with_notes`.
pub(super) fn read(data: &[u8], with_notes: bool) -> Result<Core, TargetCause> {
    let core = match data.get(4).copied() {
        Some(1) => headers::<FileHeader32<Endianness>>(data, with_notes, "elf32")?,
        Some(2) => headers::<FileHeader64<Endianness>>(data, with_notes, "elf64")?,
        _ => {
            return Err(TargetCause::Elf(
                "the class is neither 32 nor 64 bit, or the header is cut off".to_owned(),
            ));
        }
    };
    if core.segments.iter().all(|segment| segment.size == 0) {
        return Err(TargetCause::NoMemory);
    }
    Ok(core)
}

fn headers<E: FileHeader<Endian = Endianness>>(
    data: &[u8],
    with_notes: bool,
    format: &'static str,
) -> Result<Core, TargetCause> {
    let broken = |error: object::Error| TargetCause::Elf(error.to_string());
    let header = E::parse(data).map_err(broken)?;
    if header.is_big_endian() {
        return Err(TargetCause::NotACore("a big-endian ELF file"));
    }
    let endian = Endianness::Little;
    if header.e_type(endian) != elf::ET_CORE {
        return Err(TargetCause::NotACore("an ELF program or library"));
    }
    if ![elf::EM_386, elf::EM_X86_64].contains(&header.e_machine(endian)) {
        return Err(TargetCause::NotACore("an ELF core of another architecture"));
    }
    let mut segments = Vec::new();
    let mut cpus = Vec::new();
    let programs = header.program_headers(endian, data).map_err(broken)?;
    if programs.is_empty() && is_of_xen(header, data) {
        return Err(TargetCause::Foreign(&foreign::XEN_CORE));
    }
    let table: u64 = header.e_phoff(endian).into();
    let mut heads = vec![0..size_of::<E>() as u64, table..table + size_of_val(programs) as u64];
    for program in programs {
        match program.p_type(endian) {
            elf::PT_LOAD => segments.push(Segment {
                start: PhysAddr(program.p_paddr(endian).into()),
                size: program.p_filesz(endian).into(),
                offset: program.p_offset(endian).into(),
            }),
            elf::PT_NOTE => {
                let at: u64 = program.p_offset(endian).into();
                heads.push(at..at.saturating_add(program.p_filesz(endian).into()));
                if with_notes {
                    segment_notes(program, data, &mut cpus)?;
                }
            }
            _ => {}
        }
    }
    let places = segments.iter().map(|it| it.offset..it.offset.saturating_add(it.size));
    let claims = Claims::of(&heads, places, data.len() as u64);
    Ok(Core { segments, cpus, format, claims })
}

/// Whether a file without segments has the sections of Xen's cores.
fn is_of_xen<E: FileHeader<Endian = Endianness>>(header: &E, data: &[u8]) -> bool {
    let endian = Endianness::Little;
    let Ok(sections) = header.sections(endian, data) else { return false };
    sections.iter().any(|section| {
        section.sh_size(endian).into() != 0
            && sections.section_name(endian, section).is_ok_and(|name| name == b".xen_pages")
    })
}

/// Adds the processors of one note segment.
fn segment_notes<P: ProgramHeader<Endian = Endianness>>(
    program: &P,
    data: &[u8],
    cpus: &mut Vec<Cpu>,
) -> Result<(), TargetCause> {
    let found =
        program.notes(Endianness::Little, data).map_err(|error| TargetCause::Elf(error.to_string()))?;
    found.map_or(Ok(()), |found| notes::from_iterator(found, cpus))
}
