//! Operations: what there is, how many operands each takes, what it defines and uses.
//!
//! Every value is a `u64`. An operation has a *width*; it reads its operands modulo that width and
//! its result is zero-extended to 64 bits. Wider data (128-bit registers) is handled in 64-bit
//! halves. An instruction is a straight list of operations; only [`Class::Control`] operations move
//! control, and [`Kind::BranchIf`] may stand in the middle.

use serde::{Deserialize, Serialize};

/// A register (below [`Var::FIRST_TEMP`]) or a temporary that lives inside one instruction.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Var(pub u16);

impl Var {
    /// The number of the first temporary; lower numbers are machine registers.
    pub const FIRST_TEMP: u16 = 256;
    /// The destination of an operation that defines nothing.
    pub const NONE: Var = Var(u16::MAX);

    /// The n-th temporary.
    #[must_use]
    #[inline]
    pub const fn temp(n: u16) -> Var {
        Var(Self::FIRST_TEMP + n)
    }

    /// Whether it is a machine register.
    #[must_use]
    #[inline]
    pub const fn is_reg(self) -> bool {
        self.0 < Self::FIRST_TEMP
    }

    /// Whether it is a temporary.
    #[must_use]
    #[inline]
    pub const fn is_temp(self) -> bool {
        self.0 >= Self::FIRST_TEMP && self.0 != u16::MAX
    }
}

/// An operand.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Arg {
    /// The value of a register or temporary.
    Var(Var),
    /// A constant.
    Const(u64),
    /// A constant that is another one in another boot: its number in
    /// [`crate::RelocationTable::constants`].
    /// Only programs have such operands.
    Relocated(u32),
}

impl From<Var> for Arg {
    fn from(var: Var) -> Self {
        Arg::Var(var)
    }
}

impl From<u64> for Arg {
    fn from(value: u64) -> Self {
        Arg::Const(value)
    }
}

/// The width of an operation in bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[repr(u8)]
pub enum Width {
    /// One bit: flags and conditions.
    B1 = 1,
    /// A byte.
    B8 = 8,
    /// Two bytes.
    B16 = 16,
    /// Four bytes.
    B32 = 32,
    /// Eight bytes.
    B64 = 64,
}

impl Width {
    /// How many bits it has.
    #[must_use]
    #[inline]
    pub const fn bits(self) -> u32 {
        self as u32
    }

    /// Bytes a memory access of this width touches (1 for [`Width::B1`], which memory never uses).
    #[must_use]
    #[inline]
    pub const fn bytes(self) -> u64 {
        if (self as u64) < 8 { 1 } else { self as u64 / 8 }
    }

    /// All ones in this width.
    #[must_use]
    #[inline]
    pub const fn mask(self) -> u64 {
        u64::MAX >> (64 - self as u32)
    }

    /// The sign bit of this width.
    #[must_use]
    #[inline]
    pub const fn sign_bit(self) -> u64 {
        1 << (self as u32 - 1)
    }

    /// The width with this many bits.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Option<Width> {
        Some(match bits {
            1 => Width::B1,
            8 => Width::B8,
            16 => Width::B16,
            32 => Width::B32,
            64 => Width::B64,
            _ => return None,
        })
    }
}

