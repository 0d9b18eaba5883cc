//! Migration streams, and RAM that lies in a file in one piece.

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use virtuoso_machine as machine;

use machine::target::{Board, Doubt, MigrationError, Placement, PlacementError, RamRange, TargetCause};
use machine::{GuestMemory, MemoryError, PhysAddr, Reg, Target, TargetError, TargetOptions};
use support::ram;
use support::streams::{Record, Stream, mapped, saved};

fn open(bytes: &[u8], options: &TargetOptions) -> Result<Target, TargetError> {
    Target::from_bytes_as(bytes.to_vec(), "guest.save", options.without_cpus.then(Vec::new), options)
}

fn migration_error(bytes: &[u8], options: &TargetOptions) -> MigrationError {
    match *open(bytes, options).unwrap_err().cause {
        TargetCause::Migration(error) => error,
        other => panic!("{other}"),
    }
}

fn partial() -> TargetOptions {
    TargetOptions { partial: true, without_cpus: true, ..TargetOptions::default() }
}

fn page(target: &Target, at: u64) -> Result<&[u8], MemoryError> {
    target.mem.page(PhysAddr(at)).map(|page| &page[..])
}

const PAGES: u64 = 0xc8;

#[test]
fn the_last_state_of_each_page_and_the_processors_are_read() {
    let memory = ram(PAGES as usize * 4096, 3);
    let mut stream = Stream::new("pc-i440fx-10.0", PAGES, &memory);
    // A page of ROM, then pages that come again, and one that never came.
    stream.sections[0].retain(|record| record.1 != 9);
    let newer = vec![7; 4096];
    stream.sections.push(vec![
        (1, 1, Record::Page(newer.clone())),
        (0, 4, Record::Page(newer.clone())),
        (0, 5, Record::Filled(0)),
        (0, 6, Record::Filled(0x5a)),
        (0, 7, Record::Filled(1)),
    ]);
    stream.sections.push(vec![(0, 7, Record::Page(newer.clone()))]);
    let target = open(&stream.bytes().0, &TargetOptions::default()).unwrap();
    assert_eq!((target.format, target.remarks.len()), ("migration", 0));
    assert_eq!(
        target.mem.ranges(),
        [PhysAddr(0)..PhysAddr(0xa_0000), PhysAddr(0xc_0000)..PhysAddr(0xc_8000)]
    );
    for (number, expected) in [(4, &newer[..]), (5, &[0; 4096]), (6, &[0x5a; 4096]), (7, &newer)] {
        assert_eq!(page(&target, number * 4096), Ok(expected), "{number}");
    }
    assert_eq!(page(&target, 0xc_1008), Ok(&memory[0xc_1000..0xc_2000]));
    assert_eq!(page(&target, 9 * 4096), Err(MemoryError::Absent(PhysAddr(0x9000))));
    assert_eq!(page(&target, 0xa_0000), Err(MemoryError::Hole(PhysAddr(0xa_0000))));
    assert_eq!(page(&target, 0xc_8000), Err(MemoryError::Hole(PhysAddr(0xc_8000))));
    let value = |cpu: usize, reg| target.cpus[cpu].regs.get(reg);
    for (cpu, n) in [(0, 1), (1, 2)] {
        for (reg, expected) in [
            (Reg::Rip, n << 12),
            (Reg::Rbx, n << 8 | 3),
            (Reg::R15, n << 8 | 15),
            (Reg::GsBase, n << 32 | 5),
            (Reg::CsBase, n << 32 | 1),
            (Reg::Cs, 0x11),
            (Reg::Cpl, 1),
            (Reg::IdtrBase, n << 20 | 3),
            (Reg::IdtrLimit, 0xfff),
            (Reg::KernelGsBase, n << 40),
            (Reg::Cr3, 0x2000),
            (Reg::Efer, 0xd01),
            (Reg::Zf, 1),
        ] {
            assert_eq!(value(cpu, reg), Some(expected), "{cpu}: {reg:?}");
        }
    }
    assert_eq!(target.cpus.len(), 2);
}

