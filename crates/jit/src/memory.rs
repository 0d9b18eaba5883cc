//! The pages of a run, and its translation cache (TLB).
//!
//! A run reads pages of the target, which it has borrowed, and pages of its own: copies of those
//! that it wrote, and new ones. The TLB says by virtual address which page that is and whether it
//! may be written; compiled code looks there itself. Who fills it decides what is where.
//!
//! Invariant, on which every `unsafe` block here rests: an entry's `addend` plus any address in the
//! entry's page lies in a page of 4096 bytes that stays where it is until the memory is dropped or
//! gives up its pages: one that was borrowed for `'t`, or one of `pages`. Entries with a `write`
//! tag are of `pages` that no other memory has ([`Memory::fork`]); any number may read a page that
//! they share, and who writes it takes a copy before. Pages have an alignment of at least 8 bytes,
//! and are only reached by one borrow of the memory at a time.

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use machine::{PAGE_SIZE, Page, VirtAddr};

/// Entries of the TLB, which is direct-mapped by page number.
pub(crate) const ENTRIES: usize = 1024;
/// A tag that is no page's address.
const NEVER: u64 = 1;
const OFFSET: u64 = PAGE_SIZE - 1;

/// A translated page.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Entry {
    /// The page's address, if it may be read; else [`NEVER`].
    pub read: u64,
    /// The page's address, if it may be written without a question; else [`NEVER`].
    pub write: u64,
    /// What makes a virtual address in the page the host's.
    pub addend: u64,
    /// The place of the copy's first byte among all copies' bytes, plus one.
    pub place: u64,
}

/// What compiled code works on beside the slots.
#[repr(C)]
pub(crate) struct Hot {
    /// What [`Memory::state`] returns.
    pub state: u64,
    pub tlb: [Entry; ENTRIES],
}

/// A page that compiled code may write while it is borrowed by nobody.
#[repr(C, align(64))]
struct Aligned(UnsafeCell<Page>);

// SAFETY: who shares one only reads it, and a memory that is its only owner is no borrow of
// another thread's.
unsafe impl Sync for Aligned {}

/// Whether no other memory has a page. There are no weak references.
#[inline]
fn is_unshared(page: &Arc<Aligned>) -> bool {
    let unshared = Arc::strong_count(page) == 1;
    // What others did with it before they let it go has happened.
    fence(Ordering::Acquire);
    unshared
}

/// Pages of a run that is over, for the next one to use; what they hold says nothing.
/// Nobody else has them.
#[derive(Default)]
pub struct Spare(Vec<Arc<Aligned>>);

impl Spare {
    /// Adds others.
    pub fn add(&mut self, mut others: Self) {
        self.0.append(&mut others.0);
    }

    /// Keeps at most so many.
    pub fn truncate(&mut self, most: usize) {
        self.0.truncate(most);
    }
}

/// What is at a page's address.
#[derive(Clone, Copy)]
pub enum Held<'t> {
    /// A page that the run only reads.
    Target(&'t Page),
    /// A page of the run's own.
    Copy(u32),
}

/// The pages of a run, and where they are.
pub struct Memory<'t> {
    hot: NonNull<Hot>,
    /// The run's own pages, by number.
    pages: Vec<Arc<Aligned>>,
    spare: Spare,
    target: PhantomData<&'t Page>,
}

// SAFETY: `hot` is that of a box that only this memory has; shared borrows only read.
unsafe impl Sync for Memory<'_> {}

/// Two factors of the words' keys, odd.
pub(crate) const KEYS: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9];

/// The factor of the word at a place (see [`Entry::place`]) in [`Memory::state`], which is the sum
/// of all words, each multiplied by its own factor.
const fn key(place: u64) -> u64 {
    place.wrapping_mul(KEYS[0]).rotate_left(32).wrapping_mul(KEYS[1]) | 1
}

/// The place of a copy's first byte.
const fn place(copy: u32) -> u64 {
    ((copy as u64) << 12) + 1
}

/// A word of which `size` bytes from byte `inside` on are replaced.
const fn replaced(word: u64, inside: u64, size: u64, value: u64) -> u64 {
    let mask = (u64::MAX >> (64 - 8 * size)) << (8 * inside);
    word & !mask | value << (8 * inside) & mask
}

impl<'t> Memory<'t> {
    /// No page, and none translated. `spare` are pages to use.
    #[must_use]
    pub fn new(spare: Spare) -> Self {
        let empty = Entry { read: NEVER, write: NEVER, addend: 0, place: 0 };
        let hot = Box::new(Hot { state: 0, tlb: [empty; ENTRIES] });
        Self { hot: NonNull::from(Box::leak(hot)), pages: Vec::new(), spare, target: PhantomData }
    }

