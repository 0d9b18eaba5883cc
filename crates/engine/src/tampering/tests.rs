//! Small targets: a kernel of two pages of code and two of data, a module, an interrupt table.

use ir::integrity::{DataPage, Extent, Integrity, Variant};
use ir::relocatable::{Own, OwnSite};
use ir::relocation::{Fixup, FixupKind, Image, RelocationTable};
use machine::VirtAddr;

use super::code::only_instructions;
use super::*;
use crate::loaded::tests as modules;
use crate::mapped::{NX, Target};

const KERNEL: u64 = 0xffff_ffff_8100_0000;
/// A page of data that two boots show alike, and one that boots write.
const STEADY: u64 = KERNEL + 0x2000;
const WRITTEN: u64 = KERNEL + 0x3000;
const MODULE: u64 = 0xffff_ffff_c020_0000;
const IDT: u64 = 0xffff_fe00_0000_0000;
/// What a boot writes, by offset in its page: something else in each.
const VARYING: usize = 0x100;
/// A number that looks like an address in the module, by offset in the steady page, and where the
/// module begins.
const NUMBER: usize = 0x40;
const BEGIN: usize = 0x60;

/// Code of one page: instructions of one byte that are no filling, and those that kernels patch.
fn code() -> [u8; 4096] {
    let mut page = [0x55; 4096];
    page[100..105].copy_from_slice(&[0x0f, 0x1f, 0x44, 0x00, 0x00]);
    page[200..205].copy_from_slice(&[0xe8, 1, 0, 0, 0]);
    page[300..302].copy_from_slice(&[0x66, 0x90]);
    page[401] = 0xf0;
    page[402] = 0x55;
    // mov $constant,%rax, which every boot patches
    page[500..510].copy_from_slice(&[0x48, 0xb8, 0xef, 0xcd, 0xab, 0, 0, 0, 0, 0]);
    // Another boot has `stac` there.
    page[600..603].copy_from_slice(&[0x0f, 0x1f, 0x00]);
    // A function that only returns 0.
    page[800..808].copy_from_slice(&[0x0f, 0x1f, 0x44, 0, 0, 0x31, 0xc0, 0xc3]);
    // A jump through a thunk.
    page[700..705].copy_from_slice(&[0xe9, 0x10, 0, 0, 0]);
    page
}

/// Code of a module: it loads the address of its own data, and calls the kernel.
fn module() -> [u8; 4096] {
    let mut page = [0xcc; 4096];
    for at in (0..2048).step_by(8) {
        page[at..at + 8].copy_from_slice(&[0x48, 0x01, 0xd8, 0x48, 0xff, 0xc0, 0x31, (at / 8) as u8 | 0xc0]);
    }
    page[16..23].copy_from_slice(&[0x48, 0xc7, 0xc0, 0x00, 0x10, 0x20, 0xc0]);
    page[23] = 0x55;
    let distance = (KERNEL + 0x40).wrapping_sub(MODULE + 37) as u32;
    page[32..37].copy_from_slice(&[&[0xe8], &distance.to_le_bytes()[..]].concat());
    page[37..40].fill(0x55);
    page
}

fn gate(handler: u64) -> [u8; 16] {
    let mut gate = [0; 16];
    let bytes = handler.to_le_bytes();
    gate[0..2].copy_from_slice(&bytes[0..2]);
    gate[2..6].copy_from_slice(&[0x10, 0, 0, 0x8e]);
    gate[6..12].copy_from_slice(&bytes[2..8]);
    gate
}

fn page_of(words: &[(usize, u64)]) -> Vec<u8> {
    let mut page = vec![7; 4096];
    for &(at, word) in words {
        page[at..at + 8].copy_from_slice(&word.to_le_bytes());
    }
    page
}

