//! Each rule of the verifier, broken once.

use ir::op::{Arg, Kind, Op, Var, Width};
use ir::program::{Count, Elem, PageContent, Program};
use ir::text::parse_program;
use ir::verify::{
    MAX_IMAGES, MAX_NAMES, MAX_SAVED, MAX_SIGNATURE, MAX_TEMPS, MAX_VARIABLE, MAX_VARIABLES, broken, verify,
};

const GOOD: &str = r#"
program "good"
input "pid" u32 @0x1000
output "comm" char[16] @0x1010
depends "comm" memory registers input "pid"
register rax 1
summary 0x10 malloc [0x4]
summary 0x20 free [0x4]
clock 0x30
clock 0x40
view rax 0x10 8 0x20
view rax 0x18 4 0x20
page 0x1000 zero
page 0x2000 kernel 0x3000
page 0x3000 bytes 4096 {
}
function f0 0x100 "main" preserved(rax) {
b0 @0x100:
  t0 = load.64 rax
  t1 = alloc.64 t0
  store.8 t1, 1
  free.64 t1
  switch t0 [1 -> b1, 2 -> tail f1]
b1 @0x110:
  call t0 [1 -> f1, 2 -> -] stack rcx then b0
}
function f1 0x200 "" {
b0 @0x200:
  end
}
"#;

fn good() -> Program {
    parse_program(GOOD, &["rax", "rcx"]).unwrap()
}

/// The good program with one text put for another must break a rule that is described so.
fn refused(from: &str, to: &str, rule: &str) {
    assert_eq!(GOOD.matches(from).count(), 1, "{from} stands there once");
    let program = parse_program(&GOOD.replace(from, to), &["rax", "rcx"]).unwrap();
    let error = verify(&program).expect_err(to);
    assert!(error.rule.contains(rule), "{to}: {error}");
}

fn changed(change: impl FnOnce(&mut Program), rule: &str) {
    let mut program = good();
    change(&mut program);
    let error = verify(&program).expect_err(rule);
    assert!(error.rule.contains(rule), "{error}");
}

#[test]
fn the_good_program_is_accepted() {
    assert_eq!(verify(&good()), Ok(()));
}

#[test]
fn names_that_do_not_exist() {
    refused("program \"good\"", "program \"x\"\nentry f2", "the entry function does not exist");
    for (from, to) in
        [("-> b1", "-> b2"), ("tail f1", "tail f2"), ("1 -> f1", "1 -> f2"), ("then b0", "then b2")]
    {
        refused(from, to, "does not exist");
    }
    refused("call t0 [1 -> f1, 2 -> -]", "call f2", "does not exist");
    refused("  end", "  goto b1", "does not exist");
    refused("  end", "  branch t0 ? b0 : b1", "does not exist");
    refused("  end", "  branch t0 ? b1 : b0", "does not exist");
    changed(|program| program.functions[1].blocks.clear(), "no block");
    changed(|program| program.functions.clear(), "the entry function does not exist");
}

#[test]
fn operations() {
    refused("  free.64 t1", "  jump.64 t1", "control operation");
    refused("  free.64 t1", "  t2 = free.64 t1", "destination");
    refused("t0 = load.64 rax", "load.64 rax", "destination");
    refused("t1 = alloc.64 t0", "alloc.64 t0", "destination");
    refused("store.8 t1, 1", "t3 = store.8 t1, 1", "destination");
    refused("store.8 t1, 1", "store.1 t1, 1", "narrower than a byte");
    refused("t0 = load.64 rax", "t0 = load.1 rax", "narrower than a byte");
    refused("store.8 t1, 1", "t2 = vzip_lo.64 t0, t1", "too wide to interleave");
    refused("store.8 t1, 1", "t2 = vpack_s.1 t0", "too narrow to halve");
    let mut op = Op::new(Kind::Mov, Width::B64, Var(0), &[Arg::Const(1)]);
    assert_eq!(broken(&op), None);
    op.args[1] = Arg::Const(1);
    assert!(broken(&op).is_some_and(|rule| rule.contains("beyond")));
}

