//! The file of a system's modules as relocatable objects (`container.rs`): a piece with what the
//! system decides in its own code, one with what it writes into that, a list of the objects, and of
//! each object a piece with all but its code, and one with that.
//!
//! It belongs to one companion file, whose addresses its symbols have. A run uses few of thousands
//! of objects, and mostly none: the file is not read before something is looked for in it, and the
//! list not before an object is.

use std::fs::File;
use std::sync::{Mutex, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};

use super::Object;
use super::decisions::Decisions;
use super::own::{self, Own};
use super::print::{self, PRINT, Print};
use crate::container::{self, Container, Piece, Sort, Source, most};
use crate::file::{self, FileError};

/// Version of files of modules.
pub const VERSION: u32 = 6;
const SORT: Sort = Sort { magic: b"VIRTMOD\0", version: VERSION, what: "file of modules" };

/// Bits of the filter that tells most windows of memory apart from those of objects: 64 KiB, which
/// a processor's cache holds, and one bit in ten set.
const FILTER_BITS: u32 = 19;

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct Index {
    /// What the companion file is named by.
    system: [u8; 32],
    /// Where the system decides.
    decisions: Piece,
    /// What the system writes into its own code.
    own: Piece,
    /// The list of objects.
    list: Piece,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct List {
    objects: Vec<Entry>,
    /// What objects are recognised by, ascending by hash.
    prints: Vec<Print>,
}

/// An object in the file.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct Entry {
    name: String,
    /// All but its code.
    head: Piece,
    /// The code of its sections, one behind the other.
    code: Piece,
}

impl Index {
    const fn pieces(&self) -> [&Piece; 3] {
        [&self.decisions, &self.own, &self.list]
    }

    fn broken(&self, start: u64, length: u64) -> Option<&'static str> {
        let packed: u64 = self.pieces().map(|piece| u64::from(piece.packed)).iter().sum();
        if start.checked_add(packed).is_none_or(|end| end > length) {
            return Some("it is cut off");
        }
        let unpacked: u64 = self.pieces().map(|piece| u64::from(piece.unpacked)).iter().sum();
        (unpacked > most(length)).then_some("it claims to be too large")
    }
}

impl List {
    fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.objects.iter().flat_map(|entry| [&entry.head, &entry.code])
    }

    /// What is wrong with a list of objects whose pieces begin at `start`, if anything is.
    fn broken(&self, start: u64, length: u64) -> Option<&'static str> {
        if !self.prints.is_sorted() || self.prints.iter().any(|it| it.object as usize >= self.objects.len()) {
            return Some("windows of objects do not ascend or are of none");
        }
        let packed: u64 = self.pieces().map(|piece| u64::from(piece.packed)).sum();
        if start.checked_add(packed) != Some(length) {
            return Some("it is cut off, or something follows its content");
        }
        let unpacked: u64 = self.pieces().map(|piece| u64::from(piece.unpacked)).sum();
        (unpacked > most(length)).then_some("it claims to be too large")
    }
}

/// The objects of a system.
#[derive(Debug)]
pub struct Objects {
    /// Until it is first used.
    source: Mutex<Option<Source>>,
    /// What their companion file has to be named by.
    system: [u8; 32],
    opened: OnceLock<Option<Opened>>,
    /// What is wrong with what was used.
    damage: OnceLock<FileError>,
}

struct Opened {
    index: Index,
    container: Container,
    /// Where the pieces of the index begin, and where the last ends.
    offsets: [u64; 4],
    decisions: OnceLock<Decisions>,
    own: OnceLock<Own>,
    listed: OnceLock<Option<Listed>>,
}

/// The list of objects, as far as they were used.
struct Listed {
    list: List,
    offsets: Vec<u64>,
    /// Objects that were used; `None` if they are damaged.
    objects: Vec<OnceLock<Option<Box<Object>>>>,
    filter: Box<[u64]>,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("index", &self.index).finish_non_exhaustive()
    }
}

impl Opened {
    fn open(source: Source, system: [u8; 32]) -> Result<Self, FileError> {
        let (container, body) = Container::open(SORT, source)?;
        let index: Index = file::value(SORT.what, &body, container.length)?;
        if let Some(why) = index.broken(container.start, container.length) {
            return Err(SORT.damaged(why));
        }
        if index.system != system {
            return Err(SORT.damaged("it belongs to another training system"));
        }
        let offsets = container::offsets(container.start, index.pieces().into_iter());
        let offsets = std::array::from_fn(|at| offsets[at]);
        let (decisions, own, listed) = Default::default();
        Ok(Self { index, container, offsets, decisions, own, listed })
    }

