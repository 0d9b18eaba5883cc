//! The section of RAM: its blocks and their pages.
//!
//! Each record is a number whose upper bits are a place in a block and whose low bits say what
//! follows (`RAM_SAVE_FLAG_*` in QEMU's `migration/ram.c`). Pages of a running guest come again
//! when it wrote them. In the form for files (`mapped-ram`) the records name only the blocks, and
//! say where the pages of each lie.

use std::collections::HashMap;

use super::error::MigrationError;
use super::fields::Fields;
use super::memory::{Block, Content, Listing};
use crate::addr::PAGE_SIZE;

const ZERO: u64 = 0x2;
const SIZES: u64 = 0x4;
const PAGE: u64 = 0x8;
const DONE: u64 = 0x10;
const CONTINUE: u64 = 0x20;
const XBZRLE: u64 = 0x40;
const COMPRESSED: u64 = 0x100;
const FLUSH: u64 = 0x200;

/// Blocks accepted; machines have some ten.
const MAX_BLOCKS: usize = 4096;
/// Blocks of this size that are not used are worth a remark: smaller ones are ROM and screens.
const LARGE: u64 = 64 << 20;

/// A block of a stream, of the machine's RAM or of a device.
#[derive(Debug)]
pub(super) struct Named {
    name: String,
    size: u64,
    pages: Listing,
    /// Where the pages and the bitmap of them are, if they have places of their own.
    mapped: Option<(u64, u64)>,
}

/// What is known of RAM so far.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    blocks: Vec<Named>,
    /// Their numbers by their names: any number of records may name one.
    numbers: HashMap<String, usize>,
    /// The block that the last record named.
    last: Option<usize>,
    mapped: bool,
    ignore_shared: bool,
}

impl Blocks {
    /// Notes that the stream was written with a capability that changes its form.
    pub(super) fn capability(&mut self, name: &[u8]) -> Option<()> {
        self.mapped |= name == b"mapped-ram";
        self.ignore_shared |= name == b"x-ignore-shared";
        Some(())
    }

    /// The records of one section.
    pub(super) fn records(&mut self, fields: &mut Fields<'_>) -> Result<(), MigrationError> {
        loop {
            let at = fields.at;
            let cut = MigrationError::Cut(fields.len());
            let record = fields.u64().ok_or(cut.clone())?;
            let (place, flags) = (record & !(PAGE_SIZE - 1), record & (PAGE_SIZE - 1));
            match flags & !CONTINUE {
                DONE => return Ok(()),
                SIZES => self.sizes(place, fields, at)?,
                kind @ (ZERO | PAGE) => {
                    let block = self.block(flags, fields, at)?;
                    if place.checked_add(PAGE_SIZE).is_none_or(|end| end > block.size) {
                        return Err(MigrationError::Record(at));
                    }
                    let number = place / PAGE_SIZE;
                    if kind == ZERO {
                        block.pages.filled(number, fields.u8().ok_or(cut)?);
                    } else {
                        block.pages.page(number, fields.at);
                        fields.take(PAGE_SIZE).ok_or(cut)?;
                    }
                }
                FLUSH => {}
                XBZRLE => return Err(MigrationError::Form("written as differences (xbzrle)")),
                COMPRESSED => return Err(MigrationError::Form("compressed page by page")),
                _ => return Err(MigrationError::Record(at)),
            }
        }
    }

    /// The block that a record is of, which it names unless it is that of the one before.
    fn block(
        &mut self,
        flags: u64,
        fields: &mut Fields<'_>,
        at: usize,
    ) -> Result<&mut Named, MigrationError> {
        if flags & CONTINUE == 0 {
            let name = fields.name().ok_or(MigrationError::Cut(fields.len()))?;
            let name = str::from_utf8(name).map_err(|_| MigrationError::Record(at))?;
            self.last = self.numbers.get(name).copied();
        }
        self.last.and_then(|last| self.blocks.get_mut(last)).ok_or(MigrationError::Record(at))
    }

