//! Processors that are found in memory: in a hand-made guest with one processor or two, four levels
//! of page tables or five.

use ir::Program;
use ir::program::{CodeRange, SignatureWord};
use ir::text::parse_program;
use machine::memory::Mock;
use machine::{PhysAddr, Reg};
use virtuoso_engine::locate::{Hints, LocateError, Located, locate};
use virtuoso_engine::{Environment, Limits, Outcome, Relocation, Run, RunError, SliceProgram, Value};

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
    lead_gates(&mut memory, 0x2_1000, SLIDE);
    for (base, frame) in BASES.into_iter().zip([0x2_2000, 0x2_3000]).take(processors) {
        for word in program().signature {
            memory.write_u64(PhysAddr(frame + u64::from(word.offset)), base + u64::from(word.points));
        }
    }
    memory
}

/// Where the copies lie that [`plant`] makes.
const COPIES: u64 = 0x80_0000;

/// Plants so many roots that map the kernel's code and interrupt table as the guest's own do, and
/// per-CPU memory at a page of their own: a copy of the first processor's if `whole`.
fn plant(memory: &mut Mock, roots: u64, whole: bool) {
    let (upper, lower, last, data) = (COPIES, COPIES + 0x1000, COPIES + 0x2000, COPIES + 0x3000);
    for word in 0..512 {
        let at = |page: u64| PhysAddr(page + 8 * word);
        let entry = machine::GuestMemory::read_u64(memory, at(0x4000)).unwrap();
        memory.write_u64(at(last), if word == 8 { data | 3 } else { entry });
        let cell = machine::GuestMemory::read_u64(memory, at(0x2_2000)).unwrap();
        memory.write_u64(at(data), if whole { cell } else { 0 });
    }
    memory.write_u64(PhysAddr(upper), lower | 7);
    memory.write_u64(PhysAddr(lower), last | 7);
    for root in 0..roots {
        memory.write_u64(PhysAddr(COPIES + 0x1_0000 + root * 0x1000 + 8 * 256), upper | 7);
    }
}

/// Leads the guest's interrupt table to handlers that lie this far from training's.
fn lead_gates(memory: &mut Mock, table: u64, slide: u64) {
    for vector in 0..8u64 {
        let handler = TRAINED + slide + 0x10 * vector;
        let low = handler & 0xffff | 0x10 << 16 | 0x8e00 << 32 | (handler >> 16 & 0xffff) << 48;
        memory.write_u64(PhysAddr(table + 16 * vector), low);
        memory.write_u64(PhysAddr(table + 8 + 16 * vector), handler >> 32);
    }
}

