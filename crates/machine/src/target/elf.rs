//! ELF cores of a whole machine, as QEMU's `dump-guest-memory` writes them: `PT_LOAD` segments with physical
//! addresses and one note per processor.
//!
//! 32-bit files (guests below 4 GiB that are not in long mode) and 64-bit ones are read alike, also with more than
//! 65534 segments. Only bytes that are in the file count as RAM: what a segment claims beyond its file size is a
//! device's range, a hole. Cores of processes have no processor notes of QEMU and are refused for that reason.

use object::Endianness;
use object::elf::{self, FileHeader32, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader};

use super::cpu::{Cpu, MAX_CPUS};
use super::error::TargetCause;
use super::qemu_note;
use crate::addr::PhysAddr;
use crate::memory::{ImageMemory, Segment};

/// The first bytes of every ELF file.
pub(super) const MAGIC: [u8; 4] = *b"\x7fELF";

/// What a core holds.
#[derive(Debug)]
pub(super) struct Core<B> {
    pub(super) mem: ImageMemory<B>,
    pub(super) cpus: Vec<Cpu>,
    pub(super) format: &'static str,
}

/// Reads the headers of a core; processors `given` replace those of its notes.
pub(super) fn read<B: AsRef<[u8]>>(bytes: B, given: Option<Vec<Cpu>>) -> Result<Core<B>, TargetCause> {
    let data = bytes.as_ref();
    let (segments, notes, format) = match data.get(4).copied() {
        Some(1) => {
            let (segments, notes) = headers::<FileHeader32<Endianness>>(data, given.is_none())?;
            (segments, notes, "elf32")
        }
        Some(2) => {
            let (segments, notes) = headers::<FileHeader64<Endianness>>(data, given.is_none())?;
            (segments, notes, "elf64")
        }
        _ => return Err(TargetCause::Elf("the class is neither 32 nor 64 bit, or the header is cut off".to_owned())),
    };
    if segments.iter().all(|segment| segment.size == 0) {
        return Err(TargetCause::NoMemory);
    }
    let cpus = given.unwrap_or(notes);
    if cpus.is_empty() {
        return Err(TargetCause::NoCpus);
    }
    let mem = ImageMemory::new(bytes, segments).map_err(TargetCause::Image)?;
    Ok(Core { mem, cpus, format })
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
            elf::PT_NOTE if with_notes => notes(program, data, &mut cpus)?,
            _ => {}
        }
    }
    Ok((segments, cpus))
}

/// Adds the processors of one note segment.
fn notes<P: ProgramHeader<Endian = Endianness>>(
    program: &P,
    data: &[u8],
    cpus: &mut Vec<Cpu>,
) -> Result<(), TargetCause> {
    let broken = |error: object::Error| TargetCause::Elf(error.to_string());
    let Some(mut notes) = program.notes(Endianness::Little, data).map_err(broken)? else {
        return Ok(());
    };
    while let Some(note) = notes.next().map_err(broken)? {
        if note.name() != b"QEMU" || note.n_type(Endianness::Little).0 != 0 {
            continue;
        }
        if cpus.len() == MAX_CPUS {
            return Err(TargetCause::TooManyCpus);
        }
        let cpu = qemu_note::parse(note.desc()).map_err(|source| TargetCause::Note { cpu: cpus.len(), source })?;
        cpus.push(cpu);
    }
    Ok(())
}
