//! The symbols that a kernel lends to its modules.
//!
//! The kernel proper has a table of them (include/linux/export.h, `struct kernel_symbol` with
//! CONFIG_HAVE_ARCH_PREL32_RELOCATIONS, which every x86 kernel since 4.19 has): three numbers of
//! four bytes each, value, name and name space, relative to where they stand.

use std::collections::HashMap;

use ir::relocatable::Symbol;
use object::{Object, ObjectSection};

/// The kernel proper: what modules are linked with.
#[derive(Debug, Default)]
pub struct Exports {
    symbols: HashMap<String, Symbol>,
    /// Its code: address and bytes.
    pub text: (u64, Vec<u8>),
}

/// Bytes of an entry of the table.
const ENTRY: usize = 12;

impl Exports {
    /// Reads them from the kernel proper, an ELF file ([`kernel_proper`](crate::kernel_proper)).
    /// `None` if it has no such table.
    #[must_use]
    pub fn read(kernel: &[u8]) -> Option<Self> {
        let file = object::File::parse(kernel).ok()?;
        let code = file.section_by_name(".text")?;
        let text = (code.address(), code.data().ok()?.to_vec());
        // Sections that lie with the code move with it; per-CPU memory of 64-bit kernels begins at
        // 0 and does not.
        let end = file.sections().map(|section| section.address() + section.size()).max()?;
        let moves = text.0..end;
        let mut symbols = HashMap::new();
        for name in ["__ksymtab", "__ksymtab_gpl"] {
            let Some(table) = file.section_by_name(name) else { continue };
            let bytes = table.data().ok()?;
            for (entry, at) in bytes.chunks_exact(ENTRY).zip((table.address()..).step_by(ENTRY)) {
                let number = |from: usize| {
                    let bytes = entry[from..from + 4].try_into().map_or(0, i32::from_le_bytes);
                    let sum = (at + from as u64).wrapping_add_signed(bytes.into());
                    if file.is_64() { sum } else { sum & u64::from(u32::MAX) }
                };
                let (value, Some(name)) = (number(0), name_at(&file, number(4))) else { continue };
                let symbol =
                    if moves.contains(&value) { Symbol::System(value) } else { Symbol::Constant(value) };
                symbols.insert(name, symbol);
            }
        }
        (!symbols.is_empty()).then_some(Self { symbols, text })
    }

    /// What a name stands for.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Symbol> {
        self.symbols.get(name).copied()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.symbols.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.symbols.is_empty()
    }
}

/// The text at an address of the kernel.
fn name_at(file: &object::File<'_>, address: u64) -> Option<String> {
    let section = file.section_by_name("__ksymtab_strings")?;
    let from = usize::try_from(address.checked_sub(section.address())?).ok()?;
    let bytes = section.data().ok()?.get(from..)?;
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
}