/// What training knows.
fn system(boots: u8) -> System {
    let mut system = System::default();
    system.insert(KERNEL, &code());
    system.insert(KERNEL + 0x1000, &[0x55; 4096]);
    system.insert(MODULE, &module());
    let images = vec![
        Image { start: KERNEL, end: KERNEL + 0x4000, movable: boots == 2 },
        Image { start: MODULE, end: MODULE + 0x1000, movable: false },
    ];
    let fixups = vec![Fixup { addr: KERNEL + 502, size: 8, kind: FixupKind::Patched }];
    let gates = vec![(0, KERNEL + 0x800), (1, KERNEL + 0x900)];
    let fixups = if boots == 2 { fixups } else { Vec::new() }.into();
    system.set_relocations(RelocationTable { images, gates, fixups, ..RelocationTable::default() });
    let data = |image, steady, words: &[(usize, u64)]| DataPage {
        image,
        steady: steady && boots == 2,
        bytes: page_of(words),
    };
    let variants = vec![
        Variant { addr: KERNEL + 500, bytes: vec![0x48, 0xb8, 0x99, 0, 0, 0, 0, 0, 0, 0] },
        Variant { addr: KERNEL + 600, bytes: vec![0x0f, 0x01, 0xcb] },
        Variant { addr: STEADY + NUMBER as u64, bytes: (MODULE + 0x10).to_le_bytes().to_vec() },
        Variant { addr: WRITTEN + VARYING as u64, bytes: 0xffff_8880_0012_3000u64.to_le_bytes().to_vec() },
    ];
    system.set_integrity(Integrity {
        boots,
        writable: Vec::new(),
        data: [
            (
                STEADY,
                data(
                    0,
                    true,
                    &[(8, KERNEL + 0x10), (16, KERNEL + 0x20), (NUMBER, MODULE + 0x10), (BEGIN, MODULE)],
                ),
            ),
            (WRITTEN, data(0, false, &[(8, KERNEL + 0x10), (VARYING, 0xffff_8880_0045_6000)])),
            (MODULE + 0x1000, data(1, true, &[(0, MODULE + 4), (8, KERNEL + 0x30)])),
        ]
        .into(),
        variants: if boots == 2 { variants } else { Vec::new() },
        extents: vec![
            Extent { start: KERNEL, end: KERNEL + 0x4000 },
            Extent { start: MODULE, end: MODULE + 0x2000 },
        ],
        gates: [gate(KERNEL + 0x800), gate(KERNEL + 0x900)].concat(),
    });
    system
}

/// The bytes of a target before it is mapped, and how it is asked.
struct Case {
    boots: u8,
    kernel: u64,
    module: u64,
    code: [u8; 4096],
    module_code: [u8; 4096],
    steady: Vec<u8>,
    written: Vec<u8>,
    module_data: Vec<u8>,
    gates: Vec<u8>,
    more: Vec<(u64, Vec<u8>)>,
    writable: Vec<u64>,
    /// Whether the pack has modules.
    modules: bool,
    /// What the kernel's own tables name.
    own: Own,
    /// Code of the kernel's first page in training, if it is other code than usual.
    trained: Option<[u8; 4096]>,
    /// A form that training shows besides the usual ones, behind those of the first page.
    variant: Option<Variant>,
}

impl Case {
    /// A target that nobody touched, its kernel and its module so far from where training had them.
    fn new(boots: u8, kernel: u64, module: u64) -> Self {
        // One boot does not tell that it is none.
        let number = if boots == 2 { MODULE + 0x10 } else { (MODULE + 0x10).wrapping_add(module) };
        let mut it = Self {
            boots,
            kernel,
            module,
            code: code(),
            module_code: self::module(),
            steady: page_of(&[
                (8, KERNEL + 0x10 + kernel),
                (16, KERNEL + 0x20 + kernel),
                (NUMBER, number),
                (BEGIN, MODULE.wrapping_add(module)),
            ]),
            written: page_of(&[(8, KERNEL + 0x10 + kernel), (VARYING, 0xffff_8880_0078_9000)]),
            module_data: page_of(&[(0, (MODULE + 4).wrapping_add(module)), (8, KERNEL + 0x30 + kernel)]),
            gates: [gate(KERNEL + 0x800 + kernel), gate(KERNEL + 0x900 + kernel)].concat(),
            more: Vec::new(),
            writable: Vec::new(),
            modules: false,
            own: Own::default(),
            trained: None,
            variant: None,
        };
        let address = (0xc020_1000u32).wrapping_add(module as u32);
        it.module_code[19..23].copy_from_slice(&address.to_le_bytes());
        let distance = (KERNEL + 0x40 + kernel).wrapping_sub((MODULE + 37).wrapping_add(module)) as u32;
        it.module_code[33..37].copy_from_slice(&distance.to_le_bytes());
        it
    }

    fn ask(&self) -> Tampering {
        self.about(|system, memory, relocation| {
            let program = ir::text::parse_program("program \"test\"", Reg::NAMES).expect("it parses");
            compare(&program, system, memory, relocation, &[Some(IDT)])
        })
    }

