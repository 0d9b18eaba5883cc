//! Processors that are found in memory: in a hand-made guest with one processor or two, four levels
//! of page tables or five.

use ir::Program;
use ir::program::{CodeRange, SignatureWord};
use ir::text::parse_program;
use machine::memory::Mock;
use machine::{PhysAddr, Reg};
use virtuoso_engine::locate::{Hints, LocateError, Located, locate};

/// Where training had the kernel's code, and how far from there the guest has it.
const TRAINED: u64 = 0xffff_8000_0000_0000;
const SLIDE: u64 = 0x3000;
/// Per-CPU memory of the processors.
const BASES: [u64; 2] = [TRAINED + 0x8000, TRAINED + 0x9000];
const CODE: [u8; 64] = [0x5a; 64];

fn program() -> Program {
    let text = "program \"test\"\noutput \"x\" u64 @0x5000\npage 0x5000 zero\nfunction f0 0x100 \
        \"main\" {\nb0 @0x100 - 0x1ff:\n  return\n}\n";
    let mut program = parse_program(text, Reg::NAMES).unwrap_or_else(|error| panic!("{error}"));
    program.relocations.images.push(ir::relocation::Image {
        start: TRAINED,
        end: TRAINED + 0x1000,
        movable: true,
    });
    program.relocations.gates = (0..8).map(|vector| (vector, TRAINED + 0x10 * u64::from(vector))).collect();
    program.code.push(CodeRange { addr: TRAINED + 0x100, bytes: CODE.to_vec() });
    program.signature = words(&[(0x10, 0x10), (0x18, 0x800), (0x400, 0), (0x408, 0x810)]);
    program
}

fn words(pairs: &[(u32, u32)]) -> Vec<SignatureWord> {
    pairs.iter().map(|&(offset, points)| SignatureWord { offset, points }).collect()
}

/// Tables at 0x1000 (the root), 0x2000, 0x3000, 0x4000; with five levels the root is at 0x7000. A
/// second root is the same, a third one is old.
fn guest(five: bool, processors: usize) -> Mock {
    const TABLE: u64 = 7;
    let mut memory = Mock::new();
    let top =
        |memory: &mut Mock, root: u64, next: u64| memory.write_u64(PhysAddr(root + 8 * 256), next | TABLE);
    if five {
        // Bit 56 is copied upwards: the canonical addresses of four levels lie in the last entry.
        for root in [0x7000, 0x8000] {
            memory.write_u64(PhysAddr(root + 8 * 511), 0x1000 | TABLE);
        }
        top(&mut memory, 0x1000, 0x2000);
    } else {
        for root in [0x1000, 0x5000, 0x6000] {
            top(&mut memory, root, 0x2000);
        }
        memory.write_u64(PhysAddr(0x6000 + 8 * 300), 0x2000 | TABLE);
    }
    memory.write_u64(PhysAddr(0x2000), 0x3000 | TABLE);
    memory.write_u64(PhysAddr(0x3000), 0x4000 | TABLE);
    for (page, frame) in [(3u64, 0x2_0000u64), (4, 0x2_1000), (8, 0x2_2000), (9, 0x2_3000)] {
        memory.write_u64(PhysAddr(0x4000 + 8 * page), frame | 3);
    }
    memory.write(PhysAddr(0x2_0100), &CODE);
    for vector in 0..8u64 {
        let handler = TRAINED + SLIDE + 0x10 * vector;
        let low = handler & 0xffff | 0x10 << 16 | 0x8e00 << 32 | (handler >> 16 & 0xffff) << 48;
        memory.write_u64(PhysAddr(0x2_1000 + 16 * vector), low);
        memory.write_u64(PhysAddr(0x2_1008 + 16 * vector), handler >> 32);
    }
    for (base, frame) in BASES.into_iter().zip([0x2_2000, 0x2_3000]).take(processors) {
        for word in program().signature {
            memory.write_u64(PhysAddr(frame + u64::from(word.offset)), base + u64::from(word.points));
        }
    }
    memory
}

fn found(memory: &Mock) -> Result<Located, LocateError> {
    locate(&program(), memory, Hints::default())
}

#[test]
fn every_processor_is_found_and_a_root_that_most_agree_with() {
    for processors in [1, 2] {
        let found = found(&guest(false, processors)).unwrap();
        let bases: Vec<_> = found.cpus.iter().filter_map(|regs| regs.get(Reg::GsBase)).collect();
        assert_eq!(bases, BASES[..processors]);
        assert_eq!((found.gates, found.roots, found.signature), ((8, 8), (2, 3), Some((4, 4))));
        let regs = &found.cpus[0];
        assert_eq!(regs.get(Reg::Cr3), Some(0x1000));
        assert_eq!(regs.get(Reg::IdtrBase), Some(TRAINED + 0x4000));
        assert_eq!(machine::PagingMode::from_regs(regs), Ok(machine::PagingMode::Level4));
    }
}

#[test]
fn what_only_one_processor_has_does_not_hide_the_other() {
    // Nine words of the first point far, to something that the second does not have.
    let mut program = program();
    let far: Vec<(u32, u32)> = (0..9).map(|at| (0x500 + 8 * at, 0xf00)).collect();
    program.signature.extend(words(&far));
    program.signature.extend(words(&(0..12).map(|at| (0x600 + 8 * at, 0x600 + 8 * at)).collect::<Vec<_>>()));
    let mut memory = guest(false, 2);
    for (at, word) in program.signature.iter().enumerate().skip(4) {
        let second = if at < 13 { 0 } else { BASES[1] + u64::from(word.points) };
        memory.write_u64(PhysAddr(0x2_2000 + u64::from(word.offset)), BASES[0] + u64::from(word.points));
        memory.write_u64(PhysAddr(0x2_3000 + u64::from(word.offset)), second);
    }
    let found = locate(&program, &memory, Hints::default()).unwrap();
    assert_eq!((found.cpus.len(), found.signature), (2, Some((16, 17))));
}

