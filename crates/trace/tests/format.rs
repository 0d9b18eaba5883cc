//! The file format: round trips in both directions, and what damage does.

use std::path::PathBuf;

use machine::{PhysAddr, Reg, RegFile, VirtAddr};
use virtuoso_trace::{
    Access, Direction, Event, Header, IdleCell, InsnId, RamRange, Recorded, Trace, TraceError, TraceWriter,
    Variable,
};

/// A small pseudo-random sequence, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 11
    }
}

fn header() -> Header {
    Header {
        producer: "format test".to_owned(),
        emulator: "none".to_owned(),
        arch: "x86_64".to_owned(),
        program: "sample".to_owned(),
        marker_abi: 1,
        vcpu: 0,
        vcpus: 1,
        mode_bits: 64,
        recorded: Recorded {
            block_registers: vec![Reg::Rax, Reg::Rsp, Reg::Cr3],
            access_values: true,
            physical_addresses: true,
        },
        variables: vec![
            Variable::from_spec(Direction::Input, "pid:u32", VirtAddr(0x40_1000)).unwrap(),
            Variable::from_spec(Direction::Output, "name:cstr[64]", VirtAddr(0x40_2000)).unwrap(),
        ],
        ram_size: 0x20_0000,
        ram_ranges: vec![
            RamRange { start: PhysAddr(0), size: 0xa_0000 },
            RamRange { start: PhysAddr(0x10_0000), size: 0x10_0000 },
        ],
        idle: vec![IdleCell { base: Reg::GsBase, offset: 0x1_fb00, value: 0xffff_ffff_8241_a000 }],
        whole_run: false,
    }
}

fn begin_regs() -> RegFile {
    let mut regs = RegFile::new();
    regs.set(Reg::Rip, 0x40_0000);
    regs.set(Reg::Rsp, 0x7fff_ffff_e000);
    regs.set(Reg::Xmm15Hi, u64::MAX);
    regs
}

/// Every kind of event with ordinary and extreme numbers.
fn sample_events(writer: &mut TraceWriter, count: usize) -> Vec<Event> {
    let mut numbers = Numbers(1);
    let ids: Vec<InsnId> = (0..200u64)
        .map(|i| {
            let bytes = [0x90; 15];
            let mode = [16, 32, 64][i as usize % 3];
            writer
                .insn_id(VirtAddr(0xffff_ffff_8100_0000 + i * 7), mode, &bytes[..1 + i as usize % 15])
                .unwrap()
        })
        .collect();
    let mut events = Vec::new();
    let mut id = 0;
    for i in 0..count {
        let n = numbers.next();
        events.push(match n % 8 {
            0 => Event::Regs(vec![]),
            1 => Event::Regs(vec![
                (Reg::Rax, numbers.next()),
                (Reg::Rsp, u64::MAX - n),
                (Reg::Cr3, n),
                (Reg::Xmm15Hi, 1 << 63),
            ]),
            2 | 3 => {
                let mut access = Access {
                    store: n & 64 != 0,
                    vaddr: VirtAddr(0xffff_8880_0000_0000 + n % 0x1_0000),
                    paddr: PhysAddr(0x1000 * (n % 16) + n % 0x1_0000 % 0x1000),
                    next_page: None,
                    size: 1 << (n >> 8 & 3),
                    value: u128::from(numbers.next() & 0xff),
                    io: n & 128 != 0,
                };
                access.next_page = access.crosses_page().then_some(PhysAddr(0x7000)).filter(|_| n & 256 != 0);
                Event::Access(access)
            }
            4 => Event::Access(Access {
                store: false,
                vaddr: VirtAddr(u64::MAX - 15),
                paddr: PhysAddr(0xffc_0000_0ff0),
                next_page: None,
                size: if n & 64 != 0 { 16 } else { 10 },
                value: u128::MAX - u128::from(n),
                io: true,
            }),
            5 => {
                id = numbers.next() as usize % ids.len();
                Event::Insn(ids[id])
            }
            _ => {
                id = (id + 1 + i % 2) % ids.len();
                Event::Insn(ids[id])
            }
        });
    }
    // A run that needs the long form.
    for _ in 0..3 {
        events.extend(ids.iter().map(|&id| Event::Insn(id)));
    }
    events
}

