//! Modules as relocatable objects: their `.ko` files, without what the kernel drops or only reads.
//!
//! Which bytes of its code the kernel writes anew when it loads a module is in tables of the module
//! itself, as kernel/module/main.c and arch/x86/kernel/module.c (`module_finalize`) read them. The
//! code that the file has in those places does the same on every processor, but for jumps that a
//! static key switches: these are a part of the kernel's state.

use std::collections::{BTreeMap, HashMap, HashSet};

use ir::relocatable::{Field, Form, Object, Section, Symbol, Trampoline};
use object::elf;
use object::read::elf::{ElfFile, FileHeader, SectionHeader};
use object::{Object as _, ObjectSection, ObjectSymbol, RelocationFlags, RelocationTarget};

use crate::calls::{self, Calls, Given, Named};
use crate::exports::Exports;
use crate::modules::Module;
use crate::parts::{Parts, Place};
use crate::sites;

/// Code that is dropped after a module was loaded.
const DROPPED: &str = ".init";
/// What names of symbols begin with that tell what a module exports.
const EXPORT: &str = "__ksymtab_";

/// A module of which only its own symbols are known yet.
struct Unlinked {
    object: Object,
    /// Names of symbols that it does not define, by number.
    undefined: Vec<(u16, String)>,
    /// What it exports: section and value.
    exports: Vec<(String, (u16, u64))>,
    calls: Calls,
}

/// Modules as objects: first each alone ([`Linker::add`]), then together.
#[derive(Default)]
pub struct Linker {
    unlinked: Vec<Unlinked>,
}

impl std::fmt::Debug for Linker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Linker").field("modules", &self.unlinked.len()).finish()
    }
}

impl Linker {
    /// Adds a module; `false` if its file is none.
    pub fn add(&mut self, module: &Module) -> bool {
        let bytes = &module.object[..];
        let unlinked = match bytes.get(4) {
            Some(1) => ElfFile::<elf::FileHeader32<object::LittleEndian>>::parse(bytes)
                .ok()
                .and_then(|file| unlinked(&module.name, &file)),
            _ => ElfFile::<elf::FileHeader64<object::LittleEndian>>::parse(bytes)
                .ok()
                .and_then(|file| unlinked(&module.name, &file)),
        };
        let found = unlinked.is_some();
        self.unlinked.extend(unlinked);
        found
    }

    /// All that were added, linked with the kernel and each other. A symbol that neither has stays
    /// unknown.
    #[must_use]
    pub fn link(self, kernel: &Exports) -> Vec<Object> {
        let mut exports = HashMap::new();
        for (number, module) in (0u32..).zip(&self.unlinked) {
            for (name, (section, value)) in &module.exports {
                exports.insert(name.clone(), (Symbol::Other { object: number, section: *section }, *value));
            }
        }
        let names = Names { modules: &self.unlinked, kernel, exports: &exports };
        let trampolines: Vec<_> = (0..self.unlinked.len()).map(|number| names.trampolines(number)).collect();
        let linked = self.unlinked.into_iter().zip(trampolines).map(|(module, trampolines)| {
            let Unlinked { mut object, undefined, .. } = module;
            let mut added: HashMap<u16, u64> = HashMap::new();
            for (number, name) in undefined {
                let found = kernel.get(&name).map(|symbol| (symbol, 0));
                let Some((symbol, value)) = found.or_else(|| exports.get(&name).copied()) else { continue };
                object.symbols[usize::from(number)] = symbol;
                added.insert(number, value);
            }
            for field in &mut object.fields {
                let value = added.get(&field.symbol).copied().unwrap_or(0);
                field.addend = field.addend.wrapping_add_unsigned(value);
            }
            add_trampolines(&mut object, trampolines);
            object
        });
        linked.collect()
    }
}

/// A place of code, and the functions that it may lead to.
type Leads = (Place, Vec<(Symbol, i64)>);

/// All modules, before they are linked.
struct Names<'n> {
    modules: &'n [Unlinked],
    kernel: &'n Exports,
    exports: &'n HashMap<String, (Symbol, u64)>,
}

