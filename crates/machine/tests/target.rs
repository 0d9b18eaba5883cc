//! Targets built byte by byte: ELF cores of both classes, raw RAM with a side file, and everything
//! that can be wrong with them.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use virtuoso_machine as machine;

use machine::target::{
    JsonError, NoteError, TargetCause, VboxError, VmwareError, cpu_json, cpus_json, parse_cpus,
};
use machine::{Cpu, GuestMemory, MemoryError, PagingMode, PhysAddr, Reg, Target, TargetError, TargetOptions};
use proptest::prelude::*;
use support::{core, core_with, note, ram};

/// A directory that goes away with the test.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("virtuoso-machine-{}-{n}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn open(path: &Path) -> Result<Target, TargetError> {
    Target::open(path, &TargetOptions::default())
}

fn cause(path: &Path) -> TargetCause {
    let error = open(path).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&path.display().to_string()) && text.contains(error.hint()), "{text}");
    *error.cause
}

fn sample(is64: bool) -> Vec<u8> {
    core(is64, &[note(true), note(false)], &[(0x10_0000, ram(0x1000, 7)), (0, ram(0x2800, 3))])
}

#[test]
fn cores_of_both_classes() {
    let dir = Dir::new();
    for (is64, format) in [(true, "elf64"), (false, "elf32")] {
        let target = open(&dir.file("core", &sample(is64))).unwrap();
        assert_eq!((target.format, target.cpus.len()), (format, 2));
        let ranges = [PhysAddr(0)..PhysAddr(0x2800), PhysAddr(0x10_0000)..PhysAddr(0x10_1000)];
        assert_eq!(target.mem.ranges(), ranges);
        assert_eq!(target.mem.page(PhysAddr(0x1000)).unwrap()[..], ram(0x2800, 3)[0x1000..0x2000]);
        let last = target.mem.page(PhysAddr(0x2fff)).unwrap();
        assert_eq!(last[..0x800], ram(0x2800, 3)[0x2000..]);
        assert_eq!(last[0x800..], [0; 0x800]);
        assert_eq!(target.mem.page(PhysAddr(0x10_0fff)).unwrap()[..], ram(0x1000, 7));
        assert_eq!(target.mem.page(PhysAddr(0x3000)), Err(MemoryError::Hole(PhysAddr(0x3000))));
        assert!(target.mem.page(PhysAddr(u64::MAX)).is_err());
        assert!(format!("{target:?}").contains(format));
    }
}

#[test]
fn a_note_fills_the_register_file() {
    let dir = Dir::new();
    let target = open(&dir.file("core", &sample(true))).unwrap();
    let regs = &target.cpus[0].regs;
    for (reg, value) in [
        (Reg::Rax, 0x1000),
        (Reg::Rbx, 0x1001),
        (Reg::Rcx, 0x1002),
        (Reg::Rdx, 0x1003),
        (Reg::Rsi, 0x1004),
        (Reg::Rdi, 0x1005),
        (Reg::Rsp, 0x1006),
        (Reg::Rbp, 0x1007),
        (Reg::R8, 0x1008),
        (Reg::R15, 0x100f),
        (Reg::Rip, 0x1010),
        (Reg::Zf, 1),
        (Reg::If, 1),
        (Reg::Cf, 0),
        (Reg::Iopl, 3),
        (Reg::Cs, 0x33),
        (Reg::Cpl, 3),
        (Reg::Ds, 0x101),
        (Reg::Es, 0x102),
        (Reg::FsBase, 0xffff_8000_0000_0403),
        (Reg::GsLimit, 0x204),
        (Reg::SsFlags, 0x305),
        (Reg::Ldtr, 0x106),
        (Reg::TrBase, 0xffff_8000_0000_0407),
        (Reg::GdtrBase, 0xffff_8000_0000_0408),
        (Reg::IdtrLimit, 0x209),
        (Reg::Cr0, 0x8005_0033),
        (Reg::Cr2, 0xc2),
        (Reg::Cr3, 0x2000),
        (Reg::Cr4, 0x20),
        (Reg::KernelGsBase, 0xffff_8888_0000_0000),
    ] {
        assert_eq!(regs.get(reg), Some(value), "{}", reg.name());
    }
    assert_eq!(regs.get(Reg::Efer), None);
    assert_eq!(PagingMode::from_regs(regs), Ok(PagingMode::Level4));
    assert_eq!(target.cpus[0].code_bits(), Some(64));
    assert_eq!(target.cpus[1].regs.get(Reg::KernelGsBase), None);
}

