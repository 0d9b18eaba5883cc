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
    while let [first @ (0x66 | 0x67 | 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0xf2 | 0xf3), tail @ ..] = rest {
        let _ = first;
        rest = tail;
    }
    // REX exists in 64-bit code only; elsewhere these bytes are complete instructions and 0f never follows inside one.
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
            let operand = if *modrm >= 0xc0 { Operand::Register(modrm & 7 | (rex & 1) << 3) } else { Operand::Memory };
            match modrm >> 3 & 7 {
                2 => Some(Load::Lldt(operand)),
                3 => Some(Load::Ltr(operand)),
                _ => None,
            }
        }
        _ => None,
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
        for other in
            [&[0x0f, 0x01, 0xf8][..], &[0x0f, 0x01, 0x07], &[0x0f, 0x00, 0xc8], &[0x0f, 0x01, 0xc1], &[0x90], &[]]
        {
            assert_eq!(load(other), None);
        }
    }
}