    /// The value in a piece of the index, and what is wrong with it.
    fn value<T: serde::de::DeserializeOwned>(
        &self,
        number: usize,
        broken: impl Fn(&T) -> Option<&'static str>,
    ) -> Result<T, FileError> {
        let bytes = self.container.unpack(self.index.pieces()[number], self.offsets[number])?;
        let value: T = file::value(SORT.what, &bytes, self.container.length)?;
        broken(&value).map_or(Ok(value), |why| Err(SORT.damaged(why)))
    }

    fn list(&self) -> Result<Listed, FileError> {
        let start = self.offsets[3];
        let list: List = self.value(2, |list: &List| list.broken(start, self.container.length))?;
        let mut filter = vec![0u64; 1 << (FILTER_BITS - 6)].into_boxed_slice();
        for print in &list.prints {
            let bit = print.hash >> (32 - FILTER_BITS);
            filter[bit as usize / 64] |= 1 << (bit % 64);
        }
        let offsets = container::offsets(start, list.pieces());
        let objects = list.objects.iter().map(|_| OnceLock::new()).collect();
        Ok(Listed { list, offsets, objects, filter })
    }

    fn unpack(&self, listed: &Listed, number: usize) -> Result<Box<Object>, FileError> {
        let entry = &listed.list.objects[number];
        let head = self.container.unpack(&entry.head, listed.offsets[2 * number])?;
        let mut object: Object = file::value(SORT.what, &head, self.container.length)?;
        if let Some(why) = object.broken() {
            return Err(SORT.damaged(why));
        }
        let code = self.container.unpack(&entry.code, listed.offsets[2 * number + 1])?;
        let mut rest = &code[..];
        for section in object.sections.iter_mut().filter(|section| section.is_code) {
            let (mine, others) = rest
                .split_at_checked(section.size as usize)
                .ok_or_else(|| SORT.damaged("an object has less code than its sections"))?;
            (section.code, rest) = (mine.to_vec(), others);
        }
        if rest.is_empty() { Ok(Box::new(object)) } else { Err(SORT.damaged("an object has too much code")) }
    }
}

/// A file of one object that is encoded so, with code of zeros, for fuzzers: they guess no
/// compression.
///
/// # Errors
/// [`FileError`] when it is no object, or has too much code.
pub fn with_object(head: &[u8]) -> Result<Vec<u8>, FileError> {
    let object: Object = file::value(SORT.what, head, head.len() as u64)?;
    let sizes = object.sections.iter().filter(|section| section.is_code).map(|it| u64::from(it.size));
    let size: u64 = sizes.sum();
    if size > 1 << 20 {
        return Err(SORT.damaged("it has too much code"));
    }
    let (mut list, mut pieces) = (List::default(), Vec::new());
    let head = SORT.pack(head, &mut pieces)?;
    let code = SORT.pack(&vec![0; size as usize], &mut pieces)?;
    list.objects.push(Entry { name: object.name, head, code });
    assemble([0; 32], (&Decisions::default(), &Own::default(), &list), &pieces)
}

/// A file with this content and the pieces of objects.
fn assemble(
    system: [u8; 32],
    (decisions, own, list): (&Decisions, &Own, &List),
    objects: &[u8],
) -> Result<Vec<u8>, FileError> {
    let mut pieces = Vec::new();
    let index = Index {
        system,
        decisions: SORT.pack(&encoded(decisions)?, &mut pieces)?,
        own: SORT.pack(&encoded(own)?, &mut pieces)?,
        list: SORT.pack(&encoded(list)?, &mut pieces)?,
    };
    pieces.extend_from_slice(objects);
    SORT.assemble(&encoded(&index)?, &pieces)
}

fn encoded(value: &impl Serialize) -> Result<Vec<u8>, FileError> {
    postcard::to_stdvec(value).map_err(|error| SORT.damaged(error.to_string()))
}

