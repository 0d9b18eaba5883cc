//! Relocatable objects: machine code that a system loads wherever it has room, and links by symbol.
//!
//! What a system loads while it runs lies elsewhere in every boot, and training may never have
//! loaded it. But its objects come with the system: each has sections, and in its code *fields*
//! that name symbols: a section of its own, one of another object, or an address of the system. So
//! trusted code can be told from an object alone, once it is known where its sections and those
//! symbols are. Some bytes the system itself writes when it loads an object: these are its *load
//! sites*.
//!
//! Nothing here knows how a system stores its objects, or where it puts them. The file that holds
//! all objects of a system is in `file.rs`, how one is recognised in `print.rs`, and what the
//! system writes into itself in `own.rs`, and where it decides by that in `decisions.rs`.

mod decisions;
mod file;
mod own;
mod print;

use serde::{Deserialize, Serialize};

pub use decisions::{Decision, Decisions};
pub use file::{Objects, VERSION, with_object};
pub use own::{Own, OwnSite};
pub use print::PRINT;

/// An object.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Object {
    /// What the system calls it.
    pub name: String,
    /// What of it is in memory.
    pub sections: Vec<Section>,
    /// What its fields name.
    pub symbols: Vec<Symbol>,
    /// The fields of its code, ascending by section and offset.
    pub fields: Vec<Field>,
    /// Code that the system writes anew when it loads the object, ascending likewise. Fields in it
    /// are not looked at.
    pub sites: Vec<LoadSite>,
    /// What the system may put at places of the code instead of what is there, ascending likewise.
    pub replacements: Vec<Replacement>,
    /// Jumps of the code that the system makes lead elsewhere, ascending likewise.
    pub trampolines: Vec<Trampoline>,
}

/// A jump of five bytes through which an object calls one function or another: the system makes it,
/// and all calls of it, lead to the function of the day.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Trampoline {
    /// The section that it is in.
    pub section: u16,
    /// Where in that.
    pub offset: u32,
    /// The functions that trusted code makes it lead to, beside the one in the object: symbols by
    /// number, and what is added to them.
    pub functions: Vec<(u16, i64)>,
}

impl Trampoline {
    /// How many bytes the jump has.
    pub const LEN: u8 = 5;
}

/// Code of an object that the system may copy to a place of it, as if it had been linked there;
/// what it does not fill there does nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Replacement {
    /// The section that the place is in.
    pub section: u16,
    /// Where in that.
    pub offset: u32,
    /// How many bytes the place has.
    pub len: u8,
    /// The section that the code is in.
    pub from_section: u16,
    /// Where in that.
    pub from_offset: u32,
    /// How many bytes of it there are, no more than the place has.
    pub from_len: u8,
}

/// A part of an object that is in memory as a whole.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Section {
    /// Its name.
    pub name: String,
    /// How many bytes it has in memory.
    pub size: u32,
    /// Its address is a multiple of this: a power of two.
    pub align: u32,
    /// Its bytes, as many as its size, if it is code that is executed where it lies.
    #[serde(skip)]
    pub code: Vec<u8>,
    /// Whether it is.
    pub is_code: bool,
}

/// What a field names. How far behind the symbol it points is in the field's addend.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Symbol {
    /// A section of the same object.
    Own(u16),
    /// A section of another object.
    Other {
        /// The object's number.
        object: u32,
        /// The section's.
        section: u16,
    },
    /// An address of the training system that moves with the system's own image.
    System(u64),
    /// A number that does not move.
    Constant(u64),
    /// Nobody knows: code with it is not executed.
    Unknown,
}

/// How a field has its value, which is symbol plus addend.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Form {
    /// Eight bytes.
    Word64,
    /// Four bytes, which are extended with zeros.
    Word32,
    /// Four bytes, which are extended with their sign.
    Signed32,
    /// Less the field's own address, in four bytes.
    Relative32,
    /// The same in eight.
    Relative64,
}

impl Form {
    /// How many bytes a field has.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::Word64 | Self::Relative64 => 8,
            Self::Word32 | Self::Signed32 | Self::Relative32 => 4,
        }
    }

    /// Whether the field's own address is taken off.
    #[must_use]
    pub const fn is_relative(self) -> bool {
        matches!(self, Self::Relative32 | Self::Relative64)
    }

    /// The value, less its own address where it is relative, that a field with these bytes has.
    ///
    /// `None` if there are fewer than it has.
    #[must_use]
    pub fn read(self, bytes: &[u8]) -> Option<u64> {
        let four = || Some(u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?));
        match self {
            Self::Word64 | Self::Relative64 => Some(u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?)),
            Self::Word32 => four().map(u64::from),
            Self::Signed32 | Self::Relative32 => four().map(|value| i64::from(value as i32) as u64),
        }
    }
}

/// Bytes of code that name a symbol.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Field {
    /// The section that it is in.
    pub section: u16,
    /// Where in that.
    pub offset: u32,
    /// How it has its value.
    pub form: Form,
    /// The symbol's number.
    pub symbol: u16,
    /// What is added to the symbol.
    pub addend: i64,
}

