//! Hand-built page tables for every mode.

use std::ops::ControlFlow;

use super::*;
use crate::memory::Mock;
use crate::reg::{Reg, RegFile};

const P: u64 = 1;
const W: u64 = 2;
const U: u64 = 4;
const PS: u64 = 0x80;
const G: u64 = 0x100;
const NX: u64 = 1 << 63;
const ALL: u64 = P | W | U;
const CR3: u64 = 0x1000;

fn entry(mem: &mut Mock, table: u64, index: u64, raw: u64) {
    mem.write_u64(PhysAddr(table + 8 * index), raw);
}

/// PML4[0x1ff] -> PDPT[1] -> PD[2] -> PT[3] -> 0xabc000 in `Level4`.
fn four_levels() -> (Mock, VirtAddr) {
    let mut mem = Mock::new();
    entry(&mut mem, 0x1000, 0x1ff, 0x2000 | ALL);
    entry(&mut mem, 0x2000, 1, 0x3000 | ALL);
    entry(&mut mem, 0x3000, 2, 0x4000 | ALL);
    entry(&mut mem, 0x4000, 3, 0xabc000 | ALL | G);
    (mem, VirtAddr(0xffff_ff80_4040_3000))
}

fn four(mem: &Mock, vaddr: u64) -> Result<Translation, TranslateError> {
    translate(mem, PagingMode::Level4, CR3, VirtAddr(vaddr))
}

fn collect(mem: &Mock, mode: PagingMode, limit: u64) -> (Vec<Mapping>, WalkSummary) {
    let mut found = Vec::new();
    let summary = walk(mem, mode, CR3, VirtAddr(0)..=VirtAddr(u64::MAX), limit, &mut |mapping| {
        found.push(*mapping);
        ControlFlow::Continue(())
    });
    (found, summary)
}

#[test]
fn mode_follows_the_control_registers() {
    let mode = PagingMode::from_controls;
    assert_eq!(mode(0, !0, true), PagingMode::Off);
    assert_eq!(mode(1 << 31, 0, false), PagingMode::Bits32 { pse: false });
    assert_eq!(mode(1 << 31, 0x10, false), PagingMode::Bits32 { pse: true });
    assert_eq!(mode(1 << 31, 0x20, false), PagingMode::Pae);
    assert_eq!(mode(1 << 31, 0x20, true), PagingMode::Level4);
    assert_eq!(mode(1 << 31, 0x1020, true), PagingMode::Level5);
}

#[test]
fn long_mode_is_recognised_without_efer() {
    let mut regs = RegFile::new();
    assert_eq!(PagingMode::from_regs(&regs), Err(MissingRegister(Reg::Cr0)));
    regs.set(Reg::Cr0, 0x8000_0001);
    regs.set(Reg::Cr4, 0x20);
    assert_eq!(PagingMode::from_regs(&regs), Ok(PagingMode::Pae));
    regs.set(Reg::IdtrBase, 0xffff_fe00_0000_0000);
    assert_eq!(PagingMode::from_regs(&regs), Ok(PagingMode::Level4));
    regs.set(Reg::Efer, 0);
    assert_eq!(PagingMode::from_regs(&regs), Ok(PagingMode::Pae), "a known EFER decides");
    let mut regs = RegFile::new();
    regs.set(Reg::Cr0, 0x8000_0001);
    regs.set(Reg::Cr4, 0x20);
    regs.set(Reg::CsFlags, 0xaf_9b00);
    assert_eq!(PagingMode::from_regs(&regs), Ok(PagingMode::Level4));
}

#[test]
fn four_level_small_page_with_offset() {
    let (mut mem, vaddr) = four_levels();
    let got = four(&mem, vaddr.0 + 0x123).unwrap();
    let want = Translation {
        paddr: PhysAddr(0xabc123),
        writable: true,
        user: true,
        executable: true,
        page_size: 4096,
        global: true,
        uncached: false,
    };
    assert_eq!(got, want);
    let at = PhysAddr(0x4000 + 8 * 3);
    let raw = mem.read_u64(at).unwrap();
    mem.write_u64(at, raw | 1 << 4);
    assert!(four(&mem, vaddr.0).unwrap().uncached);
    let pcid_and_lam = CR3 | 0x7 | 3 << 61;
    assert_eq!(translate(&mem, PagingMode::Level4, pcid_and_lam, vaddr).unwrap().paddr, PhysAddr(0xabc000));
}