/// The target as a run sees it.
fn run<'t>(memory: &'t Mock, regs: &'t machine::RegFile) -> Run<'t> {
    Run { memory, regs, env: Environment::default(), limits: Limits::default() }
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
    // A second interrupt table, whose kernel lies elsewhere and is mapped there.
    let mut memory = guest(false, 1);
    memory.write_u64(PhysAddr(0x4000 + 8 * 5), 0x2_0000 | 3);
    lead_gates(&mut memory, 0x2_1800, 0x5000);
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
fn planted_page_tables_do_not_win_by_their_number() {
    for roots in [1, 40] {
        // A whole view of the kernel is as good as the guest's own, however many have it.
        let mut memory = guest(false, 1);
        plant(&mut memory, roots, true);
        let planted = COPIES + 0x1_0000;
        let (first, second) = if roots == 1 { (0x1000, planted) } else { (planted, 0x1000) };
        assert_eq!(found(&memory).unwrap_err(), LocateError::Ambiguous(first, second));
        let named = Hints { cr3: Some(0x1000), gs_base: None };
        assert_eq!(locate(&program(), &memory, named).unwrap().cpus[0].get(Reg::Cr3), Some(0x1000));
        // What leads to no processor is no view of a kernel that runs.
        let mut memory = guest(false, 1);
        plant(&mut memory, roots, false);
        let found = found(&memory).unwrap();
        assert_eq!((found.cpus[0].get(Reg::Cr3), found.roots), (Some(0x1000), (2, 3 + roots as usize)));
    }
    // More sorts of them than are looked at closely are not put aside.
    let mut memory = guest(false, 1);
    plant(&mut memory, 1, true);
    for other in 0..20 {
        let root = 0x40_0000 + other * 0x1000;
        memory.write_u64(PhysAddr(root + 8 * 256), 0x2000 | 7);
        memory.write_u64(PhysAddr(root + 8 * (300 + other)), 0x2000 | 7);
    }
    assert!(matches!(found(&memory).unwrap_err(), LocateError::Ambiguous(0x1000, _)));
}

#[test]
fn interrupt_tables_that_lead_everywhere_are_refused() {
    let mut memory = guest(false, 1);
    for place in 0..70 {
        lead_gates(&mut memory, 0x40_0000 + place * 0x1000, 0x100_0000 + place * 0x1000);
    }
    assert_eq!(found(&memory).unwrap_err(), LocateError::ManyTables(71));
}

#[test]
fn a_table_above_the_guests_does_not_make_five_levels() {
    // Any entry in memory may point to the root of four levels, and leads to the same kernel.
    let mut memory = guest(false, 1);
    memory.write_u64(PhysAddr(0x9000 + 8 * 511), 0x1000 | 7);
    let taken = found(&memory).unwrap();
    assert_eq!(machine::PagingMode::from_regs(&taken.cpus[0]), Ok(machine::PagingMode::Level4));
    // One that leads to another is no better than the guest's own.
    plant(&mut memory, 1, true);
    memory.write_u64(PhysAddr(0x9000 + 8 * 511), (COPIES + 0x1_0000) | 7);
    assert!(matches!(found(&memory).unwrap_err(), LocateError::Ambiguous(..)));
}

#[test]
fn a_copy_of_per_cpu_memory_is_no_processor() {
    // A second page looks like per-CPU memory, as a copy with other pointers does.
    let mut memory = guest(false, 2);
    assert_eq!(found(&memory).unwrap().cpus.len(), 2, "nothing tells them apart");
    // The kernel's image names the memory of the processors that it has.
    memory.write_u64(PhysAddr(0x2_0800), BASES[1]);
    let taken = found(&memory).unwrap();
    assert_eq!((taken.cpus.len(), taken.cpus[0].get(Reg::GsBase)), (1, Some(BASES[1])));
}

#[test]
fn a_copy_of_the_kernel_is_not_taken_for_it() {
    // The kernel's page of code is mapped once more, which alone is allowed.
    const COPY: u64 = 0x7000;
    let mut memory = guest(false, 1);
    memory.write_u64(PhysAddr(0x4000 + 8 * 7), 0x2_4003);
    memory.write(PhysAddr(0x2_4100), &CODE);
    // Data is not executable, and pointers to code lead into the kernel.
    for page in [4u64, 8, 9] {
        let entry = machine::GuestMemory::read_u64(&memory, PhysAddr(0x4000 + 8 * page)).unwrap();
        memory.write_u64(PhysAddr(0x4000 + 8 * page), entry | 1 << 63);
    }
    for at in 0..12 {
        memory.write_u64(PhysAddr(0x2_2a00 + 8 * at), TRAINED + SLIDE + 0x100 + at);
    }
    let mut program = program();
    program.registers.push((Reg::Efer as u16, 0xd01));
    let regs = found(&memory).unwrap().cpus.remove(0);
    assert_eq!(Relocation::find(&program, &run(&memory, &regs)).unwrap().slide(), SLIDE);

    lead_gates(&mut memory, 0x2_1000, COPY);
    let refused = Relocation::find(&program, &run(&memory, &regs)).unwrap_err();
    assert_eq!(refused, RunError::Copy { slide: COPY });
    // Where per-CPU memory points to little code it does not tell.
    for at in 0..6 {
        memory.write_u64(PhysAddr(0x2_2a00 + 8 * at), 0);
    }
    assert_eq!(Relocation::find(&program, &run(&memory, &regs)).unwrap().slide(), COPY);
}

#[test]
fn a_gs_base_that_a_process_set_is_not_taken_for_the_kernels() {
    let memory = guest(false, 1);
    let mut program = program();
    let text = "program \"test\"\noutput \"x\" u64 @0x5000\npage 0x5000 zero\nfunction f0 0x100 \"main\" \
                {\nb0 @0x100 - 0x1ff:\n  store.64 0x5000, kernel_gs_base\n  end\n}\n";
    program.functions = parse_program(text, Reg::NAMES).unwrap_or_else(|error| panic!("{error}")).functions;
    let located = found(&memory).unwrap().cpus.remove(0);
    let taken = |cs: u64, active: Option<u64>, swapped: Option<u64>| {
        let mut regs = machine::RegFile::new();
        for reg in [Reg::Cr0, Reg::Cr3, Reg::Cr4, Reg::Efer, Reg::IdtrBase] {
            regs.set(reg, located.get(reg).expect("it was found"));
        }
        regs.set(Reg::Cs, cs);
        active.into_iter().for_each(|value| regs.set(Reg::GsBase, value));
        swapped.into_iter().for_each(|value| regs.set(Reg::KernelGsBase, value));
        match SliceProgram::new(&program).unwrap().run(&run(&memory, &regs), &Vec::new())?.0 {
            Outcome::Answer(values) => Ok(values.get("x").cloned()),
            Outcome::Stopped(stopped) => panic!("{stopped}"),
        }
    };
    let (kernel, lower, planted) = (Some(BASES[0]), Some(0x7000), Some(TRAINED + 0x1_0000));
    let right = Ok(Some(Value::Unsigned(BASES[0])));
    let missing = Err(RunError::NoRegister("kernel GS base"));
    // The kernel runs, a process, or the kernel between the entry and its SWAPGS.
    assert_eq!(taken(0x10, kernel, lower), right);
    assert_eq!(taken(0x33, lower, kernel), right);
    assert_eq!(taken(0x10, lower, kernel), right);
    // A process may set its own to an address of the kernel's half.
    assert_eq!(taken(0x33, planted, kernel), right);
    assert_eq!(taken(0x10, planted, kernel), right);
    assert_eq!(taken(0x10, kernel, planted), right);
    let other = TRAINED + 0x1_1000;
    let neither = RunError::GsBase { active: TRAINED + 0x1_0000, swapped: other };
    assert_eq!(taken(0x10, planted, Some(other)), Err(neither));
    // One alone has to be per-CPU memory.
    assert_eq!(taken(0x33, planted, None), missing);
    assert_eq!(taken(0x10, planted, None), missing);
    assert_eq!(taken(0x10, kernel, None), right);
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