impl Names<'_> {
    /// The trampolines of a module, and the functions that trusted code makes them lead to.
    fn trampolines(&self, number: usize) -> Vec<Leads> {
        let module = &self.modules[number];
        let has_fields = module.calls.trampolines.values().flatten().any(|it| matches!(it, Given::Field(..)));
        let users = if has_fields { self.users(number) } else { Vec::new() };
        let of_field = |field: &(u64, u64)| {
            let found = users.iter().flat_map(|&user| {
                let tables = &self.modules[user].calls.tables;
                let same = tables.iter().filter(|(size, offset, _)| (*size, *offset) == *field);
                same.filter_map(move |(.., function)| self.function((number, user), function))
            });
            found.collect::<Vec<_>>()
        };
        let all = module.calls.trampolines.iter().map(|(place, given)| {
            let functions = given.iter().flat_map(|given| match given {
                Given::Function(function) => self.function((number, number), function).into_iter().collect(),
                Given::Field(size, offset) => of_field(&(*size, *offset)),
            });
            (*place, functions.collect())
        });
        all.collect()
    }

    /// A module, and those that use what it exports.
    fn users(&self, number: usize) -> Vec<usize> {
        let exports: HashSet<&String> = self.modules[number].exports.iter().map(|(name, _)| name).collect();
        let uses = |user: &usize| {
            let mut undefined = self.modules[*user].undefined.iter();
            *user == number || undefined.any(|(_, name)| exports.contains(name))
        };
        (0..self.modules.len()).filter(uses).collect()
    }

    /// What a module's name for a function comes to in one of them.
    fn function(&self, (here, user): (usize, usize), named: &Named) -> Option<(Symbol, i64)> {
        let (symbol, value) = match named {
            Named::Place((section, offset)) => {
                let sections = &self.modules[user].object.sections;
                sections.get(usize::from(*section)).filter(|it| it.is_code)?;
                let object = u32::try_from(user).ok()?;
                (Symbol::Other { object, section: *section }, *offset)
            }
            Named::Symbol(name) => match self.kernel.get(name) {
                Some(symbol) => (symbol, 0),
                None => self.exports.get(name).map(|(symbol, value)| (*symbol, *value as i64))?,
            },
        };
        Some(match symbol {
            Symbol::Other { object, section } if object as usize == here => (Symbol::Own(section), value),
            symbol => (symbol, value),
        })
    }
}

/// Gives an object its trampolines; one that is not in its code is left out.
fn add_trampolines(object: &mut Object, trampolines: Vec<Leads>) {
    for ((section, offset), functions) in trampolines {
        let size = object.sections.get(usize::from(section)).map_or(0, |it| it.size);
        let Ok(offset) = u32::try_from(offset) else { continue };
        if u64::from(offset) + u64::from(Trampoline::LEN) > u64::from(size) {
            continue;
        }
        let mut numbered = Vec::new();
        for (symbol, addend) in functions {
            let known = object.symbols.iter().position(|it| *it == symbol);
            let number = known.unwrap_or_else(|| {
                object.symbols.push(symbol);
                object.symbols.len() - 1
            });
            numbered.extend(u16::try_from(number).ok().map(|number| (number, addend)));
        }
        numbered.sort_unstable();
        numbered.dedup();
        object.trampolines.push(Trampoline { section, offset, functions: numbered });
    }
}

