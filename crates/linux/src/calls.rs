//! Static calls: the functions that trusted code makes them lead to.
//!
//! A static call (include/linux/static_call.h) of a module goes through a trampoline,
//! `__SCT__NAME`, that jumps to the function of the day. `__static_call_update`, which takes a key,
//! that trampoline and a function, makes it lead elsewhere, and with it every call of it. So the
//! functions are those that code has in the register of the third argument when it calls that: a
//! function itself, or a field of a table of functions, or one where the other is none. Such a
//! table may be filled from one of another module, which has the same size there; that module uses
//! what this one exports. What a register has is only followed from where an instruction with a
//! name puts it there: what came in another way is not known.

use std::collections::BTreeMap;

use ir::relocatable::Object;
use object::read::elf::FileHeader;
use object::{Object as _, ObjectSection, ObjectSymbol, RelocationTarget, SectionKind, SymbolKind};

use crate::parts::{Parts, Place};

/// What names of trampolines begin with, and those of their keys.
const TRAMPOLINE: &str = "__SCT__";
const KEY: &str = "__SCK__";
/// What makes a static call lead elsewhere.
const UPDATE: &str = "__static_call_update";
/// The smallest table of functions, in bytes: smaller ones are of one size by chance.
const LEAST: u64 = 64;

/// A function, or data, as a module's file names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Named {
    /// A place of its own.
    Place(Place),
    /// A symbol of another file.
    Symbol(String),
}

/// What a static call is made to lead to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Given {
    /// This function.
    Function(Named),
    /// What is in a field of a table: the table's size, and where in it.
    Field(u64, u64),
}

/// What a module's file says of static calls.
#[derive(Default, Debug)]
pub(crate) struct Calls {
    /// Its trampolines, and what they are made to lead to.
    pub trampolines: BTreeMap<Place, Vec<Given>>,
    /// Functions in its tables: the table's size, where in it, and the function.
    pub tables: Vec<(u64, u64, Named)>,
}

/// Where an object's file has trampolines: they jump to what is called at the time.
pub(crate) fn trampolines<'p, H: FileHeader<Endian = object::LittleEndian>>(
    parts: &'p Parts<'_, '_, H>,
) -> impl Iterator<Item = Place> + 'p {
    let named = parts.file.symbols().filter(|it| it.name().is_ok_and(|it| it.starts_with(TRAMPOLINE)));
    named.filter_map(|it| Some((parts.number(it.section_index()?)?, it.address() as i64)))
}

/// Reads what an object's file says.
pub(crate) fn of<H: FileHeader<Endian = object::LittleEndian>>(
    parts: &Parts<'_, '_, H>,
    object: &Object,
) -> Calls {
    let is_code = |section: u16| object.sections.get(usize::from(section)).is_some_and(|it| it.is_code);
    let mut calls = Calls::default();
    for place in trampolines(parts).filter(|it| is_code(it.0)) {
        calls.trampolines.insert(place, Vec::new());
    }
    let data = Data::of(parts);
    for section in parts.file.sections().filter(|it| parts.number(it.index()).is_some()) {
        let Ok(bytes) = section.data() else { continue };
        let mut names = Vec::new();
        for (at, relocation) in section.relocations() {
            if let Some((named, name)) = named(parts, &relocation, bytes, at) {
                names.push(Name { at: at as usize, named, name });
            }
        }
        names.sort_by_key(|it| it.at);
        if section.kind() == SectionKind::Text {
            if let Some(number) = parts.number(section.index()) {
                updates(&data, (number, bytes), &names, &mut calls.trampolines);
            }
            continue;
        }
        let Some(number) = parts.number(section.index()) else { continue };
        for Name { at, named, .. } in names {
            let is_function = !matches!(named, Named::Place((section, _)) if !is_code(section));
            if is_function && let Some((size, offset)) = data.field((number, at as i64)) {
                calls.tables.push((size, offset, named));
            }
        }
    }
    calls
}

