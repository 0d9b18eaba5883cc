//! Register numbering: one dense table of every register state the lifter, traces and runs speak
//! of.
//!
//! Each register is a `u64`. Arithmetic flags are separate one-bit registers, the 128-bit XMM
//! registers are two halves, a segment register is a selector and a base. The numbers appear in
//! trace and program files: appending is compatible, reordering is not.

use serde::{Deserialize, Serialize};

macro_rules! registers {
    ($($name:ident $text:literal,)*) => {
        /// One register; the discriminant is its number in traces, programs and the IR.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord, Serialize, Deserialize)]
        #[repr(u8)]
        #[expect(missing_docs, reason = "the names are the manual's; Intel SDM vol. 1 ch. 3")]
        pub enum Reg { $($name,)* }

        impl Reg {
            /// Every register in numeric order.
            pub const ALL: &'static [Reg] = &[$(Reg::$name,)*];
            /// Lower-case names in numeric order.
            pub const NAMES: &'static [&'static str] = &[$($text,)*];
        }
    };
}

registers! {
    Rax "rax", Rcx "rcx", Rdx "rdx", Rbx "rbx", Rsp "rsp", Rbp "rbp", Rsi "rsi", Rdi "rdi",
    R8 "r8", R9 "r9", R10 "r10", R11 "r11", R12 "r12", R13 "r13", R14 "r14", R15 "r15",
    Cf "cf", Pf "pf", Af "af", Zf "zf", Sf "sf", Tf "tf", If "if", Df "df", Of "of",
    Iopl "iopl", Nt "nt", Ac "ac", Id "id",
    Es "es", Cs "cs", Ss "ss", Ds "ds", Fs "fs", Gs "gs", Ldtr "ldtr", Tr "tr",
    EsBase "es_base", CsBase "cs_base", SsBase "ss_base", DsBase "ds_base", FsBase "fs_base",
        GsBase "gs_base",
    LdtrBase "ldtr_base", TrBase "tr_base",
    GdtrBase "gdtr_base", GdtrLimit "gdtr_limit", IdtrBase "idtr_base", IdtrLimit "idtr_limit",
    KernelGsBase "kernel_gs_base",
    Cr0 "cr0", Cr2 "cr2", Cr3 "cr3", Cr4 "cr4", Cr8 "cr8",
    Efer "efer", Star "star", Lstar "lstar", Cstar "cstar", Sfmask "sfmask",
    SysenterCs "sysenter_cs", SysenterEsp "sysenter_esp", SysenterEip "sysenter_eip",
    TscAux "tsc_aux", Xcr0 "xcr0", Cpl "cpl", Mxcsr "mxcsr",
    Fcw "fcw", Fsw "fsw", Ftw "ftw", Fop "fop", Fip "fip", Fdp "fdp",
    St0Lo "st0_lo", St0Hi "st0_hi", St1Lo "st1_lo", St1Hi "st1_hi", St2Lo "st2_lo", St2Hi "st2_hi",
    St3Lo "st3_lo", St3Hi "st3_hi", St4Lo "st4_lo", St4Hi "st4_hi", St5Lo "st5_lo", St5Hi "st5_hi",
    St6Lo "st6_lo", St6Hi "st6_hi", St7Lo "st7_lo", St7Hi "st7_hi",
    Xmm0Lo "xmm0_lo", Xmm0Hi "xmm0_hi", Xmm1Lo "xmm1_lo", Xmm1Hi "xmm1_hi",
    Xmm2Lo "xmm2_lo", Xmm2Hi "xmm2_hi", Xmm3Lo "xmm3_lo", Xmm3Hi "xmm3_hi",
    Xmm4Lo "xmm4_lo", Xmm4Hi "xmm4_hi", Xmm5Lo "xmm5_lo", Xmm5Hi "xmm5_hi",
    Xmm6Lo "xmm6_lo", Xmm6Hi "xmm6_hi", Xmm7Lo "xmm7_lo", Xmm7Hi "xmm7_hi",
    Xmm8Lo "xmm8_lo", Xmm8Hi "xmm8_hi", Xmm9Lo "xmm9_lo", Xmm9Hi "xmm9_hi",
    Xmm10Lo "xmm10_lo", Xmm10Hi "xmm10_hi", Xmm11Lo "xmm11_lo", Xmm11Hi "xmm11_hi",
    Xmm12Lo "xmm12_lo", Xmm12Hi "xmm12_hi", Xmm13Lo "xmm13_lo", Xmm13Hi "xmm13_hi",
    Xmm14Lo "xmm14_lo", Xmm14Hi "xmm14_hi", Xmm15Lo "xmm15_lo", Xmm15Hi "xmm15_hi",
    Rip "rip",
    EsLimit "es_limit", CsLimit "cs_limit", SsLimit "ss_limit", DsLimit "ds_limit", FsLimit "fs_limit",
    GsLimit "gs_limit", LdtrLimit "ldtr_limit", TrLimit "tr_limit",
    EsFlags "es_flags", CsFlags "cs_flags", SsFlags "ss_flags", DsFlags "ds_flags", FsFlags "fs_flags",
    GsFlags "gs_flags", LdtrFlags "ldtr_flags", TrFlags "tr_flags",
}

