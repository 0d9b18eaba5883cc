//! Compiled operations against `ir::eval` and the memory's own accesses.

use ir::{Class, Kind, Width};
use machine::VirtAddr;
use proptest::prelude::*;
use virtuoso_jit::memory::{Held, Memory, Spare};
use virtuoso_jit::native::Native;
use virtuoso_jit::operation::{FIRST_CONST, FIRST_TEMP, Predecoded, SLOTS, Slots};
use virtuoso_jit::progress::{Exit, Progress, Source};

const WIDTHS: [Width; 5] = [Width::B1, Width::B8, Width::B16, Width::B32, Width::B64];

fn slots() -> Box<Slots> {
    vec![0; SLOTS].try_into().expect("as many as there are")
}

/// Nothing has to be looked at for long.
fn progress() -> Progress {
    Progress { due: 1 << 40, next: 1 << 40, place: u64::MAX, ..Progress::default() }
}

fn source<'b>(start: u64, next: u64, ops: &'b [Predecoded], constants: &'b [u64]) -> Source<'b> {
    Source { start, next, branch: None, ops, constants, instructions: 1, group: 0, marked: false }
}

/// Values at which operations change what they do, and any other.
fn value() -> impl Strategy<Value = u64> {
    let edges = [0, 1, 2, 7, 8, 15, 16, 31, 32, 63, 64, 65, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff];
    let wide =
        [0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 1 << 32, i64::MAX as u64, 1 << 63, u64::MAX, u64::MAX - 1];
    prop_oneof![
        prop::sample::select(edges.into_iter().chain(wide).collect::<Vec<_>>()),
        any::<u64>(),
        any::<u8>().prop_map(u64::from)
    ]
}

fn pure() -> Vec<Kind> {
    Kind::ALL.iter().copied().filter(|kind| kind.class() == Class::Pure).collect()
}

/// The result of an operation on values, some of which are constants of the code.
fn compiled(op: &Predecoded, values: [u64; 3], constant: [bool; 3]) -> Result<u64, Exit> {
    let (mut op, mut slots) = (*op, slots());
    let registers = [3, 4, FIRST_TEMP + 5];
    for (at, slot) in [&mut op.a, &mut op.b, &mut op.c].into_iter().enumerate() {
        *slot = if constant[at] { FIRST_CONST + at as u16 } else { registers[at] };
        if !constant[at] {
            slots[usize::from(registers[at])] = values[at];
        }
    }
    // The operation twice: the second one finds its operands as the first left them.
    let (first, second) = (Predecoded { dst: 9, ..op }, Predecoded { dst: 10, ..op });
    let native = Native::compile(&[source(0x1000, 0x1004, &[first, second], &values)]).expect("it compiles");
    let (mut memory, mut progress) = (Memory::new(Spare::default()), progress());
    match native.run(0, &mut slots, &mut progress, &mut memory, None).0 {
        Exit::Next { block: 0, to: 0x1004 } => {
            assert_eq!((progress.used, progress.instructions, progress.seen), (3, 1, 1));
            assert_eq!(slots[9], slots[10]);
            Ok(slots[9])
        }
        exit => Err(exit),
    }
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn operations_do_what_eval_defines(
        kind in prop::sample::select(pure()),
        width in prop::sample::select(WIDTHS.to_vec()),
        values in [value(), value(), value()],
        constant in any::<[bool; 3]>(),
    ) {
        let op = Predecoded { kind, width, dst: 0, a: 0, b: 0, c: 0 };
        let result = compiled(&op, values, constant);
        match ir::eval(kind, width, values[0], values[1], values[2]) {
            Ok(expected) => prop_assert_eq!(result, Ok(expected), "{}.{}", kind.name(), width as u8),
            Err(_) => prop_assert_eq!(result, Err(Exit::Operation { block: 0, at: 0, resume: None })),
        }
    }

    #[test]
    fn accesses_are_the_memorys(
        accesses in prop::collection::vec((any::<bool>(), 1..5usize, 0..0x2008u64, any::<u64>()), 1..40),
    ) {
        const AT: VirtAddr = VirtAddr(0xffff_8000_0000_3000);
        let target = std::array::from_fn(|at| at as u8);
        let (mut ours, mut theirs) = (Memory::new(Spare::default()), Memory::new(Spare::default()));
        for memory in [&mut ours, &mut theirs] {
            memory.map(AT, Held::Target(&target), false);
            let copy = memory.copy(&target);
            memory.map(AT.add(0x1000), Held::Copy(copy), true);
        }
        for (store, width, offset, value) in accesses {
            let (width, address) = (WIDTHS[width], AT.add(offset));
            let kind = if store { Kind::Store } else { Kind::Load };
            let op = Predecoded { kind, width, dst: 7, a: 1, b: 2, c: 3 };
            let native = Native::compile(&[source(0x1000, 0x1004, &[op], &[])]).expect("it compiles");
            let mut slots = slots();
            (slots[1], slots[2], slots[7]) = (address.0, value, 99);
            let exit = native.run(0, &mut slots, &mut progress(), &mut ours, None).0;
            let expected = match store {
                true => theirs.store(address, width.bytes(), value).then_some(99),
                false => theirs.load(address, width.bytes()),
            };
            let done = Exit::Next { block: 0, to: 0x1004 };
            match (expected, exit) {
                (None, Exit::Operation { block: 0, at: 0, resume: Some(resume) }) => {
                    let (mut before, mut counted) = (slots.clone(), progress());
                    let again = native.resume(resume, &mut before, &mut counted, &mut ours, None).0;
                    prop_assert_eq!((again, counted.used), (done, 0), "it goes on, and counts nothing twice");
                    prop_assert_eq!(before, slots.clone());
                }
                (Some(_), exit) => prop_assert_eq!(exit, done),
                (None, exit) => prop_assert!(false, "{exit:?}"),
            }
            prop_assert_eq!(slots[7], expected.unwrap_or(99));
            prop_assert_eq!((ours.state(), ours.page(0)), (theirs.state(), theirs.page(0)));
        }
    }
}