#[test]
fn cores_of_virtualbox() {
    // Names end without a zero byte in their size, as VirtualBox writes them.
    let note = |name: &[u8], kind: u32, desc: &[u8]| {
        let sizes =
            [(name.len() as u32).to_le_bytes(), (desc.len() as u32).to_le_bytes(), kind.to_le_bytes()]
                .concat();
        [&sizes, name, &[0; 3][..(8 - name.len()).min(3)], desc].concat()
    };
    let descriptor =
        |version: u32| [0xc01a_c0deu32, version, 24, 0x0700_0000, 0, 1].map(u32::to_le_bytes).concat();
    let mut cpu = vec![0; 0x2240];
    cpu[304..312].copy_from_slice(&0x2000u64.to_le_bytes());
    let notes =
        |version| [note(b"VBCORE", 0xb00, &descriptor(version)), note(b"VBCPU", 0xb01, &cpu)].concat();
    let target =
        Target::from_bytes(core_with(true, notes(0x1_0006), &[(0, ram(0x1000, 1))]), "core", None).unwrap();
    assert_eq!(target.cpus.len(), 1);
    assert_eq!(target.cpus[0].regs.get(Reg::Cr3), Some(0x2000));
    let old = core_with(true, notes(0x1_0000), &[(0, ram(0x1000, 1))]);
    let error = Target::from_bytes(old.clone(), "core", None).unwrap_err();
    assert!(matches!(*error.cause, TargetCause::Vbox(VboxError::Version(0x1_0000))), "{error}");
    assert!(Target::from_bytes(old, "core", Some(target.cpus)).is_ok(), "its processors are not looked at");
}

#[test]
fn memory_of_vmware_lies_beside_its_description() {
    let dir = Dir::new();
    let tag = |name: &str, index: Option<u32>, value: u32| {
        let head = vec![u8::from(index.is_some()) << 6 | 4, name.len() as u8];
        let index = index.map_or(Vec::new(), |index| index.to_le_bytes().to_vec());
        [head, name.as_bytes().to_vec(), index, value.to_le_bytes().to_vec()].concat()
    };
    let mut description = [0xbed2_bed2u32, 8, 1].map(u32::to_le_bytes).concat();
    description.extend(b"memory");
    description.resize(12 + 64, 0);
    description.extend([92u64.to_le_bytes(), [0; 8]].concat());
    description.extend(tag("regionsCount", None, 2));
    for (i, [page, frame, size]) in [[0, 0, 2], [2, 0x10, 1]].into_iter().enumerate() {
        let i = Some(i as u32);
        description.extend(
            [tag("regionPageNum", i, page), tag("regionPPN", i, frame), tag("regionSize", i, size)].concat(),
        );
    }
    description.extend([0, 0]);
    let given = TargetOptions {
        cpu_file: Some(dir.file(
            "cpu.json",
            cpus_json(&[open(&dir.file("core", &sample(true))).unwrap().cpus[0].clone()]).as_bytes(),
        )),
        ..TargetOptions::default()
    };
    let vmss = dir.file("guest.vmss", &description);
    let missing = *Target::open(&vmss, &given).unwrap_err().cause;
    assert!(matches!(missing, TargetCause::Vmware(VmwareError::NoVmem(_))));
    let vmem = dir.file("guest.vmem", &ram(0x3000, 5));
    for path in [&vmss, &vmem] {
        assert!(matches!(cause(path), TargetCause::NoCpus(_)));
        let target = Target::open(path, &given).unwrap();
        assert_eq!(target.format, "vmware");
        assert_eq!(
            target.mem.ranges(),
            [PhysAddr(0)..PhysAddr(0x2000), PhysAddr(0x1_0000)..PhysAddr(0x1_1000)]
        );
        assert_eq!(target.mem.page(PhysAddr(0x1_0000)).unwrap()[..], ram(0x3000, 5)[0x2000..]);
    }
    dir.file("guest.vmem", &ram(0x2fff, 5));
    assert!(matches!(cause(&vmss), TargetCause::Image(_)), "cut off");
}