    fn about<T>(&self, ask: impl FnOnce(&System, &dyn GuestMemory, &Relocation<'_>) -> T) -> T {
        let mut target = Target::new();
        target.map(KERNEL + self.kernel, &self.code, 0);
        target.map(KERNEL + self.kernel + 0x1000, &[0x55; 4096], 0);
        target.map(STEADY + self.kernel, &self.steady, NX);
        target.map(WRITTEN + self.kernel, &self.written, NX);
        target.map(MODULE.wrapping_add(self.module), &self.module_code, 0);
        target.map((MODULE + 0x1000).wrapping_add(self.module), &self.module_data, NX);
        target.map(IDT, &self.gates, NX);
        for (address, bytes) in &self.more {
            target.map(*address, bytes, 0);
        }
        let mut system = system(self.boots);
        if let Some(code) = &self.trained {
            system.insert(KERNEL, code);
        }
        let mut integrity = Integrity { writable: self.writable.clone(), ..system.integrity().clone() };
        integrity.variants.extend(self.variant.clone());
        integrity.variants.sort_by_key(|it| it.addr);
        system.set_integrity(integrity);
        if self.modules || self.own != Own::default() {
            let objects = if self.modules { &modules::objects()[..] } else { &[] };
            let file =
                ir::Objects::to_bytes([1; 32], objects, &self.own, &ir::relocatable::Decisions::default())
                    .expect("they are whole");
            system.set_modules(ir::Objects::from_bytes(&file, [1; 32]).expect("they come back"));
        }
        let table = system.relocations().clone();
        let relocation = Relocation::kernel_at(&table, self.kernel);
        ask(&system, &target.memory, &relocation)
    }

    /// What differs: the address, by training, and how.
    fn changes(&self) -> Vec<(u64, Change)> {
        self.ask().differences.iter().map(|it| (it.address, it.change)).collect()
    }
}

fn clean() -> Case {
    Case::new(2, 0, 0)
}

/// What a change of the kernel's code is.
fn changed(edit: impl Fn(&mut [u8; 4096])) -> Vec<(u64, Change)> {
    let mut case = clean();
    edit(&mut case.code);
    case.changes().into_iter().map(|(address, change)| (address - KERNEL, change)).collect()
}

#[test]
fn what_nobody_touched_has_no_differences_wherever_it_lies() {
    for (kernel, module) in [(0, 0), (0x1a40_0000, 0), (0, 0x3_5000), (0x20_0000, 0x1_1000u64.wrapping_neg())]
    {
        let report = Case::new(2, kernel, module).ask();
        assert_eq!(report.differences, [], "{kernel:#x} {module:#x}");
        assert_eq!((report.pages, report.data, report.gates, report.missing), (3, 3, 2, 0));
        assert_eq!((report.varying, report.uncompared), (1, Uncompared::default()));
    }
}

#[test]
fn a_form_that_training_does_not_show_is_unknown_even_if_kernels_have_it() {
    let set = |at: usize, bytes: &'static [u8]| {
        changed(move |page| page[at..at + bytes.len()].copy_from_slice(bytes))
    };
    assert_eq!(set(100, &[0xe9, 9, 0, 0, 0]), [(100, Change::Switch)]);
    assert_eq!(set(100, &[0xe8, 9, 0, 0, 0]), [(100, Change::TracePoint)]);
    assert_eq!(set(100, &[0xeb, 9, 0x0f, 0x1f, 0]), [(100, Change::Switch)]);
    assert_eq!(set(200, &[0xe8, 9, 0, 0, 0]), [(200, Change::Switch)]);
    assert_eq!(set(300, &[0xeb, 9]), [(300, Change::Switch)]);
    assert_eq!(set(401, &[0x3e]), [(401, Change::Lock)]);
    assert_eq!(set(502, &[0x77]), [(500, Change::Value)]);
    assert_eq!(set(700, &[0xff, 0xe0, 0xcc, 0x66, 0x90]), [(700, Change::Thunk)]);
    assert_eq!(set(200, &[0x0f, 0x1f, 0x44, 0, 0]), [(200, Change::TracePoint)]);
    assert_eq!(
        set(500, &[0xeb, 8, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc]),
        [(500, Change::Alternative)]
    );
    for change in [Change::Switch, Change::TracePoint, Change::Lock, Change::Thunk, Change::Value] {
        assert_eq!(change.class(), Class::Unknown);
    }
    assert_eq!(Change::Alternative.class(), Class::Unknown);
}

#[test]
fn only_the_very_form_that_training_shows_of_a_place_is_known() {
    let stac = |page: &mut [u8; 4096]| page[600..603].copy_from_slice(&[0x0f, 0x01, 0xcb]);
    assert_eq!(changed(stac), [(600, Change::Variant)]);
    assert_eq!(changed(|page| page[502..505].copy_from_slice(&[0x99, 0, 0])), [(500, Change::Variant)]);
    assert_eq!(Change::Variant.class(), Class::Known);
    // The same bytes at a place of which training knows one form only.
    assert_eq!(changed(|page| page[610..613].copy_from_slice(&[0x0f, 0x01, 0xcb])), [(610, Change::Foreign)]);
    // Another form at a place that is known to vary.
    assert_eq!(changed(|page| page[600..603].copy_from_slice(&[0x31, 0xc0, 0xc3])), [(600, Change::Foreign)]);
}

