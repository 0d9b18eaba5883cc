//! Dump formats other than ELF, in files made from their descriptions: what is read, and what
//! broken files do.

mod support;

use std::path::Path;

use virtuoso_machine as machine;

use machine::memory::ImageError;
use machine::target::{FlatError, KdumpError, LimeError, TargetCause};
use machine::{Cpu, GuestMemory, MemoryError, PhysAddr, Target, TargetError};
use proptest::prelude::*;
use support::dumps::{Kdump, Packing, Pages, avml, lime, pages, vmware};
use support::streams::{Record, Stream, saved};
use support::{core, note, ram};

fn open(bytes: Vec<u8>) -> Result<Target, TargetError> {
    Target::from_bytes(bytes, "dump", Some(vec![Cpu::default()]))
}

fn cause(bytes: Vec<u8>) -> TargetCause {
    *open(bytes).unwrap_err().cause
}

/// Every page is what it should be, or is said to be missing; returns how many there are.
fn check(mem: &dyn GuestMemory, pages: &Pages) -> usize {
    let mut there = 0;
    for range in mem.ranges() {
        for frame in range.start.0 / 4096..range.end.0.div_ceil(4096) {
            if let Ok(page) = mem.page(PhysAddr(frame * 4096 + 5)) {
                assert_eq!(page[..], pages[&frame][..], "frame {frame:#x}");
                assert!(std::ptr::eq(page, mem.page(PhysAddr(frame * 4096)).unwrap()), "made once");
                there += 1;
            }
        }
    }
    there
}

/// One small file of each format: the seeds of the fuzzer, and what truncation and bit flips are
/// tried on.
fn samples() -> Vec<(&'static str, Vec<u8>)> {
    let small: Pages = pages().into_iter().filter(|(frame, _)| frame % 4 != 1).collect();
    let elf = core(true, &[note(true)], &[(0x6000, pages()[&6].clone())]);
    let mut stream = Stream::new("pc-i440fx-10.0", 7, &[0; 7 * 4096]);
    stream.sections = vec![vec![(0, 6, Record::Filled(3))], vec![(0, 6, Record::Page(pages()[&6].clone()))]];
    let (stream, _) = stream.bytes();
    vec![
        ("elf64-zstd", zstd::encode_all(&elf[..], 1).unwrap()),
        ("migration", stream.clone()),
        ("virsh-save-zstd", saved(&zstd::encode_all(&stream[..], 1).unwrap(), 5, true)),
        ("kdump-zlib", Kdump::new(true, Packing::Zlib).file(&small)),
        ("kdump-lzo-flat", Kdump::new(true, Packing::Lzo).stream(&small, 4096)),
        ("kdump32-snappy-flat", Kdump::new(false, Packing::Snappy).stream(&small, 2048)),
        ("kdump-zstd-flat", Kdump::new(true, Packing::Zstd).stream(&small, 4096)),
        ("lime", lime(&small.into_iter().filter(|(frame, _)| *frame < 4).collect())),
        ("avml", avml(&pages().into_iter().filter(|(frame, _)| frame % 4 != 1).collect(), 8192, 0x400)),
        ("vmware", vmware(&[], &pages()[&6], 6)),
        ("elf64", elf),
        ("elf32", core(false, &[note(true)], &[(0x6000, pages()[&6].clone())])),
    ]
}

#[test]
fn kdumps_of_every_compression_and_width() {
    let pages = pages();
    for is64 in [true, false] {
        for packing in Packing::ALL {
            let mut kdump = Kdump::new(is64, packing);
            kdump.machine = if is64 { "Unknown" } else { "" };
            for (bytes, flat) in [(kdump.file(&pages), ""), (kdump.stream(&pages, 1000), ", flattened")] {
                let target = Target::from_bytes(bytes, "dump", None).unwrap();
                let kind =
                    ["kdump", "kdump-zlib", "kdump-lzo", "kdump-snappy", "kdump-zstd"][packing as usize];
                assert_eq!(target.format, format!("{kind}{flat}"));
                assert_eq!(target.cpus.len(), 2);
                assert_eq!(target.cpus[0].regs.get(machine::Reg::Rbx), Some(0x1001));
                let ranges = [PhysAddr(0x1000)..PhysAddr(0x7000), PhysAddr(0x8_0000)..PhysAddr(0x8_3000)];
                assert_eq!(target.mem.ranges(), ranges);
                assert_eq!(check(&*target.mem, &pages), pages.len() - 1);
                let page = |addr| target.mem.page(PhysAddr(addr)).unwrap_err();
                assert_eq!(page(0x8_0123), MemoryError::Absent(PhysAddr(0x8_0123)), "filtered out");
                assert_eq!(page(0x7000), MemoryError::Hole(PhysAddr(0x7000)));
                assert_eq!(page(u64::MAX), MemoryError::Hole(PhysAddr(u64::MAX)));
            }
        }
    }
}

