//! Migration streams of QEMU: what `migrate exec:` and `file:` write, and `virsh save` behind a
//! header of its own.
//!
//! A stream is a row of sections. That of RAM has blocks with names and sizes, then pages, each
//! with the block and its place in it; devices follow, and a description of them (`devices`). Where
//! RAM lies in physical addresses is in none of it and follows from the machine's name
//! (`placement`). Format: QEMU's `migration/savevm.c` and `ram.c`, the same since version 2.4;
//! libvirt's `src/qemu/qemu_saveimage.h`.
//!
//! Not read: RAM compressed page by page or as differences (`xbzrle`, which live migrations over
//! networks use), streams of `postcopy`, and sections of other state that grows with the guest
//! (dirty bitmaps, VFIO) before RAM is complete, since nothing says how long they are.

mod devices;
mod error;
mod fields;
mod libvirt;
mod memory;
mod ram;

pub use error::MigrationError;
pub(super) use fields::MAGIC;
pub(super) use libvirt::{MAGIC as LIBVIRT_MAGIC, Saved};
pub(super) use memory::StreamMemory;

use devices::Description;
use fields::Fields;
use memory::Block;
use ram::Blocks;

use super::cpu::{Cpu, MAX_CPUS};
use super::error::TargetCause;
use super::placement::{Board, Placement, RamRange};

/// The only version since 2006.
const VERSION: u32 = 3;

/// Kinds of sections.
const START: u8 = 1;
const PART: u8 = 2;
const END: u8 = 3;
const FULL: u8 = 4;
const SUBSECTION: u8 = 5;
const CONFIGURATION: u8 = 7;
const COMMAND: u8 = 8;
const EOF: u8 = 0;
const FOOTER: u8 = 0x7e;

/// A stream, opened.
#[derive(Debug)]
pub(super) struct Stream<B> {
    pub(super) mem: StreamMemory<B>,
    pub(super) cpus: Vec<Cpu>,
    /// What there is to say about it.
    pub(super) notes: Vec<String>,
}

/// What the sections of a stream say.
#[derive(Debug, Default)]
struct Parts {
    machine: String,
    blocks: Blocks,
    cpus: Vec<Cpu>,
    notes: Vec<String>,
}

/// Reads the stream that begins at `from`; processors only if `with_cpus`. `placement` says where
/// RAM lies if not where the machine has it; if the stream may be cut off (`partial`), devices may
/// be missing.
pub(super) fn read<B: AsRef<[u8]>>(
    bytes: B,
    from: usize,
    placement: Option<&Placement>,
    with_cpus: bool,
    partial: bool,
) -> Result<Stream<B>, TargetCause> {
    let parts = Walk::new(bytes.as_ref(), from).parts(partial).map_err(TargetCause::Migration)?;
    let Parts { machine, blocks, cpus, mut notes } = parts;
    let (blocks, more) = blocks.of_machine().map_err(TargetCause::Migration)?;
    notes.extend(more);
    let ranges = placed(&machine, &blocks, placement, &mut notes)?;
    let cpus = if with_cpus { cpus } else { Vec::new() };
    Ok(Stream { mem: StreamMemory::new(bytes, blocks, ranges), cpus, notes })
}

/// Where the blocks' RAM lies.
fn placed(
    machine: &str,
    blocks: &[Block],
    placement: Option<&Placement>,
    notes: &mut Vec<String>,
) -> Result<Vec<RamRange>, TargetCause> {
    let size = blocks.last().map_or(0, |block| block.start + block.size);
    let board = Board::of_machine(machine).map(Placement::Board);
    // Below the lowest cut of any board there is nothing to know.
    let small = (size <= LEAST_CUT).then_some(Placement::Flat);
    let unknown = || MigrationError::Placement { machine: machine.to_owned(), size };
    let chosen =
        placement.cloned().or(board).or(small).ok_or_else(unknown).map_err(TargetCause::Migration)?;
    let ranges = chosen.ranges(size, false).map_err(TargetCause::Placement)?;
    if size > LEAST_CUT && placement.is_none() {
        let list: Vec<String> = ranges.iter().map(ToString::to_string).collect();
        notes.push(format!(
            "RAM is placed as QEMU's machine {machine} does ({}); --ram says otherwise",
            list.join(", ")
        ));
    }
    Ok(ranges)
}

/// RAM up to this size lies one behind the other in every machine.
const LEAST_CUT: u64 = 2 << 30;

/// A walk over the sections.
struct Walk<'a> {
    fields: Fields<'a>,
    description: Option<Description>,
    /// The next device that the description has.
    next: usize,
    parts: Parts,
    /// The number of the section with RAM.
    ram: Option<u32>,
    complete: bool,
}

impl<'a> Walk<'a> {
    fn new(bytes: &'a [u8], from: usize) -> Self {
        Self {
            fields: Fields::new(bytes, from),
            description: Description::find(bytes),
            next: 0,
            parts: Parts::default(),
            ram: None,
            complete: false,
        }
    }

