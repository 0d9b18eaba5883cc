//! The file behind the guest's RAM (`memory-backend-file,share=on`): read where the guest's stores
//! land.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use machine::paging::{self, PagingMode, TranslateError};
use machine::{GuestMemory, MemoryError, Page, PhysAddr, Reg, RegFile, VirtAddr};

use crate::config::Range;

const PAGE: usize = 4096;
const READ: usize = 1 << 20;

/// The guest's RAM.
pub struct Ram {
    path: PathBuf,
    file: File,
    ranges: Vec<Range>,
}

/// The pages that are not all zero, at one moment.
pub struct Copy {
    /// Guest-physical page addresses.
    addrs: Vec<u64>,
    bytes: Vec<u8>,
}

impl Copy {
    /// Address and bytes of each page, ascending.
    pub fn pages(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.addrs.iter().copied().zip(self.bytes.chunks_exact(PAGE))
    }
}

/// Page tables as guest memory.
struct Tables(Vec<(PhysAddr, Box<Page>)>);

impl GuestMemory for Tables {
    fn page(&self, addr: PhysAddr) -> Result<&Page, MemoryError> {
        let found = self.0.iter().find(|(page, _)| *page == addr.page());
        found.map(|(_, page)| &**page).ok_or(MemoryError::Absent(addr))
    }

    fn ranges(&self) -> Vec<std::ops::Range<PhysAddr>> {
        self.0.iter().map(|(page, _)| *page..page.add(PAGE as u64)).collect()
    }
}

impl Ram {
    /// Opens the file, which QEMU has created by now.
    pub fn open(path: &Path, ranges: Vec<Range>) -> io::Result<Self> {
        let file = File::open(path)?;
        let end = ranges.iter().map(|range| range.offset.saturating_add(range.size)).max().unwrap_or(0);
        if file.metadata()?.len() < end {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "smaller than the guest's RAM"));
        }
        Ok(Self { path: path.to_path_buf(), file, ranges })
    }

    /// Removes the file's name. QEMU and the plugin keep it open.
    pub fn unlink(&self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }

    /// Where a linear address lies now; `regs` has the control registers.
    ///
    /// # Errors
    /// Why it lies nowhere.
    pub fn translate(&self, regs: &RegFile, address: u64) -> Result<u64, String> {
        let mode = PagingMode::from_regs(regs).map_err(|error| error.to_string())?;
        let root = regs.get_or_zero(Reg::Cr3);
        let mut tables = Tables(Vec::new());
        // One table for each level, read when the walk comes to it.
        for _ in 0..8 {
            match paging::translate(&tables, mode, root, VirtAddr(address)) {
                Ok(found) => return Ok(found.paddr.0),
                Err(TranslateError::Memory { source: MemoryError::Absent(addr), .. }) => {
                    let page =
                        self.page(addr.page().0).ok_or_else(|| format!("there is no memory at {addr}"))?;
                    tables.0.push((addr.page(), page));
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        Err("its page tables do not end".to_owned())
    }

    fn page(&self, addr: u64) -> Option<Box<Page>> {
        let range = self.ranges.iter().find(|range| addr.wrapping_sub(range.start) < range.size)?;
        let mut page = Box::new([0; PAGE]);
        self.file.read_exact_at(&mut *page, range.offset + (addr - range.start)).ok()?;
        Some(page)
    }

    /// Copies every page that is not all zero.
    pub fn copy(&self) -> io::Result<Copy> {
        let mut copy = Copy { addrs: Vec::new(), bytes: Vec::new() };
        let mut buffer = vec![0; READ];
        for range in &self.ranges {
            let mut done = 0;
            while done < range.size {
                let want = (range.size - done).min(READ as u64) as usize;
                let buffer = &mut buffer[..want];
                self.file.read_exact_at(buffer, range.offset + done)?;
                for (index, page) in buffer.chunks_exact(PAGE).enumerate() {
                    if page.iter().fold(0, |or, byte| or | byte) != 0 {
                        copy.addrs.push(range.start + done + (index * PAGE) as u64);
                        copy.bytes.extend_from_slice(page);
                    }
                }
                done += want as u64;
            }
        }
        Ok(copy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_pages_that_are_not_zero() {
        let path = std::env::temp_dir().join(format!("virtuoso-ram-test-{}", std::process::id()));
        let mut bytes = vec![0; 5 * PAGE];
        bytes[PAGE + 5] = 1;
        bytes[4 * PAGE] = 2;
        std::fs::write(&path, &bytes).unwrap();
        let ranges = vec![
            Range { start: 0, size: 2 * PAGE as u64, offset: 0 },
            Range { start: 0x10_0000, size: 2 * PAGE as u64, offset: 3 * PAGE as u64 },
        ];
        let ram = Ram::open(&path, ranges).unwrap();
        ram.unlink().unwrap();
        let copy = ram.copy().unwrap();
        let pages: Vec<_> = copy.pages().map(|(addr, page)| (addr, page[0], page[5])).collect();
        assert_eq!(pages, [(0x1000, 0, 1), (0x10_1000, 2, 0)]);
        assert!(Ram::open(&path, vec![]).is_err());
    }
}
