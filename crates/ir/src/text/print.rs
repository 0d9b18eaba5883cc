//! Operations and terminators as text.

use super::names::print_var;
use crate::op::{Arg, Op};
use crate::program::{Arm, Callee, Target, Terminator};

/// An operation as one line, e.g. `t0 = add.64 rax, 0x10`; `names` are the registers' names by
/// number.
///
/// Operands past the arity of its kind do not matter and are not printed.
#[must_use]
pub fn print_op(op: &Op, names: &[&str]) -> String {
    let mut text = match op.def() {
        Some(var) => format!("{} = ", print_var(var, names)),
        None => String::new(),
    };
    text.push_str(op.kind.name());
    text.push('.');
    text.push_str(&op.width.bits().to_string());
    for (at, arg) in op.args().iter().enumerate() {
        text.push_str(if at == 0 { " " } else { ", " });
        text.push_str(&print_arg(arg, names));
    }
    text
}

/// A terminator as one line, e.g. `branch t4 ? b1 : return`.
#[must_use]
pub fn print_terminator(term: &Terminator, names: &[&str]) -> String {
    match term {
        Terminator::Goto(Target::Return) => "return".to_string(),
        Terminator::Goto(target) => format!("goto {}", print_target(target)),
        Terminator::Branch { cond, taken, otherwise } => {
            format!(
                "branch {} ? {} : {}",
                print_arg(cond, names),
                print_target(taken),
                print_target(otherwise)
            )
        }
        Terminator::Switch { value, arms } => {
            format!("switch {} {}", print_arg(value, names), print_arms(arms, print_target))
        }
        Terminator::Call { callee, stack, then } => {
            let callee = match callee {
                Callee::Direct(func) => format!("f{}", func.0),
                Callee::Indirect { value, arms } => {
                    let func = |func: &Option<_>| {
                        func.map_or("-".to_string(), |func: crate::program::FuncId| format!("f{}", func.0))
                    };
                    format!("{} {}", print_arg(value, names), print_arms(arms, func))
                }
            };
            format!("call {callee} stack {} then {}", print_var(*stack, names), print_target(then))
        }
        Terminator::End => "end".to_string(),
    }
}

fn print_arg(arg: &Arg, names: &[&str]) -> String {
    match arg {
        Arg::Var(var) => print_var(*var, names),
        Arg::Const(value) => format!("{value:#x}"),
        Arg::Relocated(number) => format!("moved{number}"),
    }
}

fn print_target(target: &Target) -> String {
    match target {
        Target::Block(id) => format!("b{}", id.0),
        Target::Tail(func) => format!("tail f{}", func.0),
        Target::Return => "return".to_string(),
        Target::Unexplored(addr) => format!("unexplored {addr:#x}"),
    }
}

fn print_arms<T>(arms: &[Arm<T>], print: impl Fn(&T) -> String) -> String {
    let arms: Vec<String> =
        arms.iter().map(|arm| format!("{:#x} -> {}", arm.value, print(&arm.target))).collect();
    format!("[{}]", arms.join(", "))
}