/// `EFER.LMA`: long mode is active (SDM vol. 3 section 2.2.1).
pub const EFER_LMA: u64 = 1 << 10;

/// Registers that belong to the running process beside the general ones: every system gives them
/// back when it returns to it.
pub const PROCESS_REGS: [Reg; 37] = {
    let mut regs = [Reg::Mxcsr; 37];
    let segments = [Reg::Fs, Reg::Gs, Reg::FsBase, Reg::GsBase];
    let mut at = 0;
    while at < segments.len() {
        regs[at] = segments[at];
        at += 1;
    }
    while at < 36 {
        regs[at] = Reg::ALL[Reg::Xmm0Lo as usize + at - segments.len()];
        at += 1;
    }
    regs
};

impl Reg {
    /// Those that belong to the system and not to the process, the GS bases aside: a run has the
    /// target's value of each.
    pub const OF_SYSTEM: &'static [Reg] = &[
        Reg::Cr0,
        Reg::Cr2,
        Reg::Cr3,
        Reg::Cr4,
        Reg::Cr8,
        Reg::Efer,
        Reg::GdtrBase,
        Reg::GdtrLimit,
        Reg::IdtrBase,
        Reg::IdtrLimit,
        Reg::Ldtr,
        Reg::LdtrBase,
        Reg::Tr,
        Reg::TrBase,
    ];

    /// How many registers there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The register with this number.
    #[must_use]
    pub fn from_index(index: usize) -> Option<Self> {
        Self::ALL.get(index).copied()
    }

    /// Its number.
    #[must_use]
    #[inline]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Its lower-case name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// General register by its encoding (0 = rax .. 15 = r15).
    #[must_use]
    pub fn gpr(n: usize) -> Self {
        Self::ALL[n & 15]
    }

    /// Low half of an XMM register (0..15); the high half is the next number.
    #[must_use]
    pub fn xmm_lo(n: usize) -> Self {
        Self::ALL[Self::Xmm0Lo as usize + 2 * (n & 15)]
    }

    /// High half of an XMM register (0..15).
    #[must_use]
    pub fn xmm_hi(n: usize) -> Self {
        Self::ALL[Self::Xmm0Lo as usize + 2 * (n & 15) + 1]
    }
}

/// A value for every register, and which of them are known.
///
/// A capture rarely holds everything (QEMU's ELF note has no MSRs): a register that was never set
/// reads as `None` through [`RegFile::get`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegFile {
    values: Vec<Option<u64>>,
}

impl Default for RegFile {
    fn default() -> Self {
        Self { values: vec![None; Reg::COUNT] }
    }
}

impl RegFile {
    /// A file in which nothing is known.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The register's value, if known.
    #[must_use]
    pub fn get(&self, reg: Reg) -> Option<u64> {
        self.values.get(reg.index()).copied().flatten()
    }

    /// The register's value, or 0 where it is unknown.
    #[must_use]
    pub fn get_or_zero(&self, reg: Reg) -> u64 {
        self.get(reg).unwrap_or(0)
    }

    /// Makes a value known.
    pub fn set(&mut self, reg: Reg, value: u64) {
        if self.values.len() < Reg::COUNT {
            self.values.resize(Reg::COUNT, None);
        }
        self.values[reg.index()] = Some(value);
    }

    /// The known registers in numeric order.
    pub fn known(&self) -> impl Iterator<Item = (Reg, u64)> + '_ {
        Reg::ALL.iter().filter_map(|&reg| self.get(reg).map(|value| (reg, value)))
    }

    /// Sets the separate flag registers from an `RFLAGS` image (SDM vol. 1 section 3.4.3).
    pub fn set_rflags(&mut self, rflags: u64) {
        for &(reg, bit, width) in RFLAGS_FIELDS {
            self.set(reg, rflags >> bit & ((1 << width) - 1));
        }
    }

    /// The `RFLAGS` image of the separate flag registers; unknown flags are 0, bit 1 is always set.
    #[must_use]
    pub fn rflags(&self) -> u64 {
        RFLAGS_FIELDS.iter().fold(2, |image, &(reg, bit, _)| image | self.get_or_zero(reg) << bit)
    }
}

/// Where each flag register lies in `RFLAGS`: register, lowest bit, bits.
pub const RFLAGS_FIELDS: &[(Reg, u32, u32)] = &[
    (Reg::Cf, 0, 1),
    (Reg::Pf, 2, 1),
    (Reg::Af, 4, 1),
    (Reg::Zf, 6, 1),
    (Reg::Sf, 7, 1),
    (Reg::Tf, 8, 1),
    (Reg::If, 9, 1),
    (Reg::Df, 10, 1),
    (Reg::Of, 11, 1),
    (Reg::Iopl, 12, 2),
    (Reg::Nt, 14, 1),
    (Reg::Ac, 18, 1),
    (Reg::Id, 21, 1),
];