fn build(count: usize, pages: &[(u64, u8)]) -> (Vec<u8>, Vec<Event>) {
    let mut writer = TraceWriter::in_memory(header(), begin_regs()).unwrap();
    for &(addr, fill) in pages {
        let mut page = [fill; 4096];
        if fill != 0 {
            page[17] = 0x5a;
        }
        writer.page(PhysAddr(addr), &page).unwrap();
    }
    let events = sample_events(&mut writer, count);
    events.iter().for_each(|event| writer.event(event).unwrap());
    let mut end = RegFile::new();
    end.set(Reg::Rip, 0x40_0100);
    (writer.finish_in_memory(Some(end)).unwrap(), events)
}

#[test]
fn comes_back_in_both_directions() {
    let (bytes, events) = build(200_000, &[(0x1000, 3), (0x10_0000, 4)]);
    let trace = Trace::from_bytes(bytes).unwrap();
    assert_eq!(trace.header(), &header());
    assert_eq!(trace.begin_regs(), &begin_regs());
    assert_eq!(trace.end_regs().unwrap().get(Reg::Rip), Some(0x40_0100));
    assert_eq!(trace.insns().len(), 200);
    assert_eq!(trace.insns()[14].bytes(), [0x90; 15]);
    assert_eq!(trace.insns()[14].mode_bits, 64);

    let forward: Vec<Event> = trace.events().collect::<Result<_, _>>().unwrap();
    assert!(forward == events);
    let mut backward: Vec<Event> = trace.events_rev().collect::<Result<_, _>>().unwrap();
    backward.reverse();
    assert!(backward == events);
    let mut position = 0;
    trace
        .for_each_event(|event| {
            assert_eq!(event, &events[position]);
            position += 1;
            Ok::<(), TraceError>(())
        })
        .unwrap();
    assert_eq!(position, events.len());
    trace.verify().unwrap();
    let insns = events.iter().filter(|event| matches!(event, Event::Insn(_))).count() as u64;
    assert_eq!(trace.end().instructions, insns);
}

#[test]
fn the_snapshot_is_page_sparse() {
    let (bytes, _) = build(10, &[(0x10_2000, 7), (0x1000, 3), (0x5000, 0)]);
    let trace = Trace::from_bytes(bytes).unwrap();
    let snapshot = trace.snapshot();
    assert_eq!(snapshot.page_addrs().collect::<Vec<_>>(), [PhysAddr(0x1000), PhysAddr(0x10_2000)]);
    assert_eq!(snapshot.page(PhysAddr(0x10_2abc)).unwrap().unwrap()[16..18], [7, 0x5a]);
    assert_eq!(snapshot.page(PhysAddr(0x5000)).unwrap(), Some([0; 4096]));
    assert_eq!(snapshot.page(PhysAddr(0xa_0000)).unwrap(), None);
    assert_eq!(snapshot.page(PhysAddr(0x20_0000)).unwrap(), None);
    let mut word = [0; 2];
    assert!(snapshot.read(PhysAddr(0x1010), &mut word).unwrap());
    assert_eq!(word, [3, 0x5a]);
    assert!(!snapshot.read(PhysAddr(0x1fff), &mut word).unwrap());
    assert_eq!(snapshot.pages().count(), 2);
}

/// Opens and reads everything; whatever is wrong must come out as an error.
fn read_all(bytes: Vec<u8>) -> Result<(), TraceError> {
    let trace = Trace::from_bytes(bytes)?;
    trace.events().collect::<Result<Vec<_>, _>>()?;
    trace.events_rev().collect::<Result<Vec<_>, _>>()?;
    trace.verify()
}

#[test]
fn every_truncation_is_an_error() {
    let (bytes, _) = build(100, &[(0x1000, 3)]);
    read_all(bytes.clone()).unwrap();
    for len in 0..bytes.len() {
        let error = read_all(bytes[..len].to_vec()).expect_err("a truncated file was accepted");
        let expected = if len < 8 {
            len == 0 && matches!(error, TraceError::NotATrace)
                || matches!(error, TraceError::Truncated { .. })
        } else {
            matches!(error, TraceError::Truncated { .. })
        };
        assert!(expected, "{len}: {error}");
    }
}

#[test]
fn every_bit_flip_is_an_error() {
    let (bytes, _) = build(60, &[(0x1000, 3)]);
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(read_all(damaged).is_err(), "flipping bit {bit} went unnoticed");
    }
}

