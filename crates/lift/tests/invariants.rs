//! Any bytes: no panic, and every list of operations keeps the conventions of the crate's
//! documentation.
//!
//! Covers every opcode of the one-, two- and three-byte maps under common prefixes with random
//! operands, then random bytes; deterministic.

mod support;

use std::collections::HashSet;

use ir::{Arg, Class, Kind, Op, Var, Width};
use machine::reg::Reg;
use support::{Random, print_op};
use virtuoso_lift as lift;

fn may_fault(op: &Op) -> bool {
    match op.class() {
        Class::Load | Class::Store | Class::Nondet => true,
        Class::Pure => matches!(op.kind, Kind::DivU | Kind::DivS | Kind::RemU | Kind::RemS),
        // Translations are dropped after the control register has changed.
        Class::Effect => op.kind != Kind::TlbFlush,
        Class::Control => false,
    }
}

fn check_op(op: &Op) -> Result<(), String> {
    let wants_dst = matches!(op.class(), Class::Pure | Class::Load | Class::Nondet);
    if wants_dst != op.def().is_some() {
        return Err("destination does not fit the class".into());
    }
    if op
        .def()
        .is_some_and(|dst| dst.is_reg() && usize::from(dst.0) >= Reg::COUNT || dst == Var(Reg::Rip as u16))
    {
        return Err("no such register".into());
    }
    if op.uses().any(|used| used == Var::NONE || used.is_reg() && usize::from(used.0) >= Reg::COUNT) {
        return Err("uses no such register".into());
    }
    if op.args[op.kind.arity()..].iter().any(|arg| *arg != Arg::Const(0)) {
        return Err("argument beyond the arity".into());
    }
    let constant = |n: usize| match op.args[n] {
        Arg::Const(value) => Some(value),
        Arg::Var(_) | Arg::Relocated(_) => None,
    };
    let fits = match op.kind {
        Kind::Load | Kind::Store | Kind::In | Kind::Out => op.width >= Width::B8,
        Kind::Sext => constant(1).is_some_and(|bits| (1..=64).contains(&bits)),
        Kind::Insert => constant(2).is_some_and(|at| at + u64::from(op.width.bits()) <= 64),
        Kind::Extract => constant(1).is_some_and(|at| at < 64),
        Kind::BranchIf | Kind::Call | Kind::SysEnter => constant(1).is_some(),
        Kind::Trap => constant(0).is_some_and(|vector| vector < 256) && constant(1).is_some(),
        Kind::Unsupported => constant(0).is_some(),
        Kind::Bswap => op.width >= Width::B16,
        _ => true,
    };
    if fits { Ok(()) } else { Err("bad constant or width".into()) }
}

fn check(insn: &lift::Insn) -> Result<(), String> {
    let mut temps: HashSet<Var> = HashSet::new();
    let mut assigned: HashSet<Var> = HashSet::new();
    for (n, op) in insn.ops.iter().enumerate() {
        check_op(op).map_err(|problem| format!("{}: {problem}", print_op(op)))?;
        let last = n + 1 == insn.ops.len();
        if op.class() == Class::Control && !last && op.kind != Kind::BranchIf {
            return Err(format!("{}: control in the middle", print_op(op)));
        }
        if may_fault(op) && !assigned.is_empty() {
            return Err(format!("{}: may fault after an assignment", print_op(op)));
        }
        if op.kind == Kind::BranchIf && !last && !assigned.is_empty() {
            return Err(format!("{}: leaves after an assignment", print_op(op)));
        }
        for (place, arg) in op.args().iter().enumerate() {
            let Arg::Var(used) = *arg else { continue };
            if used.is_temp() && !temps.contains(&used) {
                return Err(format!("{}: undefined temporary", print_op(op)));
            }
            let chained = op.kind == Kind::Insert && place == 0 && op.dst == used;
            if assigned.contains(&used) && !chained {
                return Err(format!("{}: sees an assignment", print_op(op)));
            }
        }
        match op.def() {
            Some(dst) if temps.contains(&dst) => return Err(format!("{}: assigned twice", print_op(op))),
            Some(dst) if dst.is_temp() => {
                temps.insert(dst);
            }
            Some(dst) => {
                assigned.insert(dst);
            }
            None => {}
        }
    }
    Ok(())
}

fn all_modes(pc: u64, bytes: &[u8]) -> usize {
    let mut lifted = 0;
    for mode in [lift::Mode::Bits16, lift::Mode::Bits32, lift::Mode::Bits64] {
        let pc = if mode == lift::Mode::Bits64 { pc } else { pc & 0xffff_ffff };
        let Ok(insn) = lift::lift(mode, pc, bytes) else { continue };
        lifted += 1;
        assert_eq!(
            insn,
            lift::lift(mode, pc, bytes).expect("lifted before"),
            "not a function of its arguments"
        );
        assert!(insn.len as usize <= bytes.len() && insn.len > 0);
        let _ = lift::flow(&insn);
        let text = lift::disassemble(mode, pc, bytes);
        if let Err(problem) = check(&insn) {
            let ops: Vec<String> = insn.ops.iter().map(print_op).collect();
            panic!("{mode:?} {bytes:02x?} {text}\n{problem}\n{}", ops.join("\n"));
        }
        if let Some(Op { kind: Kind::Unsupported, args: [Arg::Const(id), ..], .. }) = insn.ops.last() {
            assert!(!lift::mnemonic_name(*id).contains('#'));
        }
    }
    lifted
}

#[test]
fn every_opcode() {
    let mut random = Random(77);
    let prefixes: [&[u8]; 9] =
        [&[], &[0x66], &[0x67], &[0xf2], &[0xf3], &[0x48], &[0x64], &[0x66, 0x48], &[0xf3, 0x48]];
    let maps: [&[u8]; 4] = [&[], &[0x0f], &[0x0f, 0x38], &[0x0f, 0x3a]];
    let mut lifted = 0;
    for prefix in prefixes {
        for map in maps {
            for opcode in 0..=255u8 {
                for group in 0..8u8 {
                    for form in [0xc0, 0x00, 0x80] {
                        let mut bytes = prefix.to_vec();
                        bytes.extend_from_slice(map);
                        bytes.push(opcode);
                        bytes.push(form | group << 3 | random.below(8) as u8);
                        bytes.extend(random.next().to_le_bytes());
                        lifted += all_modes(random.next(), &bytes);
                    }
                }
            }
        }
    }
    assert!(lifted > 300_000, "{lifted}");
}

#[test]
fn random_bytes() {
    let mut random = Random(78);
    for _ in 0..200_000 {
        let bytes: Vec<u8> = (0..random.below(18)).map(|_| random.next() as u8).collect();
        all_modes(random.value(), &bytes);
    }
}

#[test]
fn undecodable_bytes_are_named() {
    let error =
        lift::lift(lift::Mode::Bits64, 0x1000, &[0x06, 0x90]).expect_err("push es is gone in 64-bit mode");
    assert_eq!(error.to_string(), "no 64-bit instruction at 0x1000: 06 90");
    assert!(!error.incomplete);
    assert!(lift::lift(lift::Mode::Bits64, 0x1000, &[0x48]).expect_err("only a prefix").incomplete);
    assert!(lift::lift(lift::Mode::Bits64, 0x1000, &[]).expect_err("nothing").incomplete);
}