#[test]
fn an_address_in_code_of_another_mode_moves_whichever_of_its_bytes_training_showed() {
    // A far jump of 32 bits, as kernels have before they enter 64-bit mode. The boots of training
    // lay 0x1e00_0000 apart, so only the highest byte of its address differs between them.
    const JUMP: usize = 1800;
    let changes = |slide: u32, at: usize| {
        let mut case = Case::new(2, slide.into(), 0);
        let word = 0x0100_08a7u32;
        let put = |code: &mut [u8; 4096], at: usize, word: u32| {
            code[at] = 0xea;
            code[at + 1..at + 5].copy_from_slice(&word.to_le_bytes());
        };
        let mut trained = code();
        put(&mut trained, at, word);
        case.trained = Some(trained);
        put(&mut case.code, at, word + slide);
        case.variant = Some(Variant { addr: KERNEL + JUMP as u64 + 4, bytes: vec![0x1f] });
        case.changes().into_iter().map(|it| it.1).collect::<Vec<_>>()
    };
    for slide in [0x60_0000, 0x0d00_0000, 0x0d60_0000] {
        assert_eq!(changes(slide, JUMP), [Change::Variant], "{slide:#x}");
        // The same at a place that training does not show to vary.
        assert!(changes(slide, JUMP + 100).iter().all(|it| it.class() == Class::Foreign), "{slide:#x}");
    }
}

#[test]
fn what_the_kernel_s_tables_name_is_known_at_that_very_place() {
    for slide in [0, 0x20_0000] {
        let clac = OwnSite { address: KERNEL + 1600, len: 3, forms: vec![vec![0x0f, 0x01, 0xca]] };
        let call = [0xe8, 0x10, 0, 0, 0];
        let helper = OwnSite { address: KERNEL + 1700, len: 6, forms: vec![vec![0xfa], call.to_vec()] };
        let changes = |edit: &dyn Fn(&mut [u8; 4096])| {
            let mut case = Case::new(2, slide, 0);
            case.own.sites = vec![clac.clone(), helper.clone()];
            edit(&mut case.code);
            let changes = case.changes().into_iter();
            changes.map(|(at, change)| (at - KERNEL, change)).collect::<Vec<_>>()
        };
        let put =
            |at: usize, bytes: &[u8]| changes(&|page| page[at..at + bytes.len()].copy_from_slice(bytes));
        assert_eq!(put(1600, &[0x0f, 0x01, 0xca]), [(1600, Change::Listed)], "{slide:#x}");
        assert_eq!(put(1700, &[0xfa, 0x0f, 0x1f, 0x44, 0, 0]), [(1700, Change::Listed)]);
        assert_eq!(put(1700, &[0xe8, 0x10, 0, 0, 0, 0x90]), [(1700, Change::Listed)]);
        assert_eq!(Change::Listed.class(), Class::Known);
        // The same bytes elsewhere, other bytes there, and the form with something behind it.
        let foreign = |changes: Vec<(u64, Change)>| {
            assert!(!changes.is_empty());
            assert!(changes.iter().all(|it| it.1.class() != Class::Known), "{changes:?}");
        };
        foreign(put(1610, &[0x0f, 0x01, 0xca]));
        foreign(put(1600, &[0x0f, 0x01, 0xcb]));
        foreign(put(1700, &[0xfa, 0x31, 0xc0, 0xc3, 0x90, 0x90]));
        foreign(put(1700, &[0xe8, 0x11, 0, 0, 0, 0x90]));
    }
}

#[test]
fn a_branch_through_a_register_and_its_thunk_are_the_same() {
    const THUNK: usize = 0x1000 - 64;
    let changes = |edit: &dyn Fn(&mut [u8; 4096])| {
        let mut case = clean();
        let mut trained = code();
        // jmp *%rax, which `call` and `jmp` at 900 and 950 lead to.
        trained[THUNK..THUNK + 2].copy_from_slice(&[0xff, 0xe0]);
        for (at, opcode) in [(900usize, 0xe8), (950, 0xe9)] {
            let distance = (THUNK - at - 5) as u32;
            trained[at..at + 5].copy_from_slice(&[&[opcode], &distance.to_le_bytes()[..]].concat());
        }
        case.trained = Some(trained);
        case.code = trained;
        edit(&mut case.code);
        let changes = case.changes().into_iter();
        changes.map(|(at, change)| (at - KERNEL, change)).collect::<Vec<_>>()
    };
    let put = |at: usize, bytes: &[u8]| changes(&|page| page[at..at + bytes.len()].copy_from_slice(bytes));
    assert_eq!(put(900, &[0xff, 0xd0, 0x0f, 0x1f, 0]), [(900, Change::Equal)]);
    assert_eq!(put(900, &[0x0f, 0xae, 0xe8, 0xff, 0xd0]), [(900, Change::Equal)]);
    assert_eq!(put(950, &[0xff, 0xe0, 0xcc, 0x66, 0x90]), [(950, Change::Equal)]);
    assert_eq!(Change::Equal.class(), Class::Known);
    // Another register, a jump in the place of a call, a return in the place of a jump.
    assert_eq!(put(900, &[0xff, 0xd3, 0x0f, 0x1f, 0]), [(900, Change::Foreign)]);
    assert_eq!(put(900, &[0xff, 0xe0, 0x0f, 0x1f, 0]), [(900, Change::Foreign)]);
    assert_eq!(put(950, &[0xc3, 0xcc, 0xcc, 0xcc, 0xcc]), [(950, Change::Foreign)]);
}

