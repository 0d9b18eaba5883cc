//! Recognises the instructions that are watched, by their bytes.

/// A mark of the marker protocol (docs/markers.md).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mark {
    Begin,
    End,
    Input,
    Output,
}

/// The mark these bytes are: `nopl 0x565400NN(%rax)`.
pub fn mark(bytes: &[u8]) -> Option<Mark> {
    match bytes {
        [0x0f, 0x1f, 0x80, number, 0x00, 0x54, 0x56] => match number {
            1 => Some(Mark::Begin),
            2 => Some(Mark::End),
            3 => Some(Mark::Input),
            4 => Some(Mark::Output),
            _ => None,
        },
        _ => None,
    }
}

/// Where `ltr` or `lldt` takes the selector from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operand {
    /// General register of this number.
    Register(u8),
    Memory,
}

/// An instruction that loads a register which plugins cannot read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Load {
    Wrmsr,
    Xsetbv,
    Lgdt,
    Lidt,
    Lldt(Operand),
    Ltr(Operand),
}

/// The watched load these bytes are.
pub fn load(bytes: &[u8]) -> Option<Load> {
    let mut rest = bytes;
    let mut rex = 0;
    while let [first @ (0x66 | 0x67 | 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0xf2 | 0xf3), tail @ ..] =
        rest
    {
        let _ = first;
        rest = tail;
    }
    // REX exists in 64-bit code only; elsewhere these bytes are complete instructions and 0f never
    // follows inside one.
    if let [byte @ 0x40..=0x4f, tail @ ..] = rest {
        rex = *byte;
        rest = tail;
    }
    match rest {
        [0x0f, 0x30] => Some(Load::Wrmsr),
        [0x0f, 0x01, 0xd1] => Some(Load::Xsetbv),
        [0x0f, 0x01, modrm, ..] if *modrm < 0xc0 => match modrm >> 3 & 7 {
            2 => Some(Load::Lgdt),
            3 => Some(Load::Lidt),
            _ => None,
        },
        [0x0f, 0x00, modrm, ..] => {
            let operand =
                if *modrm >= 0xc0 { Operand::Register(modrm & 7 | (rex & 1) << 3) } else { Operand::Memory };
            match modrm >> 3 & 7 {
                2 => Some(Load::Lldt(operand)),
                3 => Some(Load::Ltr(operand)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The vector of a software interrupt.
pub fn interrupt(bytes: &[u8]) -> Option<u8> {
    match bytes {
        [0xcd, vector] => Some(*vector),
        _ => None,
    }
}

/// The address in 32-bit code of a memory operand in FS or GS without a register: a cell of per-CPU
/// or per-thread memory.
pub fn segment_cell(bytes: &[u8]) -> Option<u32> {
    let mut rest = bytes;
    let mut segment = false;
    while let [prefix @ (0x66 | 0x64 | 0x65 | 0xf0 | 0xf2 | 0xf3), tail @ ..] = rest {
        segment |= matches!(prefix, 0x64 | 0x65);
        rest = tail;
    }
    let rest = match rest {
        [0xa0..=0xa3, rest @ ..] => rest,
        [0x0f, _, modrm, rest @ ..] if modrm & 0xc7 == 5 => rest,
        [_, modrm, rest @ ..] if modrm & 0xc7 == 5 => rest,
        _ => return None,
    };
    rest.first_chunk().filter(|_| segment).map(|bytes| u32::from_le_bytes(*bytes))
}

/// Whether these bytes are `hlt`, with which a processor idles.
pub fn halts(bytes: &[u8]) -> bool {
    bytes == [0xf4]
}

/// Whether the instruction's result is no function of registers and memory (`rdtsc`, `rdpmc`,
/// `rdmsr`, `cpuid`, `in`, `rdrand`, `rdseed`, `rdtscp`, `xgetbv`, `rdpkru`, `mov` from debug and
/// control registers): registers are recorded again right after it, for nothing can compute them.
pub fn undetermined(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let [
        0x66 | 0x67 | 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0xf0 | 0xf2 | 0xf3 | 0x40..=0x4f,
        tail @ ..,
    ] = rest
    {
        rest = tail;
    }
    match rest {
        [0x0f, 0x31..=0x33 | 0xa2 | 0x20 | 0x21, ..] | [0x0f, 0x01, 0xf9 | 0xd0 | 0xee] => true,
        [0x0f, 0xc7, modrm] => *modrm >= 0xf0,
        [0xe4 | 0xe5 | 0xec | 0xed, ..] => true,
        _ => false,
    }
}

/// Which registers a block may change besides the general ones.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Touches {
    /// XMM registers and MXCSR.
    pub vector: bool,
    /// Segments, their bases and control registers.
    pub system: bool,
}

impl Touches {
    /// Both sorts of registers.
    pub const ALL: Self = Self { vector: true, system: true };

    /// What either of the two may change.
    pub const fn or(self, other: Self) -> Self {
        Self { vector: self.vector || other.vector, system: self.system || other.system }
    }
}

/// Which registers an instruction may change; rather too many than too few. Right in every code
/// size.
pub fn touches(bytes: &[u8]) -> Touches {
    const NONE: Touches = Touches { vector: false, system: false };
    const VECTOR: Touches = Touches { vector: true, system: false };
    const SYSTEM: Touches = Touches { vector: false, system: true };
    let mut rest = bytes;
    while let [0x66 | 0x67 | 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0xf0 | 0xf2 | 0xf3, tail @ ..] = rest {
        rest = tail;
    }
    if let [0x40..=0x4f, tail @ ..] = rest {
        rest = tail;
    }
    match rest {
        [0x0f, opcode, ..] => match opcode {
            // Descriptor tables, swapgs; syscall, sysret, clts; mov to control registers; wrmsr,
            // sysenter, sysexit; pop fs/gs; lss.
            0x00
            | 0x01
            | 0x05..=0x09
            | 0x20..=0x23
            | 0x30
            | 0x34
            | 0x35
            | 0xa1
            | 0xa9
            | 0xaa
            | 0xb2
            | 0xb4
            | 0xb5 => SYSTEM,
            // ud2, prefetch, nop, rdtsc, rdmsr, rdpmc, cmovcc, jcc, setcc, bit and double shifts,
            // imul, cmpxchg, movzx, xadd, movnti, bswap.
            0x0b | 0x0d | 0x18..=0x1f | 0x31..=0x33 | 0x40..=0x4f | 0x80..=0xa0 | 0xa2..=0xa5 | 0xa8 => NONE,
            0xab..=0xad | 0xaf..=0xb1 | 0xb3 | 0xb6..=0xc1 | 0xc3 | 0xc7..=0xcf => NONE,
            // fxrstor, ldmxcsr, but also wrfsbase.
            0xae => Touches::ALL,
            _ => VECTOR,
        },
        // VEX and EVEX, or les, lds and bound.
        [0xc4 | 0xc5 | 0x62, ..] => Touches::ALL,
        // Moves and pops to segments, far transfers, interrupts and returns from them.
        [0x07 | 0x17 | 0x1f | 0x8e | 0x9a | 0xca..=0xcf | 0xea | 0xf1, ..] => SYSTEM,
        [0xff, modrm, ..] if matches!(modrm >> 3 & 7, 3 | 5) => SYSTEM,
        _ => NONE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks() {
        assert_eq!(mark(&[0x0f, 0x1f, 0x80, 1, 0, 0x54, 0x56]), Some(Mark::Begin));
        assert_eq!(mark(&[0x0f, 0x1f, 0x80, 4, 0, 0x54, 0x56]), Some(Mark::Output));
        assert_eq!(mark(&[0x0f, 0x1f, 0x80, 5, 0, 0x54, 0x56]), None);
        assert_eq!(mark(&[0x0f, 0x1f, 0x80, 1, 0, 0x54]), None);
        assert_eq!(mark(&[0x0f, 0x1f, 0x80, 0, 0, 0, 0]), None);
    }

    #[test]
    fn touched_registers() {
        let kind = |bytes: &[u8]| (touches(bytes).vector, touches(bytes).system);
        for plain in [
            &[0x48, 0x89, 0xd8][..],
            &[0x0f, 0x84, 0, 0, 0, 0],
            &[0xf3, 0x48, 0xab],
            &[0x90],
            &[0x40],
            &[],
            &[0x66],
        ] {
            assert_eq!(kind(plain), (false, false), "{plain:x?}");
        }
        for vector in [&[0x66, 0x0f, 0xef, 0xc0][..], &[0xf3, 0x41, 0x0f, 0x6f, 0x07], &[0x0f, 0x28, 0xc1]] {
            assert_eq!(kind(vector), (true, false), "{vector:x?}");
        }
        for system in [
            &[0x0f, 0x01, 0xf8][..],
            &[0x0f, 0x22, 0xd8],
            &[0x48, 0xcf],
            &[0x48, 0x0f, 0x07],
            &[0x8e, 0xd8],
            &[0xff, 0x2b],
        ] {
            assert_eq!(kind(system), (false, true), "{system:x?}");
        }
        assert_eq!(kind(&[0xf3, 0x0f, 0xae, 0xd0]), (true, true));
    }

    #[test]
    fn loads() {
        assert_eq!(load(&[0x0f, 0x30]), Some(Load::Wrmsr));
        assert_eq!(load(&[0x0f, 0x01, 0xd1]), Some(Load::Xsetbv));
        assert_eq!(load(&[0x0f, 0x01, 0x15, 0, 0, 0, 0]), Some(Load::Lgdt));
        assert_eq!(load(&[0x0f, 0x01, 0x1f]), Some(Load::Lidt));
        assert_eq!(load(&[0x2e, 0x66, 0x0f, 0x01, 0x1e, 0, 0]), Some(Load::Lidt));
        assert_eq!(load(&[0x0f, 0x00, 0xd8]), Some(Load::Ltr(Operand::Register(0))));
        assert_eq!(load(&[0x41, 0x0f, 0x00, 0xd9]), Some(Load::Ltr(Operand::Register(9))));
        assert_eq!(load(&[0x0f, 0x00, 0x1f]), Some(Load::Ltr(Operand::Memory)));
        assert_eq!(load(&[0x0f, 0x00, 0xd0]), Some(Load::Lldt(Operand::Register(0))));
        // swapgs, sgdt, str, vmcall and ordinary code are none.
        for other in [
            &[0x0f, 0x01, 0xf8][..],
            &[0x0f, 0x01, 0x07],
            &[0x0f, 0x00, 0xc8],
            &[0x0f, 0x01, 0xc1],
            &[0x90],
            &[],
        ] {
            assert_eq!(load(other), None);
        }
    }

    #[test]
    fn cells_in_segments_are_those_with_an_address_and_no_register() {
        assert_eq!(segment_cell(&[0x64, 0xa1, 0x08, 0x08, 0xe8, 0xc1]), Some(0xc1e8_0808), "mov eax, fs:[x]");
        assert_eq!(segment_cell(&[0x64, 0xff, 0x0d, 4, 3, 2, 1]), Some(0x0102_0304), "dec dword fs:[x]");
        assert_eq!(
            segment_cell(&[0x65, 0x0f, 0xb6, 0x05, 4, 3, 2, 1]),
            Some(0x0102_0304),
            "movzx eax, byte gs:[x]"
        );
        assert_eq!(segment_cell(&[0x64, 0x8b, 0x03]), None, "mov eax, fs:[ebx]");
        assert_eq!(segment_cell(&[0xa1, 0x08, 0x08, 0xe8, 0xc1]), None, "mov eax, [x]");
        assert_eq!(segment_cell(&[0x64, 0xa1, 0x08]), None);
    }
}