#[test]
fn every_level_can_take_rights_away() {
    for (table, index) in [(0x1000, 0x1ff), (0x2000, 1), (0x3000, 2), (0x4000, 3)] {
        let (mut mem, vaddr) = four_levels();
        let at = PhysAddr(table + 8 * index);
        let raw = mem.read_u64(at).unwrap();
        for (change, check) in [(raw & !W, 0), (raw & !U, 1), (raw | NX, 2)] {
            mem.write_u64(at, change);
            let got = four(&mem, vaddr.0).unwrap();
            let rights = [got.writable, got.user, got.executable];
            let want = [check != 0, check != 1, check != 2];
            assert_eq!(rights, want, "table {table:#x}");
        }
    }
}

#[test]
fn absent_and_unreadable_tables_are_named() {
    for (level, table, index) in [(4, 0x1000, 0x1ff), (3, 0x2000, 1), (2, 0x3000, 2), (1, 0x4000, 3)] {
        let (mut mem, vaddr) = four_levels();
        let entry_addr = PhysAddr(table + 8 * index);
        mem.inject_fault(entry_addr);
        let source = MemoryError::Absent(entry_addr);
        assert_eq!(four(&mem, vaddr.0), Err(TranslateError::Memory { vaddr, level, source }));
        mem.clear_fault(entry_addr);
        mem.write_u64(entry_addr, !P);
        assert_eq!(four(&mem, vaddr.0), Err(TranslateError::NotPresent { vaddr, level, entry_addr }));
    }
    let hole = translate(&Mock::new(), PagingMode::Level4, u64::MAX, VirtAddr(0));
    assert!(matches!(hole, Err(TranslateError::Memory { level: 4, source: MemoryError::Hole(_), .. })));
}

#[test]
fn reserved_bits_are_refused() {
    for (level, table, index, raw) in [
        (4, 0x1000, 0x1ff, 0x2000 | ALL | PS),
        (3, 0x2000, 1, 0x4000_0000 | 0x2000 | ALL | PS),
        (2, 0x3000, 2, 0x20_0000 | 0x10_0000 | ALL | PS),
    ] {
        let (mut mem, vaddr) = four_levels();
        entry(&mut mem, table, index, raw);
        let entry_addr = PhysAddr(table + 8 * index);
        assert_eq!(four(&mem, vaddr.0), Err(TranslateError::ReservedBit { vaddr, level, entry_addr }));
        let (found, summary) = collect(&mem, PagingMode::Level4, 100);
        assert!(found.is_empty());
        assert_eq!((summary.end, summary.skipped), (WalkEnd::Complete, 1));
    }
}

#[test]
fn large_pages_of_long_mode() {
    let (mut mem, vaddr) = four_levels();
    entry(&mut mem, 0x3000, 2, 0x1_4020_0000 | 0x1000 | P | PS | NX);
    let got = four(&mem, vaddr.0 + 0x7).unwrap();
    assert_eq!((got.paddr, got.page_size), (PhysAddr(0x1_4020_3007), 2 << 20));
    assert!(!got.writable && !got.user && !got.executable && !got.global);
    entry(&mut mem, 0x2000, 1, 0x1_4000_0000 | ALL | PS);
    let got = four(&mem, vaddr.0).unwrap();
    assert_eq!((got.paddr, got.page_size), (PhysAddr(0x1_4040_3000), 1 << 30));
}

#[test]
fn canonical_addresses_only() {
    let (mem, _) = four_levels();
    for vaddr in [0x0000_8000_0000_0000, 0xffff_7fff_ffff_ffff, 1 << 63] {
        let vaddr = VirtAddr(vaddr);
        assert_eq!(four(&mem, vaddr.0), Err(TranslateError::NonCanonical { vaddr }));
    }
    assert!(PagingMode::Level5.is_canonical(VirtAddr(0x00ff_ffff_ffff_ffff)));
    assert!(!PagingMode::Level5.is_canonical(VirtAddr(0x0100_0000_0000_0000)));
    assert!(!PagingMode::Pae.is_canonical(VirtAddr(1 << 32)));
}

#[test]
fn five_levels() {
    let (mut mem, _) = four_levels();
    entry(&mut mem, 0x9000, 0x110, 0x1000 | ALL);
    let vaddr = VirtAddr(0xff10_ff80_4040_3000);
    let got = translate(&mem, PagingMode::Level5, 0x9000, vaddr).unwrap();
    assert_eq!(got.paddr, PhysAddr(0xabc000));
    let mut found = Vec::new();
    walk(&mem, PagingMode::Level5, 0x9000, vaddr..=vaddr, 10, &mut |mapping| {
        found.push(mapping.vaddr);
        ControlFlow::Continue(())
    });
    assert_eq!(found, [vaddr]);
}