#[test]
fn numbers_of_variables() {
    let high = format!("t{MAX_TEMPS}");
    refused("t0 = load", &format!("{high} = load"), "too large");
    refused("store.8 t1", &format!("store.8 {high}"), "too large");
    refused("store.8 t1", "store.8 %65535", "too large");
    refused("switch t0", &format!("switch {high}"), "does not exist");
    refused("call t0", &format!("call {high}"), "does not exist");
    refused("stack rcx", &format!("stack {high}"), "does not exist");
    refused("  end", &format!("  branch {high} ? b0 : b0"), "does not exist");
    refused("preserved(rax)", "preserved(t0)", "preserved");
    refused("register rax 1", "register t0 1", "start value");
}

#[test]
fn orders() {
    for order in ["2 -> b1, 2 -> tail f1", "3 -> b1, 2 -> tail f1"] {
        refused("1 -> b1, 2 -> tail f1", order, "ascend");
    }
    refused("1 -> f1, 2 -> -", "2 -> f1, 2 -> -", "ascend");
    refused("clock 0x40", "clock 0x30", "ascend");
    refused("view rax 0x18", "view rax 0x10", "ascend");
    refused("view rax 0x18 4", "view rax 0x18 3", "size");
    refused("summary 0x20 free", "summary 0xf free", "ascend");
    refused("summary 0x20 free [0x4]", "summary 0x20 free [0x0]", "argument");
    refused("summary 0x20 free [0x4]", "summary 0x20 free t0", "argument");
    refused("page 0x2000 kernel", "page 0x1000 kernel", "ascend");
}

#[test]
fn what_outputs_depend_on() {
    refused("depends \"comm\"", "depends \"pid\"", "of no output");
    refused("depends \"comm\"", "depends \"comm\"\ndepends \"comm\"", "given twice");
    refused("memory registers", "registers memory", "does not ascend");
    refused("memory registers", "memory memory", "does not ascend");
    refused("input \"pid\"\nregister", "input \"tid\"\nregister", "does not exist");
}

#[test]
fn pages_variables_and_bits() {
    refused("program \"good\"", "program \"x\"\nbits 16", "neither 32 nor 64");
    refused("page 0x2000 kernel", "page 0x2001 kernel", "wrong size or address");
    refused("bytes 4096 {", "bytes 4095 {", "wrong size or address");
    changed(|program| program.pages[2].content = PageContent::Bytes(vec![0; 4097]), "wrong size or address");
    refused("u32 @0x1000", "u24 @0x1000", "impossible size");
    refused("u32 @0x1000", "i0 @0x1000", "impossible size");
    refused("char[16]", &format!("char[{}]", MAX_VARIABLE + 1), "impossible size");
    changed(
        |program| {
            program.inputs[0].elem = Elem::Unsigned(8);
            program.inputs[0].count = Count::Fixed(u64::MAX);
        },
        "impossible size",
    );
    changed(
        |program| {
            program.outputs[0].count = Count::Fixed(MAX_VARIABLE / program.outputs[0].elem.size());
            let large = program.outputs[0].clone();
            program.outputs.extend(std::iter::repeat_n(large, (MAX_VARIABLES / MAX_VARIABLE) as usize));
        },
        "together are too large",
    );
}

#[test]
fn what_is_looked_for_among_all_others_is_not_many() {
    use ir::program::SignatureWord;
    use ir::relocation::Image;

    let image = |at: u64| Image { start: at, end: at + 1, movable: false };
    changed(|it| it.relocations.images = (0..=MAX_IMAGES as u64).map(image).collect(), "too many images");
    let word = |offset: u32| SignatureWord { offset, points: 0 };
    changed(|it| it.signature = (0..=MAX_SIGNATURE as u32).map(word).collect(), "too many anchors");
    changed(|it| it.outputs = vec![it.inputs[0].clone(); MAX_NAMES], "too many fields");
    changed(|it| it.functions[0].callee_saved = vec![Var(0); MAX_SAVED + 1], "too many preserved");
}
