//! What the tests share: a reference interpreter, a printer, the table of encodings, random
//! numbers.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::HashMap;
use std::fmt::Write;

use ir::{Arg, Class, Kind, Op, Var};
use machine::reg::Reg;
use virtuoso_lift as lift;

/// Random numbers (xorshift64*), seeded so that failures repeat.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// A value that is often at a boundary.
    pub fn value(&mut self) -> u64 {
        let value = self.next();
        match self.below(10) {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << self.below(64),
            3 => (1 << self.below(64)) - 1,
            4 => self.below(300),
            5 => u64::from(value as u32),
            6 => 0x8080_8080_8080_8080 ^ (value & 0x0101_0101_0101_0101),
            _ => value,
        }
    }
}

/// The rows of `native.txt`: bytes and comment.
pub fn table() -> Vec<(Vec<u8>, String)> {
    let text = include_str!("../native.txt");
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| {
            let (bytes, comment) = line.split_once(" # ").expect("bytes # comment");
            (parse_hex(bytes), comment.to_owned())
        })
        .collect()
}

pub fn parse_hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex")).collect()
}

pub fn var_name(var: Var) -> String {
    if var.is_temp() {
        return format!("t{}", var.0 - Var::FIRST_TEMP);
    }
    Reg::NAMES.get(usize::from(var.0)).map_or_else(|| format!("?{}", var.0), |name| (*name).to_owned())
}

pub fn print_op(op: &Op) -> String {
    let mut text = String::new();
    if let Some(dst) = op.def() {
        write!(text, "{} = ", var_name(dst)).expect("string");
    }
    write!(text, "{}.{}", op.kind.name(), op.width.bits()).expect("string");
    for (n, arg) in op.args().iter().enumerate() {
        let comma = if n == 0 { "" } else { "," };
        match arg {
            Arg::Var(var) => write!(text, "{comma} {}", var_name(*var)),
            Arg::Relocated(_) => unreachable!("only programs have relocated constants"),
            Arg::Const(value) => write!(text, "{comma} {value:#x}"),
        }
        .expect("string");
    }
    text
}

/// Guest memory of the interpreter: one window.
pub struct Window {
    pub base: u64,
    pub bytes: Vec<u8>,
}

impl Window {
    fn place(&self, address: u64, size: u64) -> Option<std::ops::Range<usize>> {
        let start = usize::try_from(address.checked_sub(self.base)?).ok()?;
        let end = start.checked_add(usize::try_from(size).ok()?)?;
        (end <= self.bytes.len()).then_some(start..end)
    }
}

/// How an interpreted instruction ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// At this address.
    At(u64),
    /// Division fault, access outside the window, or an operation the interpreter has no answer to.
    Fault,
}

/// Registers, temporaries and a window of memory.
pub struct Machine {
    pub regs: Vec<u64>,
    pub window: Window,
}

impl Machine {
    pub fn run(&mut self, insn: &lift::Insn) -> End {
        let mut temps: HashMap<Var, u64> = HashMap::new();
        for op in &insn.ops {
            let mut args = [0; 3];
            for (value, arg) in args.iter_mut().zip(op.args()) {
                *value = match arg {
                    Arg::Relocated(_) => unreachable!("only programs have relocated constants"),
                    Arg::Const(constant) => *constant,
                    Arg::Var(var) if var.is_reg() => self.regs[usize::from(var.0)],
                    Arg::Var(var) => temps[var],
                };
            }
            let [a, b, c] = args;
            let value = match op.class() {
                Class::Pure => match ir::eval(op.kind, op.width, a, b, c) {
                    Ok(value) => value,
                    Err(_) => return End::Fault,
                },
                Class::Load => {
                    let Some(place) = self.window.place(a, op.width.bytes()) else { return End::Fault };
                    self.window.bytes[place].iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte))
                }
                Class::Store => {
                    let Some(place) = self.window.place(a, op.width.bytes()) else { return End::Fault };
                    let size = place.len();
                    self.window.bytes[place].copy_from_slice(&b.to_le_bytes()[..size]);
                    continue;
                }
                Class::Control => match op.kind {
                    Kind::BranchIf if a != 0 => return End::At(b),
                    Kind::BranchIf => continue,
                    Kind::Jump | Kind::Call | Kind::Ret => return End::At(a),
                    _ => return End::Fault,
                },
                Class::Nondet | Class::Effect => return End::Fault,
            };
            match op.def() {
                Some(dst) if dst.is_reg() => self.regs[usize::from(dst.0)] = value,
                Some(dst) => {
                    temps.insert(dst, value);
                }
                None => {}
            }
        }
        End::At(insn.pc + u64::from(insn.len))
    }
}