#[test]
fn a_stream_that_is_cut_before_its_ram_is_complete_is_none() {
    let memory = ram(4 * 4096, 3);
    let (bytes, complete) = Stream::new("pc-q35-9.2", 4, &memory).bytes();
    for len in 4..bytes.len() {
        let error = migration_error(&bytes[..len], &TargetOptions::default());
        if len < complete - 5 {
            assert_eq!(error, MigrationError::Cut(len), "{len}");
            assert_eq!(migration_error(&bytes[..len], &partial()), error, "of different moments: {len}");
            continue;
        }
        // Its footer, its devices or their description are missing.
        assert!(
            [MigrationError::CutDevices(len), MigrationError::Cut(len)].contains(&error),
            "{len}: {error}"
        );
        if len >= complete {
            let target = open(&bytes[..len], &partial()).unwrap();
            assert!(target.cpus.is_empty() && target.remarks[0].contains("no processor state"), "{len}");
            assert_eq!(page(&target, 0x3000), Ok(&memory[0x3000..]), "{len}");
        }
    }
}

#[test]
fn anything_may_be_in_a_stream() {
    let (bytes, _) = Stream::new("pc-i440fx-9.2", 2, &ram(2 * 4096, 3)).bytes();
    for at in (0..bytes.len()).filter(|at| !(400..8000).contains(at)) {
        for flip in [1, 0x20, 0x80, 0xff] {
            let mut bytes = bytes.clone();
            bytes[at] ^= flip;
            let Ok(target) = open(&bytes, &partial()) else { continue };
            for range in target.mem.ranges() {
                let _ = target.mem.page(range.start);
                let _ = target.mem.page(PhysAddr(range.end.0 - 1));
            }
        }
    }
}

#[test]
fn a_description_that_a_device_holds_is_not_taken() {
    let mut stream = Stream::new("pc-i440fx-9.2", 1, &ram(4096, 3));
    let whole = stream.bytes().0;
    let planted = br#"{"devices":[]}"#;
    // Long enough for the size before it to reach the end of the stream once it is in the device.
    let size = planted.len() + whole.len();
    stream.device = [&[0, 6][..], &(size as u32).to_be_bytes(), planted].concat();
    assert_eq!(open(&stream.bytes().0, &TargetOptions::default()).unwrap().cpus.len(), 2);
    stream.description = false;
    let (bytes, _) = stream.bytes();
    let error = migration_error(&bytes, &TargetOptions::default());
    assert_eq!(error, MigrationError::CutDevices(bytes.len()));
    let target = open(&bytes, &partial()).unwrap();
    assert!(target.cpus.is_empty() && target.remarks[0].contains("devices"), "{:?}", target.remarks);
}

#[test]
fn ram_above_the_hole_is_placed_as_the_machine_has_it() {
    let memory = ram(3 * 4096, 3);
    let mut stream = Stream::new("pc-q35-9.2", 3, &memory);
    let places = [0x7fff_f000u64, 0x8000_0000, 0xafff_f000];
    stream.blocks[0].1 = 3 << 30;
    for (record, place) in stream.sections[0].iter_mut().zip(places) {
        record.1 = place / 4096;
    }
    let of = |machine, options: &TargetOptions| {
        let stream = Stream { machine, ..stream.clone() };
        open(&stream.bytes().0, options)
    };
    let default = TargetOptions::default();
    let q35 = of("pc-q35-9.2", &default).unwrap();
    assert!(
        q35.remarks[0].contains("pc-q35-9.2") && q35.remarks[0].contains("@0x80000000"),
        "{:?}",
        q35.remarks
    );
    assert_eq!(page(&q35, 0x7fff_f000), Ok(&memory[..4096]));
    assert_eq!(page(&q35, 0x1_0000_0000), Ok(&memory[4096..8192]));
    assert_eq!(page(&q35, 0x8000_0000), Err(MemoryError::Hole(PhysAddr(0x8000_0000))));
    // 3 GiB fit below the hole of the other one.
    assert_eq!(page(&of("pc-i440fx-9.2", &default).unwrap(), 0x8000_0000), Ok(&memory[4096..8192]));
    let Err(error) = of("none", &default) else { panic!("nothing says where RAM lies") };
    assert!(matches!(*error.cause, TargetCause::Migration(MigrationError::Placement { .. })), "{error}");
    assert!(error.to_string().contains("--ram"), "{error}");
    let range = RamRange { start: 0x10_0000_0000, end: 0x10_0000_1000, offset: 0x8000_0000 };
    let named = TargetOptions { placement: Some(Placement::Ranges(vec![range])), ..default };
    let target = of("none", &named).unwrap();
    assert_eq!(page(&target, range.start), Ok(&memory[4096..8192]));
    assert!(target.remarks.is_empty());
}