    /// The names and sizes of all blocks, `total` bytes together.
    fn sizes(&mut self, total: u64, fields: &mut Fields<'_>, at: usize) -> Result<(), MigrationError> {
        let cut = MigrationError::Cut(fields.len());
        if !self.blocks.is_empty() {
            return Err(MigrationError::Record(at));
        }
        let mut sum = 0u64;
        while sum < total {
            let name = fields.name().ok_or(cut.clone())?;
            let size = fields.u64().ok_or(cut.clone())?;
            if self.ignore_shared {
                fields.u64().ok_or(cut.clone())?;
            }
            let mapped = if self.mapped { Some(mapped(size, fields)?) } else { None };
            let name = String::from_utf8(name.to_vec()).map_err(|_| MigrationError::Record(at))?;
            let known = self.numbers.insert(name.clone(), self.blocks.len()).is_some();
            sum = sum.checked_add(size).ok_or(MigrationError::Record(at))?;
            if known || sum > total || self.blocks.len() == MAX_BLOCKS || !size.is_multiple_of(PAGE_SIZE) {
                return Err(MigrationError::Record(at));
            }
            self.blocks.push(Named { name, size, pages: Listing::default(), mapped });
        }
        Ok(())
    }

    /// The blocks that are the machine's RAM, in their order, and what there is to say about the
    /// rest.
    ///
    /// QEMU and libvirt call it `pc.ram`, or `ram-node0` and so on for each node of NUMA; a name
    /// may have a path before it. A back end that the user named is the block that is larger than
    /// all others together.
    pub(super) fn of_machine(self) -> Result<(Vec<Block>, Vec<String>), MigrationError> {
        let last = |block: &Named| block.name.rsplit('/').next().unwrap_or_default().to_owned();
        let node = |block: &Named| last(block).strip_prefix("ram-node").and_then(|n| n.parse::<u32>().ok());
        let total: u64 = self.blocks.iter().map(|block| block.size).sum();
        let all = || self.blocks.iter().map(|it| format!("{:?}", it.name)).collect::<Vec<_>>().join(", ");
        let mut notes = Vec::new();
        let mut order: Vec<(u32, usize)> = Vec::new();
        let numbered = self.blocks.iter().enumerate();
        if let Some(i) =
            self.blocks.iter().position(|block| ["pc.ram", "microvm.ram"].contains(&&*last(block)))
        {
            order.push((0, i));
        } else {
            order.extend(numbered.clone().filter_map(|(i, block)| Some((node(block)?, i))));
            order.sort_unstable();
        }
        if order.is_empty() {
            let found = numbered.clone().find(|(_, block)| block.size > total / 2);
            let (i, block) = found.ok_or_else(|| MigrationError::NoRam(all()))?;
            notes.push(format!("RAM is taken from the block {:?}, the largest of {}", block.name, all()));
            order.push((0, i));
        }
        for (i, block) in numbered {
            if block.size >= LARGE && !order.iter().any(|&(_, taken)| taken == i) {
                notes.push(format!("the block {:?} of {} bytes is not read", block.name, block.size));
            }
        }
        let mut named: Vec<Option<Named>> = self.blocks.into_iter().map(Some).collect();
        let mut start = 0;
        let mut blocks = Vec::new();
        for Named { size, pages, mapped, .. } in order.into_iter().filter_map(|(_, i)| named[i].take()) {
            let content = match mapped {
                Some((bitmap, pages)) => Content::Mapped { bitmap, pages },
                None => pages.settle(),
            };
            blocks.push(Block { start, size, content });
            start += size;
        }
        Ok((blocks, notes))
    }
}

/// Where bitmap and pages of a block of `size` bytes are; the stream goes on behind the pages.
fn mapped(size: u64, fields: &mut Fields<'_>) -> Result<(u64, u64), MigrationError> {
    let at = fields.at;
    let cut = MigrationError::Cut(fields.len());
    let mut header = || Some((fields.u32()?, fields.u64()?, fields.u64()?, fields.u64()?));
    let (version, page_size, bitmap, pages) = header().ok_or(cut.clone())?;
    if version != 1 || page_size != PAGE_SIZE {
        return Err(MigrationError::Form("in a form of mapped-ram that is not known"));
    }
    let bytes = (size / PAGE_SIZE).div_ceil(8);
    let ordered = bitmap >= fields.at as u64 && bitmap.checked_add(bytes).is_some_and(|end| end <= pages);
    let end = pages.checked_add(size).filter(|_| ordered).ok_or(MigrationError::Record(at))?;
    fields.at = usize::try_from(end).ok().filter(|&end| end <= fields.len()).ok_or(cut)?;
    Ok((bitmap, pages))
}
