//! Small programs in text form over a hand-made guest: memory, calls, branches, limits, inputs and
//! outputs.

use ir::Program;
use ir::text::parse_program;
use machine::memory::Mock;
use machine::{GuestMemory, PhysAddr, Reg, RegFile};
use virtuoso_engine as engine;

use engine::{
    Environment, InputError, Limits, Outcome, Run, RunError, SliceProgram, Stopped, Text, Value, Values,
    parse_inputs,
};

/// Kernel addresses of the guest: two mappings of frame 0x10000, a read-only one of 0x11000, one of
/// the user's, one whose frame is no RAM, and two neighbours.
const FIRST: u64 = 0xffff_8000_0000_0000;
const SECOND: u64 = FIRST + 0x1000;
const READ_ONLY: u64 = FIRST + 0x2000;
const USER: u64 = FIRST + 0x3000;
const NO_FRAME: u64 = FIRST + 0x4000;
const UNMAPPED: u64 = FIRST + 0x6000;
/// Mapped without caching, where there is no RAM.
const DEVICE: u64 = FIRST + 0x7000;

/// A guest with four levels of page tables: PML4 at 0x1000, then 0x2000, 0x3000, 0x4000.
fn guest() -> (Mock, RegFile) {
    const TABLE: u64 = 7;
    let mut memory = Mock::new();
    memory.write_u64(PhysAddr(0x1000 + 8 * 256), 0x2000 | TABLE);
    memory.write_u64(PhysAddr(0x2000), 0x3000 | TABLE);
    memory.write_u64(PhysAddr(0x3000), 0x4000 | TABLE);
    for (at, entry) in [0x1_0003u64, 0x1_0003, 0x1_1001, 0x1_2007, 0x9_0003, 0x1_3003].into_iter().enumerate()
    {
        memory.write_u64(PhysAddr(0x4000 + 8 * at as u64), entry);
    }
    memory.write_u64(PhysAddr(0x4000 + 8 * 7), 0xa_0013);
    memory.write_u64(PhysAddr(0x1_0000), 0x1122_3344_5566_7788);
    memory.write_u64(PhysAddr(0x1_1000), 0x77);
    memory.write_u64(PhysAddr(0x1_2000), 0x99);
    memory.write_u64(PhysAddr(0x1_3000), 41);
    let mut regs = RegFile::new();
    let values = [
        (Reg::Cr0, 0x8000_0011),
        (Reg::Cr3, 0x1000),
        (Reg::Cr4, 0x20),
        (Reg::Efer, 0x500),
        (Reg::Cs, 0x10),
        (Reg::GsBase, FIRST),
        (Reg::KernelGsBase, 0),
    ];
    values.into_iter().for_each(|(reg, value)| regs.set(reg, value));
    (memory, regs)
}

/// The program whose header and functions are these: a page for outputs, the output `x`, and the
/// stack at 0x7000.
fn program(text: &str) -> Program {
    let text =
        format!("program \"test\"\noutput \"x\" u64 @0x5000\npage 0x5000 zero\nregister rsp 0x7000\n{text}");
    let program = parse_program(&text, Reg::NAMES).unwrap_or_else(|error| panic!("{error}\n{text}"));
    ir::verify::verify(&program).unwrap_or_else(|error| panic!("{error}\n{text}"));
    program
}

/// The one function with the one block.
fn block(ops: &str) -> String {
    format!("function f0 0x100 \"main\" {{\nb0 @0x100 - 0x1ff:\n{ops}\n}}\n")
}

fn run_in(text: &str, inputs: &[(&str, &str)], limits: Limits, tsc: Option<u64>) -> (Outcome, u64) {
    let program = program(text);
    let (memory, regs) = guest();
    let given: Vec<(String, String)> =
        inputs.iter().map(|&(name, text)| (name.into(), text.into())).collect();
    let inputs = parse_inputs(&program, &given).unwrap();
    let before: Vec<Vec<u8>> = contents(&memory);
    let run =
        Run { memory: &memory, regs: &regs, env: Environment { tsc, ..Environment::default() }, limits };
    let slice = SliceProgram::new(&program).unwrap();
    let result = slice.run(&run, &inputs).unwrap();
    assert_eq!(contents(&memory), before, "the target is never written");
    assert_eq!(slice.run(&run, &inputs).unwrap(), result, "a second run gives the same");
    result
}