#[test]
fn raw_ram_needs_and_takes_a_side_file() {
    let dir = Dir::new();
    let raw = dir.file("guest.raw", &ram(0x2000, 1));
    assert!(matches!(cause(&raw), TargetCause::NoCpuFile(_)));
    let cpus = open(&dir.file("core", &sample(true))).unwrap().cpus;
    dir.file("guest.raw.cpu.json", cpus_json(&cpus).as_bytes());
    let target = open(&raw).unwrap();
    assert_eq!((target.format, &target.cpus), ("raw", &cpus));
    assert_eq!(target.mem.ranges(), [PhysAddr(0)..PhysAddr(0x2000)]);
    assert_eq!(target.mem.page(PhysAddr(0x1000)).unwrap()[0x800], ram(0x2000, 1)[0x1800]);
    let given = TargetOptions {
        cpu_file: Some(dir.file("other.json", cpus_json(&cpus[..1]).as_bytes())),
        ..TargetOptions::default()
    };
    assert_eq!(Target::open(&raw, &given).unwrap().cpus.len(), 1);
    let bare = dir.file("bare.core", &core(true, &[], &[(0, ram(0x1000, 0))]));
    assert!(matches!(cause(&bare), TargetCause::NoCpus(_)));
    assert_eq!(Target::open(&bare, &given).unwrap().cpus, cpus[..1]);
    let part = dir.file("part.raw", &ram(0x1801, 1));
    assert!(matches!(*Target::open(&part, &given).unwrap_err().cause, TargetCause::PartOfAPage(0x1801)));
    let missing = TargetOptions { cpu_file: Some(dir.0.join("nowhere")), ..TargetOptions::default() };
    assert!(matches!(*Target::open(&raw, &missing).unwrap_err().cause, TargetCause::CpuFileIo { .. }));
}