    fn parts(mut self, partial: bool) -> Result<Parts, MigrationError> {
        let cut = MigrationError::Cut(self.fields.len());
        self.fields.take(MAGIC.len() as u64).ok_or(cut.clone())?;
        let version = self.fields.u32().ok_or(cut)?;
        if version != VERSION {
            return Err(MigrationError::Version(version));
        }
        let ended = self.sections();
        match ended {
            Ok(()) => self.check_cpus(),
            // Without devices it is RAM without processors, as other dumps are too. Where their
            // description is missing the stream may as well be cut off.
            Err(error) if self.complete => {
                let cut = self.description.is_none() || matches!(error, MigrationError::Cut(_));
                if cut && !partial {
                    return Err(MigrationError::CutDevices(self.fields.len()));
                }
                self.without_cpus("its devices, or the description of them, are not all there");
            }
            Err(error) => return Err(error),
        }
        Ok(self.parts)
    }

    /// All sections up to the end mark.
    fn sections(&mut self) -> Result<(), MigrationError> {
        loop {
            let at = self.fields.at;
            let cut = MigrationError::Cut(self.fields.len());
            match self.fields.u8().ok_or(cut)? {
                EOF if self.complete => return Ok(()),
                CONFIGURATION => self.configuration()?,
                COMMAND => {
                    let skipped = self.fields.u16().and_then(|_| {
                        let len = self.fields.u16()?;
                        self.fields.take(len.into())
                    });
                    skipped.ok_or(MigrationError::Cut(self.fields.len()))?;
                }
                kind @ (START | FULL) => self.begin(kind)?,
                kind @ (PART | END) => {
                    let id = self.fields.u32().ok_or(MigrationError::Cut(self.fields.len()))?;
                    if self.ram != Some(id) {
                        return Err(MigrationError::Section(at));
                    }
                    self.parts.blocks.records(&mut self.fields)?;
                    self.complete |= kind == END;
                    self.footer(id)?;
                }
                _ => return Err(MigrationError::Section(at)),
            }
        }
    }

    /// A section with a header: RAM's first, or a device.
    fn begin(&mut self, kind: u8) -> Result<(), MigrationError> {
        let cut = MigrationError::Cut(self.fields.len());
        let header =
            |fields: &mut Fields<'a>| Some((fields.u32()?, fields.name()?, fields.u32()?, fields.u32()?));
        let (id, name, instance, _version) = header(&mut self.fields).ok_or(cut.clone())?;
        if kind == START && name == b"ram" {
            self.ram = Some(id);
            self.parts.blocks.records(&mut self.fields)?;
            return self.footer(id);
        }
        let unknown = || MigrationError::Unknown(String::from_utf8_lossy(name).into_owned());
        let description = self.description.as_ref().filter(|_| kind == FULL).ok_or_else(unknown)?;
        let state = description.state(self.next, name, instance, &mut self.fields).ok_or_else(unknown)?;
        if self.parts.cpus.len() <= MAX_CPUS {
            self.parts.cpus.extend(description.cpu(self.next, state));
        }
        self.next += 1;
        self.footer(id)
    }

    /// What machines since 2.4 have behind each section.
    fn footer(&mut self, id: u32) -> Result<(), MigrationError> {
        let at = self.fields.at;
        if self.fields.peek() != Some(FOOTER) {
            return Ok(());
        }
        self.fields.u8();
        match self.fields.u32() {
            Some(same) if same == id => Ok(()),
            Some(_) => Err(MigrationError::Section(at)),
            None => Err(MigrationError::Cut(self.fields.len())),
        }
    }

    /// The machine's name, and what of its options has to be the same on both sides.
    fn configuration(&mut self) -> Result<(), MigrationError> {
        let cut = MigrationError::Cut(self.fields.len());
        let fields = &mut self.fields;
        let len = fields.u32().ok_or(cut.clone())?;
        let name = fields.take(len.into()).ok_or(cut.clone())?;
        self.parts.machine = String::from_utf8_lossy(&name[..name.len().min(64)]).into_owned();
        while fields.peek() == Some(SUBSECTION) {
            fields.u8();
            let part = fields.name().ok_or(cut.clone())?;
            fields.u32().ok_or(cut.clone())?;
            let whole = match part {
                b"configuration/target-page-bits" => fields.u32().map(drop),
                b"configuration/uuid" => fields.take(16).map(drop),
                b"configuration/capabilities" => {
                    let count = fields.u32().ok_or(cut.clone())?;
                    (0..count).try_for_each(|_| self.parts.blocks.capability(fields.name()?))
                }
                _ => return Err(MigrationError::Unknown(String::from_utf8_lossy(part).into_owned())),
            };
            whole.ok_or(cut.clone())?;
        }
        Ok(())
    }

    /// That the processors are those that the description has.
    fn check_cpus(&mut self) {
        let Some(description) = &self.description else {
            return self.without_cpus("the stream has no description of its devices");
        };
        let (devices, cpus) = description.counts();
        if devices != self.next || cpus != self.parts.cpus.len() || self.fields.at != description.end + 1 {
            self.without_cpus("the stream's description is not that of its devices");
        }
    }

    fn without_cpus(&mut self, why: &str) {
        self.parts.cpus.clear();
        self.parts.notes.push(format!("no processor state is read: {why}"));
    }
}
