//! Files that may not be what they seem, that are not whole, that are of formats which are not
//! read, or that claim more than they hold.

mod support;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use virtuoso_machine as machine;

use machine::memory::ImageError;
use machine::target::{Doubt, Format, LimeError, TargetCause, UnpackError, Unpacking};
use machine::{Cpu, GuestMemory, MemoryError, PhysAddr, Target, TargetError, TargetOptions};
use support::dumps::{Kdump, Packing, Pages, avml, lime, pages, vmware};
use support::{core, note, ram};

const MIB: usize = 1 << 20;

fn open(bytes: &[u8], options: &TargetOptions) -> Result<Target, TargetError> {
    Target::from_bytes_as(bytes.to_vec(), "dump", Some(vec![Cpu::default()]), options)
}

fn as_format(format: Format) -> TargetOptions {
    TargetOptions { format: Some(format), ..TargetOptions::default() }
}

fn cause(bytes: &[u8]) -> TargetCause {
    *open(bytes, &TargetOptions::default()).unwrap_err().cause
}

fn doubt(bytes: &[u8]) -> (Format, Doubt) {
    match cause(bytes) {
        TargetCause::Ambiguous { format, doubt } => (format, doubt),
        other => panic!("{other}"),
    }
}

/// Raw RAM of this size at the beginning of which a guest wrote something.
fn planted(beginning: &[u8], len: usize) -> Vec<u8> {
    let mut bytes = ram(len, 9);
    bytes[..beginning.len()].copy_from_slice(beginning);
    bytes
}