fn contents(memory: &Mock) -> Vec<Vec<u8>> {
    let page = |range: std::ops::Range<PhysAddr>| {
        let mut bytes = vec![0; (range.end.0 - range.start.0) as usize];
        memory.read(range.start, &mut bytes).unwrap();
        bytes
    };
    memory.ranges().into_iter().map(page).collect()
}

fn answer(text: &str) -> Values {
    match run_in(text, &[], Limits::default(), None).0 {
        Outcome::Answer(values) => values,
        Outcome::Stopped(stopped) => panic!("{stopped}"),
    }
}

fn stopped(text: &str) -> Stopped {
    match run_in(text, &[], Limits::default(), None).0 {
        Outcome::Answer(values) => panic!("{values:?}"),
        Outcome::Stopped(stopped) => stopped,
    }
}

fn stopped_within(text: &str, fuel: u64) -> Stopped {
    match run_in(text, &[], Limits { fuel, ..Limits::default() }, None).0 {
        Outcome::Answer(values) => panic!("{values:?}"),
        Outcome::Stopped(stopped) => stopped,
    }
}

/// The output `x`.
fn x(text: &str) -> u64 {
    match answer(text).get("x") {
        Some(Value::Unsigned(value)) => *value,
        other => panic!("{other:?}"),
    }
}

#[test]
fn mappings_of_one_frame_stay_one_and_the_target_is_unchanged() {
    // Both mappings are read first, so that what was cached for the second must give way to the
    // copy.
    let text = block(&format!(
        "t0 = load.64 {FIRST:#x}\nt1 = load.64 {SECOND:#x}\nstore.16 {:#x}, 0xabcd\nt2 = load.64 \
         {SECOND:#x}\n\
         store.8 {SECOND:#x}, 0xee\nt3 = load.8 {FIRST:#x}\nt3 = shl.64 t3, 0x38\nt2 = xor.64 t2, t3\n\
         store.64 0x5000, t2\nend",
        FIRST + 2
    ));
    assert_eq!(x(&text), 0x1122_3344_abcd_7788 ^ 0xee << 56);
}

#[test]
fn accesses_cross_pages() {
    let text = block(&format!(
        "store.64 {:#x}, 0x0807060504030201\nt0 = load.64 {FIRST:#x}\nt1 = load.64 {:#x}\nt0 = sub.64 t0, \
         t1\nstore.64 0x5000, t0\nend",
        SECOND - 4,
        SECOND - 4
    ));
    // The last four bytes of the first mapping and the first four of the second are ends of the
    // same frame.
    assert_eq!(x(&text), 0x1122_3344_0807_0605u64.wrapping_sub(0x0807_0605_0403_0201));
}

#[test]
fn faults_name_their_cause() {
    let cases = [
        (format!("t0 = load.8 {USER:#x}"), USER, "user memory"),
        (format!("store.8 {USER:#x}, 1"), USER, "user memory"),
        (format!("store.8 {READ_ONLY:#x}, 1"), READ_ONLY, "read-only"),
        (format!("t0 = load.8 {NO_FRAME:#x}"), NO_FRAME, "no RAM at physical address"),
        (format!("t0 = load.8 {UNMAPPED:#x}"), UNMAPPED, "not mapped"),
        ("t0 = load.8 0x400000".into(), 0x40_0000, "not mapped"),
        ("t0 = load.8 0x800000000000".into(), 0x8000_0000_0000, "not canonical"),
        (format!("t0 = load.64 {:#x}", UNMAPPED - 4), UNMAPPED - 4, "not mapped"),
        ("t0 = load.64 0xffffffffffffffff".into(), u64::MAX, "not mapped"),
        (format!("page 0x9000 kernel {FIRST:#x}"), 0x9000, "read-only"),
    ];
    for (op, expected, why) in cases {
        let text = match op.strip_prefix("page") {
            Some(_) => format!("{op}\n{}", block("store.8 0x9000, 1\nend")),
            None => block(&format!("{op}\nend")),
        };
        match stopped(&text) {
            Stopped::Unmapped { at: 0x100, address, cause } => {
                assert!(address == expected && cause.contains(why), "{op}: {cause}");
            }
            other => panic!("{op}: {other}"),
        }
    }
}

