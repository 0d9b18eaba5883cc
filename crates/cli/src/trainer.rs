//! The trainer's executable: where it was loaded, which of its functions are allocators.

use std::fmt::Display;
use std::path::Path;

use ir::Summary;
use machine::{Reg, VirtAddr};
use object::read::pe::{ImageNtHeaders, PeFile};
use object::{File, Object, ObjectSection, ObjectSymbol, SymbolKind};
use rustc_hash::FxHashMap;
use slicer::Recording;

use crate::allocators::{Convention, of_c, of_windows};
use crate::context::Context;
use crate::failure::Failure;
use crate::imports::{Import, imports};
use crate::symbols::Symbols;
use crate::{files, output};

/// The bytes of the begin mark (docs/markers.md).
const BEGIN_MARK: [u8; 7] = [0x0f, 0x1f, 0x80, 0x01, 0x00, 0x54, 0x56];

/// What the trainer's executable tells of the process that was recorded.
pub struct Trainer {
    /// Allocator functions by address in the training process.
    pub summaries: FxHashMap<VirtAddr, Summary>,
    /// Why there may be allocators that are not among them.
    no_summaries: Option<&'static str>,
    /// The names of all its functions, by their addresses in the training process.
    pub symbols: Symbols,
}

impl Trainer {
    /// Reads a trainer's executable, ELF or PE; `recording` is one of a guest in which it ran.
    pub fn read(path: &Path, recording: &Recording) -> Result<Self, Failure> {
        let bytes = files::read(path, "trainer's executable")?;
        if !bytes.starts_with(b"\x7fELF") && !bytes.starts_with(b"MZ") {
            return Err(Failure::file(
                path,
                "it is no ELF file and no PE file; give the trainer's executable",
            ));
        }
        let broken =
            |error| Failure::file(path, format!("broken executable: {error}; give the trainer's executable"));
        let file = File::parse(bytes.as_slice()).map_err(broken)?;
        // An executable's addresses are offsets in the code segment, which begins at 0 in most
        // systems.
        let begin = recording.begin_regs();
        let segment = begin.get_or_zero(Reg::CsBase);
        let bias =
            bias(path, &file, begin.get_or_zero(Reg::Rip).wrapping_sub(segment))?.wrapping_add(segment);
        let mut symbols = Symbols::default();
        symbols.add_file(&file, bias);
        let mut trainer = Self { summaries: FxHashMap::default(), no_summaries: None, symbols };
        match &file {
            File::Pe32(pe) => trainer.imported(pe, bias, recording).map_err(broken)?,
            File::Pe64(pe) => trainer.imported(pe, bias, recording).map_err(broken)?,
            _ => trainer.linked(&file, bias),
        }
        Ok(trainer)
    }

    /// Takes the allocators that an ELF file holds from its symbols.
    fn linked(&mut self, elf: &File<'_>, bias: u64) {
        let convention = if elf.is_64() { Convention::SystemV64 } else { Convention::Cdecl };
        self.summaries = elf
            .symbols()
            .filter(|symbol| {
                symbol.kind() == SymbolKind::Text && symbol.is_definition() && symbol.address() != 0
            })
            .filter_map(|symbol| {
                Some((VirtAddr(symbol.address().wrapping_add(bias)), of_c(symbol.name().ok()?, convention)?))
            })
            .collect();
        let is_allocator = |symbol: object::Symbol<'_, '_>| {
            symbol.is_undefined() && symbol.name().is_ok_and(|name| of_c(name, convention).is_some())
        };
        self.no_summaries = match () {
            () if !self.summaries.is_empty() => None,
            () if elf.dynamic_symbols().any(is_allocator) => {
                Some("its malloc lies in a shared library; link it statically")
            }
            () if elf.symbols().next().is_none() => {
                Some("it has no symbols that would name malloc; do not strip it")
            }
            () => None,
        };
    }

    /// The allocators that a PE file imports: its own jumps to them, and what it calls by the
    /// address that the loader wrote.
    fn imported<Pe: ImageNtHeaders>(
        &mut self,
        pe: &PeFile<'_, Pe>,
        bias: u64,
        recording: &Recording,
    ) -> object::Result<()> {
        let word = if pe.is_64() { 8 } else { 4 };
        for Import { name, slot, stubs, direct } in imports(pe)? {
            let Some(summary) = of_windows(&name, pe.is_64()) else { continue };
            self.summaries.extend(stubs.iter().map(|stub| (VirtAddr(stub.wrapping_add(bias)), summary)));
            if direct {
                match slicer::process_word(recording, VirtAddr(slot.wrapping_add(bias)), word) {
                    Ok(Some(address)) if address != 0 => {
                        self.summaries.insert(VirtAddr(address), summary);
                    }
                    _ => self.no_summaries = Some("its import table was not in memory; record it again"),
                }
            }
        }
        Ok(())
    }

    /// Says what it means that allocators are missing; `whose` names the trainer.
    pub fn remark(&self, whose: &dyn Display, context: Context) {
        if let (Some(why), false) = (self.no_summaries, context.quiet) {
            output::note(&format!("{whose}: its allocations run as ordinary code: {why}"));
        }
    }
}

/// How far above its own addresses the executable was loaded: told by where its begin mark lies and
/// where it ran.
fn bias(path: &Path, file: &File<'_>, begin: u64) -> Result<u64, Failure> {
    let begin_mark = begin.wrapping_sub(BEGIN_MARK.len() as u64);
    let is_pe = matches!(file, File::Pe32(_) | File::Pe64(_));
    let unit = if is_pe { 1 << 16 } else { 1 << 12 };
    let mut biases: Vec<u64> = file
        .sections()
        .flat_map(|section| {
            let data = section.data().unwrap_or_default();
            marks(data)
                .map(|at| begin_mark.wrapping_sub(section.address().wrapping_add(at as u64)))
                .collect::<Vec<_>>()
        })
        .filter(|bias| bias % unit == 0)
        .collect();
    biases.dedup();
    match biases.as_slice() {
        _ if biases.contains(&0) => Ok(0),
        [bias] if is_pe || file.kind() == object::ObjectKind::Dynamic => Ok(*bias),
        [] => Err(Failure::file(
            path,
            format!(
                "it has no begin mark that could be the recording's at {begin_mark:#x}; give the executable \
                 that was recorded"
            ),
        )),
        _ => Err(Failure::file(
            path,
            "where it was loaded cannot be told from its marks; link the trainer for a fixed address and \
             record it again",
        )),
    }
}

/// The offsets in code at which begin marks start.
fn marks(code: &[u8]) -> impl Iterator<Item = usize> + '_ {
    code.windows(BEGIN_MARK.len()).enumerate().filter(|(_, window)| *window == BEGIN_MARK).map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found() {
        let code = [0x90, 0x0f, 0x1f, 0x80, 0x01, 0x00, 0x54, 0x56, 0xc3];
        assert_eq!(marks(&code).collect::<Vec<_>>(), [1]);
        assert_eq!(marks(&code[..7]).count(), 0);
    }
}