#[test]
fn foreign_files_are_named_as_such() {
    for bytes in [&b""[..], b"\x7fELF and more text to be long enough for a header", b"VIRTRACX", &[0; 100]] {
        assert!(matches!(Trace::from_bytes(bytes), Err(TraceError::NotATrace)));
    }
    assert!(matches!(Trace::open("/"), Err(TraceError::NotATrace)));
    assert!(matches!(Trace::open("/nowhere/x.trace"), Err(TraceError::Io { action: "opening", .. })));
    let mut other = build(1, &[]).0;
    other[8] = 9;
    assert!(matches!(Trace::from_bytes(other), Err(TraceError::Version { found: 9, .. })));
}

#[test]
fn a_file_appears_only_when_it_is_finished() {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let path = dir.join("finished.trace");
    let partial = dir.join("finished.trace.partial");
    drop(std::fs::remove_file(&path));
    let writer = TraceWriter::create(&path, header(), begin_regs()).unwrap();
    assert!(partial.exists() && !path.exists());
    drop(writer);
    assert!(!partial.exists() && !path.exists());
    TraceWriter::create(&path, header(), begin_regs()).unwrap().finish(None).unwrap();
    assert!(!partial.exists());
    let trace = Trace::open(&path).unwrap();
    trace.verify().unwrap();
    assert_eq!(trace.events().count(), 0);
    assert_eq!(trace.end_regs(), None);
}

#[test]
fn bytes_of_an_access_that_crosses_a_page() {
    let mut access = Access {
        store: false,
        vaddr: VirtAddr(0x4ffe),
        paddr: PhysAddr(0x8ffe),
        next_page: Some(PhysAddr(0x2000)),
        size: 4,
        value: 0,
        io: false,
    };
    assert_eq!([0, 1, 2, 3].map(|n| access.byte_addr(n).unwrap().0), [0x8ffe, 0x8fff, 0x2000, 0x2001]);
    access.next_page = None;
    assert_eq!(access.byte_addr(2), None);
}

#[test]
fn what_the_format_cannot_hold_is_refused() {
    let mut writer = TraceWriter::in_memory(header(), begin_regs()).unwrap();
    assert!(writer.insn(InsnId(0)).is_err());
    assert!(writer.insn_id(VirtAddr(0), 64, &[]).is_err());
    assert!(writer.insn_id(VirtAddr(0), 64, &[0; 16]).is_err());
    assert!(writer.insn_id(VirtAddr(0), 8, &[0x90]).is_err());
    assert!(writer.page(PhysAddr(1), &[0; 4096]).is_err());
    assert!(writer.page(PhysAddr(0), &[0; 4095]).is_err());
    assert!(writer.page(PhysAddr(0xf_0000), &[1; 4096]).is_err());
    let mut twice = TraceWriter::in_memory(header(), begin_regs()).unwrap();
    twice.page(PhysAddr(0), &[1; 4096]).unwrap();
    twice.page(PhysAddr(0), &[1; 4096]).unwrap();
    assert!(Trace::from_bytes(twice.finish_in_memory(None).unwrap()).is_err());
}

#[test]
fn a_small_file_does_not_become_a_large_recording() {
    let refused = |name: &str, fill: &dyn Fn(&mut TraceWriter)| {
        let mut writer = TraceWriter::in_memory(header(), begin_regs()).unwrap();
        fill(&mut writer);
        let bytes = writer.finish_in_memory(None).unwrap();
        assert!(bytes.len() < 64 << 10, "{name}: {} bytes", bytes.len());
        match Trace::from_bytes(bytes) {
            Err(TraceError::Damaged { what, .. }) => what,
            other => panic!("{name}: {other:?}"),
        }
    };
    let claims = "it claims more instructions or events than a file of its size can hold";
    let repeated = |writer: &mut TraceWriter| {
        let id = writer.insn_id(VirtAddr(0x1000), 64, &[0xf3, 0x90]).unwrap();
        (0..18 << 20).for_each(|_| writer.insn(id).unwrap());
    };
    assert_eq!(refused("a loop", &repeated), claims);
    let silent = |writer: &mut TraceWriter| (0..6 << 20).for_each(|_| writer.regs(&[]).unwrap());
    assert_eq!(refused("events that say nothing", &silent), claims);
    let sled = |writer: &mut TraceWriter| {
        (0..1 << 20).for_each(|at| {
            writer.insn_id(VirtAddr(0x1000 + at), 64, &[0x90]).unwrap();
        });
    };
    assert_eq!(refused("instructions in a row", &sled), claims);

    let headed = |header: Header| {
        let writer = TraceWriter::in_memory(header, begin_regs()).unwrap();
        match Trace::from_bytes(writer.finish_in_memory(None).unwrap()) {
            Err(TraceError::Damaged { what, .. }) => what,
            other => panic!("{other:?}"),
        }
    };
    let named = headed(Header { program: "x".repeat(1 << 20), ..header() });
    assert_eq!(named, "a part is larger than the format allows");
    let ranges = (0..2000).map(|at| RamRange { start: PhysAddr(at << 12), size: 0x1000 }).collect();
    let scattered = headed(Header { ram_ranges: ranges, ..header() });
    assert_eq!(scattered, "it has more ranges of RAM than any machine");
}