#[test]
fn read_only_and_shared_pages_are_read() {
    let text = format!(
        "page 0x9000 kernel {FIRST:#x}\n{}",
        block(&format!(
            "store.8 {FIRST:#x}, 1\nt0 = load.8 0x9000\nt1 = load.8 {READ_ONLY:#x}\nt0 = add.64 t0, \
             t1\nstore.64 0x5000, t0\nend"
        ))
    );
    assert_eq!(x(&text), 0x78);
}

#[test]
fn calls_give_back_registers_and_stack() {
    let text = "register rbx 5\n\
        function f0 1 \"\" {\nb0 @1:\n rcx = mov.64 1\n call f1 stack rsp then b1\n\
        b1 @2:\n t0 = mul.64 rbx, 0x100\n t0 = add.64 t0, rcx\n t1 = shl.64 rsp, 0x10\n t0 = add.64 t0, t1\n \
        store.64 0x5000, t0\n end\n}\n\
        function f1 2 \"\" preserved(rbx) {\nb0 @1:\n rbx = mov.64 9\n rcx = add.64 rcx, 1\n rsp = mov.64 \
        0\n call f2 stack rbx then return\n}\n\
        function f2 3 \"\" {\nb0 @1:\n rcx = add.64 rcx, 1\n goto tail f3\n}\n\
        function f3 4 \"\" {\nb0 @1:\n rcx = add.64 rcx, 1\n return\n}\n";
    assert_eq!(x(text), 0x7000 << 16 | 5 << 8 | 4);
}

#[test]
fn indirect_calls() {
    let text = |value: u64| {
        format!(
            "function f0 1 \"\" {{\nb0 @1 - 9:\n t1 = mov.64 rsp\n rsp = sub.64 rsp, 8\n call {value:#x} \
             [0x10 -> f1, 0x20 -> -] stack t1 then b1\n\
             b1 @2:\n t0 = sub.64 rsp, 0x7000\n t0 = add.64 t0, rax\n store.64 0x5000, t0\n end\n}}\n\
             function f1 2 \"\" {{\nb0 @1:\n rax = mov.64 7\n return\n}}\n"
        )
    };
    assert_eq!(x(&text(0x10)), 7);
    assert_eq!(stopped(&text(0x30)), Stopped::Unexplored { at: 9, to: 0x30 });
}

#[test]
fn what_code_outside_the_slice_overwrites_is_not_read() {
    let reads = |below: &str, ops: &str, at: u64| {
        format!(
            "function f0 1 \"\" {{\nb0 @1:\n undefine.64 {below}\n {ops}\n t0 = load.32 {at:#x}\n \
             store.64 0x5000, t0\n end\n}}\n"
        )
    };
    let top = FIRST + 0x10;
    let below = format!("{top:#x}, 0x8");
    let refused = |address| Stopped::Overwritten { at: 1, address };
    assert_eq!(x(&reads(&below, "", FIRST + 4)), 0x1122_3344, "below that");
    assert_eq!(x(&reads(&below, "", top)), 0, "above that");
    for at in [FIRST + 5, FIRST + 8, top - 1] {
        assert_eq!(stopped(&reads(&below, "", at)), refused(at));
    }
    // Another mapping of the same frame, and one that is used for the first time afterwards.
    assert_eq!(stopped(&reads(&below, "", SECOND + 8)), refused(SECOND + 8));
    let before = format!("t1 = load.8 {:#x}", SECOND + 8);
    assert_eq!(
        stopped(&reads("0x0, 0x0", &format!("undefine.64 {below}\n {before}"), FIRST)),
        refused(SECOND + 8)
    );
    // What the slice has stored it may read, and nothing beside it.
    let store = format!("store.32 {:#x}, 7", FIRST + 9);
    assert_eq!(x(&reads(&below, &store, FIRST + 9)), 7);
    assert_eq!(stopped(&reads(&below, &store, FIRST + 8)), refused(FIRST + 8));
    let across = format!("store.64 {:#x}, 7", FIRST - 4);
    assert!(matches!(stopped(&reads(&below, &across, FIRST)), Stopped::Unmapped { .. }));
    // The training process's own memory, what cannot be written and what is not mapped are left
    // alone; a stack that would be larger than any is not looked through.
    for (below, at) in [("0x5010, 0x10", 0x5000), (&*format!("{:#x}, 0x1000", USER), READ_ONLY)] {
        assert_eq!(x(&reads(below, "", at)), if at == READ_ONLY { 0x77 } else { 0 });
    }
    assert_eq!(x(&reads("0xffffffffffffffff, 0xffffffffffffffff", "", READ_ONLY)), 0x77);
}