/// A module's file as an object.
fn unlinked<H: FileHeader<Endian = object::LittleEndian>>(
    name: &str,
    file: &ElfFile<'_, H>,
) -> Option<Unlinked> {
    let mut object = Object { name: name.to_string(), ..Object::default() };
    let mut numbers = BTreeMap::new();
    for section in file.sections() {
        let header = section.elf_section_header();
        let flags = header.sh_flags(object::LittleEndian);
        if !flags.contains(elf::SHF_ALLOC) {
            continue;
        }
        let name = section.name().ok()?;
        let is_code = flags.contains(elf::SHF_EXECINSTR) && !name.starts_with(DROPPED);
        let code = if is_code { section.data().ok()?.to_vec() } else { Vec::new() };
        numbers.insert(section.index().0, u16::try_from(object.sections.len()).ok()?);
        let (size, align) = (u32::try_from(section.size()).ok()?, u32::try_from(section.align()).ok()?);
        let align = align.max(1);
        object.sections.push(Section { name: name.to_string(), size, align, code, is_code });
    }
    let parts = Parts::new(file, numbers);
    let undefined = fields(&parts, &mut object)?;
    object.sites = sites::of(&parts, &object);
    object.replacements = sites::replacements(&parts, &object);
    let calls = calls::of(&parts, &object);
    let exported = file.symbols().filter_map(|symbol| symbol.name().ok()?.strip_prefix(EXPORT));
    let exported: Vec<&str> = exported.collect();
    let mut exports = Vec::new();
    for symbol in file.symbols().filter(|symbol| symbol.is_global() || symbol.is_weak()) {
        let (Ok(name), Some(section)) = (symbol.name(), symbol.section_index()) else { continue };
        if let Some(section) = parts.number(section)
            && exported.contains(&name)
        {
            exports.push((name.to_string(), (section, symbol.address())));
        }
    }
    Some(Unlinked { object, undefined, exports, calls })
}

/// Gives an object the fields of its code; the result are the symbols that it does not define.
fn fields<H: FileHeader<Endian = object::LittleEndian>>(
    parts: &Parts<'_, '_, H>,
    object: &mut Object,
) -> Option<Vec<(u16, String)>> {
    let (mut undefined, mut known) = (Vec::new(), HashMap::new());
    for section in parts.file.sections() {
        let Some(number) = parts.number(section.index()) else { continue };
        if !object.sections[usize::from(number)].is_code {
            continue;
        }
        let bytes = section.data().ok()?;
        for (at, relocation) in section.relocations() {
            let Some(form) = form(relocation.flags(), parts.file.is_64()) else { continue };
            let mut addend = Parts::<H>::addend(&relocation, bytes, at);
            let (mut symbol, mut missing) = (Symbol::Unknown, None);
            if let RelocationTarget::Symbol(index) = relocation.target()
                && let Ok(named) = parts.file.symbol_by_index(index)
            {
                match named.section_index().and_then(|section| parts.number(section)) {
                    Some(own) => {
                        symbol = Symbol::Own(own);
                        addend = addend.wrapping_add_unsigned(named.address());
                    }
                    None if named.is_undefined() => {
                        // One that is weak and nowhere is 0.
                        symbol = if named.is_weak() { Symbol::Constant(0) } else { Symbol::Unknown };
                        missing = named.name().ok().map(str::to_string);
                    }
                    None if named.section() == object::SymbolSection::Absolute => {
                        symbol = Symbol::Constant(named.address());
                    }
                    None => {}
                }
            }
            let next = u16::try_from(object.symbols.len()).ok()?;
            let symbol = *known.entry((symbol, missing.clone())).or_insert_with(|| {
                object.symbols.push(symbol);
                undefined.extend(missing.map(|name| (next, name)));
                next
            });
            object.fields.push(Field {
                section: number,
                offset: u32::try_from(at).ok()?,
                form,
                symbol,
                addend,
            });
        }
    }
    object.fields.sort_by_key(|field| (field.section, field.offset));
    Some(undefined)
}

/// How a relocation changes its field (System V ABI, AMD64 4.4.1 and i386 4.4.1); `None` if it
/// changes nothing.
fn form(flags: RelocationFlags, is_64_bit: bool) -> Option<Form> {
    let RelocationFlags::Elf { r_type } = flags else { return Some(Form::Word32) };
    Some(match (is_64_bit, r_type) {
        (_, elf::R_X86_64_NONE) => return None,
        (true, elf::R_X86_64_64) => Form::Word64,
        (true, elf::R_X86_64_PC32 | elf::R_X86_64_PLT32) | (false, elf::R_386_PC32 | elf::R_386_PLT32) => {
            Form::Relative32
        }
        (true, elf::R_X86_64_32S) => Form::Signed32,
        (true, elf::R_X86_64_PC64) => Form::Relative64,
        _ => Form::Word32,
    })
}
