//! The operations that stand for an allocator function of the trainer, in dependences and in
//! programs alike.

use ir::summary::{Action, ArgumentLocation, Summary};
use ir::{Arg, Kind, Op, Var, Width};

use super::registers::{RESULT, STACK_POINTER};

/// The operations that a call of the function amounts to; `narrow` code has words of 32 bits on its
/// stack.
#[must_use]
pub fn summary_ops(summary: &Summary, narrow: bool) -> Vec<Op> {
    let mut body = Body { ops: Vec::new(), temps: 0, word: if narrow { Width::B32 } else { Width::B64 } };
    let args: Vec<Arg> = summary.args().iter().map(|&location| body.argument(location)).collect();
    let refused = summary.fails.map(|(location, bits)| (body.argument(location), bits));
    let wide = Width::B64;
    let mut result = |kind, args: &[Arg]| body.ops.push(Op::new(kind, wide, RESULT, args));
    match summary.action {
        Action::Malloc => result(Kind::Alloc, &args),
        Action::Calloc => {
            let size = body.temp(Kind::Mul, wide, &args);
            body.ops.push(Op::new(Kind::Alloc, wide, RESULT, &[size]));
        }
        Action::Realloc => result(Kind::Realloc, &args),
        Action::Free => body.ops.push(Op::new(Kind::Free, wide, Var::NONE, &args)),
        Action::Release => {
            body.ops.push(Op::new(Kind::Free, wide, Var::NONE, &args));
            body.ops.push(Op::new(Kind::Mov, wide, RESULT, &[1u64.into()]));
        }
    }
    if let Some((arg, bits)) = refused {
        let bits = body.temp(Kind::And, wide, &[arg, u64::from(bits).into()]);
        body.ops.push(Op::new(Kind::Select, wide, RESULT, &[bits, 0u64.into(), RESULT.into()]));
    }
    body.ops
}

struct Body {
    ops: Vec<Op>,
    temps: u16,
    word: Width,
}

impl Body {
    fn temp(&mut self, kind: Kind, width: Width, args: &[Arg]) -> Arg {
        let temp = Var::temp(self.temps);
        self.temps += 1;
        self.ops.push(Op::new(kind, width, temp, args));
        temp.into()
    }

    fn argument(&mut self, location: ArgumentLocation) -> Arg {
        match location {
            ArgumentLocation::Register(var) => var.into(),
            ArgumentLocation::Stack(distance) => {
                let address =
                    self.temp(Kind::Add, self.word, &[STACK_POINTER.into(), u64::from(distance).into()]);
                self.temp(Kind::Load, self.word, &[address])
            }
        }
    }
}