    /// Pages to use for the next copies, before any new one.
    pub fn add_spare(&mut self, spare: Spare) {
        self.spare.add(spare);
    }

    /// Another memory with the same content, of which neither sees what is stored in the other from
    /// now on: both copy what they write. `spare` are pages to use for that.
    #[must_use]
    pub fn fork(&mut self, spare: Spare) -> Self {
        let hot = self.hot_mut();
        // Who wants to write has to take a copy first.
        hot.tlb.iter_mut().for_each(|entry| entry.write = NEVER);
        let hot = Box::new(Hot { state: hot.state, tlb: hot.tlb });
        let pages = self.pages.clone();
        Self { hot: NonNull::from(Box::leak(hot)), pages, spare, target: PhantomData }
    }

    /// The pages, which are not needed any more.
    #[must_use]
    pub fn into_spare(mut self) -> Spare {
        self.unmap();
        let mut spare = std::mem::take(&mut self.spare);
        spare.0.extend(self.pages.drain(..).filter(is_unshared));
        spare
    }

    /// Makes a page of the run's own with this content; its number is the result.
    pub fn copy(&mut self, content: &Page) -> u32 {
        let page = self.new_page(content);
        self.pages.push(page);
        (self.pages.len() - 1) as u32
    }

    /// A page with this content that nobody else has.
    fn new_page(&mut self, content: &Page) -> Arc<Aligned> {
        let mut spare = self.spare.0.pop();
        match spare.as_mut().and_then(Arc::get_mut) {
            Some(page) => page.0.get_mut().copy_from_slice(content),
            None => spare = None,
        }
        spare.unwrap_or_else(|| Arc::new(Aligned(UnsafeCell::new(*content))))
    }

    /// A page of the run's own.
    #[must_use]
    pub fn page(&self, copy: u32) -> &Page {
        // SAFETY: it is alive, and only written through a mutable borrow of the only memory that
        // has it.
        unsafe { &*self.pages[copy as usize].0.get() }
    }

    /// A page of the run's own. [`Memory::state`] does not see what is changed this way.
    pub fn page_mut(&mut self, copy: u32) -> &mut Page {
        self.own(copy);
        // SAFETY: as above; no other memory has it, and `self` is borrowed mutably.
        unsafe { &mut *self.pages[copy as usize].0.get() }
    }

    /// Makes a page of the run's own one that no other memory has.
    pub fn own(&mut self, copy: u32) {
        let shared = &self.pages[copy as usize];
        if !is_unshared(shared) {
            let shared = Arc::clone(shared);
            // SAFETY: whoever shares it only reads it.
            self.pages[copy as usize] = self.new_page(unsafe { &*shared.0.get() });
            self.unmap_copy(copy);
        }
    }

    fn hot(&self) -> &Hot {
        // SAFETY: it is alive until the memory is dropped; nobody else has it.
        unsafe { self.hot.as_ref() }
    }

    fn hot_mut(&mut self) -> &mut Hot {
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { self.hot.as_mut() }
    }

    /// For compiled code.
    pub(crate) const fn hot_pointer(&mut self) -> NonNull<Hot> {
        self.hot
    }

    /// A number that stands for all that was stored. It is the same after changes that were undone,
    /// and differs, but for chance (64 bits), if anything differs.
    #[must_use]
    #[inline]
    pub fn state(&self) -> u64 {
        self.hot().state
    }

    /// Counts something else into the state: `value` in the place of no page.
    pub fn add_to_state(&mut self, value: u64) {
        let change = value.wrapping_mul(key(place(u32::MAX)));
        let hot = self.hot_mut();
        hot.state = hot.state.wrapping_add(change);
    }

    const fn index(address: VirtAddr) -> usize {
        (address.0 / PAGE_SIZE) as usize % ENTRIES
    }

    /// Puts a page into the TLB. `writable`: stores need not ask; the target's pages never are, nor
    /// are those that another memory has too.
    pub fn map(&mut self, page: VirtAddr, held: Held<'t>, writable: bool) {
        let (host, place, writable) = match held {
            Held::Target(content) => (content.as_ptr().expose_provenance(), 0, false),
            Held::Copy(copy) => {
                let page = &self.pages[copy as usize];
                (page.0.get().expose_provenance(), place(copy), writable && is_unshared(page))
            }
        };
        let page = page.page().0;
        let addend = (host as u64).wrapping_sub(page);
        let write = if writable { page } else { NEVER };
        self.hot_mut().tlb[Self::index(VirtAddr(page))] = Entry { read: page, write, addend, place };
    }

