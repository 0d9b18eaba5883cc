//! From bytes to memory and processors: which format they are read as, and whether that is
//! believed.
//!
//! The readers are told apart here and nowhere else. Files and options are the business of the
//! module above.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use super::cpu::Cpu;
use super::error::TargetCause;
use super::flat::{self, Source};
use super::format::{Claims, Format};
use super::migration::{self, MigrationError};
use super::placement::Placement;
use super::unpack::Packing;
use super::vmware::{self, VmwareError};
use super::{elf, foreign, kdump, lime, raw};
use crate::addr::PAGE_SIZE;
use crate::map::FileMap;
use crate::memory::{GuestMemory, ImageError, ImageMemory, Segment};

/// What bytes hold.
pub(super) struct Decoded {
    pub(super) mem: Box<dyn GuestMemory>,
    pub(super) cpus: Vec<Cpu>,
    pub(super) format: &'static str,
    pub(super) missing: u64,
    pub(super) remarks: Vec<String>,
}

impl Decoded {
    fn new(mem: impl GuestMemory + 'static, cpus: Vec<Cpu>, format: &'static str) -> Self {
        Self { mem: Box::new(mem), cpus, format, missing: 0, remarks: Vec::new() }
    }
}

/// Raw RAM from this size on is refused if nothing was ever written to the file: that it holds no
/// kernel is otherwise found out by looking through all of it, which takes a second for each GiB.
const LARGE: u64 = 1 << 30;

/// The formats of which genuine files may have whole pages: memory lies in them as it is.
const WITH_PAGES: [Format; 4] = [Format::Elf, Format::Kdump, Format::Vmware, Format::Migration];

/// How bytes are to be read.
pub(super) struct How {
    pub(super) format: Option<Format>,
    pub(super) partial: bool,
    pub(super) placement: Option<Placement>,
    /// Whether there is a file of processors beside it, as there is for raw RAM.
    pub(super) beside: bool,
    /// Places that are zero for sure.
    pub(super) holes: Vec<Range<u64>>,
}

impl How {
    /// What of a file is compressed, from where on and how: all of it, or what `virsh save` put
    /// behind its header. Raw RAM may begin with anything.
    pub(super) fn packing(&self, bytes: &[u8]) -> Result<Option<(usize, Packing)>, TargetCause> {
        if self.format == Some(Format::Raw) {
            return Ok(None);
        }
        let saved = migration::Saved::of(bytes).transpose().map_err(TargetCause::Migration)?;
        let at = match saved {
            Some(saved) if !saved.packed => return Ok(None),
            Some(saved) => saved.stream,
            None => 0,
        };
        let packing = Packing::of(&bytes[at..]);
        if saved.is_some() && packing.is_none() {
            return Err(TargetCause::Migration(MigrationError::Compression("something else")));
        }
        let Some(packing) = packing else { return Ok(None) };
        match Claims::all(bytes.len() as u64).doubt(bytes.len() as u64, true) {
            // What a guest wrote into its RAM would be unpacked and believed.
            Some(doubt) if self.format.is_none() => {
                Err(TargetCause::AmbiguousPacked { packing: packing.name(), doubt })
            }
            _ => Ok(Some((at, packing))),
        }
    }

    /// Whether the user lets it be of this format.
    pub(super) fn may_be(&self, format: Format) -> bool {
        self.format.is_none_or(|named| named == format)
    }

    /// That a file which begins like one of `format` may not as well be raw RAM.
    fn believe(&self, format: Format, claims: Claims, len: u64) -> Result<(), TargetCause> {
        let pages = self.beside || !WITH_PAGES.contains(&format);
        match claims.doubt(len, pages).filter(|_| self.format.is_none()) {
            Some(doubt) => Err(TargetCause::Ambiguous { format, doubt }),
            None => Ok(()),
        }
    }

    /// Memory of segments that should be wholly there.
    fn image<B: AsRef<[u8]>>(
        &self,
        bytes: B,
        segments: impl IntoIterator<Item = Segment>,
    ) -> Result<ImageMemory<B>, ImageError> {
        let memory = match self.partial {
            true => ImageMemory::partial(bytes, segments)?,
            false => ImageMemory::new(bytes, segments)?,
        };
        Ok(memory.with_holes(self.holes.clone()))
    }
}

