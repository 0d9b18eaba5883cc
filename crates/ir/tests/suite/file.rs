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
    sealed(b"VIRTPROG", length, body)
}

fn sealed(magic: &[u8; 8], length: u64, body: &[u8]) -> Vec<u8> {
    use sha2::Digest;
    let mut rest = length.to_le_bytes().to_vec();
    rest.extend_from_slice(&zstd::bulk::compress(body, 1).unwrap());
    let mut bytes = magic.to_vec();
    let version = if magic == b"VIRTPROG" { ir::file::VERSION } else { ir::system::VERSION };
    bytes.extend_from_slice(&version.to_le_bytes());
    bytes.extend_from_slice(&sha2::Sha256::digest(&rest));
    bytes.extend_from_slice(&rest);
    bytes
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
    for at in 0..bytes.len() {
        assert!(System::from_bytes(&bytes[..at]).is_err());
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x10;
        assert!(System::from_bytes(&bytes).is_err());
    }
    let mut crooked = System::default();
    crooked.insert(0x1001, &[0; 4096]);
    assert!(System::from_bytes(&crooked.to_bytes().unwrap()).is_err());
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
    let bytes = sealed(b"VIRTSYS\0", body.len() as u64, &body);
    assert!(bytes.len() < 64 << 10, "{}", bytes.len());
    assert_eq!(why(System::from_bytes(&bytes)), "it claims to be too large");
    assert_eq!(why(Program::from_bytes(&forged(body.len() as u64, &body))), "it claims to be too large");

    // Four bytes in the file, and a hundred in memory, for each of some million functions.
    let none = Function { pc: 0, name: String::new(), callee_saved: Vec::new(), blocks: Vec::new() };
    let mut program = Random::new(5, false).program();
    program.functions = vec![none; 2 << 20];
    let body = postcard::to_stdvec(&program).unwrap();
    let bytes = forged(body.len() as u64, &body);
    assert!(body.len() < 16 << 20 && bytes.len() < 64 << 10, "{} {}", body.len(), bytes.len());
    assert_eq!(why(Program::from_bytes(&bytes)), "its lists take more memory than its size allows");

    // Pages of no bytes in a companion file: a map's entry each. A map is encoded as a list of
    // pairs.
    let pages = vec![(0u64, Vec::<u8>::new()); 2 << 20];
    let body = postcard::to_stdvec(&(pages, ir::RelocationTable::default())).unwrap();
    let bytes = sealed(b"VIRTSYS\0", body.len() as u64, &body);
    assert!(body.len() < 16 << 20, "{}", body.len());
    assert_eq!(why(System::from_bytes(&bytes)), "its lists take more memory than its size allows");

    // Forms of no bytes of places, of which only a search for tampering reads.
    let variants = vec![Variant { addr: 0, bytes: Vec::new() }; 2 << 20];
    let integrity = Integrity { variants, ..Integrity::default() };
    let pages = Vec::<(u64, Vec<u8>)>::new();
    let body = postcard::to_stdvec(&(pages, ir::RelocationTable::default(), integrity)).unwrap();
    let bytes = sealed(b"VIRTSYS\0", body.len() as u64, &body);
    assert!(body.len() < 16 << 20, "{}", body.len());
    assert_eq!(why(System::from_bytes(&bytes)), "its lists take more memory than its size allows");

    // What is left over at the end is no part of it.
    let mut body = postcard::to_stdvec(&Random::new(5, false).program()).unwrap();
    body.push(0);
    assert_eq!(why(Program::from_bytes(&forged(body.len() as u64, &body))), "something follows its content");
}

#[test]
fn what_is_written_can_be_read_however_it_compresses() {
    // 16 MiB of pages that are all the same compress to nearly nothing.
    let mut system = System::default();
    (0..4096).for_each(|page| system.insert(page << 12, &[0xcc; 4096]));
    let bytes = system.to_bytes().unwrap();
    assert!(bytes.len() < 64 << 10, "{}", bytes.len());
    assert_eq!(System::from_bytes(&bytes).unwrap(), system);
    // Past what a reader accepts nothing is written.
    (4096..16 << 10).for_each(|page| system.insert(page << 12, &[0xcc; 4096]));
    assert!(system.to_bytes().is_err());
}
