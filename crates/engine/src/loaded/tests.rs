//! A system with two objects, the first of which calls the second, in small targets.

use std::time::Duration;

use ir::relocatable::{Field, Form, Section, Trampoline};
use machine::paging::PagingMode;

use super::*;
use crate::mapped::{NX, Target};
use crate::per_cpu::Tables;

const KERNEL: u64 = 0xffff_ffff_8100_0000;
pub(crate) const SLIDE: u64 = 0x20_0000;
pub(crate) const TEXT: u64 = 0xffff_ffff_c038_3000;
const COLD: u64 = TEXT + 600;
const AUX: u64 = TEXT + 700;
const DATA: u64 = 0xffff_ffff_c040_0000;
pub(crate) const OTHER: u64 = 0xffff_ffff_c052_1000;
/// Where in the first object's text a trampoline is called, and where in its cold code that is.
pub(crate) const CALL: usize = 112;
const TRAMPOLINE: usize = 40;
/// How far behind the text's beginning the target has the trampoline.
pub(crate) const JUMP: usize = 600 + TRAMPOLINE;

/// Bytes that no two places have alike.
fn bytes(seed: u32, count: u32) -> Vec<u8> {
    let word = |at: u32| (at.wrapping_add(seed)).wrapping_mul(0x9e37_79b9).rotate_left(at % 31);
    (0..count).map(|at| (word(at) >> 24) as u8).collect()
}

fn section(name: &str, align: u32, code: Vec<u8>) -> Section {
    Section { name: name.to_string(), size: code.len() as u32, align, is_code: true, code }
}

pub(crate) fn objects() -> [Object; 2] {
    let field = |section, offset, form, symbol, addend| Field { section, offset, form, symbol, addend };
    let data = Section { name: "data".to_string(), size: 64, align: 32, ..Section::default() };
    // A call of a trampoline, which jumps to the kernel.
    let (mut text, mut cold) = (bytes(1, 512), bytes(1000, 64));
    text[CALL] = 0xe8;
    cold[TRAMPOLINE] = 0xe9;
    let disk = Object {
        name: "disk".to_string(),
        sections: vec![
            section("text", 16, text),
            section("cold", 1, cold),
            section("aux", 1, [&[0xe8, 0, 0, 0, 0], &bytes(2000, 43)[..]].concat()),
            data,
        ],
        symbols: vec![
            Symbol::System(KERNEL + 0x40),
            Symbol::Own(3),
            Symbol::Other { object: 1, section: 0 },
            Symbol::Own(1),
            Symbol::Own(0),
        ],
        fields: vec![
            field(0, 16, Form::Relative32, 0, -4),
            field(0, 32, Form::Signed32, 1, 8),
            field(0, 48, Form::Relative32, 2, 0x20 - 4),
            field(0, 64, Form::Relative32, 3, -4),
            field(0, CALL as u32 + 1, Form::Relative32, 3, TRAMPOLINE as i64 - 4),
            field(1, 8, Form::Relative32, 4, 0x50 - 4),
            field(1, TRAMPOLINE as u32 + 1, Form::Relative32, 0, -4),
            field(2, 1, Form::Relative32, 0, -4),
        ],
        sites: vec![
            LoadSite { section: 0, offset: 80, len: 5, kind: LoadSiteKind::Same },
            LoadSite { section: 0, offset: 96, len: 5, kind: LoadSiteKind::Jump { section: 1, offset: 4 } },
            LoadSite { section: 0, offset: CALL as u32, len: 5, kind: LoadSiteKind::Same },
            LoadSite { section: 1, offset: TRAMPOLINE as u32, len: 5, kind: LoadSiteKind::Same },
        ],
        // The kernel's code 0x20 behind that function, and what only returns 0.
        trampolines: vec![Trampoline {
            section: 1,
            offset: TRAMPOLINE as u32,
            functions: vec![(0, 0x20), (0, 800 - 0x40)],
        }],
        replacements: vec![Replacement {
            section: 0,
            offset: 80,
            len: 5,
            from_section: 2,
            from_offset: 0,
            from_len: 5,
        }],
    };
    let journal = Object {
        name: "journal".to_string(),
        sections: vec![section("text", 16, bytes(5000, 300))],
        ..Object::default()
    };
    [disk, journal]
}

const NOP: [u8; 5] = [0x0f, 0x1f, 0x44, 0, 0];

/// The first object's text as its system has it there, with nothing at the switched jump.
pub(crate) fn text() -> Vec<u8> {
    let mut text = objects()[0].sections[0].code.clone();
    let mut relative = |at: usize, to: u64| {
        let distance = to.wrapping_sub(TEXT + at as u64 + 4) as u32;
        text[at..at + 4].copy_from_slice(&distance.to_le_bytes());
    };
    relative(16, KERNEL + SLIDE + 0x40);
    relative(48, OTHER + 0x20);
    relative(64, COLD);
    relative(CALL + 1, COLD + TRAMPOLINE as u64);
    text[32..36].copy_from_slice(&(DATA as u32 + 8).to_le_bytes());
    text[80..85].copy_from_slice(&[0xe8, 1, 2, 3, 4]);
    text[96..101].copy_from_slice(&NOP);
    text
}

fn cold() -> Vec<u8> {
    let mut cold = objects()[0].sections[1].code.clone();
    cold[8..12].copy_from_slice(&((TEXT + 0x50).wrapping_sub(COLD + 12) as u32).to_le_bytes());
    let after = COLD + TRAMPOLINE as u64 + 5;
    let jump = (KERNEL + SLIDE + 0x40).wrapping_sub(after) as u32;
    cold[TRAMPOLINE + 1..TRAMPOLINE + 5].copy_from_slice(&jump.to_le_bytes());
    cold
}