#[test]
fn five_levels_are_not_taken_for_four() {
    // The table below the root would do as the root of four levels.
    let mut program = program();
    program.relocations.images[0].start = TRAINED;
    let found = locate(&program, &guest(true, 1), Hints::default()).unwrap();
    assert_eq!(found.cpus[0].get(Reg::Cr3), Some(0x7000));
    assert_eq!(machine::PagingMode::from_regs(&found.cpus[0]), Ok(machine::PagingMode::Level5));
}

#[test]
fn what_is_given_is_not_looked_for_and_must_fit() {
    let memory = guest(false, 0);
    let hints = |cr3, gs_base| Hints { cr3: Some(cr3), gs_base: Some(gs_base) };
    let found = locate(&program(), &memory, hints(0x5000, BASES[0])).unwrap();
    assert_eq!(found.cpus[0].get(Reg::Cr3), Some(0x5000));
    assert_eq!(found.signature, None);
    assert_eq!(locate(&program(), &memory, hints(0x3000, BASES[0])).unwrap_err(), LocateError::Tables);
}

#[test]
fn nothing_is_guessed() {
    assert_eq!(found(&guest(false, 0)).unwrap_err(), LocateError::Processors);
    let mut memory = guest(false, 1);
    memory.write_u64(PhysAddr(0x4000 + 8 * 3), 0);
    assert_eq!(found(&memory).unwrap_err(), LocateError::Tables);
    let mut memory = guest(false, 1);
    (0..8).step_by(2).for_each(|vector| memory.write_u64(PhysAddr(0x2_1000 + 16 * vector), 0));
    assert_eq!(found(&memory).unwrap_err(), LocateError::Gates);
    // Half of the words are not enough.
    let mut memory = guest(false, 1);
    memory.write_u64(PhysAddr(0x2_2010), 0);
    memory.write_u64(PhysAddr(0x2_2018), 0);
    assert_eq!(found(&memory).unwrap_err(), LocateError::Processors);
    let mut other = program();
    other.bits = 32;
    assert_eq!(locate(&other, &memory, Hints::default()).unwrap_err(), LocateError::Bits);
    other.bits = 64;
    other.code.clear();
    assert_eq!(locate(&other, &memory, Hints::default()).unwrap_err(), LocateError::Nothing);
}

#[test]
fn what_an_earlier_boot_left_is_not_taken_for_the_guest() {
    // Tables of another kernel half, as many as the guest has.
    let mut memory = guest(false, 1);
    memory.write_u64(PhysAddr(0x7000 + 8 * 256), 0x2000 | 7);
    memory.write_u64(PhysAddr(0x7000 + 8 * 300), 0x2000 | 7);
    assert_eq!(found(&memory).unwrap_err(), LocateError::Ambiguous(0x1000, 0x6000));
    let named = Hints { cr3: Some(0x1000), gs_base: None };
    assert_eq!(locate(&program(), &memory, named).unwrap().cpus[0].get(Reg::Cr3), Some(0x1000));
    // A second interrupt table, whose kernel lies elsewhere and is mapped there.
    let mut memory = guest(false, 1);
    memory.write_u64(PhysAddr(0x4000 + 8 * 5), 0x2_0000 | 3);
    for vector in 0..8u64 {
        let handler = TRAINED + 0x5000 + 0x10 * vector;
        let low = handler & 0xffff | 0x10 << 16 | 0x8e00 << 32 | (handler >> 16 & 0xffff) << 48;
        memory.write_u64(PhysAddr(0x2_1800 + 16 * vector), low);
        memory.write_u64(PhysAddr(0x2_1808 + 16 * vector), handler >> 32);
    }
    assert_eq!(found(&memory).unwrap_err(), LocateError::Ambiguous(0x1000, 0x1000));
    // The same handlers in a second table are the same kernel.
    let mut memory = guest(false, 1);
    for word in 0..16 {
        let value = machine::GuestMemory::read_u64(&memory, PhysAddr(0x2_1000 + 8 * word)).unwrap();
        memory.write_u64(PhysAddr(0x2_1800 + 8 * word), value);
    }
    assert_eq!(found(&memory).unwrap().cpus.len(), 1);
}

#[test]
fn memory_full_of_lures_ends() {
    let mut memory = guest(false, 1);
    // Every word of these pages points to itself, as empty lists do, so that most words are there
    // at each place.
    let mut program = program();
    program.signature.extend(words(&(0..12).map(|at| (0x600 + 8 * at, 0x600 + 8 * at)).collect::<Vec<_>>()));
    for word in &program.signature[4..] {
        memory.write_u64(PhysAddr(0x2_2000 + u64::from(word.offset)), BASES[0] + u64::from(word.points));
    }
    for page in 0..64u64 {
        let frame = 0x10_0000 + page * 0x1000;
        memory.write_u64(PhysAddr(0x4000 + 8 * (16 + page)), frame | 3);
        for at in (0..4096).step_by(8) {
            memory.write_u64(PhysAddr(frame + at), TRAINED + 0x1_0000 + page * 0x1000 + at);
        }
    }
    assert_eq!(locate(&program, &memory, Hints::default()).unwrap().cpus.len(), 1);
}
