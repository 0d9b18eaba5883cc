//! The training process's pages, as every run of a program begins with them.
//!
//! A run reads them where they are, and copies one when it first writes to it.

use std::ops::Range;

use ir::Program;
use ir::program::PageContent;
use machine::memory::ZERO_PAGE;
use machine::{PAGE_SIZE, Page, VirtAddr, hash};

/// The pages of the process that a program was trained in.
#[derive(Debug, Default)]
pub struct ProcessPages<'p> {
    /// Those with content of their own, by address: a number, and what they hold.
    pages: hash::Map<VirtAddr, (u32, Content<'p>)>,
    /// Those that the kernel shows to processes, and the kernel's own address of each in training.
    pub(crate) aliases: Vec<(VirtAddr, u64)>,
    /// Those that hold code, or may.
    code: hash::Map<VirtAddr, &'p [u8]>,
    count: usize,
}

#[derive(Debug)]
enum Content<'p> {
    Whole(&'p Page),
    /// The program has only the bytes before the zeros.
    Padded(Box<Page>),
}

impl<'p> ProcessPages<'p> {
    /// The pages of a program.
    #[must_use]
    pub fn new(program: &'p Program) -> Self {
        let mut all = Self::default();
        for page in &program.pages {
            let addr = VirtAddr(page.addr);
            let content = match &page.content {
                PageContent::Kernel(kernel) => {
                    all.aliases.push((addr, *kernel));
                    continue;
                }
                PageContent::Zero => Content::Whole(&ZERO_PAGE),
                PageContent::Bytes(bytes) => {
                    all.code.insert(addr, bytes);
                    bytes.first_chunk().map_or_else(|| Content::Padded(padded(bytes)), Content::Whole)
                }
            };
            all.pages.insert(addr, (all.count as u32, content));
            all.count += 1;
        }
        all
    }

    /// How many pages have content of their own.
    pub(crate) const fn len(&self) -> usize {
        self.count
    }

    /// The number and content of the page at a page-aligned address.
    pub(crate) fn get(&self, page: VirtAddr) -> Option<(u32, &Page)> {
        self.pages.get(&page).map(|(number, content)| {
            let page: &Page = match content {
                Content::Whole(page) => page,
                Content::Padded(page) => page,
            };
            (*number, page)
        })
    }

    /// Whether an address lies in a page with code of the process.
    pub(crate) fn is_code(&self, address: u64) -> bool {
        self.code.contains_key(&VirtAddr(address).page())
    }

    /// From the first page with code of the process to the end of the last.
    pub(crate) fn reach(&self) -> Range<u64> {
        let pages = self.code.keys().map(|page| page.0);
        let end = pages.clone().max().map_or(0, |last| last.saturating_add(PAGE_SIZE));
        pages.min().unwrap_or(0)..end
    }

    /// Code bytes from an address on: at most `count`, fewer where pages end.
    pub(crate) fn code(&self, address: u64, count: usize) -> Vec<u8> {
        let byte = |address: VirtAddr| self.code.get(&address.page())?.get(address.offset() as usize);
        (0..count as u64).map_while(|at| byte(VirtAddr(address).add(at)).copied()).collect()
    }
}

fn padded(bytes: &[u8]) -> Box<Page> {
    let mut page = Box::new([0; PAGE_SIZE as usize]);
    page[..bytes.len()].copy_from_slice(bytes);
    page
}
