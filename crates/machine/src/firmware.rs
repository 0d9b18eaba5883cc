//! What firmware tells systems about the machine: the local APICs of its processors.
//!
//! Firmware leaves ACPI's tables in memory, and every dump of a PC has them. A guest may have
//! changed them: they are read within bounds, checksums included, and say nothing but what they
//! are asked here.

use crate::addr::{PAGE_SIZE, PhysAddr};
use crate::memory::GuestMemory;

/// Where the root pointer lies: on a boundary of 16 bytes in the BIOS's area (ACPI 6.5 section
/// 5.2.5.1).
const BIOS: std::ops::Range<u64> = 0xe_0000..0x10_0000;
const STEP: usize = 16;
/// Bytes of the root pointer that its first checksum covers.
const POINTER: usize = 20;
/// Bytes of a table before what it is for, and of the multiple APIC description table before its
/// entries (ACPI 6.5 sections 5.2.6 and 5.2.12).
const HEAD: usize = 36;
const MADT_HEAD: usize = 44;
/// The most that a table may have: that of 4,096 processors has 64 KiB.
const MOST: usize = 1 << 18;

/// The identifiers of the machine's local APICs, in the order in which firmware lists processors
/// that are there: the first is the one that boots (ACPI 6.5 section 5.2.12.1). `None` if memory
/// has no such table.
#[must_use]
pub fn local_apics(memory: &dyn GuestMemory) -> Option<Vec<u32>> {
    let pages = (BIOS.start..BIOS.end).step_by(PAGE_SIZE as usize);
    let root =
        pages.filter_map(|at| Some((at, memory.page(PhysAddr(at)).ok()?))).find_map(|(at, page)| {
            let mut places = page.chunks_exact(STEP).zip((at..).step_by(STEP));
            places.find_map(|(bytes, at)| {
                let root = bytes.starts_with(b"RSD PTR ").then(|| read(memory, at, POINTER)).flatten();
                root.filter(|it| sum(it) == 0)
            })
        })?;
    // Firmware of 64 bits has a second list with wider addresses, and this one too.
    let list = table(memory, word(&root, 16)?.into(), b"RSDT")?;
    let addresses = list[HEAD..].chunks_exact(4).filter_map(|it| word(it, 0));
    let found = addresses.into_iter().find_map(|at| table(memory, at.into(), b"APIC"))?;
    Some(entries(found.get(MADT_HEAD..)?))
}

/// The identifiers of processors that are there: entries of type 0 (local APIC) and 9 (local
/// x2APIC), whose first flag says that the processor may be used (ACPI 6.5 sections 5.2.12.2 and
/// 5.2.12.12).
fn entries(mut bytes: &[u8]) -> Vec<u32> {
    let mut found = Vec::new();
    while let [kind, len, ..] = *bytes {
        let Some(entry) = bytes.get(..len.into()).filter(|it| it.len() >= 2) else { break };
        let listed = match kind {
            0 => entry.get(3).map(|&id| u32::from(id)).zip(word(entry, 4)),
            9 => word(entry, 4).zip(word(entry, 8)),
            _ => None,
        };
        found.extend(listed.filter(|it| it.1 & 1 != 0).map(|it| it.0));
        bytes = &bytes[len.into()..];
    }
    found
}

/// The table at a physical address, if it has this signature and its bytes sum up to 0.
fn table(memory: &dyn GuestMemory, at: u64, signature: &[u8; 4]) -> Option<Vec<u8>> {
    let head = read(memory, at, HEAD).filter(|head| head.starts_with(signature))?;
    let len = word(&head, 4)? as usize;
    read(memory, at, len).filter(|it| it.len() >= HEAD && sum(it) == 0)
}

