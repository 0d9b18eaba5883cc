//! Random operations and programs from a seed.
//!
//! A *wild* program breaks rules of the verifier; a tame one keeps them all.

use ir::op::{Arg, Class, Kind, Op, Var, Width};
use ir::program::{
    Arm, Block, BlockId, Callee, CodeRange, Count, Dependence, Elem, FuncId, Function, OutputDependences,
    PageContent, PerCpuOverride, Program, Provenance, SignatureWord, Source, Target, Terminator, UserPage,
    Variable,
};
use ir::relocation::{Fixup, FixupKind, Image, RelocatedConstant, RelocationTable};
use ir::summary::{Action, ArgumentLocation, Summary};

/// Names like those of a machine, and some that cannot be used as they are.
pub const NAMES: &[&str] =
    &["rax", "rcx", "rdx", "rbx", "rsp", "t0", "if", "end", "f1", "b0", "rax", "", "a b", "12", "call"];

/// Relocated constants of each program.
const CONSTANTS: u64 = 3;

/// A small generator (xorshift64*): the tests need variety, not quality.
pub struct Random {
    state: u64,
    wild: bool,
}

impl Random {
    pub fn new(seed: u64, wild: bool) -> Self {
        Self { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, wild }
    }

    pub fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 11) % end
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    fn many<T>(&mut self, max: u64, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(max + 1)).map(|_| one(self)).collect()
    }

    /// A number with a liking for edges.
    pub fn number(&mut self) -> u64 {
        match self.below(4) {
            0 => self.pick(&[
                0,
                1,
                7,
                8,
                63,
                64,
                0x7f,
                0x80,
                0xff,
                0x8000,
                0x7fff_ffff,
                0x8000_0000,
                u64::MAX,
                1 << 63,
            ]),
            1 => self.below(300),
            2 => self.next() as u32 as u64,
            _ => self.next(),
        }
    }

    fn text(&mut self) -> String {
        self.many(6, |random| {
            random.pick(&['a', 'Z', ' ', ';', '"', '\\', '\n', '\'', 'é', '\u{1f600}', '\0', '}', '\u{85}'])
        })
        .into_iter()
        .collect()
    }

    fn ascending(&mut self) -> Vec<u64> {
        let mut values = self.many(4, Self::number);
        if !self.wild {
            values.sort_unstable();
            values.dedup();
        }
        values
    }

    fn var(&mut self) -> Var {
        match self.below(3) {
            _ if self.wild => Var(self.next() as u16),
            0 => Var::temp(self.below(2048) as u16),
            _ => Var(self.below(256) as u16),
        }
    }

    fn arg(&mut self) -> Arg {
        match self.below(5) {
            0 | 1 => Arg::Var(self.var()),
            2 | 3 => Arg::Const(self.number()),
            _ if self.wild => Arg::Relocated(self.next() as u32),
            _ => Arg::Relocated(self.below(CONSTANTS) as u32),
        }
    }

    /// An operation that a block may hold, or any if wild.
    pub fn op(&mut self) -> Op {
        loop {
            let kind = self.pick(Kind::ALL);
            let width = self.pick(&[Width::B1, Width::B8, Width::B16, Width::B32, Width::B64]);
            let args: Vec<Arg> = (0..kind.arity()).map(|_| self.arg()).collect();
            let defines = match kind.class() {
                Class::Pure | Class::Load | Class::Nondet => true,
                Class::Effect => matches!(kind, Kind::Alloc | Kind::Realloc),
                Class::Store | Class::Control => false,
            };
            let defines = if self.wild { self.below(2) == 0 } else { defines };
            let op = Op::new(kind, width, if defines { self.var() } else { Var::NONE }, &args);
            if self.wild || ir::verify::broken(&op).is_none() {
                return op;
            }
        }
    }

    fn target(&mut self, blocks: u64, functions: u64) -> Target {
        match self.below(4) {
            0 => Target::Return,
            1 => Target::Unexplored(self.number()),
            2 => Target::Tail(FuncId(self.below(functions) as u32)),
            _ => Target::Block(BlockId(self.below(blocks) as u32)),
        }
    }

    fn term(&mut self, blocks: u64, functions: u64) -> Terminator {
        let (blocks, functions) = if self.wild { (1 << 32, 1 << 32) } else { (blocks, functions) };
        match self.below(6) {
            0 => Terminator::End,
            1 => Terminator::Goto(self.target(blocks, functions)),
            2 => {
                let (taken, otherwise) = (self.target(blocks, functions), self.target(blocks, functions));
                Terminator::Branch { cond: self.arg(), taken, otherwise }
            }
            3 => {
                let values = self.ascending();
                let arms = values
                    .iter()
                    .map(|&value| Arm { value, target: self.target(blocks, functions) })
                    .collect();
                Terminator::Switch { value: self.arg(), arms }
            }
            choice => {
                let callee = if choice == 4 {
                    Callee::Direct(FuncId(self.below(functions) as u32))
                } else {
                    let func = |random: &mut Self| {
                        (random.below(3) > 0).then(|| FuncId(random.below(functions) as u32))
                    };
                    let values = self.ascending();
                    let arms = values.iter().map(|&value| Arm { value, target: func(self) }).collect();
                    Callee::Indirect { value: self.arg(), arms }
                };
                Terminator::Call { callee, stack: self.var(), then: self.target(blocks, functions) }
            }
        }
    }

    fn function(&mut self, functions: u64) -> Function {
        let blocks = if self.wild { self.below(3) } else { 1 + self.below(3) };
        let block = |random: &mut Self| {
            let pc = random.number();
            let term_pc = if random.below(2) == 0 { pc } else { random.number() };
            Block { pc, ops: random.many(6, Self::op), term: random.term(blocks, functions), term_pc }
        };
        Function {
            pc: self.number(),
            name: self.text(),
            callee_saved: self
                .many(3, |random| if random.wild { random.var() } else { Var(random.below(256) as u16) }),
            blocks: (0..blocks).map(|_| block(self)).collect(),
        }
    }

    fn variable(&mut self) -> Variable {
        let size = if self.wild { self.next() as u8 } else { self.pick(&[1, 2, 4, 8]) };
        let elem = self.pick(&[Elem::Unsigned(size), Elem::Signed(size), Elem::Char, Elem::Byte]);
        let max = if self.wild { self.number() } else { self.below(1 << 20) };
        let count = match self.below(3) {
            0 => Count::One,
            1 => Count::Fixed(max),
            _ => Count::Variable { name: self.text(), max },
        };
        Variable { name: self.text(), elem, count, addr: self.number() }
    }

    fn bytes(&mut self, length: u64) -> Vec<u8> {
        let dense = self.below(2) == 0;
        (0..length).map(|_| if dense || self.below(200) == 0 { self.next() as u8 } else { 0 }).collect()
    }

    fn page(&mut self, addr: u64) -> UserPage {
        let content = match self.below(3) {
            0 => PageContent::Zero,
            1 => PageContent::Kernel(self.number()),
            _ => {
                let length = if self.wild { self.below(100) } else { 4096 };
                PageContent::Bytes(self.bytes(length))
            }
        };
        UserPage { addr, content }
    }

    fn overrides(&mut self, bits: u8) -> Vec<PerCpuOverride> {
        let mut base = if self.wild { self.next() as u16 } else { self.below(256) as u16 };
        if bits == 32 && self.below(2) == 0 {
            base |= PerCpuOverride::DESCRIPTOR;
        }
        let count = self.below(4) as u32;
        (0..count)
            .map(|at| PerCpuOverride {
                base,
                offset: if self.wild { self.next() as u32 } else { at * 0x1000 + self.below(0x1000) as u32 },
                size: if self.wild { self.next() as u8 } else { self.pick(&[1, 2, 4, 8]) },
                value: self.number(),
            })
            .collect()
    }

    fn relocations(&mut self) -> RelocationTable {
        let wild = self.wild;
        let image = |random: &mut Self| if wild { random.next() as u16 } else { random.below(2) as u16 };
        let maybe = |random: &mut Self| (random.below(2) == 0).then(|| image(random));
        RelocationTable {
            images: if wild {
                self.many(3, |random| Image {
                    start: random.number(),
                    end: random.number(),
                    movable: random.below(2) == 0,
                })
            } else {
                vec![
                    Image { start: 0x1000, end: 0x2000, movable: self.below(2) == 0 },
                    Image { start: 0x2000, end: 0x2001, movable: self.below(2) == 0 },
                ]
            },
            gates: self.many(1, |random| (random.next() as u8, random.number())),
            constants: (0..CONSTANTS)
                .map(|_| match self.below(2) {
                    0 => RelocatedConstant::Address { value: self.number(), image: image(self) },
                    _ => RelocatedConstant::Patched {
                        value: self.number(),
                        pc: self.number(),
                        len: if wild { self.next() as u8 } else { self.below(16) as u8 },
                        op: self.next() as u16,
                        arg: if wild { self.next() as u8 } else { self.below(3) as u8 },
                    },
                })
                .collect(),
            fixups: (0..self.below(4))
                .map(|at| Fixup {
                    addr: if wild { self.number() } else { at * 16 + self.below(8) },
                    size: if wild { self.next() as u8 } else { 1 + self.below(8) as u8 },
                    kind: match self.below(3) {
                        0 => FixupKind::Patched,
                        1 => FixupKind::Either { other: self.number() },
                        _ => FixupKind::Moves { plus: maybe(self), minus: maybe(self) },
                    },
                })
                .collect::<Vec<_>>()
                .into(),
        }
    }

    fn summary(&mut self) -> Summary {
        let action = self.pick(&Action::ALL);
        let mut args = [Summary::NO_ARG; 2];
        args[..action.arity()].fill_with(|| self.argument());
        let fails = (self.below(2) == 0).then(|| (self.argument(), self.next() as u32));
        Summary { action, args, pops: self.below(64) as u16, fails }
    }

    fn argument(&mut self) -> ArgumentLocation {
        match self.below(2) {
            0 if self.wild => ArgumentLocation::Stack(self.next() as u16),
            0 => ArgumentLocation::Stack(4 + self.below(64) as u16),
            _ => ArgumentLocation::Register(Var(self.below(256) as u16)),
        }
    }

    /// What some of the outputs depend on.
    fn dependences(&mut self, inputs: &[Variable], outputs: &[Variable]) -> Vec<OutputDependences> {
        let mut all: Vec<OutputDependences> = Vec::new();
        for output in outputs {
            let known = all.iter().any(|it| it.output == output.name);
            if known && !self.wild || self.below(3) == 0 {
                continue;
            }
            let mut on =
                vec![Dependence::Memory, Dependence::Registers, Dependence::Counter, Dependence::Device];
            on.extend(inputs.iter().map(|input| Dependence::Input(input.name.clone())));
            on.retain(|_| self.below(2) == 0);
            if self.wild {
                on.reverse();
            } else {
                on.sort();
                on.dedup();
            }
            all.push(OutputDependences { output: output.name.clone(), on });
        }
        all
    }

    /// A program.
    pub fn program(&mut self) -> Program {
        let functions = if self.wild { self.below(3) } else { 1 + self.below(3) };
        let page = |at: usize, addr: u64, wild: bool| if wild { addr } else { at as u64 * 0x3000 };
        let wild = self.wild;
        let bits = if wild { self.next() as u8 } else { self.pick(&[32, 64]) };
        let (inputs, outputs) = (self.many(3, Self::variable), self.many(3, Self::variable));
        let dependences = self.dependences(&inputs, &outputs);
        Program {
            name: self.text(),
            bits,
            entry: FuncId(if wild { self.next() as u32 } else { self.below(functions) as u32 }),
            functions: (0..functions).map(|_| self.function(functions)).collect(),
            inputs,
            outputs,
            registers: self.many(4, |random| {
                let reg = if random.wild { random.next() as u16 } else { random.below(256) as u16 };
                (reg, random.number())
            }),
            begin_pc: self.number(),
            pages: self
                .ascending()
                .iter()
                .enumerate()
                .map(|(at, &addr)| self.page(page(at, addr, wild)))
                .collect(),
            heap: self.number(),
            summaries: self.ascending().into_iter().map(|addr| (addr, self.summary())).collect(),
            code: self.many(3, |random| {
                let length = random.below(100);
                CodeRange { addr: random.number(), bytes: random.bytes(length) }
            }),
            system: std::array::from_fn(|_| self.next() as u8),
            clock: self.ascending(),
            overrides: self.overrides(bits),
            signature: (0..self.below(4) as u32)
                .map(|at| SignatureWord { offset: at * 8, points: self.next() as u32 })
                .collect(),
            relocations: self.relocations(),
            dependences,
            provenance: Provenance {
                sources: self.many(2, |random| Source {
                    trace: random.text(),
                    rehearsed: random.many(1, Self::text).pop(),
                    instructions: random.number(),
                    retained: random.number(),
                    in_slice: random.number(),
                }),
                static_instructions: self.number(),
                static_in_slice: self.number(),
                policy: self.text(),
                base: self.many(1, Self::text).pop(),
                unrepeated: self.many(1, Self::text).pop(),
            },
        }
    }
}