/// Code that the system writes anew when it loads an object.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct LoadSite {
    /// The section that it is in.
    pub section: u16,
    /// Where in that.
    pub offset: u32,
    /// How many bytes are written.
    pub len: u8,
    /// What it is about.
    pub kind: LoadSiteKind,
}

/// What a system does with a site.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum LoadSiteKind {
    /// It chooses one of several ways to do the same, for one processor or another. The object's
    /// own way does it too, and is executed.
    Same,
    /// A jump of two or five bytes or nothing at all, and which of them is a part of the system's
    /// state: the target tells.
    Jump {
        /// The section that it leads to.
        section: u16,
        /// Where in that.
        offset: u32,
    },
}

impl Object {
    /// The fields of a section that lie in, or reach into, a range of its bytes.
    #[must_use]
    pub fn fields_in(&self, section: u16, start: u32, end: u32) -> &[Field] {
        let before = |field: &Field| {
            let last = u64::from(field.offset) + field.form.size() as u64;
            (field.section, last) <= (section, u64::from(start))
        };
        let first = self.fields.partition_point(before);
        let last = self.fields.partition_point(|field| (field.section, field.offset) < (section, end));
        self.fields.get(first..last).unwrap_or(&[])
    }

    /// The sites of a section that lie in, or reach into, a range of its bytes.
    #[must_use]
    pub fn load_sites_in(&self, section: u16, start: u32, end: u32) -> &[LoadSite] {
        let before = |site: &LoadSite| {
            let last = u64::from(site.offset) + u64::from(site.len);
            (site.section, last) <= (section, u64::from(start))
        };
        let first = self.sites.partition_point(before);
        let last = self.sites.partition_point(|site| (site.section, site.offset) < (section, end));
        self.sites.get(first..last).unwrap_or(&[])
    }

    /// What may stand at places of a section.
    #[must_use]
    pub fn replacements_of(&self, section: u16) -> &[Replacement] {
        let first = self.replacements.partition_point(|it| it.section < section);
        let last = self.replacements.partition_point(|it| it.section <= section);
        self.replacements.get(first..last).unwrap_or(&[])
    }

    /// Which bytes of a section of code are the same wherever it is loaded.
    #[must_use]
    pub fn fixed(&self, section: u16) -> Vec<bool> {
        let Some(part) = self.sections.get(usize::from(section)) else { return Vec::new() };
        let mut fixed = vec![true; part.code.len()];
        let mut leave = |offset: u32, size: usize| {
            let end = (offset as usize).saturating_add(size).min(fixed.len());
            if let Some(bytes) = fixed.get_mut(offset as usize..end) {
                bytes.fill(false);
            }
        };
        self.fields_in(section, 0, u32::MAX).iter().for_each(|it| leave(it.offset, it.form.size()));
        self.load_sites_in(section, 0, u32::MAX).iter().for_each(|it| leave(it.offset, usize::from(it.len)));
        fixed
    }

    /// What is wrong with it, apart from its code.
    pub(crate) fn broken(&self) -> Option<&'static str> {
        let section = |number: u16| self.sections.get(usize::from(number));
        let holds = |number: u16, offset: u32, size: usize| {
            section(number)
                .is_some_and(|it| it.is_code && u64::from(offset) + size as u64 <= u64::from(it.size))
        };
        if self.sections.iter().any(|it| !it.align.is_power_of_two()) {
            return Some("an object has a section of no alignment");
        }
        if !self.fields.is_sorted_by(|a, b| {
            (a.section, u64::from(a.offset) + a.form.size() as u64) <= (b.section, u64::from(b.offset))
        }) || !self.sites.is_sorted_by(|a, b| {
            (a.section, u64::from(a.offset) + u64::from(a.len)) <= (b.section, u64::from(b.offset))
        }) {
            return Some("fields or sites of an object do not ascend");
        }
        let whole = |it: &Field| {
            holds(it.section, it.offset, it.form.size()) && usize::from(it.symbol) < self.symbols.len()
        };
        if !self.fields.iter().all(whole) {
            return Some("an object has a field that is not in its code");
        }
        let leads = |kind: LoadSiteKind| match kind {
            LoadSiteKind::Same => true,
            LoadSiteKind::Jump { section, offset } => holds(section, offset, 0),
        };
        if !self.sites.iter().all(|it| holds(it.section, it.offset, it.len.into()) && leads(it.kind)) {
            return Some("an object has a site that is not in its code");
        }
        let copied = |it: &Replacement| {
            holds(it.section, it.offset, it.len.into())
                && holds(it.from_section, it.from_offset, it.from_len.into())
                && it.from_len <= it.len
        };
        let place = |it: &Replacement| (it.section, it.offset);
        if !self.replacements.is_sorted_by_key(place) || !self.replacements.iter().all(copied) {
            return Some("an object has a replacement that is not in its code or does not ascend");
        }
        let jumps = |it: &Trampoline| {
            holds(it.section, it.offset, Trampoline::LEN.into())
                && it.functions.iter().all(|(symbol, _)| usize::from(*symbol) < self.symbols.len())
        };
        if !self.trampolines.is_sorted_by_key(|it| (it.section, it.offset))
            || !self.trampolines.iter().all(jumps)
        {
            return Some("an object has a trampoline that is not in its code or does not ascend");
        }
        let known = |symbol: &Symbol| !matches!(symbol, Symbol::Own(number) if section(*number).is_none());
        (!self.symbols.iter().all(known)).then_some("an object has a symbol in no section")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An object with two sections of code and one of data.
    pub(crate) fn object(name: &str, seed: u8) -> Object {
        let code = |size: u8| (0..size).map(|at| at.wrapping_mul(seed) ^ seed).collect::<Vec<u8>>();
        let section = |name: &str, code: Vec<u8>| Section {
            name: name.to_string(),
            size: code.len() as u32,
            align: 16,
            is_code: true,
            code,
        };
        let field = |section, offset, form, symbol| Field { section, offset, form, symbol, addend: -4 };
        Object {
            name: name.to_string(),
            sections: vec![
                section("text", code(200)),
                section("cold", code(40)),
                Section { name: "data".to_string(), size: 64, align: 32, ..Section::default() },
            ],
            symbols: vec![Symbol::Own(2), Symbol::Own(1), Symbol::System(0x1000)],
            fields: vec![
                field(0, 3, Form::Relative32, 2),
                field(0, 20, Form::Word64, 0),
                field(1, 8, Form::Signed32, 1),
            ],
            sites: vec![
                LoadSite { section: 0, offset: 2, len: 5, kind: LoadSiteKind::Same },
                LoadSite {
                    section: 0,
                    offset: 40,
                    len: 2,
                    kind: LoadSiteKind::Jump { section: 1, offset: 4 },
                },
            ],
            replacements: vec![Replacement {
                section: 0,
                offset: 2,
                len: 5,
                from_section: 1,
                from_offset: 30,
                from_len: 3,
            }],
            trampolines: vec![Trampoline { section: 1, offset: 20, functions: vec![(1, 4), (2, 0)] }],
        }
    }

