//! The trainer's executable: where it was loaded, which of its functions are allocators.

use std::fmt::Display;
use std::path::Path;

use ir::program::Summary;
use machine::{Reg, RegFile};
use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};
use rustc_hash::FxHashMap;

use crate::commands::Context;
use crate::failure::Failure;
use crate::symbols::Symbols;
use crate::{files, output};

/// The begin mark (docs/markers.md).
const BEGIN_MARK: [u8; 7] = [0x0f, 0x1f, 0x80, 0x01, 0x00, 0x54, 0x56];

/// What the trainer's executable tells.
pub struct Trainer {
    /// Allocator functions by address in the training process.
    pub summaries: FxHashMap<u64, Summary>,
    /// Why there may be allocators that its symbols do not show.
    no_summaries: Option<&'static str>,
    /// All its functions' names.
    pub symbols: Symbols,
}

impl Trainer {
    /// Reads a trainer's executable; `begin` are the registers right after the begin mark in a recording.
    pub fn read(path: &Path, begin: &RegFile) -> Result<Self, Failure> {
        // An executable's addresses are offsets in the code segment, which begins at 0 in most systems.
        let segment = begin.get_or_zero(Reg::CsBase);
        let begin = begin.get_or_zero(Reg::Rip).wrapping_sub(segment);
        let bytes = files::read(path, "trainer's ELF executable")?;
        if !bytes.starts_with(b"\x7fELF") {
            return Err(Failure::file(path, "it is no ELF file; give the trainer's executable"));
        }
        let elf = object::File::parse(bytes.as_slice())
            .map_err(|error| Failure::file(path, format!("broken ELF file: {error}; give the trainer's executable")))?;
        let bias = bias(path, &elf, begin)?.wrapping_add(segment);
        let mut symbols = Symbols::default();
        symbols.add_elf(&elf, bias);
        let summaries: FxHashMap<u64, Summary> = elf
            .symbols()
            .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_definition() && symbol.address() != 0)
            .filter_map(|symbol| Some((symbol.address().wrapping_add(bias), Summary::by_symbol(symbol.name().ok()?)?)))
            .collect();
        let imported = |symbol: object::Symbol<'_, '_>| {
            symbol.is_undefined() && symbol.name().is_ok_and(|name| Summary::by_symbol(name).is_some())
        };
        let no_summaries = match () {
            () if !summaries.is_empty() => None,
            () if elf.dynamic_symbols().any(imported) => Some("its malloc lies in a shared library"),
            () if elf.symbols().next().is_none() => Some("it has no symbols that would name malloc"),
            () => None,
        };
        Ok(Self { summaries, no_summaries, symbols })
    }

    /// Says what it means that no allocators were found; `whose` names the trainer.
    pub fn remark(&self, whose: &dyn Display, context: Context) {
        if let (Some(why), false) = (self.no_summaries, context.quiet) {
            let what = "its allocations run as ordinary code; link it statically and do not strip it";
            output::note(&format!("{whose}: {why}, so {what}"));
        }
    }
}

/// How far above its own addresses the executable was loaded: told by where its begin mark lies and where in its segment it ran.
fn bias(path: &Path, elf: &object::File<'_>, begin: u64) -> Result<u64, Failure> {
    let begin_mark = begin.wrapping_sub(BEGIN_MARK.len() as u64);
    let mut biases: Vec<u64> = elf
        .sections()
        .flat_map(|section| {
            let data = section.data().unwrap_or_default();
            marks(data).map(|at| begin_mark.wrapping_sub(section.address().wrapping_add(at as u64))).collect::<Vec<_>>()
        })
        .filter(|bias| bias % 4096 == 0)
        .collect();
    biases.dedup();
    match biases.as_slice() {
        _ if biases.contains(&0) => Ok(0),
        [bias] if elf.kind() == object::ObjectKind::Dynamic => Ok(*bias),
        [] => Err(Failure::file(
            path,
            format!(
                "it has no begin mark that could be the recording's at {begin_mark:#x}; give the executable that was recorded"
            ),
        )),
        _ => Err(Failure::file(
            path,
            "where it was loaded cannot be told from its marks; link the trainer with -no-pie and record it again",
        )),
    }
}

/// Offsets of begin marks.
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