/// A core of one segment, without the segment's bytes: what a guest would plant.
fn headers(size: u64, offset: u64) -> Vec<u8> {
    let mut bytes = core(true, &[note(true)], &[(0, vec![0; 8])]);
    bytes.truncate(bytes.len() - 8);
    let segment = 64 + 56;
    for (field, value) in [(8, offset), (32, size), (40, size)] {
        bytes[segment + field..][..8].copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

#[test]
fn an_elf_header_that_a_guest_planted_is_not_believed() {
    // The whole RAM as a segment, the header included; odd sizes are no better.
    for len in [2 * MIB, MIB + 0x3000, MIB + 5] {
        let bytes = planted(&headers(len as u64, 0), len);
        assert_eq!(doubt(&bytes), (Format::Elf, Doubt::Covered));
    }
    // RAM behind the headers, up to the end.
    let bytes = planted(&headers((2 * MIB - 0x1000) as u64, 0x1000), 2 * MIB);
    assert_eq!(doubt(&bytes), (Format::Elf, Doubt::Size(2)));
    // RAM need not have whole MiB: it may end at a hole. Processors that lie beside say what it is;
    // without any it is believed, and that is said.
    let bytes = planted(&headers((MIB + 0x2000) as u64, 0x1000), MIB + 0x3000);
    let beside = TargetOptions { cpu_file: Some("dump.cpu.json".into()), ..TargetOptions::default() };
    let cause = *open(&bytes, &beside).unwrap_err().cause;
    assert!(matches!(cause, TargetCause::Ambiguous { format: Format::Elf, doubt: Doubt::Pages(0x103) }));
    let directory = std::env::temp_dir().join(format!("virtuoso-unfit-pages-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let path = directory.join("ram.raw");
    fs::write(&path, &bytes).unwrap();
    fs::write(directory.join("ram.raw.cpu.json"), machine::target::cpus_json(&[Cpu::default()])).unwrap();
    let cause = *Target::open(&path, &TargetOptions::default()).unwrap_err().cause;
    fs::remove_dir_all(&directory).unwrap();
    assert!(matches!(cause, TargetCause::Ambiguous { doubt: Doubt::Pages(_), .. }), "{cause}");
    let alone = open(&bytes, &TargetOptions::default()).unwrap();
    assert_eq!((alone.format, alone.remarks.len()), ("elf64", 1));
    assert!(alone.remarks[0].contains("--format"), "{:?}", alone.remarks);
    // Some of it.
    let bytes = planted(&headers(0x1000, 0x2000), MIB + 0x3000);
    assert!(matches!(doubt(&bytes), (Format::Elf, Doubt::Unexplained { described: 0..0x2000, .. })));
    let error = open(&bytes, &TargetOptions::default()).unwrap_err().to_string();
    assert!(error.contains("an ELF core") && error.contains("raw RAM"), "{error}");
    assert!(error.contains("--format elf or --format raw"), "{error}");
    // The user decides.
    let raw = open(&bytes, &as_format(Format::Raw)).unwrap();
    assert_eq!((raw.format, raw.mem.size()), ("raw", bytes.len() as u64));
    assert_eq!(raw.mem.page(PhysAddr(0)).unwrap()[..], bytes[..4096]);
    let elf = open(&bytes, &as_format(Format::Elf)).unwrap();
    assert_eq!((elf.format, elf.mem.size()), ("elf64", 0x1000));
    let other = *open(&bytes, &as_format(Format::Lime)).unwrap_err().cause;
    assert!(matches!(other, TargetCause::NotThat(Format::Lime)));
    // Claims beyond the end are an error, also with --partial.
    let bytes = planted(&headers(1 << 30, 0x1000), 2 * MIB);
    let error = open(&bytes, &TargetOptions::default()).unwrap_err();
    assert!(matches!(*error.cause, TargetCause::Image(ImageError::Truncated { .. })), "{error}");
    assert!(error.to_string().ends_with("say --format raw"), "{error}");
    let partial = TargetOptions { partial: true, ..TargetOptions::default() };
    let cause = *open(&bytes, &partial).unwrap_err().cause;
    assert!(matches!(cause, TargetCause::Ambiguous { format: Format::Elf, doubt: Doubt::Size(2) }));
}

#[test]
fn other_headers_that_a_guest_planted_are_not_believed() {
    let whole = |mut bytes: Vec<u8>| {
        bytes.resize(MIB, 0);
        bytes
    };
    let block = |magic: &[u8], version: u32, len: u64| {
        [magic, &version.to_le_bytes(), &0u64.to_le_bytes(), &(len - 1).to_le_bytes(), &[0; 8]].concat()
    };
    let lime_at_0 = planted(&block(b"EMiL", 1, MIB as u64 - 32), MIB);
    assert_eq!(doubt(&lime_at_0), (Format::Lime, Doubt::Size(1)));
    // LiME's headers make no whole pages.
    let in_pages = planted(&block(b"EMiL", 1, MIB as u64 + 0x1000 - 32), MIB + 0x1000);
    assert_eq!(doubt(&in_pages), (Format::Lime, Doubt::Pages(0x101)));
    let alone = Target::from_bytes_as(in_pages, "dump", Some(Vec::new()), &TargetOptions::default());
    assert!(matches!(*alone.unwrap_err().cause, TargetCause::Ambiguous { doubt: Doubt::Pages(_), .. }));
    assert_eq!(
        doubt(&whole(Kdump::new(true, Packing::Zlib).file(&pages()))),
        (Format::Kdump, Doubt::Size(1))
    );
    // A flattened stream ends with its mark, wherever RAM ends.
    let stream = whole(Kdump::new(true, Packing::Zlib).stream(&pages(), 4096));
    assert_eq!(doubt(&stream), (Format::Kdump, Doubt::Size(1)));
    assert_eq!(doubt(&whole(vmware(&[], &pages()[&6], 6))), (Format::Vmware, Doubt::Size(1)));
    // AVML is found from its end: the guest has to fill its last page, too.
    let mut state = 1u32;
    let mut noise = vec![0; MIB];
    noise.fill_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    let mut size = MIB - 4096;
    let avml_at_0 = loop {
        let bytes = avml(&Pages::from([(0, noise[..size].to_vec())]), MIB, 0);
        match bytes.len() {
            MIB => break bytes,
            len => size = size + MIB - len,
        }
    };
    assert_eq!(doubt(&avml_at_0), (Format::Avml, Doubt::Size(1)));
    for (bytes, format) in [(lime_at_0, Format::Lime), (stream, Format::Kdump), (avml_at_0, Format::Avml)] {
        assert!(open(&bytes, &as_format(format)).is_ok());
        assert_eq!(open(&bytes, &as_format(Format::Raw)).unwrap().format, "raw");
    }
}

#[test]
fn headers_of_a_kdump_are_no_memory() {
    let kdump = Kdump::new(true, Packing::Stored);
    let mut bytes = kdump.file(&pages());
    let (descriptors, _) = kdump.pieces(&pages()).swap_remove(5);
    // The first page is where the file begins with its sub header.
    bytes[descriptors as usize..][..8].copy_from_slice(&4096u64.to_le_bytes());
    let target = open(&bytes, &TargetOptions::default()).unwrap();
    assert_eq!(target.mem.page(PhysAddr(0x1000)), Err(MemoryError::Damaged(PhysAddr(0x1000))));
    assert!(target.mem.page(PhysAddr(0x2000)).is_ok());
}

#[test]
fn genuine_dumps_need_no_option() {
    // Cores of kernels have whole pages only: headers in one, RAM behind it.
    let mut vmcore = headers(0x2_5000, 0x1000);
    vmcore.resize(0x1000, 0);
    vmcore.extend(ram(0x2_5000, 1));
    for bytes in [
        vmcore,
        core(true, &[note(true)], &[(0, ram(MIB, 1))]),
        core(false, &[note(true)], &[(0, ram(MIB, 1)), (0xfffc_0000, ram(0x1000, 2))]),
        Kdump::new(true, Packing::Zlib).file(&pages()),
        Kdump::new(true, Packing::Stored).stream(&pages(), 4096),
        lime(&pages()),
        avml(&pages(), 4096, 0),
        vmware(&ram(0x2000, 1), &ram(0x1000, 2), 0x10),
    ] {
        let target = open(&bytes, &TargetOptions::default()).unwrap();
        assert_eq!(target.missing, 0);
    }
    // Whole pages by chance, of which the last are all the same page of zeros.
    let mut kdump = Kdump::new(true, Packing::Stored);
    kdump.filtered = Vec::new();
    let page = |frame: u64| if frame < 512 { ram(4096, frame as u8 | 1) } else { vec![0; 4096] };
    let mut bytes = kdump.file(&(0..33 * 512).map(|frame| (frame, page(frame))).collect());
    assert_eq!(bytes.len() % 4096, 0);
    assert!(open(&bytes, &TargetOptions::default()).is_ok());
    bytes.resize(bytes.len() + 100 * 4096, 0);
    assert!(matches!(doubt(&bytes), (Format::Kdump, Doubt::Unexplained { .. })));
    // A dump of a real guest, where there is one.
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/run/demo-target.elf");
    if path.exists() {
        assert_eq!(Target::open(path, &TargetOptions::default()).unwrap().format, "elf64");
    }
}

#[test]
fn the_text_of_a_kernel_may_be_listed_twice() {
    // As /proc/vmcore and `makedumpfile -E` have it: first the text by its own virtual addresses,
    // then all of memory, the text in it.
    let memory = ram(0x8000, 3);
    let listed = |text: &[u8]| core(true, &[note(true)], &[(0x2000, text.to_vec()), (0, memory.clone())]);
    let target = open(&listed(&memory[0x2000..0x5000]), &TargetOptions::default()).unwrap();
    assert_eq!(target.mem.ranges(), [PhysAddr(0)..PhysAddr(0x8000)]);
    for page in (0..0x8000).step_by(4096) {
        assert_eq!(target.mem.page(PhysAddr(page)).unwrap()[..], memory[page as usize..][..4096]);
    }
    let mut other = memory[0x2000..0x5000].to_vec();
    other[0x1234] ^= 1;
    let error = open(&listed(&other), &TargetOptions::default()).unwrap_err();
    assert!(matches!(*error.cause, TargetCause::Image(ImageError::Overlap(PhysAddr(0x3234)))), "{error}");
    assert!(error.to_string().contains("with different bytes"), "{error}");
}

#[test]
fn files_of_other_formats_are_named() {
    let zeros = [0u8; 4096];
    let at = |place: usize, magic: &[u8]| [&zeros[..place], magic, &zeros].concat();
    for (place, magic, name, next) in [
        (0, &b"BZh"[..], "bzip2", "bzip2 -dc"),
        (0, b"\x02\x21\x4c\x18", "lz4", "lz4 -d"),
        (257, b"ustar", "tar", "unpack"),
        (0, b"PK\x03\x04", "ZIP", "unpack"),
        (0, b"EVF\x09\x0d\x0a\xff\0", "E01", "ewfexport"),
        (0, b"LibvirtQemudPart", "virsh save", "virsh dump"),
        (0, b"QFI\xfb", "qcow2", "loadvm"),
        (0, b"\x14\x20\x28\x01", "Hyper-V", "raw RAM"),
        (0, b"PAGEDU64", "Windows crash dump", "dump-guest-memory"),
        (0, b"PAGEDUMP", "Windows crash dump", "dump-guest-memory"),
        (0, b"hibr", "hibernation", "dump-guest-memory"),
        (0, b"\0\0\x64\x86\x84\x19\x10\x07", "Firecracker", "memory file"),
        (0, b"Xen saved domain", "Xen", "AVML"),
    ] {
        let bytes = at(place, magic);
        let error = open(&bytes, &TargetOptions::default()).unwrap_err();
        assert!(matches!(*error.cause, TargetCause::Foreign(_)), "{name}: {error}");
        let text = error.to_string();
        assert!(text.contains(name) && text.contains(next), "{text}");
        // The guest may have written that, too.
        let padded = [bytes.clone(), vec![0; 8192 - bytes.len() % 4096 - 4096]].concat();
        assert_eq!(open(&padded, &as_format(Format::Raw)).unwrap().format, "raw");
    }
    let zip = [b"PK\x03\x04", &zeros[..26], b"container.description", &zeros].concat();
    assert!(open(&zip, &TargetOptions::default()).unwrap_err().to_string().contains("AFF4"));
    let xen = open(&xen(), &TargetOptions::default()).unwrap_err();
    assert!(matches!(*xen.cause, TargetCause::Foreign(_)) && xen.to_string().contains("Xen"), "{xen}");
}

#[test]
fn a_compressed_dump_is_unpacked_and_a_damaged_one_is_named() {
    let memory = ram(0x1_0000, 5);
    let elf = core(true, &[note(true)], &[(0, memory.clone())]);
    let packed = zstd::encode_all(&elf[..], 1).unwrap();
    let target = open(&packed, &TargetOptions::default()).unwrap();
    assert_eq!((target.format, target.packed, target.cpus.len()), ("elf64", Some("zstd"), 1));
    checked(&target, &memory, 0x1_0000);
    // Cut off: what is there is a core that was cut off.
    let error = open(&packed[..packed.len() - 9], &TargetOptions::default()).unwrap_err();
    assert!(matches!(*error.cause, TargetCause::Packed(UnpackError::Cut("zstd"))), "{error}");
    for magic in [&b"\x1f\x8b\x08"[..], b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0", b"\x04\x22\x4d\x18"] {
        let bytes = [magic, &[0; 5000]].concat();
        let error = open(&bytes, &TargetOptions::default()).unwrap_err();
        assert!(matches!(*error.cause, TargetCause::Packed(_)), "{error}");
        // RAM may begin so, and of its size nothing is unpacked.
        let mut bytes = bytes;
        bytes.resize(1 << 20, 0);
        let error = open(&bytes, &TargetOptions::default()).unwrap_err();
        assert!(matches!(*error.cause, TargetCause::AmbiguousPacked { .. }), "{error}");
        assert!(error.to_string().contains("--format raw"), "{error}");
        assert_eq!(open(&bytes, &as_format(Format::Raw)).unwrap().format, "raw");
    }
    let file = Temporary::new("packed", &packed);
    let error = Target::open(&file.0, &TargetOptions::default()).unwrap_err();
    assert!(matches!(*error.cause, TargetCause::Packed(UnpackError::Nowhere(_))), "{error}");
    let unpacking = Unpacking { directory: Some(std::env::temp_dir()), watcher: None };
    let options = TargetOptions { unpacking, ..TargetOptions::default() };
    checked(&Target::open(&file.0, &options).unwrap(), &memory, 0x1_0000);
}

/// A core of Xen: sections, no segments.
fn xen() -> Vec<u8> {
    let names = b"\0.shstrtab\0.xen_pages\0";
    let mut bytes = core(true, &[], &[]);
    bytes.truncate(64);
    for (at, value) in [(32, 0u64), (40, 64)] {
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
    for (at, value) in [(56, 0u16), (58, 64), (60, 3), (62, 1)] {
        bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    let section = |name: u32, kind: u32, at: u64, len: u64| {
        let head = [name.to_le_bytes(), kind.to_le_bytes()].concat();
        [head, [0, 0, at, len, 0, 0, 0].map(u64::to_le_bytes).concat()].concat()
    };
    let data = 64 + 3 * 64;
    bytes.extend(section(0, 0, 0, 0));
    bytes.extend(section(1, 3, data, names.len() as u64));
    bytes.extend(section(11, 1, data + names.len() as u64, 4096));
    bytes.extend(names);
    bytes.extend(ram(4096, 1));
    bytes
}

/// Pages as they are and as they should be said to be absent.
fn checked(target: &Target, memory: &[u8], there: u64) {
    assert_eq!(target.mem.size(), memory.len() as u64);
    assert_eq!(target.missing, memory.len() as u64 - there);
    for (at, page) in (0u64..).step_by(4096).zip(memory.chunks(4096)) {
        match target.mem.page(PhysAddr(at)) {
            Ok(found) if at < there => assert_eq!(found[..], *page),
            found => assert_eq!(found, Err(MemoryError::Absent(PhysAddr(at))), "{at:#x}"),
        }
    }
}

#[test]
fn a_missing_tail_is_measured_and_may_be_done_without() {
    let memory = ram(0x1_0000, 5);
    let partial = TargetOptions { partial: true, ..TargetOptions::default() };
    let elf = core(true, &[note(true)], &[(0, memory.clone())]);
    let lime =
        lime(&memory.chunks(4096).map(<[u8]>::to_vec).enumerate().map(|(i, p)| (i as u64, p)).collect());
    for cut in [1, 0x1000, 0x5123] {
        let there = (0x1_0000 - cut as u64) & !0xfff;
        let bytes = &elf[..elf.len() - cut];
        let error = open(bytes, &TargetOptions::default()).unwrap_err();
        assert!(error.to_string().contains(&format!("{cut} bytes are missing")), "{error}");
        assert!(error.to_string().contains("--partial"), "{error}");
        checked(&open(bytes, &partial).unwrap(), &memory, there);
        let bytes = &lime[..lime.len() - cut];
        let error = open(bytes, &TargetOptions::default()).unwrap_err();
        let missing = cut as u64;
        assert!(
            matches!(*error.cause, TargetCause::Lime(LimeError::Truncated { missing: it, .. })
                if it == missing),
            "{error}"
        );
        checked(&open(bytes, &partial).unwrap(), &memory, there);
    }
    let error = open(&memory[..0xf123], &TargetOptions::default()).unwrap_err();
    assert!(error.to_string().contains("at least 3805 bytes are missing"), "{error}");
    checked(&open(&memory[..0xf123], &partial).unwrap(), &memory, 0xf000);
    checked(&open(&memory, &partial).unwrap(), &memory, 0x1_0000);
    // A part of the header of another block: what follows it is not known.
    let more = [lime.clone(), lime[..20].to_vec()].concat();
    assert!(open(&more, &TargetOptions::default()).is_err());
    checked(&open(&more, &partial).unwrap(), &memory, 0x1_0000);
}

/// A file in the directory for temporary files, which goes away with the test.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("virtuoso-unfit-{}-{name}", std::process::id()));
        fs::write(&path, bytes).unwrap();
        Self(path)
    }

    fn resize(&self, len: u64) {
        File::options().write(true).open(&self.0).and_then(|file| file.set_len(len)).unwrap();
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn claims_cost_nothing() {
    let begun = Instant::now();
    // An ELF core that claims 58 GB in some MB.
    let mut elf = headers(58_000_000_000, 0x1000);
    elf.resize(4_400_000, 0);
    let error = open(&elf, &TargetOptions::default()).unwrap_err();
    assert!(error.to_string().contains("57995604096 bytes are missing"), "{error}");
    let partial = TargetOptions { partial: true, format: Some(Format::Elf), ..TargetOptions::default() };
    let target = open(&elf, &partial).unwrap();
    assert_eq!(target.mem.size(), 58_000_000_000);
    assert_eq!(target.mem.page(PhysAddr(1 << 35)), Err(MemoryError::Absent(PhysAddr(1 << 35))));
    // Sparse raw RAM of 1 TB: with nothing in it, and with a page.
    let file = Temporary::new("sparse", b"");
    file.resize(1 << 40);
    let without = TargetOptions { without_cpus: true, ..TargetOptions::default() };
    assert!(matches!(*Target::open(&file.0, &without).unwrap_err().cause, TargetCause::NoMemory));
    let mut head = ram(4096, 7);
    head[..4].fill(0);
    let handle = File::options().write(true).open(&file.0).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&handle, &head, 0).unwrap();
    let target = Target::open(&file.0, &without).unwrap();
    assert_eq!((target.format, target.mem.size()), ("raw", 1 << 40));
    assert_eq!(target.mem.page(PhysAddr(0)).unwrap()[..], head[..]);
    let before = resident();
    for at in (1u64 << 30..1 << 40).step_by(1 << 20) {
        assert!(target.mem.page(PhysAddr(at)).unwrap().iter().all(|byte| *byte == 0));
    }
    // Other tests of this process use some memory, too; the pages looked at are 4 GB.
    assert!(resident() - before < 1 << 30, "holes are not loaded");
    assert!(begun.elapsed() < Duration::from_secs(60));
}

/// Bytes of memory that this process has.
fn resident() -> i64 {
    let text = fs::read_to_string("/proc/self/statm").unwrap();
    4096 * text.split(' ').nth(1).unwrap().parse::<i64>().unwrap()
}

#[test]
fn pages_that_unpack_to_more_than_a_file_could_hold_are_bounded() {
    // 100 000 pages of 400 MB, all the same 24 bytes of the file.
    const PAGES: u64 = 100_000;
    let mut kdump = Kdump::new(true, Packing::Zlib);
    kdump.filtered = Vec::new();
    let bytes = kdump.bomb(PAGES);
    assert!(bytes.len() < 4 << 20);
    let target = open(&bytes, &TargetOptions::default()).unwrap();
    assert_eq!(target.mem.size(), PAGES * 4096);
    let page = |frame: u64| target.mem.page(PhysAddr(frame * 4096));
    let kept = (0..PAGES).filter(|&frame| page(frame).is_ok()).count();
    assert!((0x4000..0x8000).contains(&kept), "{kept}");
    assert!(page(0).is_ok(), "what is kept stays");
    let last = PhysAddr((PAGES - 1) * 4096);
    assert_eq!(target.mem.page(last), Err(MemoryError::Damaged(last)));
}

#[test]
fn a_file_that_is_changed_while_it_is_read_is_noticed() {
    let bytes = core(true, &[note(true)], &[(0, ram(0x3000, 1))]);
    let file = Temporary::new("changed", &bytes);
    let open = || Target::open(&file.0, &TargetOptions::default()).unwrap();
    let target = open();
    assert!(target.check_unchanged().is_ok());
    file.resize(bytes.len() as u64 - 1);
    let error = target.check_unchanged().unwrap_err();
    assert!(matches!(*error.cause, TargetCause::Resized { .. }), "{error}");
    fs::write(&file.0, &bytes).unwrap();
    let target = open();
    std::thread::sleep(Duration::from_millis(20));
    let handle = File::options().write(true).open(&file.0).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&handle, &[1], bytes.len() as u64 - 1).unwrap();
    let error = target.check_unchanged().unwrap_err();
    assert!(matches!(*error.cause, TargetCause::Written), "{error}");
}

#[test]
fn the_names_of_formats_are_those_of_the_documentation() {
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/targets.md")).unwrap();
    let names: Vec<&str> = Format::ALL.iter().map(|format| format.name()).collect();
    let mut rows: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split(" | ").nth(2).filter(|_| line.matches(" | ").count() == 4))
        .filter_map(|cell| cell.strip_prefix('`')?.strip_suffix('`'))
        .filter(|cell| *cell != "--format")
        .collect();
    rows.dedup();
    rows.sort_unstable();
    rows.dedup();
    let mut sorted = names;
    sorted.sort_unstable();
    assert_eq!(rows, sorted);
}