#[test]
fn ram_of_several_nodes_lies_in_their_order() {
    let memory = ram(3 * 4096, 3);
    let mut stream = Stream::new("pc-i440fx-9.2", 3, &memory);
    stream.blocks = vec![("/objects/ram-node1", 2 * 4096), ("/objects/ram-node0", 4096)];
    for (record, (block, number)) in stream.sections[0].iter_mut().zip([(1, 0), (0, 0), (0, 1)]) {
        (record.0, record.1) = (block, number);
    }
    let target = open(&stream.bytes().0, &TargetOptions::default()).unwrap();
    for at in [0, 0x1000, 0x2000] {
        assert_eq!(page(&target, at), Ok(&memory[at as usize..][..4096]), "{at:#x}");
    }
    stream.blocks = vec![("mem", 2 * 4096), ("other", 4096)];
    let target = open(&stream.bytes().0, &TargetOptions::default()).unwrap();
    assert!(target.remarks[0].contains("\"mem\""), "{:?}", target.remarks);
    stream.blocks = vec![("one", 2 * 4096), ("other", 2 * 4096)];
    let error = migration_error(&stream.bytes().0, &TargetOptions::default());
    assert!(matches!(error, MigrationError::NoRam(_)), "{error}");
}

#[test]
fn pages_may_have_places_of_their_own() {
    let memory = ram(4 * 4096, 9);
    let bytes = mapped(&memory);
    let options = TargetOptions { without_cpus: true, ..TargetOptions::default() };
    let target = open(&bytes, &options).unwrap();
    for (at, expected) in [(0, &memory[..4096]), (0x1000, &[0; 4096]), (0x2000, &memory[0x2000..0x3000])] {
        assert_eq!(page(&target, at), Ok(expected), "{at:#x}");
    }
    assert_eq!(page(&target, 0x3000), Ok(&[0; 4096][..]));
    for len in 4..bytes.len() {
        let _ = open(&bytes[..len], &partial()).map(|target| target.mem.page(PhysAddr(0x2000)).is_ok());
    }
}

#[test]
fn what_virsh_save_writes_is_a_stream_behind_a_header() {
    let memory = ram(4096, 3);
    let (stream, _) = Stream::new("pc-i440fx-9.2", 1, &memory).bytes();
    let default = TargetOptions::default();
    let gz = zstd::encode_all(&stream[..], 1).unwrap();
    let mut bz = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bz.write_all(&stream).unwrap();
    let bz = bz.finish().unwrap();
    for (bytes, packed) in [
        (saved(&stream, 0, true), None),
        (saved(&stream, 0, false), None),
        (saved(&gz, 5, true), Some("zstd")),
        (saved(&bz, 2, true), Some("bzip2")),
    ] {
        let target = open(&bytes, &default).unwrap();
        assert_eq!((target.packed, target.cpus.len()), (packed, 2));
        assert_eq!(page(&target, 0), Ok(&memory[..]));
        assert!(target.format.starts_with("migration"));
    }
    let unknown = migration_error(&saved(b"something", 9, true), &default);
    assert!(matches!(unknown, MigrationError::Compression(_)), "{unknown}");
    for len in 16..132 {
        let error = migration_error(&saved(&stream, 0, true)[..len], &default);
        assert!(matches!(error, MigrationError::Header(_)), "{len}: {error}");
    }
}

#[test]
fn a_stream_that_a_guest_wrote_into_its_ram_is_not_believed() {
    let stream = Stream::new("pc-i440fx-9.2", 1, &ram(4096, 3));
    let (bytes, _) = stream.bytes();
    // The guest pads it to the size of RAM by its device's state.
    let device = vec![0; (1 << 20) - bytes.len() + stream.device.len()];
    let whole = |size: usize| Stream { device: device[..size].to_vec(), ..stream.clone() }.bytes().0;
    let padded = (device.len() - 8..=device.len()).map(whole).find(|bytes| bytes.len() == 1 << 20);
    let error = open(&padded.expect("1 MiB"), &TargetOptions::default()).unwrap_err();
    assert!(matches!(*error.cause, TargetCause::Ambiguous { doubt: Doubt::Size(1), .. }), "{error}");
}

/// A file of raw RAM with a hole, in the directory for temporary files.
struct Ram(PathBuf);

