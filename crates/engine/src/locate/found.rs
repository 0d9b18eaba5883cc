//! What a search for processors is given and what comes of it.

use machine::RegFile;

/// What is known, and need not be searched for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hints {
    /// CR3: the root of page tables that map the kernel.
    pub cr3: Option<u64>,
    /// The kernel's GS base: the address of a processor's per-CPU memory.
    pub gs_base: Option<u64>,
}

/// What was found, and how sure it is.
#[derive(Clone, Debug)]
pub struct Located {
    /// The registers that follow from it, for each processor; by ascending GS base.
    pub cpus: Vec<RegFile>,
    /// How many of the interrupt table's handlers are training's at the slide that was found, and
    /// of how many.
    pub gates: (usize, usize),
    /// How many of the page-table roots found have the same kernel half as the one taken, and how
    /// many were found.
    pub roots: (usize, usize),
    /// How many distinct addresses of the program's signature were found for the least certain
    /// processor, and how many the signature has; `None` if the GS base was given.
    pub signature: Option<(usize, usize)>,
}

/// Why no processor's state was found.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LocateError {
    /// The program is not of a 64-bit system.
    #[error("the state of processors is found in the memory of 64-bit guests only")]
    Bits,
    /// The program has no kernel code that is the same in every boot, or knows fewer than four
    /// interrupt gates.
    #[error("the program has no kernel code by which memory could be recognised")]
    Nothing,
    /// No interrupt table leads to the kernel that the program was made from.
    #[error(
        "no interrupt table in its memory leads to the kernel that the program was made from: another \
         kernel, or not all of its memory"
    )]
    Gates,
    /// No page tables map the kernel's code at the slide that the interrupt table has.
    #[error(
        "an interrupt table is there, but no page tables that map the kernel's code: another kernel, or not \
         all of its memory"
    )]
    Tables,
    /// More than one such kernel is there, or its page tables contradict each other: an earlier
    /// boot left its memory behind, or somebody planted them.
    #[error(
        "its memory holds more than one such kernel, of an earlier boot or planted: page tables at {0:#x} \
         and {1:#x} disagree"
    )]
    Ambiguous(u64, u64),
    /// Interrupt tables lead to so many places that they are planted.
    #[error("its memory holds interrupt tables that lead to {0} different places, which somebody planted")]
    ManyTables(usize),
    /// Nothing looks like per-CPU memory.
    #[error("page tables are there, but no per-CPU memory by which a processor could be recognised")]
    Processors,
}