#[test]
fn lime_ranges_are_read_to_the_byte() {
    let mut pages = pages();
    let target = open(lime(&pages)).unwrap();
    assert_eq!((target.format, check(&*target.mem, &pages)), ("lime", pages.len()));
    pages.get_mut(&6).unwrap().truncate(0x800);
    let target = open(lime(&pages)).unwrap();
    assert_eq!(target.mem.ranges()[0], PhysAddr(0x1000)..PhysAddr(0x6800));
    pages.get_mut(&6).unwrap().resize(4096, 0);
    assert_eq!(check(&*target.mem, &pages), pages.len());
}

#[test]
fn avml_blocks_of_any_size_and_place() {
    for block in [4096, 8192, 0x3000, 1 << 24, 5000] {
        for skip in [0, 0x400] {
            let mut pages = pages();
            let target = open(avml(&pages, block, skip)).unwrap();
            pages.get_mut(&1).unwrap()[..skip].fill(0);
            assert_eq!(target.format, "avml");
            let ranges = target.mem.ranges();
            assert_eq!(
                ranges,
                [PhysAddr(0x1000 + skip as u64)..PhysAddr(0x7000), PhysAddr(0x8_0000)..PhysAddr(0x8_3000)]
            );
            assert_eq!(check(&*target.mem, &pages), pages.len(), "blocks of {block}, {skip} missing");
            assert_eq!(target.mem.page(PhysAddr(0x7000)), Err(MemoryError::Hole(PhysAddr(0x7000))));
            assert_eq!(target.mem.page(PhysAddr(u64::MAX)), Err(MemoryError::Hole(PhysAddr(u64::MAX))));
        }
    }
    // A frame has 64 KiB: pages on both sides of its end, and one across where the start is not a
    // page's.
    let large: Pages = (0x10..0x40).map(|frame| (frame, ram(4096, frame as u8))).collect();
    for skip in [0, 0x10] {
        let mut expected = large.clone();
        expected.get_mut(&0x10).unwrap()[..skip].fill(0);
        assert_eq!(check(&*open(avml(&large, 1 << 24, skip)).unwrap().mem, &expected), large.len());
    }
}

#[test]
fn memory_inside_a_vmware_snapshot() {
    let (low, high) = (ram(0x2000, 1), ram(0x1000, 2));
    let target = open(vmware(&low, &high, 0x10)).unwrap();
    assert_eq!(target.format, "vmware");
    assert_eq!(target.mem.ranges(), [PhysAddr(0)..PhysAddr(0x2000), PhysAddr(0x1_0000)..PhysAddr(0x1_1000)]);
    assert_eq!(target.mem.page(PhysAddr(0x1000)).unwrap()[..], low[0x1000..]);
    assert_eq!(target.mem.page(PhysAddr(0x1_0000)).unwrap()[..], high[..]);
}

#[test]
fn captures_without_processors_say_so() {
    let pages = pages();
    let mut kdump = Kdump::new(true, Packing::Zlib);
    kdump.notes = Vec::new();
    for bytes in [lime(&pages), avml(&pages, 4096, 0), kdump.file(&pages)] {
        let error = Target::from_bytes(bytes.clone(), "dump", None).unwrap_err();
        assert!(
            matches!(&*error.cause, TargetCause::NoCpus(path) if path == Path::new("dump.cpu.json")),
            "{error}"
        );
        assert!(open(bytes).is_ok());
    }
}