#[test]
fn what_leads_out_of_trusted_code_is_foreign() {
    // The first five bytes of a hook, and a call that goes elsewhere.
    assert_eq!(changed(|page| page[100..105].copy_from_slice(&[0xe9, 0, 0, 1, 0])), [(100, Change::Foreign)]);
    assert_eq!(changed(|page| page[200..205].copy_from_slice(&[0xe8, 0, 0, 1, 0])), [(200, Change::Foreign)]);
    assert_eq!(changed(|page| page[50] = 0xcc), [(50, Change::Foreign)]);
    // return 0
    assert_eq!(changed(|page| page[0..3].copy_from_slice(&[0x31, 0xc0, 0xc3])), [(0, Change::Foreign)]);
    // All of a page of the kernel is other code.
    assert!(changed(|page| page.fill(0x41)).iter().any(|it| it.1 == Change::Foreign));
}

fn set(page: &mut [u8], at: usize, value: u64) {
    page[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

#[test]
fn tables_of_pointers_and_other_read_only_data_are_compared() {
    let word = |edit: fn(&mut Case)| {
        let mut case = clean();
        edit(&mut case);
        case.changes()
    };
    // A pointer to code that leads to other trusted code, to none, to a new page of code; a number.
    for value in [KERNEL + 0x20, 0, 1, MODULE + 0x5000] {
        let mut case = clean();
        case.more.push((MODULE + 0x5000, vec![0x41; 4096]));
        set(&mut case.steady, 8, value);
        assert_eq!(case.changes(), [(STEADY + 8, Change::Foreign)], "{value:#x}");
    }
    assert_eq!(word(|case| case.steady[0x800] = 8), [(STEADY + 0x800, Change::Foreign)]);
    // Data that boots write: a number that training shows in one form, a pointer that got another
    // target, one that leads to code now, and one out of trusted code.
    assert_eq!(word(|case| case.written[0x800] = 8), [(WRITTEN + 0x800, Change::Value)]);
    assert_eq!(word(|case| set(&mut case.written, 8, KERNEL + 0x20)), [(WRITTEN + 8, Change::Value)]);
    assert_eq!(word(|case| set(&mut case.written, 8, 0x1234)), [(WRITTEN + 8, Change::Foreign)]);
    let leads = |case: &mut Case| set(&mut case.written, VARYING, KERNEL + 0x20);
    assert_eq!(word(leads), [(WRITTEN + VARYING as u64, Change::Foreign)]);
    // A pointer in a module's table.
    assert_eq!(word(|case| set(&mut case.module_data, 0, KERNEL)), [(MODULE + 0x1000, Change::Foreign)]);
}

/// What boots write, and code, is no reason for two answers: runs know it.
#[test]
fn what_nobody_writes_and_somebody_changed_is_named() {
    let words = |case: &Case| case.about(changed_data);
    for kernel in [0, 0x20_0000] {
        let mut case = Case::new(2, kernel, 0x40_0000);
        assert_eq!(words(&case), [0; 0]);
        case.code[0x10] ^= 1;
        case.written[0x800] = 8;
        assert_eq!(words(&case), [0; 0]);
        case.steady[0x800] = 8;
        set(&mut case.written, 8, 0x1234);
        set(&mut case.module_data, 0, KERNEL);
        assert_eq!(words(&case), [STEADY + 0x800, WRITTEN + 8, MODULE + 0x1000]);
    }
}

#[test]
fn what_the_kernel_writes_before_it_is_read_only_is_a_value() {
    let mut case = clean();
    case.steady[0x800] = 8;
    assert_eq!(case.changes(), [(STEADY + 0x800, Change::Foreign)]);
    case.own.written = vec![STEADY];
    assert_eq!(case.changes(), [(STEADY + 0x800, Change::Value)]);
    // But a pointer to code is one.
    set(&mut case.steady, 8, 0x1234);
    assert!(case.changes().contains(&(STEADY + 8, Change::Foreign)));
}

#[test]
fn what_lies_behind_the_last_section_is_not_the_kernel_s() {
    let mut case = clean();
    // It ends amid a word.
    case.own.unused = vec![(STEADY + 0x7fc, STEADY + 0x1000)];
    case.steady[0x7fc] = 8;
    assert_eq!((case.changes(), case.ask().varying), (vec![], clean().ask().varying + 1));
    // A pointer to code there is told, and so is what lies before it.
    set(&mut case.steady, 0x800, KERNEL + 0x20);
    assert_eq!(case.changes(), [(STEADY + 0x800, Change::Foreign)]);
    set(&mut case.steady, 0x800, 0);
    case.steady[0x7fb] = 8;
    assert_eq!(case.changes(), [(STEADY + 0x7f8, Change::Foreign)]);
}

#[test]
fn the_address_of_a_page_in_every_boot_may_be_one_of_unknown_code() {
    let mut case = clean();
    case.more.push((MODULE + 0x10_0000, vec![0x41; 4096]));
    // Both boots have the address of a page there.
    set(&mut case.written, VARYING, MODULE + 0x10_0000);
    assert_eq!((case.changes(), case.ask().varying), (vec![], 1));
    set(&mut case.written, VARYING, MODULE + 0x10_0008);
    assert_eq!(case.changes(), [(WRITTEN + VARYING as u64, Change::Foreign)], "no page");
    set(&mut case.written, VARYING, KERNEL);
    assert_eq!(case.changes(), [(WRITTEN + VARYING as u64, Change::Foreign)], "trusted code");
}

#[test]
fn a_constant_that_data_has_too_is_compared_with_that() {
    let constant = 0xffff_8880_0045_6000u64;
    let ask = |in_code: u64, in_data: u64| {
        let mut case = clean();
        let mut trained = code();
        trained[502..510].copy_from_slice(&constant.to_le_bytes());
        case.trained = Some(trained);
        case.code = trained;
        set(&mut case.code, 502, in_code);
        set(&mut case.written, VARYING, in_data);
        case.changes()
    };
    assert_eq!(ask(constant, constant), []);
    let moved = constant + 0x77_7000;
    assert_eq!(ask(moved, moved), [(KERNEL + 500, Change::Equal)]);
    assert_eq!(ask(moved, constant), [(KERNEL + 500, Change::Value)]);
    assert_eq!(ask(moved + 8, moved), [(KERNEL + 500, Change::Value)]);
}

#[test]
fn pointers_that_stay_while_the_kernel_moves_are_foreign() {
    let mut case = Case::new(2, 0x20_0000, 0);
    case.steady[8..16].copy_from_slice(&(KERNEL + 0x10).to_le_bytes());
    assert_eq!(case.changes(), [(STEADY + 8, Change::Foreign)]);
}

#[test]
fn a_number_that_looks_like_an_address_is_compared_as_a_number() {
    const SLIDE: u64 = 0x3_0000;
    for (value, expected) in [
        (MODULE + 0x10, None),
        (MODULE + 0x10 + SLIDE, Some(Change::Foreign)),
        (MODULE + 0x18, Some(Change::Foreign)),
        (7, Some(Change::Foreign)),
    ] {
        let mut case = Case::new(2, 0, SLIDE);
        set(&mut case.steady, NUMBER, value);
        let report = case.ask();
        let changes: Vec<_> = report.differences.iter().map(|it| (it.address, it.change)).collect();
        let expected: Vec<_> = expected.into_iter().map(|it| (STEADY + NUMBER as u64, it)).collect();
        assert_eq!(changes, expected, "{value:#x}");
        let trusted = (MODULE + 0x10).to_le_bytes();
        assert!(report.differences.iter().all(|it| it.trusted == trusted), "{value:#x}");
    }
}

/// Where modules begin may be where one of them lay in both boots.
#[test]
fn the_address_of_a_page_outside_the_kernel_may_be_another_page_s() {
    let place = STEADY + BEGIN as u64;
    for (value, expected) in [
        (MODULE + 0x5000, Change::Value),
        (MODULE + 0x6000, Change::Value),
        (MODULE + 0x5008, Change::Foreign),
        (MODULE + 0x18, Change::Foreign),
        (KERNEL, Change::Foreign),
    ] {
        let mut case = clean();
        case.more.push((MODULE + 0x5000, vec![0x41; 4096]));
        set(&mut case.steady, BEGIN, value);
        assert_eq!(case.changes(), [(place, expected)], "{value:#x}");
    }
    let mut case = clean();
    set(&mut case.steady, 8, MODULE + 0x5000);
    assert_eq!(case.changes(), [(STEADY + 8, Change::Foreign)], "the kernel's own pointer");
}

#[test]
fn one_boot_does_not_tell_what_boots_write() {
    let report = Case::new(1, 0, 0).ask();
    assert_eq!((report.uncompared.words, report.varying, report.differences.len()), (1, 0, 0));
    // But a pointer to code is one.
    let mut case = Case::new(1, 0, 0);
    case.steady[8..16].copy_from_slice(&0x1234u64.to_le_bytes());
    assert_eq!(case.changes(), [(STEADY + 8, Change::Foreign)]);
}

#[test]
fn gates_are_compared_in_the_table_of_each_processor() {
    let mut case = clean();
    case.gates[16..32].copy_from_slice(&gate(KERNEL + 0x910));
    let report = case.ask();
    assert_eq!(report.differences.len(), 1);
    let it = &report.differences[0];
    assert_eq!((it.place, it.change, it.address), (Place::Gate, Change::Foreign, IDT + 16));
    assert_eq!(it.leads_to, Some(KERNEL + 0x910));
    // The privilege that may use it.
    let mut case = clean();
    case.gates[5] = 0xee;
    assert_eq!(case.changes(), [(IDT, Change::Foreign)]);
}

#[test]
fn modules_are_compared_where_they_lie() {
    for slide in [0, 0x3_5000] {
        let mut case = Case::new(1, 0, slide);
        case.module_code[48..51].copy_from_slice(&[0x31, 0xc0, 0xc3]);
        assert_eq!(case.changes(), [(MODULE + 48, Change::Foreign)], "{slide:#x}");
        let mut case = Case::new(1, 0, slide);
        case.module_code[32..37].copy_from_slice(&[0xff, 0xd0, 0x0f, 0x1f, 0x00]);
        assert_eq!(case.changes(), [(MODULE + 32, Change::Thunk)], "{slide:#x}");
        // A call that no longer leads where it led.
        let mut case = Case::new(1, 0, slide);
        case.module_code[33] += 1;
        assert_eq!(case.changes(), [(MODULE + 32, Change::Switch)], "{slide:#x}");
    }
}

#[test]
fn what_training_has_no_copy_of_is_counted() {
    let mut case = clean();
    case.more.push((MODULE + 0x10_0000, vec![0x41; 4096]));
    // Filling is no code.
    case.more.push((MODULE + 0x20_0000, vec![0xcc; 4096]));
    let report = case.ask();
    assert_eq!(report.unknown_code, [CodeRange { start: MODULE + 0x10_0000, pages: 1 }]);
    assert_eq!((report.uncompared.unknown, report.differences.len()), (1, 0));
    // Another module where training had this one: nothing of it is compared, and it is counted.
    let mut case = clean();
    case.module_code = [0x41; 4096];
    let report = case.ask();
    assert_eq!((report.missing, report.uncompared.unknown, report.differences.len()), (2, 1, 0));
}

/// A target that has loaded two modules which training had not, the first with this code.
fn with_modules(code: Vec<u8>) -> Tampering {
    let mut case = Case::new(2, modules::SLIDE, 0);
    case.modules = true;
    let mut other = modules::journal();
    other.resize(4096, 0);
    case.more = vec![(modules::TEXT, code), (modules::OTHER, other)];
    case.ask()
}

#[test]
fn modules_that_training_had_not_loaded_are_compared_with_their_files() {
    let clean = modules::page(&modules::text());
    let changes = |at: usize, bytes: &[u8]| {
        let mut page = clean.clone();
        page[at..at + bytes.len()].copy_from_slice(bytes);
        let report = with_modules(page);
        assert_eq!((report.modules, report.uncompared.unknown), (2, 0));
        let changes = report.differences.iter().map(|it| ((it.address - modules::TEXT) as usize, it.change));
        changes.collect::<Vec<_>>()
    };
    // What the system wrote where the module says that it does leads out of trusted code.
    assert_eq!(changes(0, &[]), [(80, Change::Foreign)]);
    let call = (KERNEL + modules::SLIDE + 0x80).wrapping_sub(modules::TEXT + 85) as u32;
    let call = [&[0xe8], &call.to_le_bytes()[..]].concat();
    assert_eq!(changes(80, &call), [(80, Change::Alternative)], "a call of the kernel: nobody knows");
    // The module's alternative: a call of what another section of it calls.
    let call = (KERNEL + modules::SLIDE + 0x40).wrapping_sub(modules::TEXT + 85) as u32;
    let call = [&[0xe8], &call.to_le_bytes()[..]].concat();
    assert_eq!(changes(80, &call), [(80, Change::Listed)]);
    assert_eq!(changes(80, &modules::objects()[0].sections[0].code[80..85]), [], "the file's own way");
    let other = |at, bytes: &[u8]| {
        changes(at, bytes).into_iter().filter(|it| it.0 != 80).map(|it| it.1).collect::<Vec<_>>()
    };
    assert_eq!(other(200, &[0xe9, 1, 2, 3, 4]), [Change::Foreign], "a hook");
    assert_eq!(other(16, &[0x44]), [Change::Foreign], "a field that names something else");
    assert_eq!(other(580, &[0x31, 0xc0]), [Change::Foreign], "code between sections");
    assert_eq!(other(580, &[0x00, 0x90]), [], "filling");
}

/// A place that calls a trampoline must lead where that leads, and that where trusted code makes it
/// lead.
#[test]
fn a_static_call_and_its_trampoline_agree() {
    let kernel = KERNEL + modules::SLIDE;
    let branch = |opcode: u8, at: usize, to: u64| {
        let distance = to.wrapping_sub(modules::TEXT + at as u64 + 5) as u32;
        [&[opcode], &distance.to_le_bytes()[..]].concat()
    };
    let call = |to: u64| Some(branch(0xe8, modules::CALL, kernel + to));
    let jump = |to: u64| Some(branch(0xe9, modules::JUMP, kernel + to));
    let changes = |call: Option<Vec<u8>>, jump: Option<Vec<u8>>| {
        let mut page = modules::page(&modules::text());
        page[80..85].copy_from_slice(&modules::objects()[0].sections[0].code[80..85]);
        for (at, bytes) in [(modules::CALL, call), (modules::JUMP, jump)] {
            bytes.into_iter().for_each(|bytes| page[at..at + 5].copy_from_slice(&bytes));
        }
        let report = with_modules(page);
        let change = |at: usize| {
            let address = modules::TEXT + at as u64;
            report.differences.iter().find(|it| it.address == address).map(|it| it.change)
        };
        let found = (change(modules::CALL), change(modules::JUMP));
        assert_eq!(report.differences.len(), usize::from(found.0.is_some()) + usize::from(found.1.is_some()));
        found
    };
    let (listed, unknown) = (Some(Change::Listed), Some(Change::Switch));
    assert_eq!(changes(None, None), (None, None));
    assert_eq!(changes(call(0x40), None), (listed, None), "where the file's trampoline leads");
    assert_eq!(changes(None, jump(0x60)), (None, listed), "not all calls of it lead past it");
    assert_eq!(changes(call(0x60), jump(0x60)), (listed, listed));
    assert_eq!(changes(call(0x60), None), (unknown, None), "around its trampoline");
    assert_eq!(changes(call(0x40), jump(0x60)), (unknown, listed), "it does not lead there any more");
    assert_eq!(changes(call(0x80), jump(0x80)), (unknown, unknown), "nobody gives it that function");
    assert_eq!(changes(call(0x64), jump(0x64)), (unknown, unknown), "nor the middle of one");
    let nothing = Some(vec![0x0f, 0x1f, 0x44, 0, 0]);
    assert_eq!(changes(nothing, None), (Some(Change::TracePoint), None), "it leads somewhere");
    let zero = || Some(vec![0x2e, 0x2e, 0x2e, 0x31, 0xc0]);
    assert_eq!(changes(zero(), jump(800)), (listed, listed), "that only returns 0");
    assert_eq!(changes(zero(), jump(0x60)), (unknown, listed));
    assert_eq!(changes(zero(), None), (unknown, None));
    let out = Some(branch(0xe9, modules::JUMP, kernel + 0x80_0000));
    assert_eq!(changes(None, out), (None, Some(Change::Foreign)));
}

#[test]
fn of_pages_that_training_may_write_only_instructions_count() {
    // Executable data: whatever a target has there is no alarm, but it is counted.
    let mut case = clean();
    case.writable = vec![KERNEL];
    case.code[1000..2000].fill(0x41);
    let report = case.ask();
    assert_eq!((report.uncompared.unclear, report.differences.len()), (1, 0));

    let code = vec![ir::program::CodeRange { addr: 0xc000_0ffe, bytes: vec![0x55; 4] }];
    let mut program = ir::text::parse_program("program \"test\"", Reg::NAMES).unwrap();
    (program.code, program.registers) =
        (code, vec![(Reg::Cr4 as u16, CR4_PAE), (Reg::Efer as u16, EFER_NXE)]);
    assert!(tells_code(&program));
    program.registers = vec![(Reg::Cr4 as u16, 0x10), (Reg::Efer as u16, 0)];
    assert!(!tells_code(&program));
    program.registers.clear();
    assert!(tells_code(&program));
    let (mut first, mut second) = (vec![0x55; 4096], vec![0x55; 4096]);
    only_instructions(&program, VirtAddr(0xc000_0000), &mut first, &[7; 4096]);
    only_instructions(&program, VirtAddr(0xc000_1000), &mut second, &[7; 4096]);
    assert_eq!((first[4093], first[4094], second[1], second[2]), (7, 0x55, 0x55, 7));
}