fn read(memory: &dyn GuestMemory, at: u64, len: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; Some(len).filter(|len| *len <= MOST)?];
    memory.read(PhysAddr(at), &mut bytes).ok().map(|()| bytes)
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.first_chunk().copied().map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Mock;

    fn put(memory: &mut Mock, at: u64, mut bytes: Vec<u8>, checksum: usize) {
        bytes[checksum] = 0u8.wrapping_sub(sum(&bytes));
        memory.write(PhysAddr(at), &bytes);
    }

    fn table_of(signature: &[u8; 4], head: usize, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; head];
        bytes[..4].copy_from_slice(signature);
        bytes[4..8].copy_from_slice(&((head + rest.len()) as u32).to_le_bytes());
        bytes.extend_from_slice(rest);
        bytes
    }

    /// A machine of three processors, the third of them not there, whose list has `entries`.
    fn machine(entries: &[u8]) -> Mock {
        let mut memory = Mock::new();
        let mut pointer = b"RSD PTR ".to_vec();
        pointer.resize(POINTER, 0);
        pointer[16..20].copy_from_slice(&0xff_0000u32.to_le_bytes());
        put(&mut memory, 0xf_5910, pointer, 8);
        // Another table first, and one that is not there.
        let addresses = [0xff_2000u32, 0xff_8000, 0xff_3ff0].map(u32::to_le_bytes).concat();
        put(&mut memory, 0xff_0000, table_of(b"RSDT", HEAD, &addresses), 9);
        put(&mut memory, 0xff_2000, table_of(b"FACP", HEAD, &[7; 80]), 9);
        put(&mut memory, 0xff_3ff0, table_of(b"APIC", MADT_HEAD, entries), 9);
        memory
    }

    #[test]
    fn processors_are_listed_with_their_local_apics() {
        let entries = [
            &[0, 8, 0, 0, 1, 0, 0, 0][..],
            // The I/O APIC.
            &[1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0],
            &[0, 8, 1, 4, 1, 0, 0, 0],
            &[0, 8, 2, 5, 0, 0, 0, 0],
            &[9, 16, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0],
        ];
        assert_eq!(local_apics(&machine(&entries.concat())), Some(vec![0, 4, 0x100]));
    }

    #[test]
    fn any_bytes_are_a_list_or_none() {
        let entries = [0, 8, 0, 0, 1, 0, 0, 0, 9, 16, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0];
        for byte in [0, 1, 0x7f, 0xff] {
            for at in 0..entries.len() {
                let mut changed = entries;
                changed[at] = byte;
                let found = local_apics(&machine(&changed)).unwrap_or_default();
                assert!(found.len() <= entries.len() / 2, "{at}: {found:x?}");
            }
            // Without a sum that fits: addresses and lengths of tables.
            for at in (0xf_5910..0xf_5924).chain(0xff_0000..0xff_0030).chain(0xff_3ff0..0xff_4010) {
                let mut memory = machine(&entries);
                memory.write(PhysAddr(at), &[byte]);
                let found = local_apics(&memory);
                assert!(found.is_none() || found == Some(vec![0, 0x100]), "{at:#x}: {found:x?}");
            }
        }
    }

    #[test]
    fn what_is_no_table_says_nothing() {
        assert_eq!(local_apics(&Mock::new()), None);
        // Entries that are cut off, and one without a length.
        assert_eq!(local_apics(&machine(&[0, 8, 0, 0, 1, 0, 0, 0, 0, 8, 1])), Some(vec![0]));
        assert_eq!(local_apics(&machine(&[0, 0, 0, 0])), Some(vec![]));
        let mut wrong = machine(&[0, 8, 0, 0, 1, 0, 0, 0]);
        wrong.write(PhysAddr(0xff_3ff0 + 9), &[0x55]);
        assert_eq!(local_apics(&wrong), None, "its bytes do not sum up to 0");
        let mut long = machine(&[]);
        long.write(PhysAddr(0xff_0004), &u32::MAX.to_le_bytes());
        assert_eq!(local_apics(&long), None);
    }
}
