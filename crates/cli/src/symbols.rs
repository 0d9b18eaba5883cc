//! Names for addresses, from a `System.map` or an ELF file. They only make listings readable:
//! nothing depends on them.

use std::collections::BTreeMap;
use std::path::Path;

use ir::Program;
use object::{Object, ObjectSymbol, SymbolKind};

use crate::failure::Failure;
use crate::files;

/// The farthest an address may lie behind a symbol to be named after it.
const REACH: u64 = 1 << 20;

/// Names of functions by their entry addresses.
#[derive(Default)]
pub struct Symbols(BTreeMap<u64, String>);

impl Symbols {
    /// Reads a `System.map` (or `/proc/kallsyms` copy) or the symbol table of an ELF file.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let bytes = files::read(path, "System.map or ELF file with symbols")?;
        let mut symbols = Self::default();
        if bytes.starts_with(b"\x7fELF") {
            let elf = object::File::parse(bytes.as_slice()).map_err(|error| {
                Failure::file(path, format!("broken ELF file: {error}; give another symbol file"))
            })?;
            symbols.add_file(&elf, 0);
        } else {
            symbols.add_map(&String::from_utf8_lossy(&bytes));
        }
        if symbols.0.is_empty() {
            return Err(Failure::file(
                path,
                "it names no functions; give a System.map or an ELF file with symbols",
            ));
        }
        Ok(symbols)
    }

    /// Adds the functions of an executable that was loaded `bias` above its own addresses.
    pub fn add_file(&mut self, file: &object::File<'_>, bias: u64) {
        let functions =
            file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_definition());
        for symbol in functions {
            if let Ok(name) = symbol.name() {
                self.add(symbol.address().wrapping_add(bias), name);
            }
        }
    }

    /// Lines of address, type and name, as `nm` prints them.
    fn add_map(&mut self, text: &str) {
        for line in text.lines() {
            let mut parts = line.split_ascii_whitespace();
            let (Some(addr), Some(kind), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
                continue;
            };
            if let (Ok(addr), "T" | "t" | "W" | "w") = (u64::from_str_radix(addr, 16), kind) {
                self.add(addr, name);
            }
        }
    }

    /// Of several names at an address the plainest stays: without leading underscores, then the
    /// shortest.
    fn add(&mut self, addr: u64, name: &str) {
        let rank =
            |name: &str| (name.len() - name.trim_start_matches('_').len(), name.len(), name.to_string());
        if addr == 0 || name.is_empty() {
            return;
        }
        match self.0.get(&addr) {
            Some(other) if rank(other) <= rank(name) => {}
            _ => {
                self.0.insert(addr, name.to_string());
            }
        }
    }

    /// The name of an address: a symbol, or a symbol and an offset.
    #[must_use]
    pub fn name(&self, addr: u64) -> Option<String> {
        let (&start, name) = self.0.range(..=addr).next_back()?;
        match addr - start {
            0 => Some(name.clone()),
            offset if offset < REACH => Some(format!("{name}+{offset:#x}")),
            _ => None,
        }
    }

    /// Names a program's functions that have no name yet.
    pub fn name_functions(&self, program: &mut Program) {
        for function in program.functions.iter_mut().filter(|function| function.name.is_empty()) {
            function.name = self.name(function.pc).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_a_map() {
        let mut symbols = Symbols::default();
        symbols.add_map(
            "ffffffff81000000 T __x64_sys_read\nffffffff81000000 T ksys\nffffffff82000000 D data\nnot a \
             line\n",
        );
        assert_eq!(symbols.name(0xffff_ffff_8100_0000).as_deref(), Some("ksys"));
        assert_eq!(symbols.name(0xffff_ffff_8100_0010).as_deref(), Some("ksys+0x10"));
        assert_eq!(symbols.name(0xffff_ffff_8200_0000), None);
        assert_eq!(symbols.name(0), None);
    }
}