impl Objects {
    /// The objects in a file, of which nothing but the header is read yet. They have to be those of
    /// the system whose companion file is named by `system`.
    ///
    /// # Errors
    /// [`FileError`] if it is no file of modules, or one of another version.
    pub fn open(file: File, system: [u8; 32]) -> Result<Self, FileError> {
        let source = Source::File(file);
        Container::head(SORT, &source)?;
        Ok(Self::new(source, system))
    }

    fn new(source: Source, system: [u8; 32]) -> Self {
        let (opened, damage) = (OnceLock::new(), OnceLock::new());
        Self { source: Mutex::new(Some(source)), system, opened, damage }
    }

    /// Reads a file's bytes, all of them.
    ///
    /// # Errors
    /// [`FileError`] for anything but a whole, undamaged file of modules.
    pub fn from_bytes(bytes: &[u8], system: [u8; 32]) -> Result<Self, FileError> {
        let objects = Self::new(Source::Bytes(bytes.to_vec()), system);
        objects.check()?;
        Ok(objects)
    }

    /// Unpacks and checks all that was not used yet.
    ///
    /// # Errors
    /// What is damaged.
    pub fn check(&self) -> Result<(), FileError> {
        for number in 0..self.len() as u32 {
            let _ = self.object(number);
        }
        let _ = (self.own(), self.decisions());
        self.damage().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// The file's bytes: the objects of the system whose companion file is named by `system`, what
    /// its image says of what it writes, and where it decides by that.
    ///
    /// # Errors
    /// [`FileError`] when they cannot be encoded.
    pub fn to_bytes(
        system: [u8; 32],
        objects: &[Object],
        own: &Own,
        decisions: &Decisions,
    ) -> Result<Vec<u8>, FileError> {
        if let Some(why) = own::broken(own).or_else(|| decisions.broken()) {
            return Err(SORT.damaged(why));
        }
        let (mut list, mut pieces) = (List::default(), Vec::new());
        for object in objects {
            if let Some(why) = object.broken() {
                return Err(SORT.damaged(why));
            }
            let head = encoded(object)?;
            let code: Vec<u8> = object.sections.iter().flat_map(|section| &section.code).copied().collect();
            let (head, code) = (SORT.pack(&head, &mut pieces)?, SORT.pack(&code, &mut pieces)?);
            list.objects.push(Entry { name: object.name.clone(), head, code });
        }
        list.prints = print::prints(objects);
        assemble(system, (decisions, own, &list), &pieces)
    }

    fn opened(&self) -> Option<&Opened> {
        let opened = self.opened.get_or_init(|| {
            let source = self.source.lock().unwrap_or_else(PoisonError::into_inner).take()?;
            Opened::open(source, self.system).map_err(|error| self.blame(error)).ok()
        });
        opened.as_ref()
    }

    fn listed(&self) -> Option<(&Opened, &Listed)> {
        let opened = self.opened()?;
        let listed = opened.listed.get_or_init(|| opened.list().map_err(|error| self.blame(error)).ok());
        Some((opened, listed.as_ref()?))
    }

    fn blame(&self, error: FileError) {
        // A second one adds nothing.
        let _ = self.damage.set(error);
    }

    /// What was wrong with what was used of the file.
    #[must_use]
    pub fn damage(&self) -> Option<&FileError> {
        self.damage.get()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.listed().map_or(0, |(_, listed)| listed.objects.len())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the system calls the object with this number.
    #[must_use]
    pub fn name(&self, number: u32) -> Option<&str> {
        Some(&self.listed()?.1.list.objects.get(number as usize)?.name)
    }

    /// The object with this number; `None` too if it is damaged.
    #[must_use]
    pub fn object(&self, number: u32) -> Option<&Object> {
        let (opened, listed) = self.listed()?;
        let object = listed
            .objects
            .get(number as usize)?
            .get_or_init(|| opened.unpack(listed, number as usize).map_err(|error| self.blame(error)).ok());
        object.as_deref()
    }

    /// What the system's image says of what it writes; nothing if that is damaged.
    #[must_use]
    pub fn own(&self) -> &Own {
        static NOTHING: Own = Own { sites: Vec::new(), written: Vec::new(), unused: Vec::new() };
        let Some(opened) = self.opened() else { return &NOTHING };
        let own = || opened.value(1, own::broken);
        opened.own.get_or_init(|| own().map_err(|error| self.blame(error)).unwrap_or_default())
    }

    /// Where the system decides in its own code; nowhere if that is damaged.
    #[must_use]
    pub fn decisions(&self) -> Option<&Decisions> {
        let opened = self.opened()?;
        let decisions = || opened.value(0, Decisions::broken);
        Some(
            opened
                .decisions
                .get_or_init(|| decisions().map_err(|error| self.blame(error)).unwrap_or_default()),
        )
    }

    /// Where windows of objects may be in memory: for each place in `bytes` the objects that have a
    /// window like that.
    pub fn recognise<'o>(&'o self, bytes: &'o [u8]) -> impl Iterator<Item = (usize, Print)> + 'o {
        let listed = self.listed().map(|it| it.1);
        let windows = listed.map_or(&[][..], |_| bytes).windows(PRINT).enumerate();
        windows.flat_map(move |(at, window)| {
            let hash = window.try_into().map_or(0, print::hash);
            let bit = hash >> (32 - FILTER_BITS);
            let prints = listed
                .filter(|it| it.filter[bit as usize / 64] >> (bit % 64) & 1 != 0)
                .map_or(&[][..], |it| &it.list.prints);
            let first = prints.partition_point(|print| print.hash < hash);
            prints[first..].iter().take_while(move |print| print.hash == hash).map(move |print| (at, *print))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relocatable::tests::object;
    use crate::relocatable::{LoadSiteKind, OwnSite, Symbol};

    fn file() -> Vec<u8> {
        let mut second = object("b", 31);
        second.symbols.push(Symbol::Other { object: 0, section: 2 });
        let site = OwnSite { address: 0x1000, len: 5, forms: vec![vec![0xe9, 1, 2, 3, 4], vec![0xeb, 3]] };
        let own = Own { sites: vec![site], written: vec![0x2000], unused: vec![(0x2008, 0x3000)] };
        let decisions = Decisions::of(&own.sites, |form| Some(form.len() as i64));
        Objects::to_bytes([9; 32], &[object("a", 7), second], &own, &decisions).unwrap()
    }

    #[test]
    fn objects_come_back_and_are_recognised() {
        let objects = Objects::from_bytes(&file(), [9; 32]).unwrap();
        assert_eq!(objects.len(), 2);
        assert!(Objects::from_bytes(&file(), [8; 32]).is_err(), "of another system");
        assert_eq!(objects.object(0), Some(&object("a", 7)));
        assert_eq!((objects.name(1), objects.name(2)), (Some("b"), None));
        assert_eq!((objects.own().sites[0].end(), &objects.own().written[..]), (0x1005, &[0x2000][..]));
        assert_eq!(objects.decisions().unwrap().in_range(0x1004, 0x1005).count(), 1);
        let code = objects.object(1).unwrap().sections[0].code.clone();
        let memory = [&[0x90; 77][..], &code].concat();
        let found: Vec<_> = objects.recognise(&memory).collect();
        assert!(!found.is_empty());
        assert!(found.iter().all(|(at, print)| print.object == 1 && *at == 77 + print.offset as usize));
        assert_eq!(objects.recognise(&[1; 15]).count(), 0);
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let bytes = file();
        let (whole, mut unnoticed) = (Objects::from_bytes(&bytes, [9; 32]).unwrap(), 0);
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x10;
            // A frame's header has a bit without a meaning.
            if let Ok(objects) = Objects::from_bytes(&changed, [9; 32]) {
                let same = |number| objects.object(number) == whole.object(number);
                assert!(same(0) && same(1) && objects.own() == whole.own(), "{at}");
                assert_eq!(objects.decisions(), whole.decisions());
                unnoticed += 1;
            }
        }
        // One for each frame.
        assert!(unnoticed <= 8, "{unnoticed}");
        assert!((0..bytes.len()).step_by(13).all(|end| Objects::from_bytes(&bytes[..end], [9; 32]).is_err()));
        let longer = [&bytes[..], &[0]].concat();
        assert!(Objects::from_bytes(&longer, [9; 32]).is_err());
    }

    #[test]
    fn an_object_that_leads_nowhere_is_not_written() {
        let mut broken = object("a", 7);
        broken.sites[1].kind = LoadSiteKind::Jump { section: 9, offset: 0 };
        assert!(Objects::to_bytes([0; 32], &[broken], &Own::default(), &Decisions::default()).is_err());
    }
}