/// What a relocation names.
struct Name<'f> {
    at: usize,
    named: Named,
    /// The symbol's own name.
    name: &'f str,
}

fn named<'f, H: FileHeader<Endian = object::LittleEndian>>(
    parts: &Parts<'f, '_, H>,
    relocation: &object::Relocation,
    bytes: &[u8],
    at: u64,
) -> Option<(Named, &'f str)> {
    let RelocationTarget::Symbol(index) = relocation.target() else { return None };
    let symbol = parts.file.symbol_by_index(index).ok()?;
    let name = symbol.name().unwrap_or_default();
    if symbol.is_undefined() {
        return Some((Named::Symbol(name.to_string()), name));
    }
    let addend = Parts::<H>::addend(relocation, bytes, at);
    Some((Named::Place(parts.place(relocation.target(), addend)?), name))
}

/// Adds what code makes trampolines of its own lead to.
fn updates(
    data: &Data,
    (section, bytes): (u16, &[u8]),
    names: &[Name<'_>],
    trampolines: &mut BTreeMap<Place, Vec<Given>>,
) {
    let mut registers = Registers::default();
    for name in names {
        registers.enter(data.function((section, name.at as i64)));
        if name.at.checked_sub(1).and_then(|at| bytes.get(at)) != Some(&0xe8) {
            registers.load(data, bytes, name);
            continue;
        }
        if name.name == UPDATE
            && let Some((place, given)) = registers.update(data.is_64_bit, bytes, name.at - 1)
            && let Some(all) = trampolines.get_mut(&place)
        {
            all.extend(given);
        }
        registers.call(data.is_64_bit);
    }
}

/// What the registers of code have that has a name.
#[derive(Default)]
struct Registers<'n> {
    /// The function that the code is in.
    function: Option<(u16, u64)>,
    /// By number: what it is, its symbol's name, and behind which byte of code it has that.
    all: [Option<(Given, &'n str, usize)>; 16],
}

impl<'n> Registers<'n> {
    /// Of another function nothing is known.
    fn enter(&mut self, function: Option<(u16, u64)>) {
        if self.function != function || function.is_none() {
            *self = Self { function, ..Self::default() };
        }
    }

    /// What an instruction does whose last four bytes have a name: it loads what that is or what is
    /// there, or stores it there.
    fn load(&mut self, data: &Data, bytes: &[u8], it: &Name<'n>) {
        let Some(code) = bytes.get(..it.at) else { return };
        let is_field = |modrm: u8| modrm & 0xc7 == 5;
        let number = |rex: u8, bit: u8, register: u8| usize::from((rex >> bit & 1) << 3 | register & 7);
        let (register, is_value) = match (data.is_64_bit, code) {
            // mov $name,%register; lea name(%rip),%register
            (true, [.., rex @ (0x48 | 0x49), 0xc7, modrm @ 0xc0..=0xc7]) => (number(*rex, 0, *modrm), true),
            (true, [.., rex @ (0x48 | 0x4c), 0x8d, modrm]) if is_field(*modrm) => {
                (number(*rex, 2, modrm >> 3), true)
            }
            (false, [.., opcode @ 0xb8..=0xbf]) => (number(0, 0, *opcode), true),
            // mov name,%register, and the reverse
            (true, [.., rex @ (0x48 | 0x4c), 0x8b | 0x89, modrm]) if is_field(*modrm) => {
                (number(*rex, 2, modrm >> 3), false)
            }
            (false, [.., 0x8b | 0x89, modrm]) if is_field(*modrm) => (number(0, 0, modrm >> 3), false),
            (false, [.., 0xa1 | 0xa3]) => (0, false),
            _ => return,
        };
        // Relative to behind the name in 64-bit code.
        let relative = data.is_64_bit && code.get(it.at.wrapping_sub(2)) != Some(&0xc7);
        let named = match &it.named {
            Named::Place((section, offset)) if relative => Named::Place((*section, offset + 4)),
            named => named.clone(),
        };
        let given = match named {
            named if is_value => Some(Given::Function(named)),
            Named::Place(place) => data.field(place).map(|(size, offset)| Given::Field(size, offset)),
            Named::Symbol(_) => None,
        };
        self.all[register] = given.map(|given| (given, it.name, it.at + 4));
    }

    /// What a call at an offset makes a trampoline lead to.
    fn update(&self, is_64_bit: bool, bytes: &[u8], call: usize) -> Option<(Place, Vec<Given>)> {
        let [key, trampoline, function] = if is_64_bit { [7, 6, 2] } else { [0, 2, 1] };
        let (Given::Function(Named::Place(place)), name, _) = self.all[trampoline].as_ref()? else {
            return None;
        };
        let (_, key, _) = self.all[key].as_ref()?;
        if name.strip_prefix(TRAMPOLINE)? != key.strip_prefix(KEY)? {
            return None;
        }
        let (given, _, since) = self.all[function].as_ref()?;
        let code = bytes.get(*since..call)?;
        // Another one where the first is none: cmovcc %other,%function
        let moves = |other: &usize| {
            let modrm = 0xc0 | (function as u8) << 3 | *other as u8 & 7;
            let rex = 0x48 | *other as u8 >> 3;
            let is_one = |it: &[u8]| (it[0] == rex || !is_64_bit) && it[1] == 0x0f && it[2] & 0xf0 == 0x40;
            code.windows(4).any(|it| is_one(it) && it[3] == modrm)
        };
        let others = (0..self.all.len()).filter(moves);
        let others = others.filter_map(|other| self.all[other].as_ref().map(|it| it.0.clone()));
        Some((*place, std::iter::once(given.clone()).chain(others).collect()))
    }

    /// What a function that is called does not give back is lost.
    fn call(&mut self, is_64_bit: bool) {
        for (number, register) in self.all.iter_mut().enumerate() {
            let kept = if is_64_bit { matches!(number, 3 | 5 | 12..) } else { matches!(number, 3 | 5..=7) };
            if !kept {
                *register = None;
            }
        }
    }
}

/// The variables of a file that may be tables of functions, and where its functions begin.
struct Data {
    is_64_bit: bool,
    /// Section, first and last offset of each, ascending.
    variables: Vec<(u16, u64, u64)>,
    /// Section and offset of each, ascending.
    functions: Vec<(u16, u64)>,
}

impl Data {
    fn of<H: FileHeader<Endian = object::LittleEndian>>(parts: &Parts<'_, '_, H>) -> Self {
        let variables = parts.file.symbols().filter(|it| it.kind() == SymbolKind::Data && it.size() >= LEAST);
        let variables = variables.filter_map(|it| {
            let section = parts.number(it.section_index()?)?;
            Some((section, it.address(), it.address().checked_add(it.size() - 1)?))
        });
        let mut variables: Vec<_> = variables.collect();
        variables.sort_unstable();
        let functions = parts.file.symbols().filter(|it| it.kind() == SymbolKind::Text);
        let functions = functions.filter_map(|it| Some((parts.number(it.section_index()?)?, it.address())));
        let mut functions: Vec<_> = functions.collect();
        functions.sort_unstable();
        Self { is_64_bit: parts.file.is_64(), variables, functions }
    }

    /// Where the function begins that has a place.
    fn function(&self, (section, offset): Place) -> Option<(u16, u64)> {
        let offset = u64::try_from(offset).ok()?;
        let after = self.functions.partition_point(|it| *it <= (section, offset));
        self.functions.get(after.checked_sub(1)?).copied().filter(|it| it.0 == section)
    }

    /// The size of the variable that has a place, and where in it that is.
    fn field(&self, (section, offset): Place) -> Option<(u64, u64)> {
        let offset = u64::try_from(offset).ok()?;
        let after = self.variables.partition_point(|it| (it.0, it.1) <= (section, offset));
        let (of, first, last) = *self.variables.get(after.checked_sub(1)?)?;
        (of == section && offset <= last).then(|| (last - first + 1, offset - first))
    }
}