/// The page of the first object's code, with this text.
pub(crate) fn page(text: &[u8]) -> Vec<u8> {
    let mut page = vec![0xcc; 4096];
    page[..text.len()].copy_from_slice(text);
    page[600..664].copy_from_slice(&cold());
    page[700..748].copy_from_slice(&objects()[0].sections[2].code);
    let call = (KERNEL + SLIDE + 0x40).wrapping_sub(AUX + 5) as u32;
    page[701..705].copy_from_slice(&call.to_le_bytes());
    page
}

/// A target whose system has loaded both, the first with this text.
fn target(text: &[u8], other: Option<&[u8]>) -> Target {
    let mut target = Target::new();
    target.map(TEXT, &page(text), 0);
    target.map(DATA, &[0; 64], NX);
    if let Some(other) = other {
        target.map(OTHER, other, 0);
    }
    target
}

/// What a run is given at an address, and what an address is named then.
fn fetch(target: &Target, pc: u64, count: usize) -> (Fetched, Option<String>) {
    let file = Objects::to_bytes(
        [3; 32],
        &objects(),
        &ir::relocatable::Own::default(),
        &ir::relocatable::Decisions::default(),
    )
    .expect("they are whole");
    let objects = Objects::from_bytes(&file, [3; 32]).expect("they come back");
    let tables = Tables { memory: &target.memory, mode: PagingMode::Level4, root: 0 };
    let space = Space { tables, slide: SLIDE };
    let loaded = Loaded::new(&objects, space);
    let fetched = loaded.fetch(pc, count, Deadline::after(Duration::from_secs(60)));
    (fetched, loaded.object_at(pc).map(|it| it.0.to_string()))
}

fn code(target: &Target, pc: u64, count: usize) -> Vec<u8> {
    match fetch(target, pc, count).0 {
        Fetched::Code(bytes) => bytes,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn journal() -> Vec<u8> {
    objects()[1].sections[0].code.clone()
}

#[test]
fn code_has_the_addresses_of_the_target() {
    let target = target(&text(), Some(&journal()));
    let mut expected = text();
    // The system's way to do something there is not executed, the object's own is.
    expected[80..85].copy_from_slice(&objects()[0].sections[0].code[80..85]);
    assert_eq!(code(&target, TEXT, 512), expected);
    assert_eq!(code(&target, TEXT + 34, 40), expected[34..74], "from the middle of a field on");
    assert_eq!(code(&target, TEXT + 500, 512), expected[500..], "up to the section's end");
    assert_eq!(code(&target, COLD, 64), cold());
    assert_eq!(code(&target, AUX + 5, 8), objects()[0].sections[2].code[5..13], "what no field names");
    assert_eq!(code(&target, OTHER + 0x20, 16), journal()[0x20..0x30]);
    assert_eq!(fetch(&target, TEXT + 560, 16), (Fetched::Nothing, None), "between sections");
    assert_eq!(fetch(&target, DATA, 16), (Fetched::Nothing, None), "data");
}

#[test]
fn a_switched_jump_is_there_as_the_target_has_it() {
    let mut switched = text();
    let distance = (COLD + 4).wrapping_sub(TEXT + 101) as u32;
    switched[96..101].copy_from_slice(&[&[0xe9], &distance.to_le_bytes()[..]].concat());
    assert_eq!(code(&target(&switched, Some(&journal())), TEXT + 90, 16), switched[90..106]);
    // One that leads elsewhere is not executed, nor is anything else.
    switched[97] ^= 1;
    assert_eq!(code(&target(&switched, Some(&journal())), TEXT + 90, 16), switched[90..96]);
    switched[96..101].copy_from_slice(&[0x90, 0x90, 0x90, 0x90, 0xc3]);
    assert_eq!(code(&target(&switched, Some(&journal())), TEXT + 90, 16), switched[90..96]);
}

#[test]
fn other_bytes_are_not_executed() {
    let mut hooked = text();
    hooked[200] ^= 0xff;
    let target = target(&hooked, Some(&journal()));
    assert_eq!(code(&target, TEXT + 190, 32), text()[190..200]);
    assert_eq!(code(&target, TEXT + 201, 32), text()[201..233]);
    assert_eq!(fetch(&target, TEXT + 200, 32), (Fetched::Code(Vec::new()), Some("disk".to_string())));
}

#[test]
fn a_field_that_names_something_else_is_not_executed() {
    for at in [16, 64] {
        let mut redirected = text();
        redirected[at] ^= 0x40;
        let target = target(&redirected, Some(&journal()));
        assert_eq!(code(&target, TEXT + at as u64 - 4, 16), text()[at - 4..at], "{at}");
    }
    // Where data is, only the target says.
    let mut redirected = text();
    redirected[33] ^= 0x40;
    assert_eq!(code(&target(&redirected, Some(&journal())), TEXT + 28, 16), redirected[28..44]);
}

#[test]
fn an_object_that_another_names_must_be_there() {
    let alone = target(&text(), None);
    assert_eq!(code(&alone, TEXT + 40, 32), text()[40..48]);
    let different = target(&text(), Some(&bytes(9999, 300)));
    assert_eq!(code(&different, TEXT + 40, 32), text()[40..48]);
}

#[test]
fn other_code_is_no_object() {
    let mut changed = text();
    for at in (0..512).step_by(4).filter(|at| !(300..400).contains(at)) {
        changed[at] ^= 0x55;
    }
    assert_eq!(fetch(&target(&changed, None), TEXT + 320, 16), (Fetched::Nothing, None));
}
