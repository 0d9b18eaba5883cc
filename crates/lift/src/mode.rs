//! The width of code, which decides how bytes are decoded and what operands are by default.

/// The width of code: the D and L bits of the code segment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mode {
    /// Real mode, virtual 8086 mode and 16-bit segments.
    Bits16,
    /// 32-bit segments, in legacy and compatibility mode.
    Bits32,
    /// Long mode.
    Bits64,
}

impl Mode {
    /// The mode with this many bits: 16, 32 or 64.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Option<Mode> {
        Some(match bits {
            16 => Mode::Bits16,
            32 => Mode::Bits32,
            64 => Mode::Bits64,
            _ => return None,
        })
    }

    /// 16, 32 or 64.
    #[must_use]
    pub const fn bits(self) -> u32 {
        match self {
            Mode::Bits16 => 16,
            Mode::Bits32 => 32,
            Mode::Bits64 => 64,
        }
    }
}
