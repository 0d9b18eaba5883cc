//! Files that are recognised by their first bytes and not read: what they are, and what to do.
//!
//! One table. The bytes of a format here are looked for at one place each; where two formats share
//! them (AFF4 is a ZIP file), the special one comes first.

/// A format that is recognised and not read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Foreign {
    /// What the file is, as the end of "it is ...".
    pub name: &'static str,
    /// What to do, in one sentence without a full stop.
    pub next: &'static str,
}

/// Bytes that the table looks at.
pub(super) const LOOKED_AT: usize = 4096;

/// Cores of Xen have sections and no segments.
pub(super) const XEN_CORE: Foreign = Foreign {
    name: "a core of Xen (xl dump-core), an ELF file with sections only",
    next: "capture the memory inside the guest with AVML or LiME",
};

/// `makedumpfile -F` of an ELF file.
pub(super) const FLAT: Foreign = Foreign {
    name: "a flattened stream of something else than a kdump",
    next: "make a plain file of it with makedumpfile -R",
};

const DISK: &str = "that is a disk, not memory: take an ELF core with QEMU's dump-guest-memory";
const QCOW2: &str = "that is a disk: qemu-img snapshot -l FILE lists snapshots with memory in it; start QEMU \
                     with -loadvm SNAPSHOT -S and take an ELF core with dump-guest-memory";
const IMAGE: &str = "export the memory from it as raw RAM";
const WINDOWS: &str = "take an ELF core of the machine instead, with QEMU's dump-guest-memory";
const ARCHIVE: &str = "unpack it and give the dump inside";

macro_rules! table {
    ($($at:literal $magic:literal $name:literal, $next:expr;)*) => {
        &[$(($at, $magic, Foreign { name: $name, next: $next })),*]
    };
}

/// Place, bytes, and what they say.
const TABLE: &[(usize, &[u8], Foreign)] = table! {
    0 b"\x1f\x8b\x08" "compressed with gzip", "decompress it first: gzip -dc FILE > dump";
    0 b"\x28\xb5\x2f\xfd" "compressed with zstd", "decompress it first: zstd -d FILE -o dump";
    0 b"\xfd7zXZ\0" "compressed with xz", "decompress it first: xz -dc FILE > dump";
    0 b"\x04\x22\x4d\x18" "compressed with lz4", "decompress it first: lz4 -d FILE dump";
    0 b"\x02\x21\x4c\x18" "compressed with lz4", "decompress it first: lz4 -d FILE dump";
    0 b"BZh" "compressed with bzip2", "decompress it first: bzip2 -dc FILE > dump";
    0 b"\x89LZO\0\r\n\x1a\n" "compressed with lzop", "decompress it first: lzop -dc FILE > dump";
    0 b"LZIP" "compressed with lzip", "decompress it first: lzip -dc FILE > dump";
    257 b"ustar" "a tar archive", ARCHIVE;
    30 b"container.description" "an AFF4 image", IMAGE;
    0 b"PK\x03\x04" "a ZIP archive", ARCHIVE;
    0 b"7z\xbc\xaf\x27\x1c" "a 7-Zip archive", ARCHIVE;
    0 b"Rar!\x1a\x07" "a RAR archive", ARCHIVE;
    0 b"EVF\x09\x0d\x0a\xff\0" "an EnCase image (E01)", "export it as raw RAM: ewfexport -f raw FILE";
    0 b"EVF2\x0d\x0a\x81\0" "an EnCase image (Ex01)", "export it as raw RAM: ewfexport -f raw FILE";
    0 b"LVF\x09\x0d\x0a\xff\0" "an EnCase image (L01)", IMAGE;
    0 b"LibvirtQemudPart" "a machine that virsh save did not finish writing",
        "dump the machine with virsh dump --memory-only";
    0 b"QFI\xfb" "a qcow2 disk image", QCOW2;
    0 b"KDMV" "a VMware disk image", DISK;
    0 b"vhdxfile" "a VHDX disk image", DISK;
    0 b"conectix" "a VHD disk image", DISK;
    64 b"\x7f\x10\xda\xbe" "a VirtualBox disk image", DISK;
    0 b"\x7fVirtualBox SavedState" "a saved state of VirtualBox",
        "resume the machine and take a core with VBoxManage debugvm VM dumpvmcore";
    0 b"Xen saved domain" "a domain that Xen saved (xl save)",
        "capture the memory inside the guest with AVML or LiME";
    0 b"libvirt-xml\n \0 \r" "a domain of Xen that libvirt saved",
        "capture the memory inside the guest with AVML or LiME";
    0 b"\x14\x20\x28\x01" "a saved state of Hyper-V (VMRS)",
        "capture the memory inside the guest, or export raw RAM with Microsoft's VmSavedStateDump";
    0 b"PAGEDU64" "a Windows crash dump", WINDOWS;
    0 b"PAGEDUMP" "a Windows crash dump", WINDOWS;
    0 b"MDMP" "a Windows minidump, which holds a process", WINDOWS;
    0 b"hibr" "a hibernation file of Windows", WINDOWS;
    0 b"HIBR" "a hibernation file of Windows", WINDOWS;
    0 b"wake" "a hibernation file of Windows that was resumed from", WINDOWS;
    0 b"WAKE" "a hibernation file of Windows that was resumed from", WINDOWS;
    0 b"RSTR" "a hibernation file of Windows that is being resumed from", WINDOWS;
    4086 b"S1SUSPEND" "a hibernation image of Linux",
        "capture the memory of the running machine with AVML or LiME";
    2 b"\x64\x86\x84\x19\x10\x07" "the state of a Firecracker snapshot, without its memory",
        "give the snapshot's memory file, which is raw RAM if the machine has less than 3 GiB";
};

/// The format that a file's first bytes show, if it is one of those that are not read.
pub(super) fn recognise(start: &[u8]) -> Option<&'static Foreign> {
    let has = |at: usize, magic: &[u8]| start.get(at..).is_some_and(|rest| rest.starts_with(magic));
    TABLE.iter().find(|(at, magic, _)| has(*at, magic)).map(|(.., foreign)| foreign)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_can_be_reached() {
        for (at, magic, foreign) in TABLE {
            let mut start = vec![0; *at];
            start.extend(*magic);
            if foreign.name.contains("AFF4") {
                start[..4].copy_from_slice(b"PK\x03\x04");
            }
            assert_eq!(recognise(&start), Some(foreign), "{}", foreign.name);
            assert_eq!(recognise(&start[..start.len() - 1]).filter(|other| *other == foreign), None);
        }
        assert_eq!(recognise(b"\x7fELF"), None);
        assert_eq!(recognise(&[0; LOOKED_AT]), None);
    }
}