#[test]
fn a_callee_outside_the_slice_gives_the_stack_back_too() {
    let text = "function f0 1 \"\" {\nb0 @1:\n t1 = mov.64 rsp\n rsp = sub.64 rsp, 8\n call 0x20 [0x20 -> -] \
        stack t1 then b1\n\
        b1 @2:\n store.64 0x5000, rsp\n end\n}\n";
    assert_eq!(x(text), 0x7000);
}

#[test]
fn branches_and_switches() {
    let branch = |cond: &str| {
        format!(
            "function f0 1 \"\" {{\nb0 @1 - 5:\n branch {cond} ? b1 : unexplored 0x66\nb1 @2:\n store.64 \
             0x5000, 3\n end\n}}\n"
        )
    };
    assert_eq!(x(&branch("1")), 3);
    assert_eq!(stopped(&branch("0")), Stopped::Unexplored { at: 5, to: 0x66 });
    let switch = |value: u64| {
        format!(
            "function f0 1 \"\" {{\nb0 @1 - 5:\n t0 = mov.64 {value}\n switch t0 [1 -> b1, 2 -> tail f1, 3 \
             -> unexplored 0x77, 4 -> return]\n\
             b1 @2:\n store.64 0x5000, 3\n end\n}}\nfunction f1 2 \"\" {{\nb0 @1:\n store.64 0x5000, 4\n \
             end\n}}\n"
        )
    };
    assert_eq!(x(&switch(1)), 3);
    assert_eq!(x(&switch(2)), 4);
    assert_eq!(stopped(&switch(3)), Stopped::Unexplored { at: 5, to: 0x77 });
    // Nobody called the entry function.
    assert_eq!(stopped(&switch(4)), Stopped::Unexplored { at: 5, to: 0 });
    assert_eq!(stopped(&switch(0x88)), Stopped::Unexplored { at: 5, to: 0x88 });
}

#[test]
fn limits_end_endless_programs() {
    let limits = Limits { fuel: 1000, pages: 50, depth: 10, ..Limits::default() };
    let end = |text: &str| match run_in(text, &[], limits, None).0 {
        Outcome::Stopped(stopped) => stopped,
        Outcome::Answer(values) => panic!("{values:?}"),
    };
    let looping = "function f0 1 \"\" {\nb0 @1:\n rax = add.64 rax, 1\n goto b0\n}\n";
    assert_eq!(end(looping), Stopped::OutOfFuel { at: 1, used: 1002 });
    // Round and round without any change: a lock that nobody gives back.
    assert_eq!(end("function f0 1 \"\" {\nb0 @1:\n goto tail f0\n}\n"), Stopped::Blocked { at: 1 });
    let lock = format!(
        "function f0 1 \"\" {{\nb0 @1:\n rcx = load.64 {FIRST:#x}\n store.64 {FIRST:#x}, rcx\n goto b0\n}}\n"
    );
    assert_eq!(end(&lock), Stopped::Blocked { at: 1 });
    // A retry that calls functions writes to its stack and comes back to the same: still a circle.
    let retry = format!(
        "function f0 1 \"\" {{\nb0 @1:\n store.64 {FIRST:#x}, 1\n store.32 {:#x}, 7\n store.8 {FIRST:#x}, \
         0\n store.32 {:#x}, 0\n goto b0\n}}\n",
        FIRST + 6,
        FIRST + 6
    );
    assert_eq!(end(&retry), Stopped::Blocked { at: 1 });
    let counted = format!(
        "function f0 1 \"\" {{\nb0 @1:\n rcx = load.64 {FIRST:#x}\n rcx = add.64 rcx, 1\n store.64 \
         {FIRST:#x}, rcx\n rcx = mov.64 0\n goto b0\n}}\n"
    );
    assert!(matches!(end(&counted), Stopped::OutOfFuel { .. }), "memory changes: it may come to an end");
    let nested = "function f0 1 \"\" {\nb0 @1:\n call f0 stack rsp then return\n}\n";
    assert!(matches!(end(nested), Stopped::Limit { at: 1, .. }));
    let exactly = block("rax = mov.64 1\nend");
    let fuel = |fuel| run_in(&exactly, &[], Limits { fuel, ..limits }, None).0;
    assert!(matches!(fuel(2), Outcome::Answer(_)));
    assert!(matches!(fuel(1), Outcome::Stopped(Stopped::OutOfFuel { used: 2, .. })));
    // The overlay: the output's page is there, the copy is one too many.
    let copy = block(&format!("store.8 {FIRST:#x}, 1\nend"));
    match run_in(&copy, &[], Limits { pages: 1, ..limits }, None).0 {
        Outcome::Stopped(Stopped::Limit { at: 0x100, what }) => assert!(what.contains("full"), "{what}"),
        other => panic!("{other:?}"),
    }
    // The process's own pages count before any of them is made.
    let pages: String =
        (1..=50).map(|page| format!("page {:#x} zero\n", 0x10_0000 + page * 0x1000)).collect();
    match run_in(&(pages + &exactly), &[], limits, None).0 {
        Outcome::Stopped(Stopped::Limit { at: 0, what }) => assert!(what.contains("51 pages"), "{what}"),
        other => panic!("{other:?}"),
    }
    // A clock stands beside the fuel.
    let limits = Limits { fuel: u64::MAX, time: std::time::Duration::from_millis(20), ..limits };
    match run_in_once(looping, limits) {
        Outcome::Stopped(Stopped::OutOfTime { at: 1, used, milliseconds: 20 }) => {
            assert!(used > 1 << 14, "{used}");
        }
        other => panic!("{other:?}"),
    }
}