impl Ram {
    /// A sparse file with these 64-bit numbers.
    fn new(name: &str, len: u64, words: &[(u64, u64)]) -> Self {
        let path = std::env::temp_dir().join(format!("virtuoso-placed-{}-{name}", std::process::id()));
        let file = File::create(&path).unwrap();
        file.set_len(len).unwrap();
        words.iter().for_each(|(at, word)| file.write_all_at(&word.to_le_bytes(), *at).unwrap());
        Self(path)
    }
}

impl Drop for Ram {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn page_tables_above_the_hole_say_where_ram_lies() {
    const HIGH: u64 = 1 << 32;
    // A processor with its root at 0x2000.
    let cpu = open(&Stream::new("pc-i440fx-9.2", 1, &ram(4096, 3)).bytes().0, &TargetOptions::default());
    let cpus = cpu.unwrap().cpus;
    let cpu_file = std::env::temp_dir().join(format!("virtuoso-placed-{}.json", std::process::id()));
    fs::write(&cpu_file, machine::target::cpus_json(&cpus)).unwrap();
    let options = TargetOptions { cpu_file: Some(cpu_file.clone()), ..TargetOptions::default() };
    let tables = |offset: u64| {
        let mut words = vec![(0x2000, HIGH | 3)];
        for n in 0..16 {
            words.push((offset + 8 * n, (HIGH + 0x1000 * (n + 1)) | 3));
            // A large page of low memory.
            words.push((offset + 0x1000 * (n + 1), n << 21 | 0x83));
        }
        words
    };
    for (name, len, offset, says) in [
        ("q35", 2816 << 20, 2 << 30, "machine q35"),
        ("pc", 4 << 30, 3 << 30, "machine pc"),
        ("flat", 5 << 30, HIGH, "one byte behind the other"),
    ] {
        let file = Ram::new(name, len, &tables(offset));
        let target = Target::open(&file.0, &options).unwrap();
        let remark = &target.remarks[0];
        assert!(remark.contains(says) && remark.contains("page tables"), "{name}: {remark}");
        assert_eq!(target.mem.read_u64(PhysAddr(HIGH + 8)), Ok((HIGH + 0x2000) | 3), "{name}");
    }
    // Nothing above the hole: nothing is known, and that is said.
    let file = Ram::new("none", 4 << 30, &[(0x2000, 0x3003), (0x3000, 0x83)]);
    let remark = Target::open(&file.0, &options).unwrap().remarks.remove(0);
    assert!(remark.contains("nothing shows") && remark.contains("--ram"), "{remark}");
    let named = TargetOptions { placement: Some(Placement::Board(Board::Pc)), ..options };
    let target = Target::open(&file.0, &named).unwrap();
    assert!(target.remarks.is_empty());
    assert_eq!(target.mem.ranges().last(), Some(&(PhysAddr(HIGH)..PhysAddr(HIGH + (1 << 30)))));
    fs::remove_file(&cpu_file).unwrap();
}

#[test]
fn ranges_are_for_ram_in_one_piece() {
    // LiME's raw format: the ranges one behind the other.
    let memory = ram(3 * 4096, 3);
    let range = |start, end, offset| RamRange { start, end, offset };
    let at = |ranges: &[RamRange]| TargetOptions {
        placement: Some(Placement::Ranges(ranges.to_vec())),
        ..partial()
    };
    let both = at(&[range(0x1000, 0x2000, 0), range(0x10_0000, 0x10_2000, 0x1000)]);
    let target = open(&memory, &both).unwrap();
    assert_eq!(page(&target, 0x10_1000), Ok(&memory[0x2000..]));
    assert_eq!(page(&target, 0), Err(MemoryError::Hole(PhysAddr(0))));
    let short = open(&memory[..0x2800], &both).unwrap();
    assert_eq!((short.missing, page(&short, 0x10_1000).is_err()), (0x1000, true));
    let whole = TargetOptions { partial: false, ..at(&[range(0, 0x4000, 0)]) };
    let error = open(&memory, &whole).unwrap_err();
    assert!(matches!(*error.cause, TargetCause::Placement(PlacementError::Behind { .. })), "{error}");
    let core = support::core(true, &[support::note(true)], &[(0, memory)]);
    let error = open(&core, &both).unwrap_err();
    assert!(matches!(*error.cause, TargetCause::Placed(_)) && error.to_string().contains("--ram"), "{error}");
}