/// The seeds of the fuzz target `trace`, which wants frames that are not compressed:
/// `RUSTFLAGS="--cfg fuzzing" cargo test -p virtuoso-trace --test format -- --ignored seeds`.
#[cfg(fuzzing)]
#[test]
#[ignore = "writes fuzz/seeds/trace"]
fn seeds_for_fuzzing() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/trace");
    std::fs::create_dir_all(&folder).unwrap();
    let whole_run =
        Header { ram_size: 0, ram_ranges: Vec::new(), idle: Vec::new(), whole_run: true, ..header() };
    let mut bare = TraceWriter::in_memory(whole_run, begin_regs()).unwrap();
    let id = bare.insn_id(VirtAddr(0x40_0000), 64, &[0x0f, 0x05]).unwrap();
    bare.insn(id).unwrap();
    let seeds = [
        (
            "empty",
            TraceWriter::in_memory(Header::default(), RegFile::new())
                .unwrap()
                .finish_in_memory(None)
                .unwrap(),
        ),
        ("whole-run", bare.finish_in_memory(None).unwrap()),
        ("events", build(40, &[]).0),
        ("pages", build(8, &[(0x1000, 3), (0x10_0000, 4)]).0),
        ("long", build(800, &[(0x5000, 0)]).0),
    ];
    for (name, bytes) in seeds {
        Trace::from_bytes(bytes.clone()).unwrap().verify().unwrap();
        std::fs::write(folder.join(name), bytes).unwrap();
    }
}

/// Not a check but a number: `cargo test -p virtuoso-trace --release -- --ignored --nocapture`.
#[test]
#[ignore = "prints the decoding speed"]
fn decoding_speed() {
    let mut writer = TraceWriter::in_memory(header(), begin_regs()).unwrap();
    let ids: Vec<InsnId> = (0..50_000u64)
        .map(|i| writer.insn_id(VirtAddr(0x1000 + i * 3), 64, &[0x48, 0x89, 0xd8]).unwrap())
        .collect();
    let mut numbers = Numbers(3);
    let (mut at, mut events) = (0, 0u64);
    while events < 10_000_000 {
        if events % 7 == 0 {
            at = numbers.next() as usize % 500 * 97;
            writer
                .regs(&[(Reg::Rax, numbers.next() & 0xffff), (Reg::Rsp, 0x7fff_0000 + (events & 0xff) * 8)])
                .unwrap();
        } else if events % 7 == 3 {
            let n = numbers.next() & 0xfff8;
            let access = Access {
                store: n & 8 != 0,
                vaddr: VirtAddr(0xffff_8000 + n),
                paddr: PhysAddr(0x8000 + n),
                next_page: None,
                size: 8,
                value: u128::from(n),
                io: false,
            };
            writer.access(&access).unwrap();
        } else {
            writer.insn(ids[at % ids.len()]).unwrap();
            at += 1;
        }
        events += 1;
    }
    let trace = Trace::from_bytes(writer.finish_in_memory(None).unwrap()).unwrap();
    println!("{:?}", trace.sizes());
    let start = std::time::Instant::now();
    let mut seen = 0u64;
    trace
        .for_each_event(|_| {
            seen += 1;
            Ok::<(), TraceError>(())
        })
        .unwrap();
    println!("visitor:  {:.1} M events/s", seen as f64 / start.elapsed().as_secs_f64() / 1e6);
    let start = std::time::Instant::now();
    let seen = trace.events().count();
    println!("forward:  {:.1} M events/s", seen as f64 / start.elapsed().as_secs_f64() / 1e6);
    let start = std::time::Instant::now();
    let seen = trace.events_rev().count();
    println!("backward: {:.1} M events/s", seen as f64 / start.elapsed().as_secs_f64() / 1e6);
}