#[test]
fn pae_pages() {
    let mut mem = Mock::new();
    let cr3 = 0x1fe0;
    entry(&mut mem, cr3, 3, 0x2000 | P);
    entry(&mut mem, 0x2000, 1, 0x3000 | ALL);
    entry(&mut mem, 0x2000, 2, 0x9_0020_0000 | ALL | PS | NX);
    entry(&mut mem, 0x3000, 5, 0x8_0000_7000 | ALL);
    let at = |vaddr| translate(&mem, PagingMode::Pae, cr3, VirtAddr(vaddr));
    let small = at(0xc020_5042).unwrap();
    assert_eq!((small.paddr, small.page_size), (PhysAddr(0x8_0000_7042), 4096));
    assert!(small.writable && small.user && small.executable, "the top level of PAE has no rights");
    let large = at(0xc041_2345).unwrap();
    assert_eq!((large.paddr, large.page_size, large.executable), (PhysAddr(0x9_0021_2345), 2 << 20, false));
    assert!(matches!(at(0x1000), Err(TranslateError::NotPresent { level: 3, .. })));
    // Accessed, as QEMU marks it.
    mem.write_u64(PhysAddr(cr3 + 24), 0x2000 | P | 0x20);
    assert!(translate(&mem, PagingMode::Pae, cr3, VirtAddr(0xc020_5042)).is_ok());
    mem.write_u64(PhysAddr(cr3 + 24), 0x2000 | P | NX);
    let error = translate(&mem, PagingMode::Pae, cr3, VirtAddr(0xc020_5042)).unwrap_err();
    assert!(matches!(error, TranslateError::ReservedBit { level: 3, .. }));
}

#[test]
fn two_level_pages_and_pse36() {
    let mut mem = Mock::new();
    mem.write_u32(PhysAddr(0x1000 + 4 * 0x300), 0x2007);
    mem.write_u32(PhysAddr(0x1000 + 4 * 0x301), 0x0040_0000 | 5 << 13 | 0x83);
    mem.write_u32(PhysAddr(0x2000 + 4 * 7), 0xffff_f005);
    let at = |pse, vaddr| translate(&mem, PagingMode::Bits32 { pse }, CR3, VirtAddr(vaddr));
    let small = at(true, 0xc000_7123).unwrap();
    assert_eq!((small.paddr, small.writable, small.user), (PhysAddr(0xffff_f123), false, true));
    assert!(small.executable);
    let large = at(true, 0xc040_1234).unwrap();
    assert_eq!((large.paddr, large.page_size, large.user), (PhysAddr(0x5_0040_1234), 4 << 20, false));
    assert!(matches!(at(false, 0xc040_1234), Err(TranslateError::Memory { level: 1, .. })));
    let (found, summary) = collect(&mem, PagingMode::Bits32 { pse: true }, 100);
    assert_eq!(found.iter().map(|m| m.vaddr.0).collect::<Vec<_>>(), [0xc000_7000, 0xc040_0000]);
    assert_eq!((summary.pages, summary.tables, summary.end), (2, 2, WalkEnd::Complete));
    mem.write_u32(PhysAddr(0x1000 + 4 * 0x301), 0x0060_0083);
    let error = translate(&mem, PagingMode::Bits32 { pse: true }, CR3, VirtAddr(0xc040_0000)).unwrap_err();
    assert!(matches!(error, TranslateError::ReservedBit { level: 2, .. }));
}

#[test]
fn paging_off_is_the_identity() {
    let mem = Mock::new();
    let got = translate(&mem, PagingMode::Off, 0, VirtAddr(0xfff0)).unwrap();
    assert_eq!(got.paddr, PhysAddr(0xfff0));
    assert_eq!(collect(&mem, PagingMode::Off, 10).1.end, WalkEnd::Complete);
}