    /// Empties the TLB.
    pub fn unmap(&mut self) {
        for entry in &mut self.hot_mut().tlb {
            (entry.read, entry.write) = (NEVER, NEVER);
        }
    }

    /// Takes out of the TLB what leads to a page of the target.
    pub fn unmap_target(&mut self, content: &Page) {
        let host = content.as_ptr().addr() as u64;
        for entry in &mut self.hot_mut().tlb {
            if entry.read != NEVER && entry.read.wrapping_add(entry.addend) == host {
                (entry.read, entry.write) = (NEVER, NEVER);
            }
        }
    }

    /// Takes out of the TLB what leads to a page of the run's own.
    pub fn unmap_copy(&mut self, copy: u32) {
        for entry in &mut self.hot_mut().tlb {
            if entry.place == place(copy) {
                (entry.read, entry.write) = (NEVER, NEVER);
            }
        }
    }

    /// Reads 1, 2, 4 or 8 bytes, little endian; `None` if the TLB does not have them all.
    #[inline]
    #[must_use]
    pub fn load(&self, address: VirtAddr, size: u64) -> Option<u64> {
        let entry = &self.hot().tlb[Self::index(address)];
        if address.0.wrapping_add(size - 1) & !OFFSET != entry.read {
            return None;
        }
        let host = std::ptr::with_exposed_provenance::<u8>(address.0.wrapping_add(entry.addend) as usize);
        // SAFETY: all the bytes are in the entry's page, by the tag.
        unsafe {
            Some(match size {
                8 => u64::from_le(host.cast::<u64>().read_unaligned()),
                4 => u32::from_le(host.cast::<u32>().read_unaligned()).into(),
                2 => u16::from_le(host.cast::<u16>().read_unaligned()).into(),
                _ => host.read().into(),
            })
        }
    }

    /// Writes the low `size` bytes (1 to 8) of a value, little endian; false, and nothing is
    /// written, if they do not lie in one word of a page that the TLB lets be written.
    #[inline]
    #[must_use]
    pub fn store(&mut self, address: VirtAddr, size: u64, value: u64) -> bool {
        let entry = self.hot().tlb[Self::index(address)];
        let (page, inside) = (address.0 & !OFFSET, address.0 & 7);
        if page != entry.write || inside + size > 8 {
            return false;
        }
        let host = (address.0 & !7).wrapping_add(entry.addend) as usize;
        let host = std::ptr::with_exposed_provenance_mut::<u64>(host);
        // SAFETY: an aligned word of one of our own pages, by the tag; nobody has borrowed it.
        let (before, after) = unsafe {
            let before = u64::from_le(host.read());
            let after = replaced(before, inside, size, value);
            host.write(after.to_le());
            (before, after)
        };
        let change = after.wrapping_sub(before).wrapping_mul(key(entry.place + (address.0 & OFFSET & !7)));
        let hot = self.hot_mut();
        hot.state = hot.state.wrapping_add(change);
        true
    }

    /// The page of the run's own that the TLB lets be written at an address.
    #[must_use]
    pub fn writable(&self, address: VirtAddr) -> Option<u32> {
        let entry = &self.hot().tlb[Self::index(address)];
        (address.0 & !OFFSET == entry.write).then_some((entry.place >> 12) as u32)
    }