#[test]
fn what_is_wrong_is_named() {
    let pages = pages();
    let kdump = Kdump::new(true, Packing::Zlib);
    let whole = kdump.file(&pages);
    let changed = |at: usize, bytes: &[u8]| {
        let mut file = whole.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        cause(file)
    };
    assert!(matches!(changed(428, &8192u32.to_le_bytes()), TargetCause::Kdump(KdumpError::BlockSize(8192))));
    assert!(matches!(changed(4096 + 12, &[1]), TargetCause::Kdump(KdumpError::Split)));
    assert!(matches!(changed(4096 + 96, &[0xff; 8]), TargetCause::Kdump(KdumpError::TooLarge(_))));
    assert!(matches!(changed(4096 + 98, &[1]), TargetCause::Kdump(KdumpError::Bitmap { .. })));
    assert!(matches!(changed(436, &[0xff; 4]), TargetCause::Kdump(KdumpError::Cut { .. })));
    assert!(matches!(changed(272, b"aarch64"), TargetCause::Kdump(KdumpError::Machine(_))));
    let stream = kdump.stream(&pages, 4096);
    assert!(matches!(
        cause(stream[..stream.len() - 16].to_vec()),
        TargetCause::Flat(FlatError::Truncated(_))
    ));
    let mut other = stream.clone();
    other[4096 + 16] = b'X';
    assert!(matches!(cause(other), TargetCause::Foreign(_)));
    let bytes = lime(&pages);
    assert!(matches!(
        cause(bytes[..bytes.len() - 1].to_vec()),
        TargetCause::Lime(LimeError::Truncated { .. })
    ));
    assert!(matches!(cause([bytes.clone(), vec![0; 32]].concat()), TargetCause::Lime(LimeError::Header(_))));
    let mut twice = [bytes.clone(), bytes].concat();
    assert!(open(twice.clone()).is_ok(), "the same bytes");
    *twice.last_mut().unwrap() ^= 1;
    assert!(matches!(cause(twice), TargetCause::Image(ImageError::Overlap(PhysAddr(0x8_2fff)))));
    let bytes = avml(&pages, 4096, 0);
    assert!(matches!(cause(bytes[..bytes.len() - 1].to_vec()), TargetCause::Lime(LimeError::Trailer(_))));
    assert!(matches!(
        cause([bytes.clone(), bytes.clone()].concat()),
        TargetCause::Lime(LimeError::Overlap(_))
    ));
    let mut large = bytes;
    large[20] = 0xff;
    assert!(matches!(cause(large), TargetCause::Lime(LimeError::Frames(0))), "a claim its data cannot fill");
}

#[test]
fn damaged_pages_are_errors() {
    let pages = pages();
    let mut file = Kdump::new(true, Packing::Zlib).file(&pages);
    let len = file.len();
    file[len - 3] ^= 1;
    let target = open(file).unwrap();
    assert_eq!(target.mem.page(PhysAddr(0x8_2000)), Err(MemoryError::Damaged(PhysAddr(0x8_2000))));
    assert_eq!(check(&*target.mem, &pages), pages.len() - 2);
    let mut file = avml(&pages, 4096, 0);
    let len = file.len();
    file[len - 12] ^= 1;
    let target = open(file).unwrap();
    assert_eq!(target.mem.page(PhysAddr(0x8_2000)), Err(MemoryError::Damaged(PhysAddr(0x8_2000))));
    assert_eq!(check(&*target.mem, &pages), pages.len() - 1);
}

#[test]
fn truncation_anywhere_gives_an_error_or_less_memory() {
    let mut pages = pages();
    for (name, whole) in samples() {
        if name == "avml" {
            pages.get_mut(&2).unwrap()[..0x400].fill(0);
        }
        assert!(check(&*open(whole.clone()).unwrap().mem, &pages) >= 1, "{name}");
        // With fewer bytes it is not known for what it is.
        for len in 16..whole.len() {
            if let Ok(target) = open(whole[..len].to_vec()) {
                check(&*target.mem, &pages);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn corrupted_dumps_never_panic(
        which in 0usize..12,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        early in proptest::option::of((0usize..0x1100, any::<u8>())),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let (_, mut bytes) = samples().swap_remove(which);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some((at, byte)) = early && let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(target) = open(bytes) {
            for range in target.mem.ranges().into_iter().take(100) {
                for addr in [range.start.0, range.start.0 / 2 + range.end.0 / 2, range.end.0 - 1,
                    range.end.0] {
                    let _ = target.mem.page(PhysAddr(addr));
                }
            }
        }
    }
}

/// Where the fuzzer's seeds lie.
fn seeds() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/dump")
}

#[test]
fn the_seeds_of_the_fuzzer_are_valid() {
    for (name, sample) in samples() {
        let seed = std::fs::read(seeds().join(name)).unwrap_or_default();
        let target = open(seed).unwrap_or_else(|error| panic!("{name}: {error}; write the seeds again"));
        assert_eq!(target.mem.ranges(), open(sample).unwrap().mem.ranges(), "{name}");
    }
}

#[test]
#[ignore = "writes the fuzzer's seeds anew: cargo test -p virtuoso-machine --test formats -- --ignored"]
fn write_the_seeds() {
    std::fs::create_dir_all(seeds()).unwrap();
    for (name, sample) in samples() {
        std::fs::write(seeds().join(name), sample).unwrap();
    }
}