    #[test]
    fn fields_and_sites_are_found_by_place() {
        let object = object("a", 7);
        let offsets = |start, end| -> Vec<u32> {
            object.fields_in(0, start, end).iter().map(|field| field.offset).collect()
        };
        assert_eq!(offsets(0, 200), [3, 20]);
        assert_eq!(offsets(6, 21), [3, 20]);
        assert_eq!(offsets(7, 20), [0; 0]);
        assert_eq!(object.fields_in(1, 0, 40).len(), 1);
        assert_eq!(object.load_sites_in(0, 6, 41).len(), 2);
        assert_eq!(object.load_sites_in(1, 0, 40).len(), 0);
        assert_eq!((object.replacements_of(0).len(), object.replacements_of(1).len()), (1, 0));
        let fixed = object.fixed(0);
        let loose: Vec<usize> = (0..200).filter(|at| !fixed[*at]).collect();
        assert_eq!(loose, [2, 3, 4, 5, 6, 20, 21, 22, 23, 24, 25, 26, 27, 40, 41]);
        assert_eq!(object.broken(), None);
    }

    #[test]
    fn a_form_reads_what_it_has() {
        let bytes = [0xfc, 0xff, 0xff, 0xff, 1, 0, 0, 0];
        assert_eq!(Form::Word32.read(&bytes), Some(0xffff_fffc));
        assert_eq!(Form::Signed32.read(&bytes), Some(u64::MAX - 3));
        assert_eq!(Form::Word64.read(&bytes), Some(0x1_ffff_fffc));
        assert_eq!(Form::Relative64.read(&bytes[..7]), None);
    }

    #[test]
    fn what_leads_out_of_an_object_is_broken() {
        let broken = |change: fn(&mut Object)| {
            let mut object = object("a", 7);
            change(&mut object);
            object.broken()
        };
        assert!(broken(|it| it.fields[0].offset = 198).is_some(), "out of its section");
        assert!(broken(|it| it.fields.swap(0, 1)).is_some(), "order");
        assert!(broken(|it| it.fields[1].offset = 5).is_some(), "one in another");
        assert!(broken(|it| it.fields[2].section = 2).is_some(), "data");
        assert!(broken(|it| it.fields[2].symbol = 3).is_some(), "no symbol");
        assert!(broken(|it| it.symbols[0] = Symbol::Own(3)).is_some(), "no section");
        assert!(broken(|it| it.sites[1].len = 255).is_some(), "a site's end");
        assert!(broken(|it| it.sites[1].kind = LoadSiteKind::Jump { section: 1, offset: 41 }).is_some());
        assert!(broken(|it| it.sections[1].align = 3).is_some(), "alignment");
        assert!(broken(|it| it.trampolines[0].offset = 36).is_some(), "a trampoline's end");
        assert!(broken(|it| it.trampolines[0].functions[1].0 = 3).is_some(), "a function of no symbol");
        assert!(broken(|it| it.replacements[0].from_offset = 38).is_some(), "a replacement's code");
        assert!(broken(|it| it.replacements[0].from_len = 6).is_some(), "more than its place has");
        assert!(broken(|it| it.replacements[0].section = 2).is_some(), "in data");
    }
}