    /// Writes the low `size` bytes (1 to 8) of a value to a page of the run's own, from byte
    /// `offset` on; all of them have to be in it.
    pub fn store_to(&mut self, copy: u32, offset: usize, size: usize, value: u64) {
        let (first, inside) = (offset & !7, offset & 7);
        let here = size.min(8 - inside);
        let page = self.page_mut(copy);
        let before = page[first..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let after = replaced(before, inside as u64, here as u64, value);
        page[first..first + 8].copy_from_slice(&after.to_le_bytes());
        let change = after.wrapping_sub(before).wrapping_mul(key(place(copy) + first as u64));
        let hot = self.hot_mut();
        hot.state = hot.state.wrapping_add(change);
        if here < size {
            // The value reaches into the next word.
            self.store_to(copy, offset + here, size - here, value >> (8 * here));
        }
    }
}

impl Drop for Memory<'_> {
    fn drop(&mut self) {
        // SAFETY: it comes from a box, and nobody else has it.
        drop(unsafe { Box::from_raw(self.hot.as_ptr()) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: VirtAddr = VirtAddr(0xffff_8000_0000_3000);

    #[test]
    fn what_is_stored_is_loaded_and_the_state_follows() {
        let content: Page = std::array::from_fn(|at| at as u8);
        let mut memory = Memory::new(Spare::default());
        assert_eq!(memory.load(AT, 1), None);
        memory.map(AT, Held::Target(&content), true);
        assert_eq!(memory.load(AT.add(0xffc), 4), Some(0xfffe_fdfc));
        assert_eq!(memory.load(AT.add(0xffd), 4), None, "it reaches into the next page");
        assert!(!memory.store(AT, 1, 7), "the target is never written");
        let copy = memory.copy(&content);
        memory.map(AT, Held::Copy(copy), true);
        memory.unmap_target(&content);
        assert_eq!(memory.writable(AT.add(9)), Some(copy));
        let before = memory.state();
        assert!(memory.store(AT.add(6), 2, 0xaabb) && memory.state() != before);
        assert!(!memory.store(AT.add(6), 4, 0), "in two words");
        memory.store_to(copy, 6, 4, 0xccdd_aabb);
        assert_eq!(memory.load(AT.add(6), 4), Some(0xccdd_aabb));
        memory.store_to(copy, 6, 4, 0x0908_0706);
        assert_eq!((memory.state(), memory.page(copy)), (before, &content), "all is undone");
        memory.map(AT, Held::Copy(copy), false);
        assert!(!memory.store(AT, 1, 7) && memory.load(AT, 1) == Some(0));
        memory.unmap_copy(copy + 1);
        assert!(memory.load(AT, 1).is_some());
        memory.unmap_copy(copy);
        assert_eq!(memory.load(AT, 1), None);
        memory.map(AT, Held::Copy(copy), true);
        memory.unmap();
        assert_eq!(memory.load(AT, 1), None);
    }

    #[test]
    fn pages_are_used_again() {
        let mut first = Memory::new(Spare::default());
        let copies = [first.copy(&[1; 4096]), first.copy(&[2; 4096])];
        assert_eq!((copies, first.page(1)), ([0, 1], &[2; 4096]));
        let mut second = Memory::new(first.into_spare());
        assert_eq!(second.copy(&[3; 4096]), 0);
        assert_eq!(second.page(0), &[3; 4096]);
        let mut spare = second.into_spare();
        spare.truncate(1);
        assert_eq!(spare.0.len(), 1);
    }

    #[test]
    fn who_writes_a_page_that_two_memories_have_takes_a_copy() {
        let mut first = Memory::new(Spare::default());
        let copy = first.copy(&[1; 4096]);
        first.map(AT, Held::Copy(copy), true);
        assert!(first.store(AT, 1, 2));
        let mut second = first.fork(Spare::default());
        let state = first.state();
        assert_eq!([first.load(AT, 2), second.load(AT, 2)], [Some(0x102); 2]);
        assert!(!first.store(AT, 1, 7) && !second.store(AT, 1, 7), "both have to ask");
        second.map(AT, Held::Copy(copy), true);
        assert!(!second.store(AT, 1, 7), "it is the first one's too");
        second.store_to(copy, 0, 1, 7);
        assert_eq!((second.load(AT, 2), second.page(copy)[..2].to_vec()), (None, vec![7, 1]));
        assert_eq!((first.load(AT, 2), first.state()), (Some(0x102), state));
        assert_ne!(second.state(), state);
        // Now nobody else has either.
        for memory in [&mut first, &mut second] {
            memory.map(AT, Held::Copy(copy), true);
            assert!(memory.store(AT, 1, 9));
        }
        assert_eq!((first.state(), first.page(copy)), (second.state(), second.page(copy)));
        let third = second.fork(Spare::default());
        assert_eq!(second.into_spare().0.len(), 0, "the other still has its page");
        assert_eq!(third.into_spare().0.len(), 1);
    }

    #[test]
    fn a_page_of_the_target_that_was_copied_is_no_longer_found() {
        let (one, two) = ([1; 4096], [2; 4096]);
        let mut memory = Memory::new(Spare::default());
        memory.map(AT, Held::Target(&one), false);
        memory.map(AT.add(PAGE_SIZE), Held::Target(&two), false);
        memory.unmap_target(&one);
        assert_eq!([memory.load(AT, 1), memory.load(AT.add(PAGE_SIZE), 1)], [None, Some(2)]);
    }
}
