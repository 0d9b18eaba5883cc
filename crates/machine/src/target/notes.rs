//! The ELF notes of a dump that hold processors: in a core's note segment, and in the sub header of
//! a kdump.

use object::Endianness;
use object::elf::{FileHeader32, FileHeader64};
use object::read::elf::{FileHeader, NoteIterator};

use super::cpu::{Cpu, MAX_CPUS};
use super::error::TargetCause;
use super::{qemu_note, vbox_note};

/// Adds the processors of notes that are aligned to four bytes, as all writers of dumps align them.
pub(super) fn collect(data: &[u8], is64: bool, cpus: &mut Vec<Cpu>) -> Result<(), TargetCause> {
    if is64 {
        let notes = NoteIterator::<FileHeader64<Endianness>>::new(Endianness::Little, 4, data);
        from_iterator(notes.map_err(broken)?, cpus)
    } else {
        let notes = NoteIterator::<FileHeader32<Endianness>>::new(Endianness::Little, 4, data);
        from_iterator(notes.map_err(broken)?, cpus)
    }
}

/// Adds the processors of notes.
pub(super) fn from_iterator<E: FileHeader<Endian = Endianness>>(
    mut notes: NoteIterator<'_, E>,
    cpus: &mut Vec<Cpu>,
) -> Result<(), TargetCause> {
    while let Some(note) = notes.next().map_err(broken)? {
        let cpu = match (note.name(), note.n_type(Endianness::Little).0) {
            (b"QEMU", 0) => {
                let parsed = qemu_note::parse(note.desc());
                parsed.map_err(|source| TargetCause::Note { cpu: cpus.len(), source })?
            }
            (b"VBCPU", vbox_note::CPU) => vbox_note::parse(note.desc()).map_err(TargetCause::Vbox)?,
            (b"VBCORE", vbox_note::CORE) => {
                vbox_note::check(note.desc()).map_err(TargetCause::Vbox)?;
                continue;
            }
            _ => continue,
        };
        if cpus.len() == MAX_CPUS {
            return Err(TargetCause::TooManyCpus);
        }
        cpus.push(cpu);
    }
    Ok(())
}

fn broken(error: object::Error) -> TargetCause {
    TargetCause::Elf(error.to_string())
}
