//! What a PE executable imports: where the loader writes each function's address, and how the code
//! calls it.

use std::mem::size_of;

use object::read::pe::{ImageNtHeaders, ImageThunkData, Import as Thunk, PeFile};
use object::{LittleEndian, Object, ObjectSection, SectionKind};
use rustc_hash::FxHashMap;

/// An imported function. Addresses are those of the file: the image may have been loaded elsewhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Import {
    /// The name by which it is imported.
    pub name: String,
    /// The address of the word into which the loader writes where the function is.
    pub slot: u64,
    /// Jumps through the slot: the compiler's own functions of that name, which nobody but this
    /// executable calls.
    pub stubs: Vec<u64>,
    /// Whether the code uses the slot in another way: it calls what is written there, as the
    /// libraries may too.
    pub direct: bool,
}

/// The functions that a PE file imports by name.
///
/// # Errors
/// The reader's, for a broken file.
pub fn imports<Pe: ImageNtHeaders>(file: &PeFile<'_, Pe>) -> object::Result<Vec<Import>> {
    let base = file.relative_address_base();
    let mut found = Vec::new();
    if let Some(table) = file.import_table()? {
        let mut libraries = table.descriptors()?;
        while let Some(library) = libraries.next()? {
            let slots = library.first_thunk.get(LittleEndian);
            // What is to be found is written in a second table, or where it will be found.
            let names =
                Some(library.original_first_thunk.get(LittleEndian)).filter(|&rva| rva != 0).unwrap_or(slots);
            let mut thunks = table.thunks(names)?;
            let mut slot = base.wrapping_add(slots.into());
            while let Some(thunk) = thunks.next::<Pe>()? {
                if !thunk.is_ordinal()
                    && let Thunk::Name(_, name) = table.import::<Pe>(thunk)?
                {
                    let name = String::from_utf8_lossy(name).into_owned();
                    found.push(Import { name, slot, stubs: Vec::new(), direct: false });
                }
                slot = slot.wrapping_add(size_of::<Pe::ImageThunkData>() as u64);
            }
        }
    }
    let by_slot: FxHashMap<u64, usize> =
        found.iter().enumerate().map(|(at, import)| (import.slot, at)).collect();
    for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
        let code = section.data()?;
        for (at, word) in code.windows(4).enumerate() {
            let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            let here = section.address().wrapping_add(at as u64);
            // 64-bit code names data by its distance from the next instruction.
            let named = if file.is_64() {
                here.wrapping_add(4).wrapping_add_signed(i64::from(word.cast_signed()))
            } else {
                u64::from(word)
            };
            let Some(&import) = by_slot.get(&named) else { continue };
            match &code[..at] {
                // With REX.W, as some compilers write it.
                [.., 0x48, 0xff, 0x25] => {
                    found[import].stubs.extend([here.wrapping_sub(3), here.wrapping_sub(2)])
                }
                [.., 0xff, 0x25] => found[import].stubs.push(here.wrapping_sub(2)),
                _ => found[import].direct = true,
            }
        }
    }
    Ok(found)
}