#[test]
fn side_files_are_checked() {
    let minimal = r#"{"cpus":[{"rip":"0x10","cr0":1,"cr3":"4096","cr4":"0X0","rflags":"0x2",
        "cs":{"selector":"0x1b","flags":"0xc09b00"},"gdt":{"base":"0x5","limit":"0x7","selector":"0x0"},
        "lstar":"0x9"}]}"#;
    let cpu = &parse_cpus(minimal.as_bytes()).unwrap()[0];
    let want = [(Reg::Cr3, 4096), (Reg::Cpl, 3), (Reg::GdtrLimit, 7), (Reg::Lstar, 9), (Reg::Cr0, 1)];
    want.iter().for_each(|&(reg, value)| assert_eq!(cpu.regs.get(reg), Some(value), "{}", reg.name()));
    assert_eq!(cpu.code_bits(), Some(32));
    assert_eq!(cpu.regs.get(Reg::Rax), None);
    let parse = |text: &str| parse_cpus(text.as_bytes()).unwrap_err();
    assert!(matches!(parse("{"), JsonError::Syntax(_)));
    assert!(matches!(parse("{}"), JsonError::NoList));
    assert!(matches!(parse(r#"{"cpus":[]}"#), JsonError::NoCpus));
    assert!(matches!(parse(r#"{"cpus":[1]}"#), JsonError::NotAnObject(_)));
    assert!(matches!(parse(r#"{"cpus":[{"raxx":"1"}]}"#), JsonError::UnknownName(_)));
    assert!(matches!(parse(r#"{"cpus":[{"cs":{"bass":"1"}}]}"#), JsonError::UnknownName(_)));
    for bad in [r#""""#, r#""0x""#, r#""0x+1""#, r#""0x10000000000000000""#, "-1", "1.5", "null", "[]"] {
        let text = format!(r#"{{"cpus":[{{"rax":{bad}}}]}}"#);
        assert!(matches!(parse(&text), JsonError::BadNumber { .. }), "{bad}");
    }
    assert!(matches!(parse(r#"{"cpus":[{"rip":"1"}]}"#), JsonError::Missing { cpu: 0, register: "cr0" }));
    assert!(matches!(parse_cpus(&[b'['; 100_000]), Err(JsonError::Syntax(_))), "deep nesting");
}

#[test]
fn what_is_no_target_is_refused() {
    let dir = Dir::new();
    assert!(matches!(cause(&dir.0), TargetCause::Directory));
    assert!(matches!(cause(Path::new("/dev/null")), TargetCause::NotAFile));
    assert!(matches!(cause(&dir.0.join("absent")), TargetCause::Io(_)));
    assert!(matches!(cause(&dir.file("empty", b"")), TargetCause::Empty));
    assert!(matches!(cause(&dir.file("text", b"hello")), TargetCause::NoCpuFile(_)));
    assert!(matches!(cause(&dir.file("dump", b"PAGEDU64\0")), TargetCause::Foreign(_)));
    let changed = |name: &str, at: usize, byte: u8| {
        let mut bytes = sample(true);
        bytes[at] = byte;
        cause(&dir.file(name, &bytes))
    };
    assert!(matches!(changed("class", 4, 3), TargetCause::Elf(_)));
    assert!(matches!(changed("big-endian", 5, 2), TargetCause::NotACore(_)));
    assert!(matches!(changed("program", 16, 2), TargetCause::NotACore(_)));
    assert!(matches!(changed("arm", 18, 183), TargetCause::NotACore(_)));
    let version = 64 + 3 * 56 + (20 + 336) + 20;
    let source = NoteError::Version(2);
    assert!(matches!(changed("version", version, 2), TargetCause::Note { cpu: 0, source: s } if s == source));
    assert!(matches!(
        changed("size", version + 5, 9),
        TargetCause::Note { source: NoteError::Size { .. }, .. }
    ));
    let short = core(true, &[vec![1; 431]], &[(0, ram(1, 0))]);
    assert!(matches!(
        cause(&dir.file("short", &short)),
        TargetCause::Note { source: NoteError::Short(431), .. }
    ));
    assert!(matches!(cause(&dir.file("nothing", &core(true, &[note(true)], &[]))), TargetCause::NoMemory));
    let overlap = core(true, &[note(true)], &[(0, ram(0x2000, 0)), (0x1000, ram(0x2000, 0))]);
    assert!(matches!(cause(&dir.file("overlap", &overlap)), TargetCause::Image(_)));
    let high = core(true, &[note(true)], &[(1 << 52, ram(1, 0))]);
    assert!(matches!(cause(&dir.file("high", &high)), TargetCause::Image(_)));
}

#[test]
fn truncation_anywhere_is_an_error() {
    let dir = Dir::new();
    for is64 in [true, false] {
        let whole = core(is64, &[note(true)], &[(0, ram(0x40, 3))]);
        for len in 0..whole.len() {
            let path = dir.file("cut", &whole[..len]);
            let error = open(&path).map(|target| format!("{target:?}")).unwrap_err();
            assert!(!error.hint().is_empty());
        }
        assert!(open(&dir.file("cut", &whole)).is_ok());
    }
}

/// Uses everything an opened target offers; must not panic whatever was in the file.
fn exercise(target: &Target) {
    for range in target.mem.ranges() {
        for addr in
            [range.start, PhysAddr(range.end.0 - 1), range.end, PhysAddr(range.start.0 / 2 + range.end.0 / 2)]
        {
            let _ = target.mem.page(addr);
            let _ = target.mem.read_u64(addr);
        }
        assert!(target.mem.page(range.start).is_ok() && target.mem.page(PhysAddr(range.end.0 - 1)).is_ok());
    }
    for cpu in &target.cpus {
        let _ = (cpu.code_bits(), PagingMode::from_regs(&cpu.regs), cpu_json(cpu));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn corrupted_headers_never_panic(
        is64: bool,
        changes in proptest::collection::vec((0usize..1200, prop_oneof![Just(0u8), Just(0xff),
            any::<u8>()]), 1..8),
        cut in proptest::option::of(0usize..0x4000),
    ) {
        let dir = Dir::new();
        let mut bytes = sample(is64);
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        bytes.truncate(cut.unwrap_or(bytes.len()));
        if let Ok(target) = open(&dir.file("core", &bytes)) {
            exercise(&target);
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), elf: bool) {
        let dir = Dir::new();
        let bytes = if elf { [b"\x7fELF\x02\x01\x01".as_slice(), &bytes].concat() } else { bytes };
        let _ = open(&dir.file("any", &bytes));
        let _ = parse_cpus(&bytes);
    }

    #[test]
    fn processor_state_round_trips(known in proptest::collection::vec((0..Reg::COUNT, any::<u64>()), 0..80),
        rflags: u64) {
        let mut cpu = Cpu::default();
        cpu.regs.set_rflags(rflags);
        for reg in [Reg::Rip, Reg::Cr0, Reg::Cr3, Reg::Cr4, Reg::Cpl] {
            cpu.regs.set(reg, 0);
        }
        for (index, value) in known {
            let reg = Reg::from_index(index).unwrap();
            if !machine::reg::RFLAGS_FIELDS.iter().any(|field| field.0 == reg) {
                cpu.regs.set(reg, value);
            }
        }
        let cpus = vec![cpu];
        prop_assert_eq!(parse_cpus(cpus_json(&cpus).as_bytes()).unwrap(), cpus);
    }
}