/// A file and, if it is of VMware, where memory is in it; for a description without memory the file
/// that has it.
pub(super) fn with_description(
    path: &Path,
    file: File,
    map: FileMap,
) -> Result<(File, FileMap, Option<vmware::Layout>), TargetCause> {
    let open = |path: &Path| File::open(path).and_then(|file| FileMap::new(&file).map(|map| (file, map)));
    if vmware::is_description(map.as_ref()) {
        let layout = vmware::parse(map.as_ref()).map_err(TargetCause::Vmware)?;
        if layout.inside.is_some() {
            return Ok((file, map, Some(layout)));
        }
        let memory = path.with_extension("vmem");
        let opened = if memory.is_file() { open(&memory).ok() } else { None };
        let (file, map) = opened.ok_or(TargetCause::Vmware(VmwareError::NoVmem(memory)))?;
        return Ok((file, map, Some(layout)));
    }
    if let Some(description) = vmware::description_of(path) {
        let (_, described) = open(&description).map_err(TargetCause::Io)?;
        if vmware::is_description(described.as_ref()) {
            let mut layout = vmware::parse(described.as_ref()).map_err(TargetCause::Vmware)?;
            layout.inside = None;
            return Ok((file, map, Some(layout)));
        }
    }
    Ok((file, map, None))
}

/// The format that a file's first bytes are of.
fn format_of(start: &[u8]) -> Option<Format> {
    let magics: [(&[u8], Format); 7] = [
        (&elf::MAGIC, Format::Elf),
        (kdump::MAGIC, Format::Kdump),
        (flat::MAGIC, Format::Kdump),
        (lime::MAGIC, Format::Lime),
        (lime::AVML_MAGIC, Format::Avml),
        (migration::MAGIC, Format::Migration),
        (migration::LIBVIRT_MAGIC, Format::Migration),
    ];
    magics.iter().find(|(magic, _)| start.starts_with(magic)).map(|&(_, format)| format)
}

/// The format to read a file as: the one that somebody named, if the file may be of it, or the one
/// that its first bytes, `start`, are of (`shown`).
fn choose(named: Option<Format>, shown: Option<Format>, start: &[u8]) -> Result<Format, TargetCause> {
    match (named, shown) {
        (Some(Format::Raw), _) => Ok(Format::Raw),
        (Some(named), shown) if shown != Some(named) => Err(TargetCause::NotThat(named)),
        (_, Some(shown)) => Ok(shown),
        (_, None) => match foreign::recognise(start) {
            Some(foreign) => Err(TargetCause::Foreign(foreign)),
            None => Ok(Format::Raw),
        },
    }
}

/// A kdump's bytes, taken out of a flattened file if they are in one.
fn unflattened<B: AsRef<[u8]>>(bytes: B) -> Result<Source<B>, TargetCause> {
    let source = Source::new(bytes).map_err(TargetCause::Flat)?;
    let begins = source.get(0, kdump::MAGIC.len()).as_deref() == Some(kdump::MAGIC);
    if begins { Ok(source) } else { Err(TargetCause::Foreign(&foreign::FLAT)) }
}