#[test]
fn walk_agrees_with_translate_and_survives_bad_tables() {
    let (mut mem, vaddr) = four_levels();
    entry(&mut mem, 0x1000, 0, 0x2000 | ALL & !U);
    entry(&mut mem, 0x2000, 0, 0x7777_0000 | ALL);
    entry(&mut mem, 0x3000, 0, 0x60_0000 | ALL | PS);
    let (found, summary) = collect(&mem, PagingMode::Level4, 1000);
    let addrs: Vec<u64> = found.iter().map(|m| m.vaddr.0).collect();
    assert_eq!(addrs, [0x4000_0000, 0x4040_3000, 0xffff_ff80_4000_0000, vaddr.0]);
    assert_eq!((summary.skipped, summary.end), (2, WalkEnd::Complete));
    assert!(matches!(summary.first_skipped, Some(TranslateError::Memory { level: 2, .. })));
    for mapping in found {
        let single = four(&mem, mapping.vaddr.0).unwrap();
        assert_eq!((single.paddr, single.page_size), (mapping.paddr, mapping.size));
        let rights = (single.user, single.writable, single.executable, single.global);
        assert_eq!(rights, (mapping.user, mapping.writable, mapping.executable, mapping.global));
    }
}

#[test]
fn walk_keeps_to_its_range() {
    let mut mem = Mock::new();
    entry(&mut mem, 0x1000, 0, 0x2000 | ALL);
    entry(&mut mem, 0x2000, 0, 0x3000 | ALL);
    entry(&mut mem, 0x3000, 0, 0x4000 | ALL);
    entry(&mut mem, 0x3000, 1, 0x20_0000 | ALL | PS);
    for i in 0..512 {
        entry(&mut mem, 0x4000, i, i << 12 | ALL);
    }
    let mut found = Vec::new();
    let range = VirtAddr(0x1f_efff)..=VirtAddr(0x20_0000);
    walk(&mem, PagingMode::Level4, CR3, range, 100, &mut |m| {
        found.push(m.vaddr.0);
        ControlFlow::Continue(())
    });
    assert_eq!(found, [0x1f_e000, 0x1f_f000, 0x20_0000]);
    let stopped =
        walk(&mem, PagingMode::Level4, CR3, VirtAddr(0)..=VirtAddr(!0), 100, &mut |_| ControlFlow::Break(()));
    assert_eq!((stopped.end, stopped.pages), (WalkEnd::Stopped, 1));
}

#[test]
fn cyclic_tables_are_bounded() {
    let mut mem = Mock::new();
    for i in 0..512 {
        entry(&mut mem, CR3, i, CR3 | ALL);
    }
    let (found, summary) = collect(&mem, PagingMode::Level4, 10_000);
    assert_eq!(summary.end, WalkEnd::LimitReached);
    assert_eq!(summary.pages + summary.tables, 10_000);
    assert_eq!(found.len() as u64, summary.pages);
    // No leaf at all: only tables are read, and they count too.
    for i in 0..512 {
        entry(&mut mem, CR3, i, 0x2000 | ALL);
        entry(&mut mem, 0x2000, i, 0x3000 | ALL);
        entry(&mut mem, 0x3000, i, 0x4000 | ALL);
    }
    entry(&mut mem, 0x4000, 0, 0);
    let (found, summary) = collect(&mem, PagingMode::Level4, 10_000);
    assert_eq!((found.len(), summary.end, summary.tables), (0, WalkEnd::LimitReached, 10_000));
}

proptest::proptest! {
    /// Random tables never panic, and what a walk finds is what translation says.
    #[test]
    fn random_tables(raw in proptest::collection::vec((0u64..8, 0u64..512, proptest::num::u64::ANY), 0..64),
        cr3: u64) {
        let mut mem = Mock::new();
        for (page, index, value) in raw {
            // Steers most entries to the tables there are, so that walks get deep.
            let value = if value & 0x600 == 0 { value } else { value & 0x8000_0000_0000_7fff | P };
            entry(&mut mem, page << 12, index, value);
        }
        let modes = [PagingMode::Bits32 { pse: true }, PagingMode::Pae, PagingMode::Level4,
            PagingMode::Level5];
        for mode in modes {
            for cr3 in [cr3, cr3 & 0x7000] {
                let mut found = Vec::new();
                walk(&mem, mode, cr3, VirtAddr(0)..=VirtAddr(!0), 500, &mut |m| {
                    found.push(*m);
                    ControlFlow::Continue(())
                });
                for m in found {
                    let single = translate(&mem, mode, cr3, m.vaddr).unwrap();
                    proptest::prop_assert_eq!((single.paddr, single.page_size), (m.paddr, m.size));
                }
            }
        }
    }
}