/// The outcome of a run that takes no input.
fn run_in_once(text: &str, limits: Limits) -> Outcome {
    let (program, (memory, regs)) = (program(text), guest());
    let run = Run { memory: &memory, regs: &regs, env: Environment::default(), limits };
    SliceProgram::new(&program).unwrap().run(&run, &Vec::new()).unwrap().0
}

/// The same place with the same registers and memory, but with other calls to come back to, is no
/// waiting.
#[test]
fn a_function_called_often_is_not_waiting() {
    let mut text = "function f0 1 \"\" {\n".to_string();
    for number in 0..300 {
        text += &format!("b{number} @{}:\n call f1 stack rsp then b{}\n", number + 1, number + 1);
    }
    text += "b300 @301:\n store.64 0x5000, 3\n end\n}\nfunction f1 2 \"\" {\nb0 @0x1000:\n return\n}\n";
    assert_eq!(x(&text), 3);
}

/// An allocation makes the next round another one: the heap may come to an end.
#[test]
fn allocating_for_ever_is_not_waiting() {
    let text =
        "heap 0x100000\nfunction f0 1 \"\" {\nb0 @1:\n rax = alloc.64 8\n rax = mov.64 0\n goto b0\n}\n";
    assert!(matches!(stopped_within(text, 100_000), Stopped::OutOfFuel { .. }));
}

#[test]
fn exceptions_and_devices() {
    assert_eq!(stopped(&block("t0 = div_u.32 0, 1, 0\nend")), Stopped::Exception { at: 0x100, vector: 0 });
    for op in ["t0 = in.8 0x60", "out.8 0x60, 1", "t0 = rand.64", "wrmsr.64 0x10, 1", "t0 = cpuid_a.32 1, 0"]
    {
        assert!(
            matches!(stopped(&block(&format!("{op}\nend"))), Stopped::NeedsDevice { at: 0x100, .. }),
            "{op}"
        );
    }
    assert_eq!(x(&block("t0 = rdmsr.64 0xc0000102\nstore.64 0x5000, t0\nend")), FIRST);
    for op in ["t0 = load.8", "store.8"] {
        let value = if op.starts_with('s') { ", 1" } else { "" };
        let stop = stopped(&block(&format!("{op} {DEVICE:#x}{value}\nend")));
        assert!(
            matches!(&stop, Stopped::NeedsDevice { what, .. } if what.contains("physical 0xa0000")),
            "{stop:?}"
        );
    }
    for (port, is_clock) in
        [(0x608, true), (0x71, true), (0x40, true), (0x8, false), (0x60, false), (0x609, false)]
    {
        let stop = stopped(&block(&format!("t0 = in.32 {port:#x}\nend")));
        assert!(
            matches!(stop, Stopped::NeedsDevice { clock, .. } if clock == is_clock),
            "{port:#x}: {stop:?}"
        );
    }
    assert_eq!(x(&block("wrmsr.64 0xc0000100, 1\nstore.64 0x5000, 7\nend")), 7);
}