/// What sort of thing an operation does; decides which parts of the system care about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Computes its result from its operands alone.
    Pure,
    /// Reads guest memory at a linear address.
    Load,
    /// Writes guest memory at a linear address.
    Store,
    /// Its result comes from the run's environment: clocks, ports, random numbers.
    Nondet,
    /// Acts on the run or on the machine outside registers and memory.
    Effect,
    /// Moves control.
    Control,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident $text:literal $class:ident $arity:literal,)*) => {
        /// The operation; operands are written a, b, c, the width w.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
        #[repr(u8)]
        pub enum Kind { $($(#[$doc])* $name,)* }

        impl Kind {
            /// Every operation.
            pub const ALL: &'static [Kind] = &[$(Kind::$name,)*];

            /// Its name in the text form.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Kind::$name => $text,)* }
            }

            /// Its class.
            #[must_use]
            #[inline]
            pub const fn class(self) -> Class {
                match self { $(Kind::$name => Class::$class,)* }
            }

            /// How many operands it takes.
            #[must_use]
            #[inline]
            pub const fn arity(self) -> usize {
                match self { $(Kind::$name => $arity,)* }
            }
        }
    };
}

kinds! {
    /// a, truncated to w.
    Mov "mov" Pure 1,
    /// a + b.
    Add "add" Pure 2,
    /// a - b.
    Sub "sub" Pure 2,
    /// a & b.
    And "and" Pure 2,
    /// a | b.
    Or "or" Pure 2,
    /// a ^ b.
    Xor "xor" Pure 2,
    /// Bitwise complement.
    Not "not" Pure 1,
    /// Two's complement negation.
    Neg "neg" Pure 1,
    /// a << b; 0 when b >= w (b is read as 64 bits, not modulo w).
    Shl "shl" Pure 2,
    /// a >> b, logical; 0 when b >= w.
    Shr "shr" Pure 2,
    /// a >> b, arithmetic; all sign when b >= w.
    Sar "sar" Pure 2,
    /// Rotate left by b modulo w.
    Rol "rol" Pure 2,
    /// Rotate right by b modulo w.
    Ror "ror" Pure 2,
    /// Low half of a * b.
    Mul "mul" Pure 2,
    /// High half of the unsigned product.
    MulHiU "mulhi_u" Pure 2,
    /// High half of the signed product.
    MulHiS "mulhi_s" Pure 2,
    /// Quotient of the unsigned division of a:b (a high half) by c; faults on c = 0 and on
    /// overflow.
    DivU "div_u" Pure 3,
    /// Remainder of the same division.
    RemU "rem_u" Pure 3,
    /// Quotient of the signed division of a:b by c; faults likewise.
    DivS "div_s" Pure 3,
    /// Remainder of the same division.
    RemS "rem_s" Pure 3,
    /// Sign-extends a from b bits (constant 1..64) to w.
    Sext "sext" Pure 2,
    /// 64-bit a with its w bits from bit c (constant) on replaced by b; the result is 64 bits wide.
    Insert "insert" Pure 3,
    /// The w bits of the 64-bit a from bit b (constant) on.
    Extract "extract" Pure 2,
    /// 1 if a = b.
    Eq "eq" Pure 2,
    /// 1 if a < b, unsigned.
    LtU "lt_u" Pure 2,
    /// 1 if a < b, signed.
    LtS "lt_s" Pure 2,
    /// Carry out of a + b + c (c is 0 or 1).
    CarryAdd "carry_add" Pure 3,
    /// Signed overflow of a + b + c.
    OverflowAdd "overflow_add" Pure 3,
    /// Borrow out of a - b - c (c is 0 or 1).
    CarrySub "carry_sub" Pure 3,
    /// Signed overflow of a - b - c.
    OverflowSub "overflow_sub" Pure 3,
    /// 1 if the low byte of a has an even number of ones.
    Parity "parity" Pure 1,
    /// b if a is not 0 (a is read as 64 bits), else c.
    Select "select" Pure 3,
    /// Leading zeros of a in w; w when a is 0.
    Clz "clz" Pure 1,
    /// Trailing zeros of a; w when a is 0.
    Ctz "ctz" Pure 1,
    /// Number of ones.
    Popcnt "popcnt" Pure 1,
    /// Bytes reversed.
    Bswap "bswap" Pure 1,
    /// CRC-32C (polynomial 0x11EDC6F41) of the 32-bit accumulator a with the w bits of b; the
    /// result is 32 bits.
    Crc32c "crc32c" Pure 2,
    /// Carry-less product of two 64-bit values, low half.
    ClmulLo "clmul_lo" Pure 2,
    /// Carry-less product, high half.
    ClmulHi "clmul_hi" Pure 2,

    /// Lane-wise a + b; w is the lane, the values are 64 bits wide (so for all `v*` operations).
    VAdd "vadd" Pure 2,
    /// Lane-wise a - b.
    VSub "vsub" Pure 2,
    /// Lane-wise unsigned saturating a + b.
    VAddSatU "vaddsat_u" Pure 2,
    /// Lane-wise unsigned saturating a - b.
    VSubSatU "vsubsat_u" Pure 2,
    /// Lane-wise signed saturating a + b.
    VAddSatS "vaddsat_s" Pure 2,
    /// Lane-wise signed saturating a - b.
    VSubSatS "vsubsat_s" Pure 2,
    /// Lane-wise all ones where a = b, else 0.
    VCmpEq "vcmpeq" Pure 2,
    /// Lane-wise all ones where a > b signed.
    VCmpGtS "vcmpgt_s" Pure 2,
    /// Lane-wise unsigned minimum.
    VMinU "vmin_u" Pure 2,
    /// Lane-wise unsigned maximum.
    VMaxU "vmax_u" Pure 2,
    /// Lane-wise signed minimum.
    VMinS "vmin_s" Pure 2,
    /// Lane-wise signed maximum.
    VMaxS "vmax_s" Pure 2,
    /// Lane-wise shift left by the scalar b; 0 when b >= w.
    VShl "vshl" Pure 2,
    /// Lane-wise logical shift right by the scalar b.
    VShr "vshr" Pure 2,
    /// Lane-wise arithmetic shift right by the scalar b.
    VSar "vsar" Pure 2,
    /// Lane-wise low half of the product.
    VMul "vmul" Pure 2,
    /// Lane-wise high half of the unsigned product.
    VMulHiU "vmulhi_u" Pure 2,
    /// Lane-wise high half of the signed product.
    VMulHiS "vmulhi_s" Pure 2,
    /// Lane-wise unsigned average rounded up.
    VAvgU "vavg_u" Pure 2,
    /// Sums of products of neighbouring signed 16-bit lanes, as 32-bit lanes (`pmaddwd`).
    VMaddS16 "vmadd_s16" Pure 2,
    /// Sum of absolute differences of the eight unsigned bytes (`psadbw`).
    VSad "vsad" Pure 2,
    /// Interleaves the low halves of a and b lane by lane, a first (`punpckl*`).
    VZipLo "vzip_lo" Pure 2,
    /// Interleaves the high halves (`punpckh*`).
    VZipHi "vzip_hi" Pure 2,
    /// Narrows the lanes of a to half, signed saturation, packed into the low 32 bits.
    VPackS "vpack_s" Pure 1,
    /// Narrows the signed lanes of a to half, unsigned saturation.
    VPackU "vpack_u" Pure 1,
    /// The sign bits of the lanes, lane 0 in bit 0 (`pmovmskb`).
    VMovMask "vmovmask" Pure 1,
    /// For each byte of c: 0 where its bit 7 is set, else the byte of the 128-bit b:a (a low) with
    /// the low four bits as index (`pshufb`).
    VShuffle "vshuffle" Pure 3,

    /// Loads w bits from linear address a.
    Load "load" Load 1,
    /// Stores the w bits of b at linear address a.
    Store "store" Store 2,

    /// The time stamp counter.
    Tsc "tsc" Nondet 0,
    /// Random w bits (`rdrand`, `rdseed`).
    Rand "rand" Nondet 0,
    /// EAX of `cpuid` for leaf a, subleaf b.
    CpuidA "cpuid_a" Nondet 2,
    /// EBX likewise.
    CpuidB "cpuid_b" Nondet 2,
    /// ECX likewise.
    CpuidC "cpuid_c" Nondet 2,
    /// EDX likewise.
    CpuidD "cpuid_d" Nondet 2,
    /// Model-specific register a.
    Rdmsr "rdmsr" Nondet 1,
    /// Performance counter a.
    Rdpmc "rdpmc" Nondet 1,
    /// w bits from I/O port a.
    In "in" Nondet 1,
    /// Debug register a (constant).
    ReadDr "read_dr" Nondet 1,

    /// Allocates a zeroed bytes in the training process's address space; 0 when there is no room.
    Alloc "alloc" Effect 1,
    /// Moves the allocation a to a new one of b bytes.
    Realloc "realloc" Effect 2,
    /// Frees the allocation a.
    Free "free" Effect 1,

    /// Writes the w bits of b to I/O port a.
    Out "out" Effect 2,
    /// Writes b to model-specific register a.
    Wrmsr "wrmsr" Effect 2,
    /// Writes b to debug register a (constant).
    WriteDr "write_dr" Effect 2,
    /// Drops cached translations: of linear address a, or all when a is all ones.
    TlbFlush "tlb_flush" Effect 1,

    /// Goes to a (a constant or computed address of an instruction).
    Jump "jump" Control 1,
    /// Goes to the constant b if a is not 0, else on to the next operation.
    BranchIf "branch_if" Control 2,
    /// Calls a; the constant b is the return address. Pushing it is a separate store.
    Call "call" Control 2,
    /// Returns to a. Popping is separate.
    Ret "ret" Control 1,
    /// Enters the system at a (`syscall`, `sysenter`); the constant b is the address after it.
    SysEnter "sys_enter" Control 2,
    /// Leaves a handler to a (`sysret`, `sysexit`, `iret`).
    SysExit "sys_exit" Control 1,
    /// Software interrupt or trap with vector a (constant); the constant b is the address after it.
    Trap "trap" Control 2,
    /// Waits for an interrupt.
    Halt "halt" Control 0,
    /// An instruction that is not modelled; the constant a names it to the lifter.
    Unsupported "unsupported" Control 1,

    /// The rights of protection keys (`rdpkru`).
    ReadKeys "read_keys" Nondet 0,
    /// Sets them to a (`wrpkru`).
    WriteKeys "write_keys" Effect 1,
    /// The b bytes of memory below linear address a hold nothing that may be read before it is
    /// written: they are overwritten by code that is not there. Only slices have this.
    Undefine "undefine" Effect 2,
}

/// One operation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Op {
    /// What it does.
    pub kind: Kind,
    /// Its width.
    pub width: Width,
    /// What it defines; [`Var::NONE`] if nothing.
    pub dst: Var,
    /// Its operands; those past the kind's arity are `Const(0)`.
    pub args: [Arg; 3],
}