/// Opens bytes, whose `layout` is given if they are of VMware. Processors `given` replace those of
/// the capture; `find` looks for some where there are none.
pub(super) fn decode<B: AsRef<[u8]> + Send + Sync + 'static>(
    bytes: B,
    path: &Path,
    layout: Option<vmware::Layout>,
    how: &How,
    given: Option<Vec<Cpu>>,
    find: impl FnOnce() -> Result<Option<Vec<Cpu>>, TargetCause>,
) -> Result<Decoded, TargetCause> {
    let with_notes = given.is_none();
    let len = bytes.as_ref().len() as u64;
    let image = |bytes: B, segments: Vec<Segment>, cpus: Vec<Cpu>, format| {
        let mem = how.image(bytes, segments).map_err(TargetCause::Image)?;
        let missing = mem.missing();
        Ok(Decoded { missing, ..Decoded::new(mem, cpus, format) })
    };
    let start = &bytes.as_ref()[..bytes.as_ref().len().min(foreign::LOOKED_AT)];
    let shown = if layout.is_some() { Some(Format::Vmware) } else { format_of(start) };
    let format = choose(how.format, shown, start)?;
    if how.placement.is_some() && ![Format::Raw, Format::Migration].contains(&format) {
        return Err(TargetCause::Placed(format));
    }
    let mut target = match format {
        Format::Vmware => {
            let layout = layout.unwrap_or_default();
            let (at, size) = layout.inside.unwrap_or((0, len));
            if layout.inside.is_some() {
                let claims = Claims { described: at.saturating_add(size).min(len), covered: false };
                how.believe(format, claims, len)?;
            }
            image(bytes, layout.segments(at, size), Vec::new(), "vmware")?
        }
        Format::Elf => {
            let core = elf::read(bytes.as_ref(), with_notes)?;
            let claims = core.claims;
            // That bytes are missing comes first: who is told so can say what the file is.
            let opened = image(bytes, core.segments, core.cpus, core.format)?;
            how.believe(format, claims, len)?;
            opened
        }
        Format::Kdump => {
            let dump = kdump::read(unflattened(bytes)?, with_notes)?;
            how.believe(format, dump.claims, len)?;
            Decoded::new(dump.mem, dump.cpus, dump.format)
        }
        Format::Lime => {
            let segments = lime::read(bytes.as_ref(), how.partial)?;
            let opened = image(bytes, segments, Vec::new(), "lime")?;
            how.believe(format, Claims::all(len), len)?;
            opened
        }
        Format::Avml => {
            let mem = lime::read_avml(bytes)?;
            how.believe(format, Claims::all(len), len)?;
            Decoded::new(mem, Vec::new(), "avml")
        }
        Format::Migration => stream(bytes, how, with_notes)?,
        Format::Raw => {
            // Nothing in the bytes says that they are RAM: somebody has to.
            let cpus = match given {
                Some(given) => given,
                None => find()?.ok_or_else(|| TargetCause::NoCpuFile(raw::default_cpu_file(path)))?,
            };
            if len >= LARGE && how.holes.first().is_some_and(|hole| *hole == (0..len)) {
                return Err(TargetCause::NoMemory);
            }
            let (segments, remarks) = raw::read(bytes.as_ref(), how.placement.as_ref(), how.partial, &cpus)?;
            return Ok(Decoded { remarks, ..image(bytes, segments, cpus, "raw")? });
        }
    };
    if how.format.is_none() && len.is_multiple_of(PAGE_SIZE) {
        target.remarks.push(format!(
            "taken for {}, as which it begins; raw RAM in which its guest wrote that beginning would look \
             the same: --format says what it is",
            format.title()
        ));
    }
    if let Some(given) = given {
        target.cpus = given;
    } else if target.cpus.is_empty() {
        target.cpus = find()?.ok_or_else(|| TargetCause::NoCpus(raw::default_cpu_file(path)))?;
    }
    Ok(target)
}

/// Opens a migration stream, bare or as `virsh save` writes it.
fn stream<B: AsRef<[u8]> + Send + Sync + 'static>(
    bytes: B,
    how: &How,
    with_cpus: bool,
) -> Result<Decoded, TargetCause> {
    let len = bytes.as_ref().len() as u64;
    let saved = migration::Saved::of(bytes.as_ref()).transpose().map_err(TargetCause::Migration)?;
    let from = saved.map_or(0, |saved| saved.stream);
    let stream = migration::read(bytes, from, how.placement.as_ref(), with_cpus, how.partial)?;
    how.believe(Format::Migration, Claims::all(len), len)?;
    let name = if saved.is_some() { "migration, virsh save" } else { "migration" };
    Ok(Decoded { remarks: stream.notes, ..Decoded::new(stream.mem, stream.cpus, name) })
}
