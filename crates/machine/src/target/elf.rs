//! ELF cores of a whole machine, as QEMU's `dump-guest-memory` and VirtualBox's `dumpvmcore` write
//! them: `PT_LOAD` segments with physical addresses and one note per processor.
//!
//! 32-bit files (guests below 4 GiB that are not in long mode) and 64-bit ones are read alike, also
//! with more than 65534 segments. Only bytes that are in the file count as RAM: what a segment
//! claims beyond its file size is a device's range, a hole. Cores of processes have no such notes
//! and are refused for that reason.

use object::Endianness;
use object::elf::{self, FileHeader32, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader};

use super::cpu::Cpu;
use super::error::TargetCause;
use super::notes;
use crate::addr::PhysAddr;
use crate::memory::{ImageMemory, Segment};

/// The first bytes of every ELF file.
pub(super) const MAGIC: [u8; 4] = *b"\x7fELF";

/// Reads the headers of a core; processors only if `with_notes`.
pub(super) fn read<B: AsRef<[u8]>>(
    bytes: B,
    with_notes: bool,
) -> Result<(ImageMemory<B>, Vec<Cpu>, &'static str), TargetCause> {
    let data = bytes.as_ref();
    let (segments, cpus, format) = match data.get(4).copied() {
        Some(1) => {
            let (segments, cpus) = headers::<FileHeader32<Endianness>>(data, with_notes)?;
            (segments, cpus, "elf32")
        }
        Some(2) => {
            let (segments, cpus) = headers::<FileHeader64<Endianness>>(data, with_notes)?;
            (segments, cpus, "elf64")
        }
        _ => {
            return Err(TargetCause::Elf(
                "the class is neither 32 nor 64 bit, or the header is cut off".to_owned(),
            ));
        }
    };
    if segments.iter().all(|segment| segment.size == 0) {
        return Err(TargetCause::NoMemory);
    }
    let mem = ImageMemory::new(bytes, segments).map_err(TargetCause::Image)?;
    Ok((mem, cpus, format))
}

fn headers<E: FileHeader<Endian = Endianness>>(
    data: &[u8],
    with_notes: bool,
) -> Result<(Vec<Segment>, Vec<Cpu>), TargetCause> {
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
    for program in header.program_headers(endian, data).map_err(broken)? {
        match program.p_type(endian) {
            elf::PT_LOAD => segments.push(Segment {
                start: PhysAddr(program.p_paddr(endian).into()),
                size: program.p_filesz(endian).into(),
                offset: program.p_offset(endian).into(),
            }),
            elf::PT_NOTE if with_notes => segment_notes(program, data, &mut cpus)?,
            _ => {}
        }
    }
    Ok((segments, cpus))
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