impl Op {
    /// An operation; `args` must have the kind's arity.
    #[must_use]
    pub fn new(kind: Kind, width: Width, dst: Var, args: &[Arg]) -> Op {
        debug_assert_eq!(args.len(), kind.arity(), "{}", kind.name());
        let mut all = [Arg::Const(0); 3];
        all[..args.len()].copy_from_slice(args);
        Op { kind, width, dst, args: all }
    }

    /// Its operands, without the unused places.
    #[must_use]
    #[inline]
    pub fn args(&self) -> &[Arg] {
        &self.args[..self.kind.arity()]
    }

    /// What it defines in registers and temporaries, if anything.
    #[must_use]
    #[inline]
    pub fn def(&self) -> Option<Var> {
        (self.dst != Var::NONE).then_some(self.dst)
    }

    /// The registers and temporaries it uses. Memory bytes that a load uses depend on its address
    /// at run time.
    #[inline]
    pub fn uses(&self) -> impl Iterator<Item = Var> + '_ {
        self.args().iter().filter_map(|arg| match arg {
            Arg::Var(var) => Some(*var),
            Arg::Const(_) | Arg::Relocated(_) => None,
        })
    }

    /// Its class.
    #[must_use]
    #[inline]
    pub const fn class(&self) -> Class {
        self.kind.class()
    }
}