#[test]
fn allocations() {
    let text = |size: u64, heap: u64| {
        format!(
            "heap {heap:#x}\n{}",
            block(&format!(
                "t0 = alloc.64 {size:#x}\nt1 = alloc.64 8\nstore.64 t1, 5\nt2 = realloc.64 t1, 0x2000\nt3 = \
                 load.64 t2\n\
                 t4 = sub.64 t1, t0\nt3 = add.64 t3, t4\nfree.64 t2\nstore.64 0x5000, t3\nend"
            ))
        )
    };
    assert_eq!(x(&text(20, 0x10_0000)), 37);
    assert_eq!(x(&text(u64::MAX, 0x10_0000)), 0x10_0000 + 5, "no room gives 0");
}

#[test]
fn memory_from_before_the_begin_mark_keeps_its_content_when_it_is_moved() {
    let text = |from: u64| {
        let ops = format!(
            "store.64 0x5ff8, 7\nt0 = realloc.64 {from:#x}, 0x20\nt1 = load.64 t0\nt2 = add.64 t0, 8\nt2 = \
             load.64 t2\n\
             t1 = add.64 t1, t2\nstore.64 0x5000, t1\nend"
        );
        format!("heap 0x100000\n{}", block(&ops))
    };
    // The second word would lie on a page that is not there.
    assert_eq!(x(&text(0x5ff8)), 7);
    assert_eq!(x(&text(0)), 0, "there was none");
    assert!(matches!(stopped(&text(0x9000)), Stopped::Unmapped { .. }));
}