/// `r0 -= 1; if r0 != 0 goto 0x10`, then a block that is not here; both of one group.
#[test]
fn blocks_lead_to_each_other_until_somebody_has_to_look() {
    let op = |kind, dst, a, b| Predecoded { kind, width: Width::B64, dst, a, b, c: FIRST_CONST };
    let constants = [0, 1, 0x10, 0x30];
    let slot = |at: u16| FIRST_CONST + at;
    let count = [op(Kind::Sub, 0, 0, slot(1)), op(Kind::BranchIf, 0, 0, slot(2))];
    let away = [op(Kind::Jump, 0, slot(3), 0)];
    let blocks = [
        source(0x10, 0x20, &count, &constants),
        Source { marked: true, ..source(0x20, 0, &away, &constants) },
    ];
    let native = Native::compile(&blocks).expect("it compiles");
    assert!(native.size() > 0);
    let (mut memory, mut counted) = (Memory::new(Spare::default()), progress());
    let mut run = |r0: u64, block: u32, counted: &mut Progress| {
        let mut slots = slots();
        slots[0] = r0;
        (native.run(block, &mut slots, counted, &mut memory, None).0, slots[0])
    };
    assert_eq!(run(5, 0, &mut counted), (Exit::Next { block: 1, to: 0x30 }, 0));
    assert_eq!((counted.used, counted.instructions, counted.seen, counted.marked), (5 * 3 + 2, 6, 6, 1));
    counted = Progress { due: 7, ..progress() };
    assert_eq!(run(5, 0, &mut counted), (Exit::Begin { block: 0 }, 3), "fuel for two rounds");
    assert_eq!((counted.used, counted.instructions), (6, 2));
    counted = Progress { next: 3, ..progress() };
    assert_eq!(run(5, 0, &mut counted), (Exit::Begin { block: 0 }, 3), "the third is looked at");
    counted = Progress { place: 0x20, ..progress() };
    assert_eq!(run(5, 0, &mut counted), (Exit::Begin { block: 1 }, 0));
    assert_eq!(run(5, 1, &mut counted).0, Exit::Next { block: 1, to: 0x30 }, "another value in a register");
    counted.registers[0] = 5;
    assert_eq!(run(5, 1, &mut counted).0, Exit::Begin { block: 1 });
    let other = Source { group: 1, ..blocks[1] };
    let native = Native::compile(&[blocks[0], other]).expect("it compiles");
    let mut short = Progress { due: 2, ..progress() };
    let exit = native.run(0, &mut slots(), &mut short, &mut memory, None).0;
    assert_eq!(exit, Exit::Begin { block: 0 });
    let mut slots = slots();
    slots[0] = 1;
    let exit = native.run(0, &mut slots, &mut progress(), &mut memory, None).0;
    assert_eq!(exit, Exit::Next { block: 0, to: 0x20 }, "another group");
    let last = [u64::MAX];
    let native = Native::compile(&[source(0x10, 0x20, &[op(Kind::Jump, 0, slot(0), 0)], &last)]);
    let exit = native.expect("it compiles").run(0, &mut slots, &mut progress(), &mut memory, None).0;
    assert_eq!(exit, Exit::Next { block: 0, to: u64::MAX }, "the last address is one like others");
}
