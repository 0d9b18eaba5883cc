//! Program and companion files: they read back, are the same every time, and damage never goes
//! unnoticed.

use crate::generate::Random;
use ir::{FileError, Program, System};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn programs_read_back_and_bytes_are_the_same(seed: u64) {
        let program = Random::new(seed, false).program();
        prop_assert_eq!(ir::verify::verify(&program), Ok(()));
        let bytes = program.to_bytes().unwrap();
        prop_assert_eq!(&Program::from_bytes(&bytes).unwrap(), &program);
        prop_assert_eq!(program.clone().to_bytes().unwrap(), bytes);
    }

    #[test]
    fn a_program_that_breaks_a_rule_is_refused(seed: u64) {
        let program = Random::new(seed, true).program();
        let read = Program::from_bytes(&program.to_bytes().unwrap());
        prop_assert_eq!(read.is_ok(), ir::verify::verify(&program).is_ok());
    }
}

#[test]
fn truncation_and_flipped_bits_are_errors() {
    let bytes = Random::new(3, false).program().to_bytes().unwrap();
    for length in 0..bytes.len() {
        assert!(Program::from_bytes(&bytes[..length]).is_err(), "{length}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(Program::from_bytes(&longer).is_err());
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let error = Program::from_bytes(&bytes).unwrap_err();
        match bit / 8 {
            0..8 => assert!(matches!(error, FileError::Foreign { .. }), "{bit}"),
            8..12 => assert!(matches!(error, FileError::Version { .. }), "{bit}"),
            _ => assert!(matches!(error, FileError::Damaged { .. }), "{bit}"),
        }
    }
}

/// A file whose checksum is right over a body that is not.
fn forged(length: u64, body: &[u8]) -> Vec<u8> {
    use sha2::Digest;
    let mut rest = length.to_le_bytes().to_vec();
    rest.extend_from_slice(&zstd::bulk::compress(body, 1).unwrap());
    [b"VIRTPROG", &ir::file::VERSION.to_le_bytes()[..], &sha2::Sha256::digest(&rest), &rest].concat()
}

/// A companion file whose checksums are right: an index, a list of pages and pieces of code, the
/// packed fixups and the integrity.
fn companion(pages: &[u64], code: &[Vec<u8>], fixups: &[u8], integrity: &[u8]) -> Vec<u8> {
    let mut pieces = Vec::new();
    let mut piece = |bytes: &[u8]| {
        let frame = zstd::bulk::compress(bytes, 1).unwrap();
        pieces.extend_from_slice(&frame);
        let digest: [u8; 32] = sha2::Sha256::digest(bytes).into();
        (frame.len() as u32, bytes.len() as u32, digest)
    };
    use sha2::Digest;
    let code: Vec<_> = code.iter().map(|bytes| piece(bytes)).collect();
    let images = Vec::<(u64, u64, bool)>::new();
    let index = (pages, code, images, Vec::<(u8, u64)>::new(), piece(fixups), piece(integrity));
    with_index(&postcard::to_stdvec(&index).unwrap(), &pieces)
}

/// A companion file with this index.
fn with_index(index: &[u8], pieces: &[u8]) -> Vec<u8> {
    use sha2::Digest;
    let frame = zstd::bulk::compress(index, 1).unwrap();
    let lengths = [index.len() as u64, frame.len() as u64].map(u64::to_le_bytes).concat();
    let sealed = [&lengths, &frame[..]].concat();
    let sum = sha2::Sha256::digest(&sealed);
    [b"VIRTSYS\0", &ir::system::VERSION.to_le_bytes()[..], &sum, &sealed, pieces].concat()
}

/// No fixups, and no integrity.
fn nothing() -> (Vec<u8>, Vec<u8>) {
    (vec![0, 0], postcard::to_stdvec(&ir::Integrity::default()).unwrap())
}

#[test]
fn forged_bodies_do_not_panic() {
    let program = Random::new(5, false).program();
    let body = postcard::to_stdvec(&program).unwrap();
    assert_eq!(Program::from_bytes(&forged(body.len() as u64, &body)), Ok(program));
    assert!(Program::from_bytes(&forged(u64::MAX, &body)).is_err());
    assert!(Program::from_bytes(&forged(body.len() as u64 - 1, &body)).is_err());
    for at in 0..body.len().min(400) {
        for value in [0, 1, 0x7f, 0xff] {
            let mut body = body.clone();
            body[at] = value;
            if let Ok(program) = Program::from_bytes(&forged(body.len() as u64, &body)) {
                assert_eq!(ir::verify::verify(&program), Ok(()));
            }
        }
    }
}

#[test]
fn companion_files_read_back() {
    let mut system = System::default();
    assert!(system.is_empty());
    let other = system.hash();
    system.insert(0x2000, &[7; 4096]);
    system.insert(0x1000, &[9; 4096]);
    assert_eq!((system.len(), system.page(0x1000), system.page(0x1001)), (2, Some(&[9; 4096][..]), None));
    let bytes = system.to_bytes().unwrap();
    let read = System::from_bytes(&bytes).unwrap();
    assert_eq!(read, system);
    assert_eq!(read.hash(), system.hash());
    assert_ne!(system.hash(), other);
    assert!(matches!(Program::from_bytes(&bytes), Err(FileError::Foreign { .. })));
    let pieces = 60 + u64::from_le_bytes(bytes[52..60].try_into().unwrap()) as usize;
    for at in 0..bytes.len() {
        assert!(System::from_bytes(&bytes[..at]).is_err());
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x10;
        // A compressor leaves bits that mean nothing; whatever else is changed is noticed.
        assert!(System::from_bytes(&bytes).map_or(true, |read| read == system && at > pieces), "{at}");
    }
    let mut crooked = System::default();
    crooked.insert(0x1001, &[0; 4096]);
    assert!(System::from_bytes(&crooked.to_bytes().unwrap()).is_err());
}

/// A file on disk that is gone at the end.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("virtuoso-{name}-{}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }

    fn open(&self) -> Result<System, FileError> {
        System::open(std::fs::File::open(&self.0).unwrap())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Forty pages, each of its own sort, and what else a system has.
fn forty() -> System {
    use ir::integrity::{DataPage, Integrity};
    use ir::relocation::{Fixup, FixupKind, Image, RelocationTable};
    let mut system = System::default();
    for page in 0..40u64 {
        let bytes: [u8; 4096] = std::array::from_fn(|at| ((at as u64 * (page + 3)) >> 5) as u8);
        system.insert(0x10_0000 + page * 0x2000, &bytes);
    }
    let moves = FixupKind::Moves { plus: Some(0), minus: None };
    system.set_relocations(RelocationTable {
        images: vec![Image { start: 0x10_0000, end: 0x20_0000, movable: true }],
        gates: vec![(14, 0x10_0040)],
        constants: Vec::new(),
        fixups: vec![
            Fixup { addr: 0x10_0001, size: 4, kind: moves },
            Fixup { addr: 0x10_0010, size: 8, kind: FixupKind::Patched },
            Fixup { addr: 0x10_0020, size: 5, kind: FixupKind::Either { other: 0x44_1f0f } },
        ]
        .into(),
    });
    let page = DataPage { image: 0, steady: true, bytes: vec![5; 4096] };
    system.set_integrity(Integrity { boots: 2, data: [(0x30_0000, page)].into(), ..Integrity::default() });
    system
}

#[test]
fn what_is_unpacked_when_it_is_used_is_the_same() {
    let system = forty();
    let bytes = system.to_bytes().unwrap();
    let scratch = Scratch::new("lazy", &bytes);
    let opened = scratch.open().unwrap();
    assert_eq!((opened.hash(), opened.len()), (system.hash(), 40));
    assert_eq!(opened.page(0x10_4000), system.page(0x10_4000));
    assert_eq!(opened.relocations(), system.relocations());
    assert_eq!(opened.integrity(), system.integrity());
    assert!(opened.iter().eq(system.iter()));
    assert_eq!((opened.check(), opened.damage()), (Ok(()), None));
    assert_eq!(opened.to_bytes().unwrap(), bytes);
    assert_eq!(System::from_bytes(&bytes).unwrap(), opened);
    // What is changed has another name.
    for change in [
        |it: &mut System| it.insert(0x10_0000, &[1; 4096]),
        |it: &mut System| it.set_relocations(ir::RelocationTable::default()),
        |it: &mut System| it.set_integrity(ir::Integrity::default()),
    ] {
        let mut other = opened.clone();
        change(&mut other);
        assert_ne!(other.hash(), system.hash());
    }
}

#[test]
fn a_damaged_piece_is_noticed_by_who_uses_it_and_by_nobody_else() {
    let bytes = forty().to_bytes().unwrap();
    let index = u64::from_le_bytes(bytes[52..60].try_into().unwrap()) as usize;
    let (mut unnoticed, mut noticed) = (0, 0);
    let system = forty();
    let first_page = system.page(0x10_0000).map(<[u8]>::to_vec);
    for at in (60 + index..bytes.len()).step_by(29) {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        if let Ok(read) = System::from_bytes(&bytes) {
            // A compressor leaves bits that mean nothing.
            assert_eq!(read, system);
            continue;
        }
        let scratch = Scratch::new("damaged", &bytes);
        // Fixups are read at once.
        let Ok(opened) = scratch.open() else { continue };
        let (first, before) = (opened.page(0x10_0000), opened.damage());
        assert_eq!(first.is_none(), before.is_some());
        assert!(first.is_none() || first == first_page.as_deref());
        if before.is_some() {
            noticed += 1
        } else {
            unnoticed += 1
        }
        assert!(opened.check().is_err() && opened.damage().is_some(), "{at}");
        assert!(opened.to_bytes().is_err());
    }
    assert!(noticed > 0 && unnoticed > noticed, "{noticed} {unnoticed}");
}

#[test]
fn a_file_that_changes_after_it_was_opened_gives_nothing_else() {
    let bytes = forty().to_bytes().unwrap();
    let scratch = Scratch::new("changes", &bytes);
    let opened = scratch.open().unwrap();
    assert!(opened.page(0x10_0000).is_some());
    let mut other = bytes.clone();
    let end = other.len();
    other[end - 3000..].fill(0);
    std::fs::write(&scratch.0, &other[..end - 200]).unwrap();
    assert!(opened.page(0x10_0000).is_some(), "it was unpacked before");
    assert!(opened.check().is_err());
    for (addr, page) in opened.iter() {
        assert_eq!(forty().page(addr), Some(page), "{addr:#x}");
    }
}

/// What a file is damaged by.
#[track_caller]
fn why<T: std::fmt::Debug>(read: Result<T, FileError>) -> String {
    match read {
        Err(FileError::Damaged { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_small_file_does_not_become_a_large_one() {
    use ir::integrity::{Integrity, Variant};
    use ir::program::Function;

    // A kilobyte that says it is 200 MiB of zeros, and is.
    let body = vec![0; 200 << 20];
    let bytes = with_index(&body, &[]);
    assert!(bytes.len() < 64 << 10, "{}", bytes.len());
    assert_eq!(why(System::from_bytes(&bytes)), "it claims to be too large");
    assert_eq!(why(Program::from_bytes(&forged(body.len() as u64, &body))), "it claims to be too large");

    // The same in pieces, each of which may be as large as it is.
    let pages: Vec<u64> = (0..200 << 8).map(|page| page << 12).collect();
    let (fixups, integrity) = nothing();
    let bytes = companion(&pages, &vec![vec![0; 2 << 12]; pages.len() / 2], &fixups, &integrity);
    assert_eq!(why(System::from_bytes(&bytes)), "it claims to be too large");

    // Four bytes in the file, and a hundred in memory, for each of some million functions.
    let none = Function { pc: 0, name: String::new(), callee_saved: Vec::new(), blocks: Vec::new() };
    let mut program = Random::new(5, false).program();
    program.functions = vec![none; 2 << 20];
    let body = postcard::to_stdvec(&program).unwrap();
    let bytes = forged(body.len() as u64, &body);
    assert!(body.len() < 16 << 20 && bytes.len() < 64 << 10, "{} {}", body.len(), bytes.len());
    assert_eq!(why(Program::from_bytes(&bytes)), "its lists take more memory than its size allows");

    // Pages that no piece has.
    let pages = vec![0u64; 17 << 20];
    let bytes = companion(&pages, &[], &[], &[]);
    assert_eq!(why(System::from_bytes(&bytes)), "its lists take more memory than its size allows");

    // Kinds of fixups of two bytes in the file and 24 in memory.
    let (_, integrity) = nothing();
    let mut fixups = vec![0x80, 0x80, 0x80, 0x04];
    fixups.extend(std::iter::repeat_n([4, 0], 8 << 20).flatten());
    fixups.push(0);
    assert_eq!(
        why(System::from_bytes(&companion(&[], &[], &fixups, &integrity))),
        "its fixups are malformed"
    );

    // Forms of no bytes of places, of which only a search for tampering reads.
    let variants = vec![Variant { addr: 0, bytes: Vec::new() }; 3 << 20];
    let integrity = Integrity { variants, ..Integrity::default() };
    let bytes = companion(&[], &[], &nothing().0, &postcard::to_stdvec(&integrity).unwrap());
    assert_eq!(why(System::from_bytes(&bytes)), "its lists take more memory than its size allows");

    // What is left over at the end is no part of it.
    let mut body = postcard::to_stdvec(&Random::new(5, false).program()).unwrap();
    body.push(0);
    assert_eq!(why(Program::from_bytes(&forged(body.len() as u64, &body))), "something follows its content");
}

#[test]
fn what_is_written_can_be_read_however_it_compresses() {
    use ir::integrity::{DataPage, Extent, Integrity};
    use ir::relocation::{Image, RelocationTable};

    // Pages of data that are all the same compress to nearly nothing; code is stored as it is.
    let system = |code: u64, data: u64| {
        let mut system = System::default();
        (0..code).for_each(|page| system.insert(page << 12, &[0xcc; 4096]));
        system.set_relocations(RelocationTable {
            images: vec![Image { start: 0, end: 1 << 40, movable: false }],
            ..RelocationTable::default()
        });
        let page = DataPage { image: 0, steady: true, bytes: vec![0; 4096] };
        system.set_integrity(Integrity {
            boots: 2,
            data: (0..data).map(|number| (number << 12, page.clone())).collect(),
            extents: vec![Extent { start: 0, end: 1 << 40 }],
            ..Integrity::default()
        });
        system
    };
    let small = system(64, 4096);
    let bytes = small.to_bytes().unwrap();
    assert!((64 << 12..(64 << 12) + (64 << 10)).contains(&bytes.len()), "{}", bytes.len());
    assert_eq!(System::from_bytes(&bytes).unwrap(), small);
    // Past what a reader accepts nothing is written.
    assert!(system(64, 16 << 10).to_bytes().is_err());
    assert!(system(1024, 16 << 10).to_bytes().is_ok(), "a larger file may unpack to more");
}