#[test]
fn outputs() {
    let text = format!(
        "output \"count\" i32 @0x5010\noutput \"pids\" u32[field \"count\" max 3] @0x5020\noutput \
         \"comm\" char[8] @0x5040\n\
         output \"low\" i16 @0x5050\noutput \"fixed\" i8[2] @0x5060\noutput \"full\" char[2] @0x5070\n{}",
        block(
            "store.32 0x5010, 2\nstore.32 0x5020, 10\nstore.32 0x5024, 0xffffffff\nstore.32 0x5028, \
             9\nstore.64 0x5040, 0x7a0064636261\n\
             store.16 0x5050, 0x8000\nstore.16 0x5060, 0x7f80\nstore.16 0x5070, 0x6261\nend"
        )
    );
    let list = |values: &[u64]| Value::List(values.iter().map(|value| Value::Unsigned(*value)).collect());
    let expected = [
        ("x", Value::Unsigned(0)),
        ("count", Value::Signed(2)),
        ("pids", list(&[10, 0xffff_ffff])),
        ("comm", Value::Text("abcd".into())),
        ("low", Value::Signed(-32768)),
        ("fixed", Value::List(vec![Value::Signed(-128), Value::Signed(127)])),
        ("full", Value::Text("ab".into())),
    ];
    assert_eq!(answer(&text).0, expected.map(|(name, value)| (name.to_string(), value)));
    // Names need not be UTF-8, and different ones stay different.
    let name = |bytes: &str| {
        let values = answer(&text.replace("0x7a0064636261", bytes));
        serde_json::to_string(&values).unwrap().split("\"comm\":").nth(1).unwrap().to_owned()
    };
    assert!(name("0x7a006463e4").starts_with("{\"bytes\":\"e46364\",\"text\":\"\u{fffd}cd\"},"));
    assert!(name("0x7a006463e5").starts_with(r#"{"bytes":"e56364","text":"#));
    assert!(name("0x7a0000a4c3").starts_with("\"ä\","));
    for (count, length) in [(0u32, 0), (3, 3), (4, 3), (u32::MAX, 0)] {
        let text = text.replace("store.32 0x5010, 2", &format!("store.32 0x5010, {count:#x}"));
        assert!(
            matches!(answer(&text).get("pids"), Some(Value::List(list)) if list.len() == length),
            "{count}"
        );
    }
}

#[test]
fn bytes_have_any_content_and_the_length_that_another_output_says() {
    let text = format!(
        "output \"used\" u32 @0x5010\noutput \"data\" byte[field \"used\" max 12] @0x5020\noutput \"id\" \
         byte[2] @0x5040\n{}",
        block(
            "store.32 0x5010, 10\nstore.64 0x5020, 0xff00646300006261\nstore.32 0x5028, \
             0x7a797877\nstore.16 0x5040, 0x30\nend"
        )
    );
    let bytes = |bytes: &[u8]| Some(Value::Text(Text(bytes.to_vec())));
    let values = answer(&text);
    assert_eq!(values.get("data").cloned(), bytes(b"ab\0\0cd\0\xffwx"));
    assert_eq!(values.get("id").cloned(), bytes(b"0\0"));
    let json = serde_json::to_string(&values).unwrap();
    assert!(json.contains(r#""data":{"bytes":"61620000636400ff7778","text":"ab\u0000"#), "{json}");
    for (used, length) in [(0u32, 0), (12, 12), (13, 12), (u32::MAX, 12)] {
        let text = text.replace("store.32 0x5010, 10", &format!("store.32 0x5010, {used:#x}"));
        let found = answer(&text).get("data").cloned();
        assert!(matches!(&found, Some(Value::Text(text)) if text.0.len() == length), "{used}: {found:?}");
    }
    // An input of this type is the text's bytes, with no NUL behind them.
    let text =
        format!("input \"tag\" byte[4] @0x5100\n{}", block("t0 = load.32 0x5100\nstore.64 0x5000, t0\nend"));
    let (outcome, _) = run_in(&text, &[("tag", "abcd")], Limits::default(), None);
    assert!(
        matches!(&outcome, Outcome::Answer(values) if values.get("x") == Some(&Value::Unsigned(0x6463_6261))),
        "{outcome:?}"
    );
}

#[test]
fn inputs() {
    let text = format!(
        "input \"pid\" u32 @0x5100\ninput \"path\" char[4] @0x5108\ninput \"list\" i16[3] @0x5110\n{}",
        block(
            "t0 = load.64 0x5108\nt1 = load.32 0x5100\nt1 = shl.64 t1, 0x20\nt0 = add.64 t0, t1\nt2 = \
             load.64 0x5110\nt0 = xor.64 t0, t2\nstore.64 0x5000, t0\nend"
        )
    );
    let given = [("pid", "0x10"), ("path", "abc"), ("list", "1, -1"), ("pid", "32")];
    let (outcome, _) = run_in(&text, &given, Limits::default(), None);
    let expected = (0x63_6261 + (32 << 32)) ^ 0xffff_0001;
    assert!(
        matches!(&outcome, Outcome::Answer(values) if values.get("x") == Some(&Value::Unsigned(expected))),
        "{outcome:?}"
    );

    let program = program(&text);
    let parse = |pairs: &[(&str, &str)]| {
        let good = [("pid", "1"), ("path", "a"), ("list", "1")];
        let given: Vec<(String, String)> =
            good.iter().chain(pairs).map(|&(name, text)| (name.to_string(), text.to_string())).collect();
        parse_inputs(&program, &given)
    };
    assert!(parse(&[("pid", "4294967295"), ("list", "-32768,32767,0"), ("path", "")]).is_ok());
    let wrong = [
        ("pid", "4294967296"),
        ("pid", "-1"),
        ("pid", ""),
        ("pid", "1,2"),
        ("pid", "0x"),
        ("pid", "--1"),
        ("path", "abcd"),
        ("list", "1,2,3,4"),
        ("list", "32768"),
        ("list", "1,,2"),
    ];
    for (name, value) in wrong {
        assert!(
            matches!(parse(&[(name, value)]), Err(InputError::Value { name: n, .. }) if n == name),
            "{name}={value}"
        );
    }
    assert!(matches!(parse(&[("pidd", "1")]), Err(InputError::Unknown { .. })));
    assert!(matches!(parse_inputs(&program, &[]), Err(InputError::Missing { name }) if name == "pid"));
}

#[test]
fn the_clock_is_the_captures_or_just_past_the_cells() {
    let text = format!(
        "clock {FIRST:#x}\nclock {:#x}\nclock {UNMAPPED:#x}\n{}",
        FIRST + 0x5000,
        block("t0 = tsc.64\nstore.64 0x5000, t0\nend")
    );
    assert_eq!(x(&text), 0x1122_3344_5566_7789);
    let (outcome, _) = run_in(&text, &[], Limits::default(), Some(77));
    assert!(matches!(outcome, Outcome::Answer(values) if values.get("x") == Some(&Value::Unsigned(77))));
}

#[test]
fn a_run_needs_control_registers_and_the_same_kernel() {
    let begin = |text: &str, unknown: Option<Reg>| {
        let program = program(text);
        let (memory, all) = guest();
        let mut regs = RegFile::new();
        all.known().filter(|(reg, _)| Some(*reg) != unknown).for_each(|(reg, value)| regs.set(reg, value));
        let run =
            Run { memory: &memory, regs: &regs, env: Environment::default(), limits: Limits::default() };
        SliceProgram::new(&program).unwrap().run(&run, &Vec::new()).map(|_| ())
    };
    let end = block("end");
    assert_eq!(begin(&end, None), Ok(()));
    assert_eq!(begin(&end, Some(Reg::Cr3)), Err(RunError::NoRegister("cr3")));
    assert!(matches!(begin(&end, Some(Reg::Cr0)), Err(RunError::Paging(_))));
    assert!(matches!(begin(&end, Some(Reg::GsBase)), Err(RunError::NoRegister(_))));
    let code = |bytes: &str| format!("code {FIRST:#x} bytes 8 {{\n 0: {bytes}\n}}\n{end}");
    assert_eq!(begin(&code("8877665544332211"), None), Ok(()));
    let other = RunError::OtherKernel { differing: 1, checked: 8 };
    assert_eq!(begin(&code("8877665544332212"), None), Err(other));
}

/// With no gates to compare, an image is where training had it, and so are the constants that move
/// with it.
#[test]
fn moving_constants_have_training_s_values_where_nothing_moved() {
    let end = FIRST + 0x10_0000;
    let text = format!(
        "image {FIRST:#x} {end:#x} movable\nmoved {:#x} image 0\n{}",
        FIRST + 8,
        block("store.64 0x5000, moved0\nend")
    );
    assert_eq!(x(&text), FIRST + 8);
}

/// A constant that stands in code that the program does not hold is refused, wherever it claims to
/// be.
#[test]
fn a_moving_constant_without_its_code_is_refused() {
    for pc in [0x1000, u64::MAX] {
        let code = format!("code {FIRST:#x} bytes 8 {{\n 0: 8877665544332211\n}}");
        let moved = format!("moved 0x1 code {pc:#x} 15 op 65535 arg 2");
        let program = program(&format!("{moved}\n{code}\n{}", block("store.64 0x5000, moved0\nend")));
        let (memory, regs) = guest();
        let run =
            Run { memory: &memory, regs: &regs, env: Environment::default(), limits: Limits::default() };
        let refused = SliceProgram::new(&program).unwrap().run(&run, &Vec::new()).map(|_| ());
        assert_eq!(refused, Err(RunError::Constant { at: pc }));
    }
}

/// A heap at the end of the address space must not overflow, and its last page is to be had.
#[test]
fn a_heap_at_the_end_of_the_address_space() {
    let heap = |start: u64, ops: &str| format!("heap {start:#x}\n{}", block(ops));
    let text = heap(0xffff_ffff_ffff_fff8, "t0 = alloc.64 0x20\nstore.64 0x5000, t0\nend");
    assert_eq!(x(&text), 0, "no room gives 0");
    let ops = "t0 = alloc.64 8\nstore.64 t0, 7\nt1 = load.64 t0\nstore.64 0x5000, t1\nend";
    assert_eq!(x(&heap(0xffff_ffff_ffff_f000, ops)), 7);
}

/// An output at the end of the address space must not overflow.
#[test]
fn a_field_at_the_end_of_the_address_space() {
    let text =
        format!("output \"y\" u64[4] @0xfffffffffffffff8\npage 0xfffffffffffff000 zero\n{}", block("end"));
    assert!(matches!(stopped(&text), Stopped::Unmapped { address: 0, .. }), "{}", stopped(&text));
}
